"""The effective rank of a data set (section 3.3): the smallest rank of a tensor that is consistent with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.rank.bounds import rank_bounds, seen_fibers_rank
from tc_sweeps.rank.cp import CPLogits, Criterion, fit, joined, random_starts, truncated

__all__ = ["EffectiveRank", "effective_rank"]

_MOST_LOGITS = 2**28  # of all fits of a rank: 1 GiB, of which training holds a few


@dataclass(frozen=True)
class EffectiveRank:
    """An upper bound on the effective rank: fits of a smaller rank may exist that none of the starts has found."""

    rank: int
    # By rank tried: the share of its starts that became consistent with the data, at least; a rank is left as soon as
    # half of them are.
    consistent: dict[int, float]
    restarts: int

    @property
    def is_stable(self) -> bool:
        """Whether at least half the starts of this rank are consistent, and none of the rank below was."""
        return self.consistent.get(self.rank, 0.0) >= 0.5 and self.consistent.get(self.rank - 1, 0.0) == 0


def effective_rank(
    data: Corpus | DataTensor,
    *,
    criterion: str = "argmax",
    epsilon: float = math.log(2),
    budget: float = 10.0,
    threshold: float = 0.5,
    tolerance: float = 1e-3,
    restarts: int = 8,
    seed: int = 0,
    steps: int = 1000,
    learning_rate: float = 0.05,
) -> EffectiveRank:
    """Return the least rank found of a CP logit tensor whose completion is consistent with the data on seen fibers.

    `criterion="argmax"`: the right token is the most probable one of every seen context. Scaled up, such logits give it
    a probability above any threshold, so this is the effective rank for every threshold.
    `"budget"`: it has a probability above `threshold` by logits whose norm is at most `budget` nats. Nothing can be
    scaled up then, and the higher the threshold the more components it may take. The norm is that of
    `CPLogits.norm_M`, which is known without any pass over V^n entries and proportional to the logits, so that it is
    kept by scaling; without limit this is `argmax`.
    Where a context has several answers no token alone is right, and the criterion is `"kl"`: the divergence from the
    data's fiber to the completion's is at most `epsilon` nats for every seen context. The default, log 2, means
    P >= 1/2 where there is one answer, so that `kl` and `argmax` have the same effective rank there.
    `"linear"`: there is no softmax, and the CP tensor itself has the data's distribution, entry by entry within
    `tolerance`, on every seen fiber; all others are free. That is the rank of a completion as section 2.1 has it. What
    can be approximated at a rank but not reached is found to have it (border rank).

    The ranks tried are 1, 2, 4, .. until a fit is consistent, then a bisection; under `linear` they begin with the rank
    of the seen fibers, `seen_fibers_rank`. Every rank has `restarts` random starts, and as many that are truncated from
    the fits of the smallest rank known to be consistent; the rank below the last one is tried once more with those of
    that one. All starts of a rank are one stack. Above stands a bound that needs no fit: for functional data D^n
    itself, each fact told once, is consistent, and as logits once it is scaled up; in any case (but for a budget) one
    rank-one term for each seen context is enough. Rank 0, where all tokens are equally probable, is not tried.

    The result depends on the data, the seed and the arguments alone. Raises ValueError for an unknown criterion,
    numbers that are not positive, data without n-grams, a budget within which no fit of any rank was consistent, and
    data whose fits would take more than some GB.
    """
    tensor = data.tensor(data.order) if isinstance(data, Corpus) else data
    asked = Criterion(criterion, epsilon, budget, threshold, tolerance)
    if len(tensor.ngrams_Gn) == 0:
        raise ValueError("The data tensor has no n-gram, so that every completion is consistent with it.")
    if (entries := 2 * restarts * len(tensor.contexts_Cn) * tensor.vocab_size) > _MOST_LOGITS:
        raise ValueError(
            f"The fits of an effective rank hold the logits of {2 * restarts} starts, {len(tensor.contexts_Cn):,} seen "
            f"contexts and {tensor.vocab_size:,} tokens, {4 * entries / 2**30:.1f} GiB several times over: too many."
        )
    if criterion == "argmax" and not tensor.is_functional:
        asked = Criterion("kl", epsilon)
    enough = len(tensor.contexts_Cn)
    if tensor.is_functional and asked.name in ("argmax", "linear"):
        told_once = DataTensor(tensor.vocab_size, tensor.ngrams_Gn, torch.ones_like(tensor.count_G))
        enough = rank_bounds(told_once).upper
    least = seen_fibers_rank(tensor) if asked.name == "linear" else 1
    counts: dict[int, list[int]] = {}  # by rank tried: consistent fits, starts
    origin: dict[int, int | None] = {}  # the rank from whose fits they were truncated
    found: tuple[int, CPLogits] | None = None  # the smallest consistent rank, and its fits

    def is_consistent(rank: int) -> bool:
        nonlocal found
        starts = []
        if rank not in counts:
            starts.append(random_starts(tensor, [rank], restarts=restarts, seed=seed, deviation=asked.start))
        if found is not None:
            starts.append(truncated(found[1], rank, restarts, deviation=asked.start))
        stack = joined(starts)
        half = math.ceil(len(stack.rank_M) / 2)
        fits = fit(tensor, stack, steps=steps, learning_rate=learning_rate, criterion=asked, enough=half)
        origin[rank] = None if found is None else found[0]
        reached, tried = counts.get(rank, [0, 0])
        counts[rank] = [reached + int(fits.consistent_M.sum()), tried + len(fits.rank_M)]
        if fits.consistent_M.any():
            found = rank, fits
            return True
        return False

    low, high, rank = least - 1, enough, least
    while rank < high:
        if is_consistent(rank):
            high = rank
        else:
            low, rank = rank, 2 * rank
    if found is None and asked.name == "budget" and not is_consistent(high):
        raise ValueError(
            f"budget={budget} with threshold={threshold}: no CP logit tensor of rank {high} or less, at which every "
            "context can have a component of its own, was found; raise the budget or lower the threshold."
        )
    while high - low > 1:
        middle = (low + high) // 2
        if is_consistent(middle):
            high = middle
        else:
            low = middle
    while found is not None and high > least and origin.get(high - 1) != high and is_consistent(high - 1):
        high -= 1
    shares = {rank: reached / tried for rank, (reached, tried) in sorted(counts.items())}
    return EffectiveRank(high, shares, restarts)
