"""What is taught about contexts outside the data, to suppress artifacts there: section 3.4 of the paper.

"We need to include the surrounding space in the training data as well": some contexts that are not in the data are
answered with the unsupported token, or what the model is surest of in them is penalized. Never in a context of the
judge's half, so that what is measured there is what the method does beyond the contexts it was taught on.

Letters: `M` member, `K` slot for a taught context, `J` new context, `C` context, `m` token of a context, `U` the
vocabulary and any unsupported token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from tc_sweeps.config import Config, ConfigError
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.randomness import random_bits, random_integers
from tc_sweeps.corpus.reading import read_contexts
from tc_sweeps.corpus.tensor import distinct_rows, find_rows
from tc_sweeps.model.objectives import replayed
from tc_sweeps.model.prefixes import bucket

__all__ = ["Outside", "outside_gradient", "outside_loss", "rows_of", "teachable", "teachable_count"]

_CHUNK = 1 << 18  # contexts looked at together
HINGE = 0.5  # the probability above which the hinge penalizes


class Outside(nn.Module):
    """The contexts that each member of a stack is taught on, and how much each weighs in its loss.

    Slots beyond those that are taught, which pad a stack or wait for contexts that are mined, weigh nothing.
    """

    context_MKm: Tensor
    length_M: Tensor
    weight_M: Tensor

    def __init__(self, corpora: Sequence[Corpus], configs: Sequence[Config]) -> None:
        """Choose the contexts; those that are mined come later, by `teach`."""
        super().__init__()
        settings = configs[0].objective.outside
        self.method = settings.method
        self.mined = settings.contexts == "mined"
        self.counts = [teachable_count(*pair) for pair in zip(corpora, configs, strict=True)]  # when all are taught
        size = bucket(max(self.counts))
        self.rows = max(rows_of(size, *pair) for pair in zip(corpora, configs, strict=True))  # of a batch
        order = _order(configs[0])
        self.register_buffer("context_MKm", torch.zeros(len(corpora), size, order - 1, dtype=torch.int64))
        self.register_buffer("length_M", torch.zeros(len(corpora), dtype=torch.int64))
        trained = [len(replayed(*pair).sentences) for pair in zip(corpora, configs, strict=True)]
        weights = [config.objective.outside.weight / N for config, N in zip(configs, trained, strict=True)]
        self.register_buffer("weight_M", torch.tensor(weights))
        if not self.mined:
            for member, (corpus, config) in enumerate(zip(corpora, configs, strict=True)):
                contexts_Cm = chosen_contexts(corpus, config, self.counts[member])
                self.context_MKm[member, : len(contexts_Cm)] = contexts_Cm
                self.length_M[member] = len(contexts_Cm)

    def weights(self) -> Tensor:
        """Return what each taught context weighs in the loss, in sentences of the corpus, [M, K]."""
        slot_K = torch.arange(self.context_MKm.shape[1], device=self.length_M.device)
        return torch.where(slot_K < self.length_M[:, None], self.weight_M[:, None], 0.0)

    def teach(self, context_MJm: Tensor, count_M: Tensor) -> None:
        """Add the first `count_M` of new contexts for each member; no synchronisation."""
        M, J, m = context_MJm.shape
        place_MJ = self.length_M[:, None] + torch.arange(J, device=count_M.device)
        is_new_MJ = (torch.arange(J, device=count_M.device) < count_M[:, None]) & (place_MJ < self.context_MKm.shape[1])
        padded_MKm = torch.cat([self.context_MKm, self.context_MKm.new_zeros(M, 1, m)], dim=1)
        slot_MJ = torch.where(is_new_MJ, place_MJ, self.context_MKm.shape[1])  # the last is for what is not kept
        padded_MKm.scatter_(1, slot_MJ[..., None].expand(-1, -1, m), context_MJm)
        self.context_MKm.copy_(padded_MKm[:, :-1])
        self.length_M += is_new_MJ.sum(1)

    def due(self, evaluation: int, evaluations: int) -> list[int]:
        """Return how many mined contexts each member is taught after an evaluation, counted from 1; the same share of
        all at each but the last, which no training follows.
        """
        before, now = ((evaluation - 1) / (evaluations - 1), evaluation / (evaluations - 1))
        return [round(now * count) - round(before * count) for count in self.counts]

    def drawn(self, count: int, *, seed_M: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return contexts for a minibatch, [M, count, m], and their weights, [M, count]: drawn with replacement.

        In expectation they are the whole of what is taught.
        """
        slot_J = torch.arange(count, device=step.device)
        place_MJ = random_integers(seed_M[:, None], "outside", step, slot_J, self.length_M[:, None].clamp_min(1))
        context_MJm = self.context_MKm.gather(1, place_MJ[..., None].expand(-1, -1, self.context_MKm.shape[2]))
        return context_MJm, (self.weight_M * self.length_M / count)[:, None].expand(-1, count)


