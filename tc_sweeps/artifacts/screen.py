"""What low precision says about rows of a completion, and how far it can be wrong.

A row is the distribution of the last token in one context. Its logits are a product of a hidden state and a matrix,
computed in float32 (or in float64, as a reference) with a bound on what rounding can do to any of its
log-probabilities; a row whose answer lies within the bound of a threshold is in doubt, and not for this file to decide.

Letters: `M` member, `C` context of a block, `R` row of any member, `E` entry of any row, `N` entry that is looked at,
`T` low threshold, `D` width, `V` vocabulary, `U` the vocabulary and the unsupported token, where a model has one: it
takes part in sums, and nothing of it is an artifact; `Q` watched n-gram.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.artifacts.contexts import TILE, may_wait
from tc_sweeps.artifacts.watching import Observed, Spot

__all__ = [
    "TRUNK",
    "Margin",
    "Operand",
    "Question",
    "Screen",
    "Screened",
    "constants",
    "margin_of",
    "power_",
    "screened_logits",
    "true_float32",
]

_LN2 = math.log(2)
TRUNK = 2.0**-40  # of a hidden state's length: how far two ways to compute it in float64 can lie apart
_RIVAL = 0.999  # a token with more than this share of the top's probability may be the top itself


@dataclass(frozen=True)
class Question:
    """What is asked of every row: how many of its tokens have a probability strictly above each threshold."""

    thresholds: tuple[float, ...]  # increasing
    threshold: float  # that of interest, one of them
    sharp: frozenset[float]  # those whose answers must be beyond doubt, that of interest among them

    @classmethod
    def of(cls, thresholds: Sequence[float], *, threshold: float, exact: Sequence[float]) -> Question:
        """Return the question; sharp are the threshold of interest and what of `exact` is asked at all."""
        return cls(tuple(thresholds), threshold, frozenset({threshold, *(t for t in thresholds if t in exact)}))

    @cached_property
    def low(self) -> list[float]:
        """The thresholds below 1/2, which need every entry of a row; the others only need the greatest one."""
        return [t for t in self.thresholds if t < 0.5]

    @property
    def deepest(self) -> float:
        """The greatest |log p| that is compared."""
        return -math.log(self.thresholds[0])

    def is_answered(self, margin: Margin, log_top_MC: Tensor, log_unsupported_MC: Tensor | None) -> Tensor:
        """Return whether it is beyond doubt what the greatest probabilities of rows answer, [M, C].

        And, where there is an unsupported token, whether it is above the threshold of interest.
        """
        asked = [(log_top_MC, t) for t in self.sharp if t >= 0.5]
        if log_unsupported_MC is not None:
            asked.append((log_unsupported_MC, self.threshold))
        sure_MC = torch.ones_like(log_top_MC, dtype=torch.bool)
        for log_p_MC, t in asked:
            sure_MC &= margin.is_sure(log_p_MC, t)
        return sure_MC


@dataclass(frozen=True, eq=False)
class Operand:
    """The matrix of a low-precision product, with what bounds the product's error; lengths are in float64.

    The matrix is that to logits in base 2, of which powers of 2 are taken: four times faster than powers of e.
    """

    rounded_MDU: Tensor
    length_M: Tensor  # the greatest length of a column
    rounding_M: Tensor  # the greatest length of what rounding took off a column

    @classmethod
    def of(cls, matrix_MDU: Tensor, dtype: torch.dtype = torch.float32) -> Operand:
        """Return the operand of a float64 matrix from hidden states to logits."""
        binary_MDU = matrix_MDU / _LN2
        rounded_MDU = binary_MDU.to(dtype)
        return cls(
            rounded_MDU,
            rounded_MDU.double().norm(dim=1).amax(1),
            (binary_MDU - rounded_MDU).norm(dim=1).amax(1),
        )


@dataclass(frozen=True, eq=False)
class Margin:
    """How far what a screen says of rows can be from what float64 says, and what is beyond doubt therefore.

    Two errors, since they reach a probability in two ways. Those of a row's logits move the log-odds log (p / (1 - p))
    of any token by at most twice the greatest of them, and so log p by (1 - p) times that: a probability near 1 by next
    to nothing. Roundings of what is computed from the logits change p by a share of it.
    """

    odds_MC: Tensor  # how far the log-odds of a token of a row can be, by errors of its logits
    share_MC: Tensor  # how far log p can be on top of that, by roundings of what is computed from them

    @property
    def nats_MC(self) -> Tensor:
        """How far the log-probability of any token can be, whatever it is."""
        return self.odds_MC + self.share_MC

    def of(self, piece: slice) -> Margin:
        """Return the margin of some of the rows."""
        return Margin(self.odds_MC[:, piece], self.share_MC[:, piece])

    def surely_above(self, threshold: float) -> Tensor:
        """Return the log-probabilities above which a token of each row is above a threshold, [M, C]."""
        return F.logsigmoid(_log_odds(threshold) + self.odds_MC) + self.share_MC

    def maybe_above(self, threshold: float) -> Tensor:
        """Return the log-probabilities below which a token of each row is not above a threshold, [M, C]."""
        return F.logsigmoid(_log_odds(threshold) - self.odds_MC) - self.share_MC

    def is_sure(self, log_p_MC: Tensor, threshold: float) -> Tensor:
        """Return whether it is beyond doubt on which side of a threshold a token of each row is, [M, C].

        What a screen cannot hold is NaN, which is like nothing and so never sure.
        """
        return (log_p_MC > self.surely_above(threshold)) | (log_p_MC < self.maybe_above(threshold))


def _log_odds(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def margin_of(hidden_MCD: Tensor, operand: Operand, deepest: float) -> Margin:
    """Return how far rows that are screened with an operand can be from their own in float64.

    With h the hidden state in float64, h' and u' the rounded operands and unit roundoff e (2^-24 in float32), for every
    token

        |l' - l| <= |h - h'| |u'| + |h| |u - u'| + g |h'| |u'|,   g = D e / (1 - D e)

    by Cauchy-Schwarz: the first two terms are roundings of the operands, that of the matrix as measured and that of the
    hidden state at most e |h| + sqrt(D) m, where m is the least normal number; the third bounds an inner product of D
    terms summed in any order. (To |h - h'| comes what the hidden state itself may be off in float64, by the order in
    which it was computed: taken to be at most 2^-40 |h|, as it is for attention scores up to some thousands, since a
    score is rounded to a 2^-53 of itself.) The log-odds l_t - log sum_(c != t) exp l_c change by at most
    twice that. On top come the roundings of l - max, of the power, the sum of U terms, the division and the comparison
    of p or log p. The relative error of the sum is at most (U + 4 + log U) e: U for adding, 4 for the power, and log U
    because the roundings of l - max, weighed by the terms they belong to, are at most e times the mean of |l - max|
    under the softmax, which is at most its entropy. The rest, what is compared with among it, is within
    (16 + 6 |log p|) e, where |log p| is at most `deepest`, all that is compared. Products must be those of the
    precision they claim, `true_float32`. Powers below the least normal number are read as that number, so thresholds
    must be far above it.
    """
    D, U = operand.rounded_MDU.shape[1:]
    dtype = operand.rounded_MDU.dtype
    unit = torch.finfo(dtype).eps / 2
    gamma = D * unit / (1 - D * unit)
    slope_M = operand.length_M * (unit + TRUNK + gamma * (1 + unit)) + operand.rounding_M
    least_M = operand.length_M * (1 + gamma) * D**0.5 * torch.finfo(dtype).tiny
    odds_MC = 2 * _LN2 * (hidden_MCD.norm(dim=-1) * slope_M[:, None] + least_M[:, None])
    share = (U + 20 + math.log(U) + 6 * deepest) * unit
    odds_MC = (odds_MC * (1 + 1e-6)).to(dtype)
    return Margin(odds_MC, torch.full_like(odds_MC, share))


def screened_logits(
    hidden_MCD: Tensor, operand: Operand, deepest: float, *, out: Tensor | None = None
) -> tuple[Tensor, Margin]:
    """Return logits in base 2, [M, C, U], and the margin of their rows. `out`: memory for them, of that shape."""
    with true_float32():
        logits_MCU = torch.matmul(hidden_MCD.to(operand.rounded_MDU.dtype), operand.rounded_MDU, out=out)
    return logits_MCU, margin_of(hidden_MCD, operand, deepest)


@contextmanager
def true_float32() -> Iterator[None]:
    """Multiply float32 matrices as float32, as the bound on screened rows needs it: never as TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return numbers as a float64 tensor, copied to the device once: a copy makes the CPU wait."""
    return torch.tensor(values, dtype=torch.float64, device=device)


def power_(below: Tensor) -> Tensor:
    """Return 2^x of numbers up to 0, in their place.

    Powers too small for a normal number would take many times as long; none of them changes a sum with a 1 in it.
    """
    return below.clamp_min_(math.log2(torch.finfo(below.dtype).tiny)).exp2_()


@dataclass(frozen=True, eq=False)
class Screened:
    """What a screen says about some rows."""

    top_MC: Tensor  # the greatest probability of each
    entries_MCT: Tensor  # how many of its tokens are above each of the low thresholds
    unsupported_MC: Tensor | None  # the probability of the unsupported token, where there is one
    sure_MC: Tensor  # whether all that is beyond doubt at the sharp thresholds, `unsupported_MC` at that of interest


class Screen:
    """Asks a question of blocks of rows, in memory that is taken once: new pages cost more than what fills them."""

    def __init__(
        self, matrix_MDU: Tensor, vocab_size: int, question: Question, *, rows: int, dtype: torch.dtype = torch.float32
    ) -> None:
        """`matrix_MDU`: from hidden states to logits, in float64. `rows`: of a piece, at most."""
        self._operand = Operand.of(matrix_MDU, dtype)
        self._vocab_size = vocab_size
        self._question = question
        (M, _, U), room = matrix_MDU.shape, -(-rows // TILE) * TILE
        self._logits = torch.empty(M * room * U, dtype=dtype, device=matrix_MDU.device)

    def read(self, hidden_MCD: Tensor, pieces: Sequence[tuple[slice, Spot]], observed: Observed) -> Screened:
        """Answer the question for the rows of a block, piece by piece; what is watched is written into `observed`."""
        asked = self._question
        margin = margin_of(hidden_MCD, self._operand, asked.deepest)
        low_MCD = hidden_MCD.to(self._operand.rounded_MDU.dtype)
        if beyond := -hidden_MCD.shape[1] % TILE:
            low_MCD = F.pad(low_MCD, (0, 0, 0, beyond))
        with true_float32():
            read = [self._piece(low_MCD, margin.of(piece), piece, spot, observed) for piece, spot in pieces]
        top_MC, entries_MCT, unsupported_MC, sure_MC = (torch.cat(parts, dim=1) for parts in zip(*read, strict=True))
        has_unsupported = bool(unsupported_MC.numel())
        sure_MC &= asked.is_answered(margin, top_MC.log(), unsupported_MC.log() if has_unsupported else None)
        return Screened(top_MC, entries_MCT, unsupported_MC if has_unsupported else None, sure_MC)

    def _piece(
        self, low_MCD: Tensor, margin: Margin, piece: slice, spot: Spot, observed: Observed
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the fields of `Screened` for some rows of a block; what the top alone says is not yet in doubt."""
        asked = self._question
        (M, C), U = margin.odds_MC.shape, self._operand.rounded_MDU.shape[2]
        low_MCD = low_MCD[:, piece.start : piece.stop + -C % TILE]
        room = self._logits[: M * low_MCD.shape[1] * U].view(M, -1, U)
        logits_MCU = torch.matmul(low_MCD, self._operand.rounded_MDU, out=room)[:, :C]
        # In place, since memory costs time: 2^(l - max), 1 for the top token, whose probability is 1 / sum.
        below_MCU = logits_MCU.sub_(logits_MCU.amax(-1, keepdim=True))
        member_M1 = torch.arange(M, device=below_MCU.device)[:, None]
        below_MQ = below_MCU[member_M1, spot.row_MQ, spot.token_MQ] * _LN2
        share_MCU = power_(below_MCU)
        sum_MC = share_MCU.sum(-1)
        share_MCV, unsupported_MCX = share_MCU[..., : self._vocab_size], share_MCU[..., self._vocab_size :]
        unsupported_MC = (unsupported_MCX / sum_MC[..., None]).flatten(1)  # empty where there is no such token
        top_MC = (share_MCV.amax(-1) if unsupported_MC.numel() else 1) / sum_MC
        sure_MC = top_MC >= 0
        entries_MCT = torch.zeros(M, C, len(asked.low), dtype=torch.int64, device=sum_MC.device)
        if asked.low:
            entries_MCT, is_answered_MC = _entries_above(share_MCV, sum_MC, margin, asked)
            sure_MC &= is_answered_MC
        if below_MQ.shape[1]:
            sure_MC &= _watch(share_MCU, sum_MC, margin, below_MQ, spot, observed, asked.threshold)
        return top_MC, entries_MCT, unsupported_MC, sure_MC


