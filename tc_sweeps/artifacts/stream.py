"""The stream over all contexts: how many n-grams a model holds above thresholds, exactly, in bounded memory.

V^n is never in memory. Entries are compared in float32, with a bound on the error of each row; rows in doubt are put
aside and decided in float64, so that the totals equal a float64 brute force.

Letters: `M` member, `C` context of a block, `B` place in the buffer of doubtful rows, `T` threshold, `n` order, `D`
width, `V` vocabulary, `U` the vocabulary and the unsupported token, where a model has one: it takes part in sums, and
nothing of it is an artifact; `Q` watched n-gram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.artifacts.contexts import Block, Contexts, CountedModel, chunks
from tc_sweeps.artifacts.watching import Observed, Spot, Watched
from tc_sweeps.corpus.randomness import judged

__all__ = ["Operand", "Totals", "constants", "count_above", "screened_logits", "stream"]

_UNIT = 2.0**-24  # the unit roundoff of float32
_RIVAL = 0.999  # a token with more than this share of the top's probability may be the top itself


@dataclass(frozen=True, eq=False)
class Totals:
    """Counts over all considered contexts, training n-grams among them; int64 on the device."""

    above_MT: Tensor  # n-grams with a probability above each threshold
    confident_M: Tensor  # contexts with a token above the threshold of interest
    abstained_M: Tensor  # contexts with the unsupported token above it
    judged_M: Tensor  # contexts of the judge's half
    judged_above_M: Tensor  # n-grams above the threshold of interest in these
    judged_abstained_M: Tensor  # of these the ones with the unsupported token above it
    doubtful_M: Tensor  # rows that were decided in float64


def stream(
    model: CountedModel,
    contexts: Contexts,
    *,
    thresholds: Sequence[float],
    exact: Sequence[float],
    threshold: float,
    rows_at_once: int,
    buffer: int,
    decided_M: Tensor,
    judge_seed_M: Tensor,
    watched: Watched,
) -> tuple[Totals, Observed]:
    """Return how many n-grams over the considered contexts have a probability strictly above each threshold.

    `thresholds` increase, and `threshold` is one of them. `model` holds the weights in float64. `exact`: the thresholds
    whose counts equal a float64 brute force; at the others a row that float32 rounds to the wrong side counts there.
    `threshold` is always exact. Of members that are not in `decided_M`, [M], rows in doubt are left out. Thresholds of
    at least 1/2 only need the greatest probability of a row, lower ones every entry.

    `judge_seed_M`: which contexts are the judge's, as in `judged`. `watched`: contexts and n-grams that are told apart,
    laid out for `rows_at_once`.

    What is returned is right only where `doubtful_M` is at most `buffer`; no synchronisation.
    """
    M, device = model.num_members, contexts.total_M.device
    matrix_MDU = model.unembedding_matrix()
    operand = Operand.of(matrix_MDU)

    low = [t for t in thresholds if t < 0.5]
    sharp = {t for t in thresholds if t in exact or t == threshold}
    threshold_T = constants(tuple(thresholds), device)
    deepest = -math.log(min(thresholds))

    rows_MT = torch.zeros(M, len(thresholds), dtype=torch.int64, device=device)  # contexts with a token above
    low_MT = torch.zeros(M, len(low), dtype=torch.int64, device=device)
    abstained_M, judged_M, judged_above_M, judged_abstained_M, doubtful_M = torch.zeros(
        5, M, dtype=torch.int64, device=device
    )
    aside_MB = torch.zeros(M, buffer + 1, dtype=torch.int64, device=device)  # the last place is for what is not kept
    observed = Observed.of(watched, buffer)

    for block, spot in zip(contexts.blocks(rows_at_once), watched.spots(), strict=True):
        top_MC, entries_MCT, unsupported_MC, sure_MC = _screened(
            block, model, operand, low, sharp, threshold, deepest, spot, observed
        )
        doubt_MC = block.valid_MC & ~sure_MC & decided_M[:, None]
        counted_MC = block.valid_MC & sure_MC
        rows_MT += count_above(torch.where(counted_MC, top_MC, 0.0), threshold_T)
        low_MT += torch.where(counted_MC[..., None], entries_MCT, 0).sum(1)
        above_MC = top_MC > threshold if threshold >= 0.5 else entries_MCT[..., low.index(threshold)]
        is_judged_MC = block.judged(judge_seed_M)
        judged_M += (block.valid_MC & is_judged_MC).sum(1)
        judged_above_M += (above_MC * (counted_MC & is_judged_MC)).sum(1)
        if unsupported_MC is not None:
            abstains_MC = counted_MC & (unsupported_MC > threshold)
            abstained_M += abstains_MC.sum(1)
            judged_abstained_M += (abstains_MC & is_judged_MC).sum(1)
        rank_MC = doubtful_M[:, None] + doubt_MC.cumsum(1) - 1
        slot_MC = torch.where(doubt_MC & (rank_MC < buffer), rank_MC, buffer)
        aside_MB.scatter_(1, slot_MC, block.number_C.expand(M, -1))
        doubtful_M += doubt_MC.sum(1)
        observed.mark(spot, above_MC, slot_MC)

    doubtful = observed.doubtful(buffer)
    for begin, end in chunks(buffer, max(1, rows_at_once // 4)):
        context_MBn = contexts.decode(aside_MB[:, begin:end])
        logits_MBU = model.last_hidden(context_MBn) @ matrix_MDU
        probability_MBU = torch.softmax(logits_MBU, dim=-1)
        probability_MBV = probability_MBU[..., : model.vocab_size]
        kept_MB = torch.arange(begin, end, device=device) < doubtful_M[:, None]
        is_judged_MB = kept_MB & judged(judge_seed_M[:, None], context_MBn[..., :-1], context_MBn[..., -1])
        rows_MT += count_above(torch.where(kept_MB, probability_MBV.amax(-1), 0.0), threshold_T)
        for place, t in enumerate(low):
            low_MT[:, place] += ((probability_MBV > t).sum(-1) * kept_MB).sum(1)
        above_MB = (probability_MBV > threshold).sum(-1)
        judged_above_M += (above_MB * is_judged_MB).sum(1)
        abstains_MB = (probability_MBU[..., model.vocab_size :] > threshold).any(-1)
        abstained_M += (abstains_MB & kept_MB).sum(1)
        judged_abstained_M += (abstains_MB & is_judged_MB).sum(1)
        doubtful.decide(begin, above_MB, logits_MBU, probability_MBU, threshold)
    observed.settle(doubtful)
    above_MT = torch.cat([low_MT, rows_MT[:, len(low) :]], dim=1)
    totals = Totals(
        above_MT=above_MT,
        confident_M=rows_MT[:, thresholds.index(threshold)],
        abstained_M=abstained_M,
        judged_M=judged_M,
        judged_above_M=judged_above_M,
        judged_abstained_M=judged_abstained_M,
        doubtful_M=doubtful_M,
    )
    return totals, observed


def _screened(
    block: Block,
    model: CountedModel,
    operand: Operand,
    low: list[float],
    sharp: set[float],
    threshold: float,
    deepest: float,
    spot: Spot,
    observed: Observed,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return what float32 says about the contexts of a block.

    That is the greatest probability of each, [M, C]; how many of its tokens are above each of the `low` thresholds,
    [M, C, T]; the probability of the unsupported token, [M, C], where there is one; and whether this is beyond doubt at
    all `sharp` thresholds, for the unsupported token at the `threshold` of interest, [M, C]. What it says of n-grams
    that are watched in this block is written into `observed`. (A function of its own: the large tensors of one block
    are gone before the next one begins, and its memory is taken again.)
    """
    logits_MCU, error_MC = screened_logits(block.hidden(model), operand, deepest)
    # In place, since memory costs time: e^(l - max), 1 for the top token, whose probability is 1 / sum.
    below_MCU = logits_MCU.sub_(logits_MCU.amax(-1, keepdim=True))
    below_MQ = below_MCU.flatten(1).gather(1, spot.row_MQ * below_MCU.shape[-1] + spot.token_MQ)
    share_MCU = below_MCU.exp_()
    sum_MC = share_MCU.sum(-1)
    share_MCV = share_MCU[..., : model.vocab_size]
    has_unsupported = share_MCU.shape[-1] > model.vocab_size
    top_MC = (share_MCV.amax(-1) if has_unsupported else 1) / sum_MC
    log_top_MC = top_MC.log()
    scratch_MCV = torch.empty_like(share_MCV) if low else share_MCV
    entries_MCT = torch.zeros(*sum_MC.shape, len(low), dtype=torch.int64, device=sum_MC.device)
    sure_MC = top_MC >= 0  # what float32 cannot hold is NaN, which is like nothing and so never sure
    for t in sharp:
        if t >= 0.5:
            sure_MC &= (log_top_MC - math.log(t)).abs() > error_MC
    unsupported_MC = None
    if has_unsupported:
        unsupported_MC = share_MCU[..., -1] / sum_MC
        sure_MC &= (unsupported_MC.log() - math.log(threshold)).abs() > error_MC
    for place, t in enumerate(low):
        bar_MC = t * sum_MC
        entries_MCT[..., place] = _entries_above(share_MCV, bar_MC, scratch_MCV)
        if t in sharp:
            surely_MC = _entries_above(share_MCV, bar_MC * error_MC.exp(), scratch_MCV)
            sure_MC &= surely_MC == _entries_above(share_MCV, bar_MC * (-error_MC).exp(), scratch_MCV)
    if below_MQ.shape[1]:
        # The sum of all shares but the top's, beside which float32 would round them off, and but those of its rivals,
        # each of which takes nearly 1 from the sum. (The shares are not used again.)
        others_MC = -F.threshold(share_MCU.neg_(), -_RIVAL, 0.0, inplace=True).sum(-1)
        has_rival_MC = sum_MC - 1 - others_MC > 0.5
        log_sum_MC = torch.where(has_rival_MC, sum_MC.log(), others_MC.log1p())
        log_p_MQ = below_MQ - log_sum_MC.gather(1, spot.row_MQ)
        observed.write(spot, log_p_MQ, log_p_MQ > math.log(threshold), below_MQ == 0)
        # Whether a ranked n-gram's token is the most probable one is in doubt where it may be, and another may be too;
        # never where some token surely has more than half.
        near_MQ = spot.ranked_MQ & (below_MQ >= -error_MC.gather(1, spot.row_MQ))
        is_near_MC = torch.zeros_like(sum_MC).scatter_add_(1, spot.row_MQ, near_MQ.float()) > 0
        has_rival_MC |= error_MC > -math.log(_RIVAL)
        sure_MC &= ~(is_near_MC & has_rival_MC & (log_sum_MC >= math.log(2) - error_MC))
    return top_MC, entries_MCT, unsupported_MC, sure_MC


