"""A screen that never has logits in memory: the greatest logit and the log-sum-exp of rows by one fused kernel (CUDA).

`flex_attention` is asked for what it computes on its way: with hidden states as queries and the tokens of the
vocabulary as keys, the greatest score of a row and its log-sum-exp are all that thresholds of at least 1/2 need. The
tensor cores it runs on multiply numbers of 8 bits; each factor is split in two of them.

Letters: `M` member, `C` context of a block, `R` row of the kernel, `D` width, `K` its width, `V` vocabulary, `U` the
vocabulary and the unsupported token, where a model has one; `Q` watched n-gram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.artifacts.screen import TRUNK, Margin, Question, Screened
from tc_sweeps.artifacts.watching import Observed, Spot

__all__ = ["FlexScreen", "Halves", "flex_margin", "lse_and_max"]

_FLOAT32 = torch.finfo(torch.float32)
_UNIT = _FLOAT32.eps / 2
# What adding a term to a sum may lose on a tensor core, as a share of the greatest of them: these align 4 to 16 terms
# to the greatest and cut off what hangs over, of each and of their sum: at most 3 e a term (float32 proper loses e).
_TENSOR_CORE_UNIT = 4 * _UNIT
_TERMS = 16
_LEAST_WIDTH = 16  # of which the kernel is there; further ones are powers of 2
# Three stages of 64 queries and 32 keys of this width take 167 kB of shared memory, and of twice this more than the 228
# KiB that there are.
_MOST_WIDTH = 512
_ROWS = 128  # the kernel reads rows in multiples of this; for fewer another one is taken, which nothing here bounds
_SHAPES = 64  # compiled for one process, at most: each takes seconds


class Halves:
    """Numbers as a sum of two bfloat16, with what is left over, and the lengths of all three in float64.

    Example: 1/3 = 0.333984375 - 0.000650406 - 6.3e-07; lengths of vectors are taken along `dim`.
    """

    def __init__(self, value: Tensor, dim: int) -> None:
        self.first = value.to(torch.bfloat16)
        rest = value - self.first
        self.second = rest.to(torch.bfloat16)
        left = rest - self.second
        parts = value, self.first, self.second, left
        self.length, self.of_first, self.of_second, self.of_left = (part.double().norm(dim=dim) for part in parts)


def flex_margin(
    hidden: Halves, tokens: Halves, lse_MC: Tensor, max_MC: Tensor, *, width: int, vocab_size: int, deepest: float
) -> Margin:
    """Return how far what the kernel says of rows, their log-sum-exp and greatest logit, can be from float64.

    With h = h1 + h2 + r the hidden state in float64 and u = u1 + u2 + s a token, the kernel is given
    h1 u1 + h1 u2 + h2 u1 = (h1 + h2) (u1 + u2) - h2 u2 as one inner product of 3 D terms, so that by Cauchy-Schwarz

        |l' - l| <= |r| (|u| + |s|) + |h| |s| + |h2| |u2| + (g + 4 e) P + N m,   g = N c / (1 - N c),

    where P = |h1| (|u1| + |u2|) + |h2| |u1| bounds the sum of the terms' sizes, N is 3 D rounded up to what the tensor
    cores add at a time, c what an addition loses there, and e = 2^-24. All lengths are measured. 4 e is for taking
    logits to base 2, by a rounded constant; m, the least normal number, for products below it. (To |r| comes what the
    hidden state may be off in float64, as in `margin_of`.) Log-odds change by at most twice that.

    The sum is kept tile by tile, of 16 to 256 tokens, in whatever order: its relative error is at most
    (262 + 6 V / 16) e for adding within a tile and for the rescaling that each tile brings, (4 + 2 log V) e for the
    powers, as in `margin_of`, where rescaling takes a second share. The logarithm in base 2 adds (4 + 4 log V) e, and
    the rest (20 + 6 |log p|) e as there. The way back to base e, of max and log-sum-exp each by itself, costs
    4 e (|max| + |lse|).
    """
    terms = -(-3 * width // _TERMS) * _TERMS
    gamma = terms * _TENSOR_CORE_UNIT / (1 - terms * _TENSOR_CORE_UNIT)

    def most(length_MV: Tensor) -> Tensor:
        return length_MV.amax(1, keepdim=True)

    u_M1, u1_M1, u2_M1, s_M1 = map(most, (tokens.length, tokens.of_first, tokens.of_second, tokens.of_left))
    size_MC = hidden.of_first * (u1_M1 + u2_M1) + hidden.of_second * u1_M1
    off_MC = (hidden.of_left + TRUNK * hidden.length) * (u_M1 + s_M1) + hidden.length * s_M1
    off_MC += hidden.of_second * u2_M1 + (gamma + 4 * _UNIT) * size_MC + terms * _FLOAT32.tiny
    share = (290 + 6 / 16 * vocab_size + 6 * math.log(vocab_size) + 6 * deepest) * _UNIT
    return Margin(2 * off_MC * (1 + 1e-6), share + 4 * _UNIT * (lse_MC.abs() + max_MC.abs()))


class FlexScreen:
    """Asks a question, of thresholds of at least 1/2, of blocks of rows; as `Screen`, but a whole block at a time."""

    def __init__(self, matrix_MDU: Tensor, vocab_size: int, question: Question, *, rows: int) -> None:
        """`matrix_MDU`: from hidden states to logits, in float64. `rows`: of a block, at most."""
        if question.low:
            raise ValueError(f"The greatest entry of a row says nothing about the threshold {question.low[0]}.")
        self._matrix_MDU = matrix_MDU
        self._vocab_size = vocab_size
        self._question = question
        self._rows = -(-rows // _ROWS) * _ROWS
        self._width = max(_LEAST_WIDTH, 1 << (3 * matrix_MDU.shape[1] - 1).bit_length())
        if self._width > _MOST_WIDTH:
            raise ValueError(
                f"artifacts.engine=flex holds models of a width up to {_MOST_WIDTH // 3}: "
                "artifacts.engine=chunked counts the same at any."
            )
        self._tokens = Halves(matrix_MDU.mT, dim=-1)
        first_MVD, second_MVD = (half_MUD[:, :vocab_size] for half_MUD in (self._tokens.first, self._tokens.second))
        self._key_M1VK = self._padded((first_MVD, second_MVD, first_MVD), vocab_size)

    def _padded(self, parts: Sequence[Tensor], rows: int) -> Tensor:
        """Return an operand of the kernel, [M, 1, rows, K]; what is added is zero."""
        side_by_side = torch.cat(list(parts), dim=-1)
        beyond = self._width - side_by_side.shape[2], rows - side_by_side.shape[1]
        return F.pad(side_by_side, (0, beyond[0], 0, beyond[1]))[:, None]

    def read(self, hidden_MCD: Tensor, pieces: Sequence[tuple[slice, Spot]], observed: Observed) -> Screened:
        """Answer the question for the rows of a block; what is watched is written into `observed`."""
        asked, C = self._question, hidden_MCD.shape[1]
        hidden = Halves(hidden_MCD, dim=-1)
        query_M1RK = self._padded((hidden.first, hidden.first, hidden.second), self._rows)
        lse_MC, max_MC = (found_M1R[:, 0, :C].double() for found_M1R in lse_and_max(query_M1RK, self._key_M1VK))
        margin = flex_margin(
            hidden,
            self._tokens,
            lse_MC,
            max_MC,
            width=hidden_MCD.shape[2],
            vocab_size=self._vocab_size,
            deepest=asked.deepest,
        )
        log_unsupported_MC, best_MC = None, max_MC
        if self._matrix_MDU.shape[2] > self._vocab_size:
            logit_MC = (hidden_MCD @ self._matrix_MDU[..., self._vocab_size :])[..., 0]
            lse_MC = torch.logaddexp(lse_MC, logit_MC)
            log_unsupported_MC, best_MC = logit_MC - lse_MC, torch.maximum(max_MC, logit_MC)
        log_top_MC = max_MC - lse_MC
        sure_MC = asked.is_answered(margin, log_top_MC, log_unsupported_MC)
        spot = Spot.joined(pieces)
        if spot.row_MQ.shape[1]:
            sure_MC &= self._watch(hidden_MCD, lse_MC, best_MC, log_top_MC, margin, spot, observed)
        entries_MCT = torch.zeros(*sure_MC.shape, 0, dtype=torch.int64, device=sure_MC.device)
        unsupported_MC = None if log_unsupported_MC is None else log_unsupported_MC.exp()
        return Screened(log_top_MC.exp(), entries_MCT, unsupported_MC, sure_MC)

    def _watch(
        self,
        hidden_MCD: Tensor,
        lse_MC: Tensor,
        best_MC: Tensor,
        log_top_MC: Tensor,
        margin: Margin,
        spot: Spot,
        observed: Observed,
    ) -> Tensor:
        """Write down what is watched in a block, by inner products in float64; return where it is beyond doubt.

        `best_MC`: the greatest logits, that of an unsupported token among them.
        """
        member_M1 = torch.arange(len(hidden_MCD), device=hidden_MCD.device)[:, None]
        token_MQD = self._matrix_MDU.mT[member_M1, spot.token_MQ]
        logit_MQ = (hidden_MCD[member_M1, spot.row_MQ] * token_MQD).sum(-1)
        # A token may be the most probable one where it is near the greatest logit; no other one is near, and this one
        # is it, where the odds of the greatest are large enough. Above 1/2 can only be the most probable one.
        error_MC = margin.nats_MC
        is_alone_MC = best_MC - lse_MC > F.logsigmoid(2 * error_MC + margin.odds_MC) + margin.share_MC
        lse_MQ, best_MQ, error_MQ, is_alone_MQ, is_above_MQ = (
            value_MC.gather(1, spot.row_MQ)
            for value_MC in (lse_MC, best_MC, error_MC, is_alone_MC, log_top_MC > math.log(self._question.threshold))
        )
        is_near_MQ = logit_MQ >= best_MQ - error_MQ
        log_p_MQ = torch.where(is_near_MQ, best_MQ, logit_MQ) - lse_MQ  # at most 0, as the two are of one sum
        observed.write(spot, log_p_MQ, is_above_MQ & is_near_MQ, is_near_MQ)
        unsure_MQ = is_near_MQ & ~is_alone_MQ & (spot.ranked_MQ | is_above_MQ)
        return ~spot.rows_with(unsure_MQ, hidden_MCD.shape[1])


def lse_and_max(query_M1RK: Tensor, key_M1VK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp and the greatest of the inner products of every query with all keys, [M, 1, R] each.

    Raises RuntimeError rather than have all inner products in memory: on another device than CUDA, where compiling is
    switched off, and where it was compiled for too many shapes.
    """
    if query_M1RK.device.type != "cuda":
        raise RuntimeError(
            "artifacts.engine=flex needs a CUDA device: artifacts.engine=chunked counts the same on any other."
        )
    from torch import _dynamo as dynamo  # takes a second to import, which nobody else needs to wait for

    value_M1VE = key_M1VK.new_zeros(*key_M1VK.shape[:3], _LEAST_WIDTH)  # attention needs one; nobody reads the result
    try:
        with dynamo.config.patch(recompile_limit=_SHAPES):
            found: tuple[Tensor, Tensor] = _compiled()(query_M1RK, key_M1VK, value_M1VE)
    except dynamo.exc.FailOnRecompileLimitHit as error:
        raise RuntimeError(
            f"artifacts.engine=flex was compiled for {_SHAPES} shapes of stacks in one process, and no further one: "
            "artifacts.engine=chunked counts the same without compiling."
        ) from error
    return found


@cache
def _compiled() -> Any:
    """Return the kernel; shapes are pinned, and what does not become one graph is an error, not run op by op."""
    return torch.compile(_attention, fullgraph=True, dynamic=False)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `lse_and_max` asks of `flex_attention`; only ever traced."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    if not torch.compiler.is_dynamo_compiling():
        raise RuntimeError(
            "artifacts.engine=flex has to be compiled, and torch.compile is switched off here: "
            "artifacts.engine=chunked counts the same without compiling."
        )
    # Not scaled before the product, since `flex_margin` bounds what is scaled after it.
    aux = flex_attention(
        query,
        key,
        value,
        scale=1.0,
        kernel_options={"PRESCALE_QK": False},
        return_aux=AuxRequest(lse=True, max_scores=True),
    )[1]
    return aux.lse, aux.max_scores  # type: ignore[return-value]  # both are asked for