def _entries_above(share_MCV: Tensor, sum_MC: Tensor, margin: Margin, asked: Question) -> tuple[Tensor, Tensor]:
    """Return how many entries of each row are above each low threshold, [M, C, T], and where this is beyond doubt.

    Of a row at most 1 / t entries are above t, and in a model that has learnt its data far fewer: those that may be
    above the lowest threshold are picked out in one pass, and only they are compared with all. Whether a row's margin
    reaches below half of that threshold is not looked at any closer: it is in doubt.
    """
    (M, C, V), lowest = share_MCV.shape, asked.low[0]
    least_MC = margin.maybe_above(lowest).exp()
    sure_MC = least_MC >= lowest / 2
    bar_MC = sum_MC * least_MC.clamp_min(lowest / 2)
    place_N = _places_above(share_MCV, bar_MC[..., None], most=M * C * min(V, math.floor(2 / lowest) + 1))
    share_E, sum_R, T = share_MCV.flatten(), sum_MC.flatten(), len(asked.low)
    low_T = constants(tuple(asked.low), share_E.device)
    passed_RX = torch.zeros(M * C, T + 1, dtype=torch.int64, device=share_E.device)
    unsure_R = torch.zeros(M * C, dtype=torch.int64, device=share_E.device)
    for part_N in torch.split(place_N, max(1, share_E.numel() // 16)):
        row_N = part_N.clamp_min(0) // V
        p_N = torch.where(part_N >= 0, share_E[part_N] / sum_R[row_N], 0.0)
        passed_N = torch.bucketize(p_N.double(), low_T)  # how many thresholds it is above
        passed_RX.view(-1).scatter_add_(0, row_N * (T + 1) + passed_N, torch.ones_like(row_N))
        of_row = Margin(margin.odds_MC.flatten()[row_N], margin.share_MC.flatten()[row_N])
        for t in asked.sharp.intersection(asked.low):
            unsure_R.scatter_add_(0, row_N, (~of_row.is_sure(p_N.log(), t)).long())
    entries_RT = passed_RX[:, 1:].flip(1).cumsum(1).flip(1)
    return entries_RT.view(M, C, T), sure_MC & (unsure_R == 0).view(M, C)


def _places_above(share: Tensor, bar: Tensor, *, most: int) -> Tensor:
    """Return where a tensor is greater than another, as places in it when flattened, [N].

    Where nobody may wait to know how many these are, there are `most` of them, and -1 stands for those that are not.
    """
    if may_wait(share.device):  # numpy compares in a seventh of torch's time, and finds in a quarter
        return torch.from_numpy(np.flatnonzero(share.numpy() > bar.numpy()))
    return torch.nonzero_static((share > bar).flatten(), size=most)[:, 0]


def _watch(
    share_MCU: Tensor,
    sum_MC: Tensor,
    margin: Margin,
    below_MQ: Tensor,
    spot: Spot,
    observed: Observed,
    threshold: float,
) -> Tensor:
    """Write down what is watched in a block; return where this is beyond doubt, [M, C]. `share_MCU` is used up.

    `below_MQ`: the logits of the watched n-grams less the greatest of their rows, in nats.
    """
    # The sum of all shares but the top's, beside which float32 would round them off, and but those of its rivals,
    # each of which takes nearly 1 from the sum.
    others_MC = -F.threshold(share_MCU.neg_(), -_RIVAL, 0.0, inplace=True).sum(-1)
    has_rival_MC = sum_MC - 1 - others_MC > 0.5
    log_sum_MC = torch.where(has_rival_MC, sum_MC.log(), others_MC.log1p())
    log_p_MQ, bar = below_MQ - log_sum_MC.gather(1, spot.row_MQ), math.log(threshold)
    observed.write(spot, log_p_MQ, log_p_MQ > bar, below_MQ == 0)
    # Whether a ranked n-gram's token is the most probable one is in doubt where it may be, and another may be too;
    # never where some token surely has more than half.
    error_MC = margin.nats_MC
    has_rival_MC = (has_rival_MC | (error_MC > -math.log(_RIVAL))) & (log_sum_MC >= math.log(2) - error_MC)
    near_MQ = spot.ranked_MQ & (below_MQ >= -error_MC.gather(1, spot.row_MQ))
    # Where a row is sure it still is another sum, rounded in another way, that is compared here.
    unsure_MQ = (near_MQ & has_rival_MC.gather(1, spot.row_MQ)) | (
        (log_p_MQ - bar).abs() <= margin.share_MC.gather(1, spot.row_MQ)
    )
    return ~spot.rows_with(unsure_MQ, sum_MC.shape[1])