def count_above(value_MC: Tensor, threshold_T: Tensor) -> Tensor:
    """Return how many values of each member are strictly above each of increasing float64 thresholds, [M, T]."""
    passed_MC = torch.bucketize(value_MC.double().nan_to_num(0.0), threshold_T)  # how many thresholds it is above
    count_MT = torch.zeros(len(value_MC), len(threshold_T) + 1, dtype=torch.int64, device=value_MC.device)
    count_MT.scatter_add_(1, passed_MC, torch.ones_like(passed_MC))
    return count_MT[:, 1:].flip(1).cumsum(1).flip(1)


def _entries_above(share_MCV: Tensor, bar_MC: Tensor, scratch_MCV: Tensor) -> Tensor:
    """Return how many entries of each row are above its bar, [M, C].

    Ones and zeros are written over `scratch_MCV` and added up in float32: exact below 2^24, and vectorised on a CPU,
    which adding up booleans is not.
    """
    return torch.gt(share_MCV, bar_MC[..., None], out=scratch_MCV).sum(-1).long()


@cache
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a float64 tensor, copied to the device once: a copy makes the CPU wait."""
    return torch.tensor(values, dtype=torch.float64, device=device)


@dataclass(frozen=True, eq=False)
class Operand:
    """The matrix of a float32 product, with what bounds the product's error."""

    rounded_MDV: Tensor  # in float32
    length_M: Tensor  # the greatest length of a column
    rounding_M: Tensor  # the greatest length of what rounding took off a column

    @classmethod
    def of(cls, matrix_MDV: Tensor) -> Operand:
        """Return the operand of a float64 matrix."""
        rounded_MDV = matrix_MDV.float()
        return cls(
            rounded_MDV,
            rounded_MDV.double().norm(dim=1).amax(1),
            (matrix_MDV - rounded_MDV).norm(dim=1).amax(1),
        )


