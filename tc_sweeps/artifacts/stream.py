"""The stream over all contexts: how many n-grams a model holds above thresholds, exactly, in bounded memory.

Contexts are a Cartesian product of tokens per place, numbered in mixed radix and visited in chunks; V^n is never in
memory. Entries are compared in float32, with a bound on the error of each row; rows in doubt are put aside and decided
in float64, so that the totals equal a float64 brute force.

Letters: `M` member, `C` context of a chunk, `B` place in the buffer of doubtful rows, `T` threshold, `n` order, `D`
width, `V` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Contexts", "CountedModel", "Operand", "Totals", "chunks", "screened_logits", "stream"]

_UNIT = 2.0**-24  # the unit roundoff of float32
_ENTRIES = {"cpu": 1 << 21, "cuda": 1 << 26}  # entries of a chunk: what fits the cache, what fills the device


class CountedModel(Protocol):
    """What can be counted: a stack whose logits are a product of a hidden state and a matrix."""

    vocab_size: int

    @property
    def num_members(self) -> int:
        """The number M of models."""
        ...

    def last_hidden(self, contexts_MCm: Tensor) -> Tensor:
        """Return the hidden states at contexts, [M, C, D]."""
        ...

    def unembedding_matrix(self) -> Tensor:
        """Return the matrix from hidden states to logits, [M, D, V]."""
        ...


def chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of consecutive pieces of `0..total-1`."""
    for begin in range(0, total, size):
        yield begin, min(begin + size, total)


