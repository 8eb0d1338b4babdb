"""The stream over all contexts: how many n-grams a model holds above thresholds, exactly, in bounded memory.

V^n is never in memory. Rows are screened in float32 (`tc_sweeps.artifacts.screen`); those in doubt are put aside and
decided in float64, so that the totals equal a float64 brute force.

Letters: `M` member, `C` context of a block, `B` place in the buffer of doubtful rows, `T` threshold, `n` order, `V`
vocabulary, `U` the vocabulary and the unsupported token, where a model has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Contexts, chunks, may_wait
from tc_sweeps.artifacts.flex import FlexScreen
from tc_sweeps.artifacts.screen import Question, Screen, constants
from tc_sweeps.artifacts.watching import Observed, Watched
from tc_sweeps.corpus.randomness import judged
from tc_sweeps.model import CountedModel

__all__ = ["Totals", "count_above", "stream"]


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
    # Where totals are estimates, told as whole numbers: what the interval of the one at the threshold needs of blank
    # contexts, [M] each: `blank_` `estimate`, `variance`, `weight`, `room`.
    spread: dict[str, Tensor] = field(default_factory=dict)


def stream(
    model: CountedModel,
    contexts: Contexts,
    *,
    thresholds: Sequence[float],
    exact: Sequence[float],
    threshold: float,
    buffer: int,
    decided_M: Tensor,
    judge_seed_M: Tensor,
    watched: Watched,
    screened_in: torch.dtype = torch.float32,
    fused: bool = False,
) -> tuple[Totals, Observed]:
    """Return how many n-grams over the considered contexts have a probability strictly above each threshold.

    `thresholds` increase, and `threshold` is one of them. `model` holds the weights in float64. `exact`: the thresholds
    whose counts equal a float64 brute force; at the others a row that the screen has on the wrong side counts there.
    `threshold` is always exact. Of members that are not in `decided_M`, [M], rows in doubt are left out. Thresholds of
    at least 1/2 only need the greatest probability of a row, lower ones every entry.

    `screened_in`: the precision that rows are read in first. `fused`: whether `FlexScreen` reads them where it can,
    which is where all thresholds are at least 1/2. `judge_seed_M`: which contexts are the judge's, as in `judged`.
    `watched`: contexts and n-grams that are told apart, and in which sizes the contexts are visited.

    What is returned is right only where `doubtful_M` is at most `buffer`; no synchronisation.
    """
    M, device = model.num_members, contexts.total_M.device
    matrix_MDU = model.unembedding_matrix()
    question = Question.of(thresholds, threshold=threshold, exact=exact)
    low = question.low
    screen: Screen | FlexScreen
    if fused and not low:
        rows = max(contexts.block_rows(watched.sizes.block))
        screen = FlexScreen(matrix_MDU, model.vocab_size, question, rows=rows)
    else:
        screen = Screen(matrix_MDU, model.vocab_size, question, rows=watched.sizes.piece, dtype=screened_in)
    threshold_T = constants(question.thresholds, device)

    rows_MT = torch.zeros(M, len(thresholds), dtype=torch.int64, device=device)  # contexts with a token above
    low_MT = torch.zeros(M, len(low), dtype=torch.int64, device=device)
    abstained_M, judged_M, judged_above_M, judged_abstained_M, doubtful_M = torch.zeros(
        5, M, dtype=torch.int64, device=device
    )
    aside_MB = torch.zeros(M, buffer + 1, dtype=torch.int64, device=device)  # the last place is for what is not kept
    observed = Observed.of(watched, buffer)

    spots = watched.spots()
    for block in contexts.blocks(watched.sizes.block):
        pieces = [(piece, next(spots)) for piece in watched.sizes.pieces(len(block.number_C))]
        if screened_in == torch.float64:  # by the hidden states that would decide, however far others are from them
            hidden_MCD = model.last_hidden(contexts.decode(block.number_C.expand(M, -1)))
        else:
            hidden_MCD = block.hidden(model)
        read = screen.read(hidden_MCD, pieces, observed)
        doubt_MC = block.valid_MC & ~read.sure_MC & decided_M[:, None]
        counted_MC = block.valid_MC & read.sure_MC
        rows_MT += count_above(torch.where(counted_MC, read.top_MC, 0.0), threshold_T)
        low_MT += torch.where(counted_MC[..., None], read.entries_MCT, 0).sum(1)
        above_MC = read.top_MC > threshold if threshold >= 0.5 else read.entries_MCT[..., low.index(threshold)]
        is_judged_MC = block.judged(judge_seed_M)
        judged_M += (block.valid_MC & is_judged_MC).sum(1)
        judged_above_M += (above_MC * (counted_MC & is_judged_MC)).sum(1)
        if read.unsupported_MC is not None:
            abstains_MC = counted_MC & (read.unsupported_MC > threshold)
            abstained_M += abstains_MC.sum(1)
            judged_abstained_M += (abstains_MC & is_judged_MC).sum(1)
        rank_MC = doubtful_M[:, None] + doubt_MC.cumsum(1) - 1
        slot_MC = torch.where(doubt_MC & (rank_MC < buffer), rank_MC, buffer)
        aside_MB.scatter_(1, slot_MC, block.number_C.expand(M, -1))
        doubtful_M += doubt_MC.sum(1)
        for piece, spot in pieces:
            observed.mark(spot, above_MC[:, piece], slot_MC[:, piece])

    doubtful = observed.doubtful(buffer)
    aside = min(buffer, max(1, int(doubtful_M.max()))) if may_wait(device) else buffer
    for begin, end in chunks(aside, max(1, watched.sizes.piece // 4)):
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


def count_above(value_MC: Tensor, threshold_T: Tensor) -> Tensor:
    """Return how many values of each member are strictly above each of increasing float64 thresholds, [M, T]."""
    passed_MC = torch.bucketize(value_MC.double().nan_to_num(0.0), threshold_T)  # how many thresholds it is above
    count_MT = torch.zeros(len(value_MC), len(threshold_T) + 1, dtype=torch.int64, device=value_MC.device)
    count_MT.scatter_add_(1, passed_MC, torch.ones_like(passed_MC))
    return count_MT[:, 1:].flip(1).cumsum(1).flip(1)
