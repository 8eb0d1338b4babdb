"""The contexts outside the data in which a model is surest: what is mined to be taught on.

Letters: `M` member, `C` context (of a block, or listed), `K` taught context, `X` excluded context, `J` context kept,
`n` and `m` tokens of a context, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Contexts
from tc_sweeps.model import CountedModel

__all__ = ["surest"]


def surest(
    model: CountedModel,
    contexts: Contexts,
    count: int,
    *,
    seen_MCn: Tensor,
    is_seen_MC: Tensor,
    taught_MKm: Tensor,
    length_M: Tensor,
    judge_seed_M: Tensor,
    rows_at_once: int,
) -> Tensor:
    """Return the contexts with the greatest odds of their most probable token, [M, J, m], the surest first.

    Left out are contexts in the data (of `seen_MCn` those with `is_seen_MC`), those taught already (the first
    `length_M` of `taught_MKm`) and the judge's. A member with fewer than `count` others has some of these at the end.
    Compared are log-odds in float64, which tell contexts apart also where a probability is 1 but for rounding; equal
    ones are taken in the order of the contexts. No synchronisation.
    """
    V, device = model.vocab_size, contexts.total_M.device
    taught_MK = _numbers(taught_MKm, V)
    is_taught_MK = torch.arange(taught_MK.shape[1], device=device) < length_M[:, None]
    excluded_MX = torch.cat(
        [torch.where(is_seen_MC, _numbers(seen_MCn, V), -1), torch.where(is_taught_MK, taught_MK, -1)], dim=1
    )
    excluded_MX = excluded_MX.sort(dim=1).values
    M = model.num_members
    odds_MJ = torch.empty(M, 0, dtype=torch.float64, device=device)
    place_MJ = torch.empty(M, 0, dtype=torch.int64, device=device)
    matrix_MDU = model.unembedding_matrix()
    for block in contexts.blocks(max(1, rows_at_once // 4)):  # a row takes about four times as much in float64
        logits_MCU = block.hidden(model) @ matrix_MDU
        logits_MCV = logits_MCU[..., :V]
        top_MC1 = logits_MCV.argmax(-1, keepdim=True)
        others_MC = logits_MCU.scatter(2, top_MC1, -torch.inf).logsumexp(-1)
        # Rounded, so that contexts that a model cannot tell apart are equal whatever block they are in.
        odds_MC = ((logits_MCV.gather(2, top_MC1)[..., 0] - others_MC) * 2**20).round() / 2**20
        number_MC = _numbers(contexts.decode(block.number_C.expand(M, -1)), V)
        place_MC = torch.searchsorted(excluded_MX, number_MC).clamp_max(excluded_MX.shape[1] - 1)
        is_free_MC = block.valid_MC & ~block.judged(judge_seed_M) & (excluded_MX.gather(1, place_MC) != number_MC)
        odds_MJ = torch.cat([odds_MJ, torch.where(is_free_MC, odds_MC.nan_to_num(), -torch.inf)], dim=1)
        place_MJ = torch.cat([place_MJ, block.number_C.expand(M, -1)], dim=1)
        best_MJ = odds_MJ.sort(dim=1, descending=True, stable=True).indices[:, :count]
        odds_MJ, place_MJ = odds_MJ.gather(1, best_MJ), place_MJ.gather(1, best_MJ)
    return contexts.decode(place_MJ)


def _numbers(context_MCm: Tensor, vocab_size: int) -> Tensor:
    """Return a number for each context, [M, C]."""
    number_MC = torch.zeros_like(context_MCm[..., 0])
    for token_MC in context_MCm.unbind(-1):
        number_MC = number_MC * vocab_size + token_MC
    return number_MC
