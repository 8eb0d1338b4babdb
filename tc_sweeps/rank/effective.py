"""The effective rank of a data set (section 3.3): the smallest rank of a tensor that is consistent with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.rank.bounds import rank_bounds
from tc_sweeps.rank.cp import fit_cp

__all__ = ["EffectiveRank", "effective_rank"]


@dataclass(frozen=True)
class EffectiveRank:
    """An upper bound on the effective rank: fits of a smaller rank may exist that the restarts did not find."""

    rank: int
    consistent: dict[int, float]  # by rank tried: the share of its restarts that became consistent with the data
    restarts: int

    @property
    def is_stable(self) -> bool:
        """Whether at least half the restarts of this rank are consistent, and none of the rank below was."""
        return self.consistent.get(self.rank, 0.0) >= 0.5 and self.consistent.get(self.rank - 1, 0.0) == 0


def effective_rank(
    data: Corpus | DataTensor,
    *,
    criterion: str = "argmax",
    epsilon: float = math.log(2),
    restarts: int = 8,
    seed: int = 0,
    steps: int = 1000,
    learning_rate: float = 0.1,
) -> EffectiveRank:
    """Return the least rank found of a CP logit tensor whose completion is consistent with the data on seen fibers.

    `criterion="argmax"`: the right token is the most probable one of every seen context. Scaled up, such logits give it
    a probability above any threshold, so this is the effective rank for every threshold. Where a context has several
    answers no token alone is right, and the criterion is `"kl"`: the divergence from the data's fiber to the
    completion's is at most `epsilon` nats for every seen context. The default, log 2, means P >= 1/2 where there is one
    answer.

    The ranks tried are 1, 2, 4, .. until a restart is consistent, then a bisection; the restarts of a rank are one
    stack. Above stands a bound that needs no fit: for functional data D^n itself, scaled up, has consistent logits, and
    in any case one rank-one term for each seen context is enough. Rank 0, where all tokens are equally probable, is not
    tried. Raises ValueError for an unknown criterion, numbers that are not positive, and data without n-grams.
    """
    tensor = data.tensor(data.order) if isinstance(data, Corpus) else data
    if criterion not in ("argmax", "kl"):
        raise ValueError(f"criterion={criterion!r} must be 'argmax' or 'kl'.")
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon} must be greater than 0.")
    if len(tensor.ngrams_Gn) == 0:
        raise ValueError("The data tensor has no n-gram, so that every completion is consistent with it.")
    functional = len(tensor.contexts_Cn) == len(tensor.ngrams_Gn)
    nats = None if functional and criterion == "argmax" else epsilon
    consistent: dict[int, float] = {}

    def fits(rank: int) -> bool:
        stack = fit_cp(
            tensor, [rank], restarts=restarts, seed=seed, steps=steps, learning_rate=learning_rate, epsilon=nats
        )
        consistent[rank] = float(stack.consistent_M.double().mean())
        return consistent[rank] > 0

    high = rank_bounds(tensor).upper if functional else len(tensor.contexts_Cn)
    low, tried = 0, 1
    while tried < high:
        if fits(tried):
            high = tried
        else:
            low, tried = tried, 2 * tried
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return EffectiveRank(high, dict(sorted(consistent.items())), restarts)