def rows_of(taught: int, corpus: Corpus, config: Config) -> int:
    """Return how many rows of a batch are for so many taught contexts: all, or as many for each sentence of the batch
    as there are for each sentence of the corpus.
    """
    size = config.training.batch_size
    return taught if size is None else math.ceil(taught * size / len(replayed(corpus, config).sentences))


def outside_loss(logits_MKU: Tensor, weight_MK: Tensor, method: str) -> Tensor:
    """Return what is added to every member's loss for the taught contexts, [M], in nats per sentence: what
    `outside_gradient` is the gradient of.

    With p the distribution that a context is answered with and t its most probable token: unsupported: -log p of the
    unsupported token, the last; unlikelihood: -log(1 - p_t) (Welleck et al. 2020); hinge: max(0, p_t - 1/2).
    """
    if method == "unsupported":
        return -(weight_MK * torch.log_softmax(logits_MKU, dim=-1)[..., -1]).sum(1)
    if method == "hinge":
        return (weight_MK * (torch.softmax(logits_MKU, dim=-1).amax(-1) - HINGE).clamp_min(0)).sum(1)
    top_MK1 = logits_MKU.argmax(-1, keepdim=True)
    others_MKU = logits_MKU.scatter(2, top_MK1, -torch.inf)
    return (weight_MK * (logits_MKU.logsumexp(-1) - others_MKU.logsumexp(-1))).sum(1)


@torch.no_grad()
def outside_gradient(logits_MKU: Tensor, weight_MK: Tensor, method: str) -> Tensor:
    """Return the gradient of `outside_loss` in the logits, [M, K, U].

    With e_t the unit vector of a token: unsupported: p - e_last; hinge, where p_t > 1/2: p_t (e_t - p);
    unlikelihood: p_t (e_t - r), where r is p without t, normalised, which stays exact as p_t approaches 1.
    """
    p_MKU = torch.softmax(logits_MKU, dim=-1)
    if method == "unsupported":
        p_MKU[..., -1] -= 1
        return p_MKU * weight_MK[..., None]
    top_MK1 = logits_MKU.argmax(-1, keepdim=True)
    p_top_MK1 = p_MKU.gather(2, top_MK1)
    if method == "hinge":
        from_MKU = p_MKU
        p_top_MK1 = torch.where(p_top_MK1 > HINGE, p_top_MK1, 0.0)
    else:
        from_MKU = torch.softmax(logits_MKU.scatter(2, top_MK1, -torch.inf), dim=-1)
    gradient_MKU = -from_MKU
    gradient_MKU.scatter_add_(2, top_MK1, torch.ones_like(p_top_MK1))
    return gradient_MKU * (p_top_MK1 * weight_MK[..., None])


# ------------------------------------------------------------------------------------------------------ which contexts


