"""Which artifacts a model holds, by name; and fibers of its completion beside the data's.

Letters: `C` context, `K` artifact, `n` order, `V` vocabulary, `U` the vocabulary and the unsupported token, where a
model has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypedDict, Unpack

import pandas as pd
import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Block, Contexts, chunks
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.definition import check_contexts, check_order, check_threshold, most_tokens
from tc_sweeps.artifacts.screen import Operand, power_, screened_logits
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.randomness import random_bits
from tc_sweeps.corpus.tensor import distinct_rows, find_rows
from tc_sweeps.model import CountedModel

__all__ = ["Scope", "artifact_sample", "artifact_table", "enumerate_artifacts", "fiber_table", "most_confident"]

_ROWS = 1 << 15  # of a frame, at most: about 10 MB as lists of tokens
_RIGHT_TOKENS = 1 << 21  # in the column `right` of a frame, at most


class Scope(TypedDict, total=False):
    """Which artifacts are meant, as in `count_artifacts`, and how much memory looking for them may take."""

    threshold: float
    order: int | None
    contexts: Literal["all", "typed"] | None
    among: Tensor | None  # [C, n-1]: of the contexts considered these alone, where they are too many
    memory_mib: int


def enumerate_artifacts(model: CountedModel, corpus: Corpus, **scope: Unpack[Scope]) -> Iterator[pd.DataFrame]:
    """Yield every artifact of a stack of one, in the order of n-grams, as frames of about 32,768 rows at most.

    There are as many as `count_artifacts` counts, and at least one frame. Columns: `tokens` (the n-gram), `probability`
    (of its last token, float64), `label` (generalization, hallucination or unlabelled), `seen` (whether its context is
    in the data), `right` (the last tokens that W has in its context, or D^n where the world defines no W; possibly
    none). Whatever their number, no more than a frame of them is in memory. Raises ValueError as `count_artifacts`
    does, and for a stack of several models.
    """
    search = _Search(model, corpus, **scope)
    yield from (search.table(found) for found in search.artifacts(lambda: search.threshold))


def most_confident(model: CountedModel, corpus: Corpus, *, limit: int, **scope: Unpack[Scope]) -> pd.DataFrame:
    """Return the artifacts of a stack of one with the greatest probability, at most `limit`, most confident first.

    Columns are those of `enumerate_artifacts`; equal probabilities stand in the order of n-grams.
    """
    search = _Search(model, corpus, **scope)
    kept = _Least(limit)
    for found in search.artifacts(lambda: max(search.threshold, -kept.bar)):
        kept.add(found, -found.probability_K)
    return search.table(kept.by_key())


def artifact_sample(
    model: CountedModel, corpus: Corpus, *, limit: int, seed: int, **scope: Unpack[Scope]
) -> pd.DataFrame:
    """Return artifacts of a stack of one drawn uniformly without replacement, at most `limit`, in the order of n-grams.

    Every n-gram has a number by lot that depends on it and on `seed` alone, and the artifacts with the least numbers
    are drawn: of two models with an artifact in common, both samples tend to hold it. Columns are those of
    `enumerate_artifacts`.
    """
    search = _Search(model, corpus, **scope)
    kept = _Least(limit)
    for found in search.artifacts(lambda: search.threshold):
        kept.add(found, _lots(seed, found.ngram_Kn))
    return search.table(kept.by_ngram())


class _Found(NamedTuple):
    """Artifacts in lexicographic order, on the CPU."""

    ngram_Kn: Tensor
    probability_K: Tensor  # float64

    def at(self, index: Tensor) -> _Found:
        return _Found(self.ngram_Kn[index], self.probability_K[index])

    def joined(self, other: _Found) -> _Found:
        return _Found(*(torch.cat(pair) for pair in zip(self, other, strict=True)))


class _Least:
    """The artifacts with the least keys of those that were added, at most `limit`; of equal ones the first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: _Found | None = None
        self._key_K = torch.empty(0, dtype=torch.float64)
        self.bar = math.inf  # what is added with no lesser key is not kept

    def add(self, found: _Found, key_K: Tensor) -> None:
        """Add artifacts that stand behind all those added before, in the order of n-grams."""
        wanted = key_K < self.bar
        found = found.at(wanted)
        self._found = found if self._found is None else self._found.joined(found)
        self._key_K = torch.cat([self._key_K, key_K[wanted]])
        if len(self._key_K) > 2 * self._limit:
            self.bar = float(self._cut())

    def by_ngram(self) -> _Found:
        """Return what is kept in the order of n-grams."""
        self._cut()
        assert self._found is not None
        return self._found

    def by_key(self) -> _Found:
        """Return what is kept by its key, the least one first."""
        return self.by_ngram().at(self._key_K.argsort(stable=True))

    def _cut(self) -> float:
        """Forget what is beyond the limit; return the greatest key that is left."""
        assert self._found is not None
        least = self._key_K.argsort(stable=True)[: self._limit].sort().values
        self._found, self._key_K = self._found.at(least), self._key_K[least]
        return float(self._key_K.amax()) if len(least) else math.inf