def screened_logits(hidden_MCD: Tensor, operand: Operand, deepest: float) -> tuple[Tensor, Tensor]:
    """Return logits computed in float32, [M, C, V], and a bound on the error of their row's log-probabilities, [M, C].

    With h the hidden state in float64, h' and u' the float32 operands and unit roundoff e = 2^-24, for every token

        |l' - l| <= |h - h'| |u'| + |h| |u - u'| + g |h'| |u'|,   g = D e / (1 - D e)

    by Cauchy-Schwarz: the first two terms are roundings of the operands, that of the matrix as measured and that of the
    hidden state at most e |h| + sqrt(D) 2^-126, where 2^-126 is the least normal number; the third bounds an inner
    product of D terms summed in any order. log p = l - log sum exp l changes by at most twice that. On top come the
    roundings of l - max, exp, the sum of V terms, the division and the comparison of p or log p. The relative error of
    the sum is at most (V + 4 + log V) e: V for adding, 4 for exp, and log V because the roundings of l - max, weighed
    by the terms they belong to, are at most e times the mean of |l - max| under the softmax, which is at most its
    entropy. The rest is within (16 + 4 |log p|) e, where |log p| is at most `deepest`, all that is compared. Products
    must be those of float32, not of TF32.
    """
    D, V = operand.rounded_MDV.shape[1:]
    gamma = D * _UNIT / (1 - D * _UNIT)
    slope_M = operand.length_M * (_UNIT + gamma * (1 + _UNIT)) + operand.rounding_M
    least_M = operand.length_M * (1 + gamma) * D**0.5 * 2.0**-126
    error_MC = 2 * (hidden_MCD.norm(dim=-1) * slope_M[:, None] + least_M[:, None])
    error_MC += (V + 20 + math.log(V) + 4 * deepest) * _UNIT
    return hidden_MCD.float() @ operand.rounded_MDV, (error_MC * (1 + 1e-6)).float()
