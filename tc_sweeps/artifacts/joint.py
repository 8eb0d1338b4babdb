"""Artifacts by joint probability: all sentences that a model writes more often than epsilon and no data show.

    P(t_1..t_n) = P(t_1) P(t_2 | t_1) .. P(t_n | t_1..t_{n-1})

The loss leaves P(t_1) open: it is taken to be its share among the first tokens of D. Sentences are found by a search
over prefixes, level by level: a sentence is at most as probable as its prefixes, so only prefixes above epsilon go on.
(Best first would find the same set in another order; this way what is left out is known for every level.)

Letters: `M` member, `L` level, `P` prefix, `C` prefix of a chunk, `K` what is found, of all members in a row, `m` and
`n` tokens, `T` epsilon of the survival curve, `V` vocabulary, `Q` listed n-gram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.artifacts.contexts import TILE, chunks
from tc_sweeps.artifacts.counter import Counter, Row, Values, asked_for, in_float64, sum_in_order
from tc_sweeps.artifacts.definition import most_tokens
from tc_sweeps.artifacts.enumeration import artifact_table
from tc_sweeps.artifacts.listing import Known, Listing, Reading, weights
from tc_sweeps.artifacts.stream import count_above
from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.randomness import judged
from tc_sweeps.corpus.tensor import distinct_rows, find_rows
from tc_sweeps.model import CountedModel

__all__ = ["Certificate", "JointArtifacts", "JointCounter", "epsilon_of", "joint_artifacts"]

_EPSILONS = 49  # of a survival curve
_LOST = 1e-9  # of the probability: more than float64 loses by rounding
_WORTHWHILE = 128  # prefixes at once; at V = 8,192 a search takes a quarter of what it takes with 16


@dataclass(frozen=True, eq=False)
class Certificate:
    """Why a list of sentences is complete, on the CPU: level l are the prefixes of l tokens, the last are sentences.

    What follows a prefix has its probability, all tokens together. So where at every level what was kept and what was
    left out, the unsupported token with it, sum to what was kept at the level before, no prefix was lost that matters;
    and those left out have at most epsilon, as all that begins with them. Prefixes of one length sum to at most 1, so
    that fewer than 1/epsilon are kept of each.
    """

    epsilon_M: Tensor
    kept_ML: Tensor  # prefixes above epsilon
    mass_ML: Tensor  # the sum of their probabilities; 1 less that of the last level is what all other sentences have
    left_out_ML: Tensor  # the sum of what was left out of each level, and of what the unsupported token has there
    left_out_M: Tensor  # the greatest probability of a prefix that was looked at and left out

    @property
    def lost_M(self) -> Tensor:
        """The most by which what was kept and left out of a level differs from what was kept of the one before."""
        before_ML = F.pad(self.mass_ML[:, :-1], (1, 0), value=1.0)
        return (self.mass_ML + self.left_out_ML - before_ML).abs().amax(1)

    @property
    def complete_M(self) -> Tensor:
        """Whether nothing above epsilon was left out or lost; False where a model says NaN."""
        return (self.left_out_M <= self.epsilon_M) & (self.lost_M <= self.epsilon_M.clamp_max(_LOST))


@dataclass(frozen=True, eq=False)
class JointArtifacts:
    """The artifacts of every member by joint probability, on the CPU."""

    epsilon: Tensor  # [M] in float64
    count: Tensor  # [M]
    train_above: Tensor  # [M], distinct training n-grams with P > epsilon
    # Of each member its artifacts, the most probable first: `tokens`, `probability` (joint), `conditional` (of the last
    # token), and `label`, `seen` and `right` as in `most_confident`.
    tables: list[pd.DataFrame]
    certificate: Certificate


@dataclass(frozen=True, eq=False)
class _Found:
    """All sentences above epsilon, training n-grams among them, by member and then lexicographic; on the CPU."""

    member_K: Tensor
    ngrams_Kn: Tensor
    probability_K: Tensor  # joint
    conditional_K: Tensor  # of the last token
    certificate: Certificate

    def with_member(self, length: int) -> Tensor:
        """Return the first `length` tokens of each sentence behind its member, [K, 1 + length]."""
        return torch.cat([self.member_K[:, None], self.ngrams_Kn[:, :length]], dim=1)


def joint_artifacts(
    model: CountedModel,
    corpora: Corpus | Sequence[Corpus],
    *,
    epsilon: float | None = None,
    order: int | None = None,
    memory_mib: int = 256,
) -> JointArtifacts:
    """Return all n-grams with P(t_1..t_n) > epsilon and D^n = 0, for every member of a stack that predicts all tokens.

    `corpora`: one corpus, or one per member. `epsilon`: by default 1 / (2 N) with N training sentences, half of what
    each would have if nothing else were said. `order`: n, by default that of the corpus. Compared are products of
    float64 probabilities, from the first token to the last. Raises ValueError for an epsilon outside (0, 1) or an order
    outside 2..order of the corpus.
    """
    if epsilon is not None and not 0 < epsilon < 1:
        raise ValueError(f"epsilon={epsilon} must lie between 0 and 1.")
    corpora, order = asked_for(model, corpora, order)
    device = model.unembedding_matrix().device
    counter = JointCounter(corpora, order=order, epsilon=epsilon, memory_mib=memory_mib, device=device)
    return counter.artifacts(model)


class JointCounter(Counter):
    """Counts by joint probability what `Counter` counts by that of the last token; losses are the same.

    The search waits for the device at every chunk of prefixes: which of them go on decides what there is to do next.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        order: int,
        epsilon: float | None,
        memory_mib: int,
        device: torch.device,
        sees_multisets: bool = False,
    ) -> None:
        """`epsilon`: as in `joint_artifacts`; `sees_multisets`: as in `accuracy_cap`."""
        self._epsilon_asked = epsilon
        self._epsilon = [epsilon_of(corpus, epsilon) for corpus in corpora]
        super().__init__(
            corpora,
            order=order,
            threshold=0.5,  # of conditional probabilities, of which none is asked for here
            contexts="all",
            memory_mib=memory_mib,
            device=device,
            sees_multisets=sees_multisets,
        )
        # Probabilities of sentences, even in logarithm from each member's epsilon to 1.
        self.thresholds = np.array(self._epsilon)[:, None] ** np.linspace(1, 0, _EPSILONS + 1)[:-1]
        self._epsilon_M = torch.tensor(self._epsilon, dtype=torch.float64, device=device)
        share_MV = torch.stack([_share_of_first_tokens(corpus, self.vocab_size) for corpus in corpora])
        self._first_MV = share_MV.to(device)
        tensors = [corpus.tensor(order) for corpus in corpora]
        labels = [corpus.labelled_contexts(order) for corpus in corpora]
        self._data = _joined([tensor.ngrams_Gn for tensor in tensors], order)
        self._seen = _joined([tensor.contexts_Cn for tensor in tensors], order - 1)
        self._truth = _joined([corpus.truth_ngrams(order) for corpus in corpora], order)
        self._held_out = _joined([corpus.held_out_ngrams(order) for corpus in corpora], order)
        self._replaced = _joined([corpus.replaced_ngrams(order) for corpus in corpora], order)
        self._labelled_contexts = _joined([c if isinstance(c, Tensor) else None for c in labels], order - 1)

    # ---------------------------------------------------------------------------------------------------- the sentences

    def artifacts(self, model: CountedModel) -> JointArtifacts:
        """Return the artifacts of every member."""
        found = self._search(in_float64(model))
        is_train_K = self._is_train(found)
        tables = []
        for member, corpus in enumerate(self.corpora):
            [mine] = torch.nonzero((found.member_K == member) & ~is_train_K, as_tuple=True)
            mine = mine[torch.argsort(found.probability_K[mine], descending=True, stable=True)]
            table = artifact_table(corpus, found.ngrams_Kn[mine], found.probability_K[mine])
            table.insert(2, "conditional", found.conditional_K[mine].tolist())
            tables.append(table)
        return JointArtifacts(
            epsilon=found.certificate.epsilon_M,
            count=self._per_member(found.member_K[~is_train_K]),
            train_above=self._per_member(found.member_K[is_train_K]),
            tables=tables,
            certificate=found.certificate,
        )

    def _search(self, model: CountedModel, read_M: Tensor | None = None) -> _Found:
        """Return all sentences of float64 models with a probability above epsilon; none of members not in `read_M`.

        Level by level: the prefixes that are kept, by every next token, are the candidates of the next level. Products
        of probabilities in float64 never exceed their factors, so what is said of completeness holds for rounded
        numbers too.
        """
        M, V, device = model.num_members, model.vocab_size, self._epsilon_M.device
        epsilon_M11 = self._epsilon_M[:, None, None]
        tiles_at_once = max(1, self._prefixes_at_once(model) // TILE)
        # The empty prefix, which is followed by the first tokens of the data.
        prefix_MPm = torch.zeros(M, 1, 0, dtype=torch.int64, device=device)
        p_MP = torch.ones(M, 1, dtype=torch.float64, device=device)
        if read_M is not None:
            p_MP = p_MP * read_M[:, None]
        left_out_M = torch.zeros(M, dtype=torch.float64, device=device)
        kept, mass, left_out = [], [], []
        for _ in range(self.order):
            parts, left_out_of_rows = [], []
            for first, beyond in chunks(-(-p_MP.shape[1] // TILE), tiles_at_once):
                part = slice(first * TILE, beyond * TILE)
                next_MCU = self._next(model, prefix_MPm[:, part])
                joint_MCU = p_MP[:, part, None] * next_MCU
                above_MCV = joint_MCU[..., :V] > epsilon_M11
                left_out_MCV = torch.where(above_MCV, 0.0, joint_MCU[..., :V])
                left_out_M = torch.maximum(left_out_M, left_out_MCV.amax((1, 2)))
                left_out_of_rows.append(left_out_MCV.sum(2) + joint_MCU[..., V:].sum(2))
                member_K, row_K, token_K = torch.nonzero(above_MCV, as_tuple=True)
                context_Km, p_K = _rows(prefix_MPm, p_MP, member_K, row_K + first * TILE)
                last_K = next_MCU[member_K, row_K, token_K]
                parts.append((member_K, torch.cat([context_Km, token_K[:, None]], dim=1), p_K * last_K, last_K))
            left_out.append(sum_in_order(torch.cat(left_out_of_rows, dim=1)))
            member_K, tokens_Km, p_K, last_K = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
            order_K = torch.argsort(member_K, stable=True)  # the chunks of one member behind each other
            member_K, tokens_Km, p_K, last_K = (t[order_K] for t in (member_K, tokens_Km, p_K, last_K))
            prefix_MPm, p_MP = _by_member(member_K, tokens_Km, p_K, M)
            kept.append((p_MP > 0).sum(1))
            mass.append(sum_in_order(p_MP))
        certificate = Certificate(
            epsilon_M=self._epsilon_M.cpu(),
            kept_ML=torch.stack(kept, dim=1).cpu(),
            mass_ML=torch.stack(mass, dim=1).cpu(),
            left_out_ML=torch.stack(left_out, dim=1).cpu(),
            left_out_M=left_out_M.cpu(),
        )
        return _Found(member_K.cpu(), tokens_Km.cpu(), p_K.cpu(), last_K.cpu(), certificate)

    def _prefixes_at_once(self, model: CountedModel) -> int:
        """Return how many prefixes are read at once: within the memory, and enough to be worth it.

        What a model makes of every token is made again for each chunk: of 8,192 tokens as much as 100 rows of logits.
        """
        M, D, U = model.unembedding_matrix().shape
        row_bytes = M * 8 * (5 * U + 10 * D * self.order)  # in float64: logits, probabilities, products and what is cut
        # Of what the stream takes at once a quarter, since that is in float32.
        return max(self._sizes(model).piece // 4, min(_WORTHWHILE, self._memory_bytes // row_bytes))

    def _next(self, model: CountedModel, prefix_MCm: Tensor) -> Tensor:
        """Return the probabilities of what follows prefixes, [M, C, U]; that of first tokens is their share in D."""
        if prefix_MCm.shape[2] == 0:
            return self._first_MV[:, None]
        return torch.softmax(model.last_hidden(prefix_MCm) @ model.unembedding_matrix(), dim=-1)

    def _is_train(self, found: _Found) -> Tensor:
        return find_rows(found.with_member(self.order), self._data) >= 0

    def _per_member(self, member_K: Tensor) -> Tensor:
        """Return how often each member occurs, [M]."""
        return torch.bincount(member_K, minlength=len(self.corpora))

    # ------------------------------------------------------------------------------------------------ as `Counter` does

    def facts(self, member: int) -> Row:
        """Return what `Counter.facts` does, by joint probability, and the epsilon above which it is counted."""
        corpus, epsilon = self.corpora[member], self._epsilon[member]
        reachable = int((_said_by_data(corpus, self.order) > epsilon).sum())
        return super().facts(member) | {
            "corpus/ceiling_at_perfect_fit": self._most(epsilon) - reachable,
            "corpus/epsilon": epsilon,
        }

    def _most(self, epsilon: float) -> int:
        """Return the most sentences that can have more than epsilon: they sum to at most 1, as the tokens of a row."""
        return most_tokens(epsilon, self.vocab_size**self.order)

    def _attainable_recall(self, corpus: Corpus) -> float | None:
        """Return the recall that epsilon leaves room for: what begins with a token has no more than that token's share.

        So it is the sum over first tokens of min(K, held-out n-grams with it), with K = ceil(share / epsilon) - 1.
        """
        held_out = corpus.held_out_ngrams(self.order)
        if held_out is None or len(held_out) == 0:
            return None
        epsilon = Fraction(epsilon_of(corpus, self._epsilon_asked))
        share_V = _share_of_first_tokens(corpus, self.vocab_size).tolist()
        firsts, _, count = distinct_rows(held_out[:, :1])
        room = [max(0, math.ceil(Fraction(share_V[token]) / epsilon) - 1) for token in firsts[:, 0].tolist()]
        attainable: int = sum(map(min, room, count.tolist()))
        return attainable / len(held_out)

    @cached_property
    def _listed(self) -> Listing:
        of_members = [_known(c, self.order, t) for c, t in zip(self.corpora, self._trained_of_order, strict=True)]
        return Listing(of_members, self._epsilon_M.device)

    def _listing(self, model: CountedModel) -> Listing:  # noqa: ARG002 (the same for every model)
        return self._listed

    def _survival_thresholds(self, *, full: bool) -> np.ndarray:  # noqa: ARG002 (all are known at every evaluation)
        return self.thresholds

    def _values(self, model: CountedModel, reading: Reading, read_M: Tensor, *, full_survival: bool) -> Values:  # noqa: ARG002
        """Return every count, [M] or [M, T]; empty what only has a meaning for contexts."""
        found = self._search(model, read_M)
        is_artifact_K = ~self._is_train(found)
        train_M = self._per_member(found.member_K[~is_artifact_K])
        most_M = torch.tensor([float(self._most(epsilon)) for epsilon in self._epsilon], dtype=torch.float64)
        context_K1n, sentence_K1n = found.with_member(self.order - 1), found.with_member(self.order)
        is_seen_K, is_true_K, is_held_out_K, is_replaced_K, is_spoken_of_K = (
            find_rows(rows, table) >= 0
            for rows, table in (
                (context_K1n, self._seen),
                (sentence_K1n, self._truth),
                (sentence_K1n, self._held_out),
                (sentence_K1n, self._replaced),
                (context_K1n, self._labelled_contexts),
            )
        )
        is_labelled_K = is_spoken_of_K | self._closed_M.cpu()[found.member_K]
        is_diagonal_K = (found.ngrams_Kn[:, :-1] == found.ngrams_Kn[:, :1]).all(1) & (self.order > 2)

        def artifacts(flag_K: Tensor) -> Tensor:
            return self._per_member(found.member_K[flag_K & is_artifact_K])

        values = {
            "train/above_threshold": train_M,
            "artifacts/seen": artifacts(is_seen_K),
            "artifacts/unseen": artifacts(~is_seen_K),
            "artifacts/diagonal": artifacts(is_diagonal_K),
            "artifacts/ceiling": most_M - train_M,
            "survival": self._survival(found, is_artifact_K),
            "restored": artifacts(is_replaced_K),
        }
        held_out_K = self._held_out
        is_judged_K = self._judged(found.member_K, found.ngrams_Kn)
        is_judged_held_out_K = self._judged(held_out_K[:, 0], held_out_K[:, 1:])
        for prefix, part_K, held_out_member_K in (
            ("", torch.ones_like(is_judged_K), held_out_K[:, 0]),
            ("judge/", is_judged_K, held_out_K[is_judged_held_out_K, 0]),
        ):
            values |= {
                f"{prefix}artifacts/count": artifacts(part_K),
                f"{prefix}generalization/count": artifacts(part_K & is_true_K),
                f"{prefix}hallucination/count": artifacts(part_K & is_labelled_K & ~is_true_K),
                f"{prefix}held_out_above": artifacts(part_K & is_held_out_K),
                f"{prefix}held_out": self._per_member(held_out_member_K),
            }
            # No share of contexts is told: most of them are hardly ever written.
            of_contexts = ("hallucinations_blank", "contexts_blank", "contexts_unseen", "abstained")
            values |= {f"{prefix}{name}": torch.zeros_like(train_M) for name in of_contexts}
        values |= {name: torch.zeros_like(train_M) for name in ("confident_unseen", "doubtful", "screened")}
        held_out_MQ = self._listed.ngram_flag["held_out"]
        on_device = {name: value.to(self._epsilon_M.device) for name, value in values.items()}
        return on_device | {
            "held_out_loss": 0.0 - sum_in_order(torch.where(held_out_MQ, reading.log_p_MQ, 0.0)),
            "held_out_top": (reading.is_top_MQ & held_out_MQ).sum(1),
        }

    def _judged(self, member_K: Tensor, ngrams_Kn: Tensor) -> Tensor:
        """Return whether the contexts of members' n-grams belong to the judge's half, [K]."""
        seed_K = self._judge_seed_M.cpu()[member_K]
        return judged(seed_K, ngrams_Kn[:, :-2], ngrams_Kn[:, -2])

    def _survival(self, found: _Found, is_artifact_K: Tensor) -> Tensor:
        """Return how many artifacts are above each of the member's epsilons, [M, T]."""
        member_K, p_K = found.member_K[is_artifact_K], found.probability_K[is_artifact_K]
        curves = zip(self.thresholds, range(len(self.corpora)), strict=True)
        return torch.cat([count_above(p_K[None, member_K == m], torch.from_numpy(t)) for t, m in curves])


def epsilon_of(corpus: Corpus, epsilon: float | None) -> float:
    """Return the epsilon that is meant: by default 1 / (2 N) with N training sentences."""
    return 1 / (2 * len(corpus.sentences)) if epsilon is None else epsilon


def _share_of_first_tokens(corpus: Corpus, vocab_size: int) -> Tensor:
    """Return P(t_1), the share of every token among the first ones of D, [V] in float64."""
    return torch.bincount(corpus.sentences[:, 0], minlength=vocab_size).double() / len(corpus.sentences)


def _said_by_data(corpus: Corpus, order: int) -> Tensor:
    """Return the joint probability of each n-gram of D in a model that fits D perfectly, [G] in float64.

    That is its share among the sentences where all go on to n tokens. Where some end before, those that go on stand for
    them: after each prefix the model says of its next token what they say.

    Example: of (0 1) nine times and (0 1 2) once, (0 1 2) has 1/10 * 10/10 * 10/1 = 1.
    """
    data = corpus.tensor(order)
    p_G = data.count_G.double() / len(corpus.sentences)
    for length in range(1, order):
        begins, goes_on = corpus.tensor(length), corpus.tensor(length + 1)
        prefix_Gn = data.ngrams_Gn[:, :length]
        begin_G = begins.count_G[find_rows(prefix_Gn, begins.ngrams_Gn)].double()
        p_G *= begin_G / goes_on.context_count_C[find_rows(prefix_Gn, goes_on.contexts_Cn)]
    return p_G


def _joined(of_members: Sequence[Tensor | None], length: int) -> Tensor:
    """Return the rows of all members, each behind the number of its member, [K, 1 + length]."""
    rows = [F.pad(table, (1, 0), value=member) for member, table in enumerate(of_members) if table is not None]
    return torch.cat([torch.empty(0, 1 + length, dtype=torch.int64), *rows])


def _rows(prefix_MPm: Tensor, p_MP: Tensor, member_K: Tensor, row_K: Tensor) -> tuple[Tensor, Tensor]:
    """Return some prefixes, [K, m], and their probabilities, [K].

    Both by one index: with another's tokens comes another's probability, and the sum is not that of the certificate.
    """
    return prefix_MPm[member_K, row_K], p_MP[member_K, row_K]


def _by_member(member_K: Tensor, tokens_Km: Tensor, p_K: Tensor, members: int) -> tuple[Tensor, Tensor]:
    """Return prefixes that are sorted by member as [M, P, m], with their probabilities, [M, P]; padding has 0.

    P is a multiple of what keeps a member's numbers the same, bit for bit, in any stack.
    """
    count_M = torch.bincount(member_K, minlength=members)
    P = max(1, int(count_M.max()))
    P += -P % TILE
    place_K = torch.arange(len(member_K), device=member_K.device) - (count_M.cumsum(0) - count_M)[member_K]
    prefix_MPm = tokens_Km.new_zeros(members, P, tokens_Km.shape[1])
    p_MP = p_K.new_zeros(members, P)
    prefix_MPm[member_K, place_K] = tokens_Km
    p_MP[member_K, place_K] = p_K
    return prefix_MPm, p_MP


def _known(corpus: Corpus, order: int, trained: DataTensor | None) -> Known:
    """Return what is read beside the search: the n-grams of the data, for the loss, and those held out."""
    data, held_out = corpus.tensor(order).ngrams_Gn, corpus.held_out_ngrams(order)
    none = data[:0]
    held_out = none if held_out is None else held_out
    ngrams = distinct_rows(torch.cat([data, held_out]))[0]
    flags = {
        "train": find_rows(ngrams, data) >= 0,
        "held_out": find_rows(ngrams, held_out) >= 0,
        "weight": weights(ngrams, trained, corpus),
    }
    return Known(distinct_rows(ngrams[:, :-1])[0], ngrams, {}, flags)
