"""Rank: bounds on the rank of a data tensor, CP logit tensors fitted to it, and its effective rank."""

from tc_sweeps.rank.bounds import RankBounds, flattening_ranks, merged_terms, rank_bounds, slice_terms
from tc_sweeps.rank.cp import CPLogits, Criterion, consistent_contexts, fit_cp
from tc_sweeps.rank.effective import EffectiveRank, effective_rank
from tc_sweeps.rank.facts import RANK_FACTS, rank_facts

__all__ = [
    "RANK_FACTS",
    "CPLogits",
    "Criterion",
    "EffectiveRank",
    "RankBounds",
    "consistent_contexts",
    "effective_rank",
    "fit_cp",
    "flattening_ranks",
    "merged_terms",
    "rank_bounds",
    "rank_facts",
    "slice_terms",
]