def teachable(corpus: Corpus, config: Config) -> Iterator[Tensor]:
    """Yield all contexts that may be taught on, [C, m] at a time: considered, not in the data, not the judge's.

    Some of them a model without positions cannot tell from shorter prefixes of the data, (a, a) from (a).

    `objective.outside.contexts=misplaced` keeps those in which a token stands where none of the data has it, and `file`
    those that the file lists.
    """
    order = _order(config)
    seen = corpus.tensor(order).contexts_Cn
    known = [torch.unique(seen[:, place]) for place in range(order - 1)]
    for contexts_Cm in _candidates(corpus, config, order):
        free_C = (find_rows(contexts_Cm, seen) < 0) & ~corpus.judged(contexts_Cm)
        if config.objective.outside.contexts == "misplaced":
            placed = [torch.isin(contexts_Cm[:, place], tokens) for place, tokens in enumerate(known)]
            free_C &= ~torch.stack(placed).all(0)
        yield contexts_Cm[free_C]


def teachable_count(corpus: Corpus, config: Config) -> int:
    """Return how many contexts are taught: the share of those that may be; raises `ConfigError` where that is none."""
    share = config.objective.outside.share
    total = sum(len(contexts_Cm) for contexts_Cm in teachable(corpus, config))
    count = round(share * total)
    if count == 0 and config.objective.outside.contexts == "file":
        raise ConfigError(
            f"{_listed(corpus, config)}: objective.outside.share={share} of {total} is none; raise it or list others."
        )
    if count == 0:
        raise ConfigError(
            f"objective.outside.share={share} of {total} contexts that may be taught on (considered, outside the data, "
            "not the judge's) is none: raise it, or choose other objective.outside.contexts."
        )
    return count


def outside_remarks(corpus: Corpus, config: Config) -> list[str]:
    """Return what a user should be told who lists contexts to be taught, in whole sentences."""
    if config.objective.outside.method == "none" or config.objective.outside.contexts != "file":
        return []
    return [f"{_listed(corpus, config)}; {teachable_count(corpus, config)} are taught."]


def _listed(corpus: Corpus, config: Config) -> str:
    """Return how many contexts a file lists, and how many of them may be taught on."""
    path, order = Path(str(config.objective.outside.path)), _order(config)
    listed = distinct_rows(read_contexts(path, corpus, length=order - 1))[0]
    seen_C = find_rows(listed, corpus.tensor(order).contexts_Cn) >= 0
    judged = int((corpus.judged(listed) & ~seen_C).sum())
    return (
        f"Of the {len(listed)} contexts in objective.outside.path={path} {int(seen_C.sum())} are in the data and "
        f"{judged} in the judge's half, which no method teaches on"
    )


def chosen_contexts(corpus: Corpus, config: Config, count: int) -> Tensor:
    """Return `count` of the contexts that may be taught on, [C, m], by data.seed: more of them are a superset."""
    kept = torch.empty(0, _order(config) - 1, dtype=torch.int64)
    rank = torch.empty(0, dtype=torch.int64)
    assert config.data.seed is not None
    for contexts_Cm in teachable(corpus, config):
        bits: Tensor | int = config.data.seed
        for token in contexts_Cm.unbind(1):
            bits = random_bits(bits, "taught", 0, token)
        kept, rank = torch.cat([kept, contexts_Cm]), torch.cat([rank, cast(Tensor, bits)])
        first = rank.argsort(stable=True)[:count]
        kept, rank = kept[first], rank[first]
    return kept


def _order(config: Config) -> int:
    assert config.artifacts.order is not None
    return config.artifacts.order


def _candidates(corpus: Corpus, config: Config, order: int) -> Iterator[Tensor]:
    """Yield the considered contexts, or those of a file, [C, m] at a time, none twice."""
    places = corpus.places(order, cast(Literal["all", "typed"], config.artifacts.contexts))
    if config.objective.outside.contexts == "file":
        path = Path(str(config.objective.outside.path))
        listed = distinct_rows(read_contexts(path, corpus, length=order - 1))[0]
        considered = torch.stack([torch.isin(listed[:, place], tokens) for place, tokens in enumerate(places)]).all(0)
        yield listed[considered]
        return
    total = math.prod(len(tokens) for tokens in places)
    for begin in range(0, total, _CHUNK):
        rest = torch.arange(begin, min(begin + _CHUNK, total))
        columns = []
        for tokens in reversed(places):
            columns.append(tokens[rest % len(tokens)])
            rest = rest // len(tokens)
        yield torch.stack(columns[::-1], dim=1)