class Contexts:
    """The considered contexts of every member: product of the tokens at each place, numbered in mixed radix.

    Example: with tokens {0, 2} at the first place and {1, 3, 4} at the second, the contexts 0..5 are
    (0 1), (0 3), (0 4), (2 1), (2 3), (2 4).
    """

    def __init__(self, places: Sequence[list[Tensor]], device: torch.device) -> None:
        """`places`: per member and place the tokens considered there, as `Corpus.places` gives them."""
        self.sizes = [[len(tokens) for tokens in member] for member in places]
        self.totals = [math.prod(sizes) for sizes in self.sizes]
        self.total = max(self.totals)  # contexts of the largest member; smaller ones are masked
        self.total_M = torch.tensor(self.totals, device=device)
        self.places = len(places[0])
        longest = max(max(sizes) for sizes in self.sizes)
        table = torch.zeros(len(places), self.places, longest, dtype=torch.int64)
        for m, member in enumerate(places):
            for place, tokens in enumerate(member):
                table[m, place, : len(tokens)] = tokens
        self._table_MnS = table.to(device)
        self._size_Mn = torch.tensor(self.sizes, device=device)

    def decode(self, number_MC: Tensor) -> Tensor:
        """Return the contexts with the given numbers, [M, C, n-1]."""
        tokens = []
        rest_MC = number_MC
        for place in reversed(range(self.places)):
            size_M1 = self._size_Mn[:, place, None]
            tokens.append(self._table_MnS[:, place].gather(1, rest_MC % size_M1))
            rest_MC = rest_MC // size_M1
        return torch.stack(tokens[::-1], dim=-1)

    def rows_at_once(self, model: CountedModel, memory_bytes: int) -> int:
        """Return how many contexts a chunk may have: within the memory, and within what the device likes."""
        M, D, V = model.unembedding_matrix().shape
        # Per row: logits and their exponentials in float32; about ten float64 vectors of the width per token.
        row_bytes = M * (V * (4 + 4 + 1) + D * 8 * 10 * (self.places + 1))
        liked = _ENTRIES.get(self.total_M.device.type, _ENTRIES["cuda"]) // (M * V)
        return max(1, min(self.total, liked, memory_bytes // row_bytes))


@dataclass(frozen=True, eq=False)
class Totals:
    """Counts over all considered contexts, training n-grams among them; int64 on the device."""

    above_MT: Tensor  # n-grams with a probability above each threshold
    confident_M: Tensor  # contexts with a token above the model's threshold of interest
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
) -> Totals:
    """Return how many n-grams over the considered contexts have a probability strictly above each threshold.

    `thresholds` increase. `model` holds the weights in float64. `exact`: the thresholds whose counts equal a float64
    brute force; at the others a row that float32 rounds to the wrong side counts there. `threshold` is always exact.
    Thresholds of at least 1/2 only need the greatest probability of a row, lower ones every entry.

    The totals are right only where `doubtful_M` is at most `buffer`; no synchronisation.
    """
    M, device = model.num_members, contexts.total_M.device
    matrix_MDV = model.unembedding_matrix()
    operand = Operand.of(matrix_MDV)

    high = [t for t in thresholds if t >= 0.5]
    low = [t for t in thresholds if t < 0.5]
    log_high_T = _constants(tuple(math.log(t) for t in high), device)
    sharp = set(exact) | {threshold}
    log_sharp_high_T = _constants(tuple(math.log(t) for t in sharp if t >= 0.5 or t == threshold), device)
    deepest = -math.log(min(*thresholds, threshold))

    high_MT = torch.zeros(M, len(high), dtype=torch.int64, device=device)
    low_MT = torch.zeros(M, len(low), dtype=torch.int64, device=device)
    confident_M = torch.zeros(M, dtype=torch.int64, device=device)
    doubtful_M = torch.zeros(M, dtype=torch.int64, device=device)
    aside_MB = torch.zeros(M, buffer + 1, dtype=torch.int64, device=device)  # the last place is for what is not kept

    for begin, end in chunks(contexts.total, rows_at_once):
        number_C = torch.arange(begin, end, device=device)
        valid_MC = number_C < contexts.total_M[:, None]
        hidden_MCD = model.last_hidden(contexts.decode(number_C.expand(M, -1)))
        logits_MCV, error_MC = screened_logits(hidden_MCD, operand, deepest)
        # From here on: logits less their row's maximum, so that log p = logit - log_sum and log p_max = -log_sum.
        logits_MCV -= logits_MCV.amax(-1, keepdim=True)
        scratch_MCV = logits_MCV.exp()
        log_sum_MC = scratch_MCV.sum(-1).log()
        top_MC = -log_sum_MC

        # What float32 cannot hold is NaN here and has to be in doubt: hence "not sure" rather than "unsure".
        doubt_MC = ~((top_MC[..., None] - log_sharp_high_T).abs() > error_MC[..., None]).all(-1)
        for t in low:
            if t in sharp:
                bar_MC = log_sum_MC + math.log(t)
                surely_MC = _count_above(logits_MCV, bar_MC + error_MC, scratch_MCV)
                doubt_MC |= surely_MC != _count_above(logits_MCV, bar_MC - error_MC, scratch_MCV)
        doubt_MC &= valid_MC
        counted_MC = valid_MC & ~doubt_MC

        top_MC = torch.where(counted_MC, top_MC, -torch.inf)
        confident_M += (top_MC > math.log(threshold)).sum(1)
        high_MT += (top_MC[..., None] > log_high_T).sum(1)
        bar_MC = torch.where(counted_MC, log_sum_MC, torch.inf)
        for place, t in enumerate(low):
            low_MT[:, place] += _count_above(logits_MCV, bar_MC + math.log(t), scratch_MCV).sum(1)

        rank_MC = doubtful_M[:, None] + doubt_MC.cumsum(1) - 1
        slot_MC = torch.where(doubt_MC & (rank_MC < buffer), rank_MC, buffer)
        aside_MB.scatter_(1, slot_MC, number_C.expand(M, -1))
        doubtful_M += doubt_MC.sum(1)

    above_MT = torch.cat([low_MT, high_MT], dim=1)
    for begin, end in chunks(buffer, max(1, rows_at_once // 2)):
        hidden_MBD = model.last_hidden(contexts.decode(aside_MB[:, begin:end]))
        probability_MBV = torch.softmax(hidden_MBD @ matrix_MDV, dim=-1)
        kept_MB = torch.arange(begin, end, device=device) < doubtful_M[:, None]
        probability_MBV = torch.where(kept_MB[..., None], probability_MBV, 0.0)
        above_MT += torch.stack([(probability_MBV > t).sum((1, 2)) for t in thresholds], dim=1)
        confident_M += (probability_MBV > threshold).any(-1).sum(1)
    return Totals(above_MT, confident_M, doubtful_M)


def _count_above(logits_MCV: Tensor, bar_MC: Tensor, scratch_MCV: Tensor) -> Tensor:
    """Return how many entries of each row are above its bar, [M, C].

    Ones and zeros are written over `scratch_MCV` and added up in float32: exact below 2^24, and vectorised on a CPU,
    which adding up booleans is not.
    """
    return torch.gt(logits_MCV, bar_MC[..., None], out=scratch_MCV).sum(-1).long()


@cache
def _constants(values: tuple[float, ...], device: torch.device) -> Tensor:
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

    by Cauchy-Schwarz: the first two terms are measured roundings of the operands, the third bounds an inner product of
    D terms summed in any order. log p = l - log sum exp l changes by at most twice that. On top come the roundings of
    l - max, exp, the sum of V terms, log and the comparison. The relative error of the sum is at most (V + 4 + log V)
    e: V for adding, 4 for exp, and log V because the roundings of l - max, weighed by the terms they belong to, are at
    most e times the mean of |l - max| under the softmax, which is at most its entropy. The rest is within
    (16 + 4 |log p|) e, where |log p| is at most `deepest`, all that is compared. Products must be those of float32,
    not of TF32.
    """
    hidden = hidden_MCD.float()
    D, V = operand.rounded_MDV.shape[1:]
    length_M1, rounding_M1 = operand.length_M[:, None], operand.rounding_M[:, None]
    gamma = D * _UNIT / (1 - D * _UNIT)
    length_MC = hidden.double().norm(dim=-1)
    operand_MC = (hidden_MCD - hidden).norm(dim=-1) * length_M1
    logit_MC = operand_MC + hidden_MCD.norm(dim=-1) * rounding_M1 + gamma * length_MC * length_M1
    error_MC = 2 * logit_MC + (V + 20 + math.log(V) + 4 * deepest) * _UNIT
    return hidden @ operand.rounded_MDV, (error_MC * (1 + 1e-6)).float()
