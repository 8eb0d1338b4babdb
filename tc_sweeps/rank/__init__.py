"""Rank: of data tensors (bounds, CP logit tensors, effective rank), and of trained models (spectra, layer tensors)."""

from tc_sweeps.rank.bounds import (
    RankBounds,
    flattening_ranks,
    merged_terms,
    rank_bounds,
    seen_fibers_rank,
    slice_terms,
)
from tc_sweeps.rank.cp import CPLogits, Criterion, consistent_contexts, fit_cp
from tc_sweeps.rank.effective import EffectiveRank, effective_rank
from tc_sweeps.rank.facts import RANK_FACTS, rank_facts
from tc_sweeps.rank.layer import (
    LayerBounds,
    decoded_tensor,
    layer_rank_bounds,
    layer_tensor,
    numerical_flattening_ranks,
    softmax_at_least,
)
from tc_sweeps.rank.spectra import (
    Spectra,
    gram_bytes,
    head_spectra,
    nuclear_norm,
    numerical_rank,
    stable_rank,
    unfolding_spectra,
)

__all__ = [
    "RANK_FACTS",
    "CPLogits",
    "Criterion",
    "EffectiveRank",
    "LayerBounds",
    "RankBounds",
    "Spectra",
    "consistent_contexts",
    "decoded_tensor",
    "effective_rank",
    "fit_cp",
    "flattening_ranks",
    "gram_bytes",
    "head_spectra",
    "layer_rank_bounds",
    "layer_tensor",
    "merged_terms",
    "nuclear_norm",
    "numerical_flattening_ranks",
    "numerical_rank",
    "rank_bounds",
    "rank_facts",
    "seen_fibers_rank",
    "slice_terms",
    "softmax_at_least",
    "stable_rank",
    "unfolding_spectra",
]