def artifact_table(corpus: Corpus, ngram_Kn: Tensor, probability_K: Tensor) -> pd.DataFrame:
    """Return a table of artifacts with the columns of `enumerate_artifacts`, one row each, in their order."""
    return _Known(corpus, ngram_Kn.shape[1]).table(ngram_Kn, probability_K)


class _Search:
    """One pass over the considered contexts of a stack of one, in memory that does not depend on what it finds."""

    def __init__(
        self,
        model: CountedModel,
        corpus: Corpus,
        threshold: float = 0.5,
        order: int | None = None,
        contexts: Literal["all", "typed"] | None = None,
        among: Tensor | None = None,
        memory_mib: int = 256,
    ) -> None:
        check_threshold(threshold)
        check_order(corpus, order)
        check_contexts(contexts)
        if model.num_members != 1:
            raise ValueError(f"The artifacts of one model are listed, not those of {model.num_members}.")
        self.threshold = threshold
        order = order or corpus.order
        self._model = in_float64(model)
        self._operand = Operand.of(self._model.unembedding_matrix())
        self._device = self._model.unembedding_matrix().device
        self._contexts = Contexts([corpus.places(order, contexts or corpus.contexts)], self._device)
        self._among = among
        self._sizes = self._contexts.sizes(self._model, memory_mib << 20)
        # Taken once: between blocks small results would lie in what is left of large ones, and the heap would grow.
        entries = self._sizes.piece * self._operand.rounded_MDU.shape[2]
        self._room = torch.empty(entries, dtype=self._operand.rounded_MDU.dtype, device=self._device)
        self._known = _Known(corpus, order)
        frame = min(_ROWS, _RIGHT_TOKENS // max(1, self._known.most_right))
        self._batch = max(1, frame // most_tokens(threshold, model.vocab_size))  # contexts with a frame of artifacts

    def artifacts(self, least: Callable[[], float]) -> Iterator[_Found]:
        """Yield the artifacts in lexicographic order, at least once; all whose probability is above the threshold.

        Left out are those that float32 says to be no more probable than `least()`, which is asked again and again.
        """
        for context_Cn, log_most_C in self._candidates():
            for begin, end in chunks(max(1, len(context_Cn)), self._batch):
                wanted = log_most_C[begin:end] > math.log(least())
                yield self._decided(context_Cn[begin:end][wanted])

    def table(self, found: _Found) -> pd.DataFrame:
        """Return artifacts as a table."""
        return self._known.table(*found)

    def _candidates(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the contexts that may have an artifact, in lexicographic order, on the CPU.

        With them, in float64, log-probabilities that none of their tokens is above.
        """
        if self._among is not None:
            context_Cn = distinct_rows(self._among.cpu())[0]
            yield context_Cn, torch.zeros(len(context_Cn), dtype=torch.float64)
            return
        number_C = torch.empty(0, dtype=torch.int64)
        log_most_C = torch.empty(0, dtype=torch.float64)
        for block in self._contexts.blocks(self._sizes.block):
            # No block that is still to come has a context before the first one of this block.
            complete_C = number_C < int(block.number_C[0])
            if complete_C.sum() >= self._batch:
                yield self._in_order(number_C[complete_C], log_most_C[complete_C])
                number_C, log_most_C = number_C[~complete_C], log_most_C[~complete_C]
            parts = zip((number_C, log_most_C), self._screened(block), strict=True)
            number_C, log_most_C = (torch.cat(pair) for pair in parts)
        yield self._in_order(number_C, log_most_C)

    def _in_order(self, number_C: Tensor, log_most_C: Tensor) -> tuple[Tensor, Tensor]:
        number_C, place_C = number_C.sort()
        return self._contexts.decode(number_C[None].to(self._device))[0].cpu(), log_most_C[place_C]

    def _screened(self, block: Block) -> tuple[Tensor, Tensor]:
        """Return the contexts of a block with a token that may be above the threshold, on the CPU.

        That is their numbers and, in float64, a log-probability that none of their tokens is above. (A function of its
        own: the large tensors of one block are gone before the next one begins.)
        """
        hidden_1CD = block.hidden(self._model)
        pieces = [self._log_most(hidden_1CD[:, piece]) for piece in self._sizes.pieces(hidden_1CD.shape[1])]
        log_most_C = torch.cat(pieces)
        may_be_above_C = log_most_C > math.log(self.threshold)
        return block.number_C[may_be_above_C].cpu(), log_most_C[may_be_above_C].cpu()

    def _log_most(self, hidden_1CD: Tensor) -> Tensor:
        """Return log-probabilities that none of the tokens of rows is above, [C] in float64."""
        C, U = hidden_1CD.shape[1], self._operand.rounded_MDU.shape[2]
        room_1CU = self._room[: C * U].view(1, C, U)
        logits_1CU, margin = screened_logits(hidden_1CD, self._operand, -math.log(self.threshold), out=room_1CU)
        below_CU = logits_1CU[0].sub_(logits_1CU[0].amax(-1, keepdim=True))  # in base 2
        log_top_C = below_CU[:, : self._model.vocab_size].amax(-1) * math.log(2)
        log_top_C = log_top_C - power_(below_CU).sum(-1).log()
        # Rows that float32 cannot hold are NaN, and may be anything.
        return (log_top_C.double() + margin.nats_MC[0]).nan_to_num(0.0).clamp_max(0.0)

    def _decided(self, context_Cn: Tensor) -> _Found:
        """Return the artifacts in contexts, by probabilities in float64."""
        matrix_1DU = self._model.unembedding_matrix()
        ngrams = [torch.empty(0, context_Cn.shape[1] + 1, dtype=torch.int64)]
        probabilities = [torch.empty(0, dtype=torch.float64)]
        for begin, end in chunks(len(context_Cn), max(1, self._sizes.piece // 4)):
            asked_Cn = context_Cn[begin:end].to(self._device)
            logits_CU = (self._model.last_hidden(asked_Cn[None]) @ matrix_1DU)[0]
            p_CV = torch.softmax(logits_CU, dim=-1)[:, : self._model.vocab_size]
            row_K, token_K = torch.nonzero(p_CV > self.threshold, as_tuple=True)
            ngrams.append(torch.cat([asked_Cn[row_K], token_K[:, None]], dim=1).cpu())
            probabilities.append(p_CV[row_K, token_K].cpu())
        found = _Found(torch.cat(ngrams), torch.cat(probabilities))
        return found.at(self._known.is_new(found.ngram_Kn))


def _lots(seed: int, ngram_Kn: Tensor) -> Tensor:
    """Return a number in 0..1 by lot for every n-gram, [K] in float64."""
    bits: Tensor | int = seed
    for token_K in ngram_Kn.unbind(-1):
        bits = random_bits(bits, "kept artifacts", 0, token_K)
    assert isinstance(bits, Tensor)
    return bits.double() / 2**63


class _Known:
    """What the data and the truth say about n-grams and contexts."""

    def __init__(self, corpus: Corpus, order: int) -> None:
        data = corpus.tensor(order)
        self._ngrams_Gn, self._seen_Cn = data.ngrams_Gn, data.contexts_Cn
        self._truth, self._labelled = corpus.truth_ngrams(order), corpus.labelled_contexts(order)
        # Sorted, so that the n-grams of a context lie together.
        right_Gn = self._ngrams_Gn if self._truth is None else self._truth
        self._right_Cn, _, count_C = distinct_rows(right_Gn[:, :-1])
        self._right_G = right_Gn[:, -1].tolist()
        self._end_C = count_C.cumsum(0)
        self._begin_C = self._end_C - count_C
        self.most_right = int(count_C.amax()) if len(count_C) else 0  # last tokens that are right in one context

    def table(self, ngram_Kn: Tensor, probability_K: Tensor) -> pd.DataFrame:
        """Return n-grams as a table, one row each, in their order."""
        return pd.DataFrame(
            {
                "tokens": ngram_Kn.tolist(),
                "probability": probability_K.numpy(),
                "label": self.labels(ngram_Kn),
                "seen": self.seen(ngram_Kn[:, :-1]),
                "right": self.right(ngram_Kn[:, :-1]),
            }
        )

    def is_new(self, ngram_Kn: Tensor) -> Tensor:
        """Return whether n-grams are not in the data, [K]."""
        return find_rows(ngram_Kn, self._ngrams_Gn) < 0

    def seen(self, context_Kn: Tensor) -> list[bool]:
        """Return whether contexts are in the data."""
        return (find_rows(context_Kn, self._seen_Cn) >= 0).tolist()

    def labels(self, ngram_Kn: Tensor) -> list[str]:
        """Return generalization, hallucination or unlabelled for each artifact."""
        if self._truth is None or self._labelled is None:
            return ["unlabelled"] * len(ngram_Kn)
        true_K = find_rows(ngram_Kn, self._truth) >= 0
        spoken_K = torch.ones_like(true_K)
        if isinstance(self._labelled, Tensor):
            spoken_K = find_rows(ngram_Kn[:, :-1], self._labelled) >= 0
        return [
            "generalization" if true else "hallucination" if spoken else "unlabelled"
            for true, spoken in zip(true_K.tolist(), spoken_K.tolist(), strict=True)
        ]

    def right(self, context_Kn: Tensor) -> list[list[int]]:
        """Return the last tokens that the truth has in each context, or the data where nothing says what is true.

        Example: of W = (a b x), (a b y), (b c x) the contexts (a b), (c a) have [x, y] and [].
        """
        if not len(self._right_Cn):
            return [[] for _ in context_Kn]
        place_K = find_rows(context_Kn, self._right_Cn)
        spans = zip(
            (place_K >= 0).tolist(), self._begin_C[place_K].tolist(), self._end_C[place_K].tolist(), strict=True
        )
        return [self._right_G[begin:end] if found else [] for found, begin, end in spans]


def fiber_table(
    model: CountedModel, corpus: Corpus, *, order: int, entries: int = 50_000, contexts: int = 200, tokens: int = 8
) -> pd.DataFrame:
    """Return fibers of the completion of a stack of one beside those of the data.

    Columns: `context_tokens`, `token`, `data_count` (the entry of D^n), `probability`. All V^n entries where these are
    at most `entries`; else up to `contexts` contexts, half of them seen, the rest held out and blank in equal parts as
    far as there are any, with `tokens` tokens each: those of the data first, then the most probable.
    """
    doubles = in_float64(model)
    device = doubles.unembedding_matrix().device
    data, V = corpus.tensor(order), corpus.vocab_size
    everything = V**order <= entries
    if everything:
        chosen = Contexts([[torch.arange(V)] * (order - 1)], device).decode(
            torch.arange(V ** (order - 1), device=device)[None]
        )[0]
    else:
        chosen = _sample_of_contexts(corpus, order, contexts).to(device)
    p_CU = torch.softmax(doubles.last_hidden(chosen[None]) @ doubles.unembedding_matrix(), dim=-1)[0].cpu()
    p_CV = p_CU[:, :V]
    count_CV = data.fibers(chosen.cpu())
    width = V if everything else min(tokens, V)
    # Data first (a count beats any probability), then by probability; within all entries the order of the tokens.
    token_CK = torch.arange(V).expand(len(chosen), -1) if everything else (2 * count_CV + p_CV).topk(width).indices
    return pd.DataFrame(
        {
            "context_tokens": chosen.cpu().repeat_interleave(width, dim=0).tolist(),
            "token": token_CK.flatten().tolist(),
            "data_count": count_CV.gather(1, token_CK).flatten().tolist(),
            "probability": p_CV.gather(1, token_CK).flatten().tolist(),
        }
    )


def _sample_of_contexts(corpus: Corpus, order: int, count: int) -> Tensor:
    """Return distinct contexts: half evenly spread over the seen ones, the rest over held-out and other unseen ones."""
    seen = corpus.tensor(order).contexts_Cn
    held_out = corpus.held_out_ngrams(order)
    places = corpus.places(order, corpus.contexts)
    numbered = Contexts([places], torch.device("cpu"))
    anywhere = numbered.decode(_spread(numbered.total, 4 * count)[None])[0]
    known = seen[_spread(len(seen), count // 2)]
    hidden = seen[:0] if held_out is None else distinct_rows(held_out[:, :-1])[0]
    hidden = hidden[find_rows(hidden, seen) < 0]
    hidden = hidden[_spread(len(hidden), count // 4)]
    blank = anywhere[(find_rows(anywhere, seen) < 0) & (find_rows(anywhere, hidden) < 0)]
    return torch.cat([known, hidden, blank[_spread(len(blank), count - len(known) - len(hidden))]])


def _spread(total: int, count: int) -> Tensor:
    """Return at most `count` indices spread evenly over `0..total-1`."""
    return torch.linspace(0, max(total - 1, 0), min(count, total), dtype=torch.float64).round().long()
