"""Contexts and n-grams that the stream tells apart while it passes them: those that truth names and no data shows.

They are many (a world may know what is right everywhere), and the stream computes their rows anyway; reading them again
one by one would cost several times what the stream costs.

Letters: `M` member, `C` watched context, `Q` watched n-gram, `K` either of them, `B` block, or place in the buffer of
rows in doubt, `n` order, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Contexts

__all__ = ["Layout", "Observed", "Spot", "Watched", "watch"]


@dataclass(frozen=True, eq=False)
class Layout:
    """The items of every member in the order in which blocks pass them, each block's padded to those of all members."""

    item_MK: Tensor  # which of a member's items stands at a place; -1 for padding
    ends: list[int]  # of each block: where its items end

    @classmethod
    def of(cls, block_K: Sequence[Tensor], num_blocks: int) -> Layout:
        """Return the layout of items that lie in these blocks, [K] for each member.

        Example: with items in the blocks (1, 0, 1) and (1) of two blocks, the places hold the items (1, 0, 2) of the
        first member and (-1, 0, -1) of the second; the blocks end at the places 1 and 3.
        """
        count_MB = torch.stack([torch.bincount(blocks, minlength=num_blocks) for blocks in block_K])
        end_B = count_MB.amax(0).cumsum(0)
        begin_B = end_B - count_MB.amax(0)
        item_MK = torch.full((len(block_K), int(end_B[-1])), -1, dtype=torch.int64)
        for member, blocks in enumerate(block_K):
            sorted_K, order_K = blocks.sort(stable=True)
            rank_K = torch.arange(len(blocks)) - (count_MB[member].cumsum(0) - count_MB[member])[sorted_K]
            item_MK[member, begin_B[sorted_K] + rank_K] = order_K
        return cls(item_MK, end_B.tolist())

    def arranged(self, value_K: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return what every member's items have, [K] each, in the order of the layout, [M, K]; 0 for padding."""
        value_MK = torch.zeros(self.item_MK.shape, dtype=value_K[0].dtype)
        for member, values in enumerate(value_K):
            present_K = self.item_MK[member] >= 0
            value_MK[member, present_K] = values[self.item_MK[member, present_K]]
        return value_MK.to(device)


@dataclass(frozen=True, eq=False)
class Spot:
    """What is watched in one block; padding points at its first row and token."""

    context_span: slice  # its places in the layout of the contexts
    context_row_MC: Tensor  # row of the block
    span: slice  # its places in the layout of the n-grams
    row_MQ: Tensor
    token_MQ: Tensor
    ranked_MQ: Tensor


@dataclass(frozen=True, eq=False)
class Watched:
    """Where the blocks of a stream have what is watched, in the order of two layouts."""

    contexts: Layout
    ngrams: Layout
    context_row_MC: Tensor  # row of its block
    row_MQ: Tensor
    token_MQ: Tensor
    ranked_MQ: Tensor  # whether it has to be known exactly if the token is the most probable one

    def spots(self) -> Iterator[Spot]:
        """Yield what is watched in each block, as `Contexts.blocks` yields the blocks."""
        first, begin = 0, 0
        for beyond, end in zip(self.contexts.ends, self.ngrams.ends, strict=True):
            part, span = slice(first, beyond), slice(begin, end)
            yield Spot(
                part,
                self.context_row_MC[:, part],
                span,
                self.row_MQ[:, span],
                self.token_MQ[:, span],
                self.ranked_MQ[:, span],
            )
            first, begin = beyond, end


def watch(
    considered: Contexts,
    rows_at_once: int,
    contexts: Sequence[Tensor],
    ngrams: Sequence[Tensor],
    ranked: Sequence[Tensor],
) -> Watched:
    """Return where `considered.blocks(rows_at_once)` pass contexts [C, n-1] and n-grams [Q, n] of every member.

    `ranked`: [Q] of every member, as in `Watched`.
    """
    device, blocks = considered.total_M.device, considered.num_blocks(rows_at_once)
    context_places = [considered.locate(m, listed, rows_at_once) for m, listed in enumerate(contexts)]
    places = [considered.locate(m, listed[:, :-1], rows_at_once) for m, listed in enumerate(ngrams)]
    of_contexts = Layout.of([block for block, _ in context_places], blocks)
    of_ngrams = Layout.of([block for block, _ in places], blocks)
    return Watched(
        contexts=of_contexts,
        ngrams=of_ngrams,
        context_row_MC=of_contexts.arranged([row for _, row in context_places], device),
        row_MQ=of_ngrams.arranged([row for _, row in places], device),
        token_MQ=of_ngrams.arranged([listed[:, -1] for listed in ngrams], device),
        ranked_MQ=of_ngrams.arranged(ranked, device),
    )


@dataclass(eq=False)
class Observed:
    """What a stream saw of the watched contexts and n-grams, in the order of their layouts."""

    above_MC: Tensor  # tokens of each context with a probability above the threshold; exact
    is_above_MQ: Tensor  # whether each n-gram's last token is above it; exact
    is_top_MQ: Tensor  # whether that is the most probable token; exact where `ranked_MQ`
    log_p_MQ: Tensor  # in float32, but in float64 for rows in doubt
    _token_MQ: Tensor
    _slot_MC: Tensor  # where the context's row is put aside to be decided; the last place, which is none, for most
    _slot_MQ: Tensor

    @classmethod
    def of(cls, watched: Watched, buffer: int) -> Observed:
        """Return where a stream that puts aside at most `buffer` rows can write."""
        row_MC, row_MQ = watched.context_row_MC, watched.row_MQ
        return cls(
            above_MC=torch.zeros_like(row_MC),
            is_above_MQ=torch.zeros_like(row_MQ, dtype=torch.bool),
            is_top_MQ=torch.zeros_like(row_MQ, dtype=torch.bool),
            log_p_MQ=torch.zeros_like(row_MQ, dtype=torch.float64),
            _token_MQ=watched.token_MQ,
            _slot_MC=torch.full_like(row_MC, buffer),
            _slot_MQ=torch.full_like(row_MQ, buffer),
        )

    def write(self, spot: Spot, log_p_MQ: Tensor, is_above_MQ: Tensor, is_top_MQ: Tensor) -> None:
        """Note what float32 says of the n-grams of a block."""
        self.log_p_MQ[:, spot.span] = log_p_MQ
        self.is_above_MQ[:, spot.span] = is_above_MQ
        self.is_top_MQ[:, spot.span] = is_top_MQ

    def mark(self, spot: Spot, above_MC: Tensor, slot_MC: Tensor) -> None:
        """Note how many tokens of a block's rows are above the threshold, and where rows in doubt are put aside."""
        if spot.context_row_MC.shape[1]:
            self.above_MC[:, spot.context_span] = above_MC.long().gather(1, spot.context_row_MC)
            self._slot_MC[:, spot.context_span] = slot_MC.gather(1, spot.context_row_MC)
        if spot.row_MQ.shape[1]:
            self._slot_MQ[:, spot.span] = slot_MC.gather(1, spot.row_MQ)

    def decide(
        self, begin: int, above_MB: Tensor, logits_MBU: Tensor, probability_MBU: Tensor, threshold: float
    ) -> None:
        """Put what float64 says about rows put aside, those from `begin` on, in the place of what float32 said."""
        rows, U = logits_MBU.shape[1:]
        if self._slot_MC.shape[1]:
            inside_MC = (self._slot_MC >= begin) & (self._slot_MC < begin + rows)
            decided_MC = above_MB.gather(1, torch.where(inside_MC, self._slot_MC - begin, 0))
            self.above_MC = torch.where(inside_MC, decided_MC, self.above_MC)
        if self._slot_MQ.shape[1]:
            inside_MQ = (self._slot_MQ >= begin) & (self._slot_MQ < begin + rows)
            row_MQ = torch.where(inside_MQ, self._slot_MQ - begin, 0)
            flat_MQ = row_MQ * U + self._token_MQ
            log_p_MQ = torch.log_softmax(logits_MBU, dim=-1).flatten(1).gather(1, flat_MQ)
            is_above_MQ = probability_MBU.flatten(1).gather(1, flat_MQ) > threshold
            is_top_MQ = logits_MBU.argmax(-1).gather(1, row_MQ) == self._token_MQ
            self.log_p_MQ = torch.where(inside_MQ, log_p_MQ, self.log_p_MQ)
            self.is_above_MQ = torch.where(inside_MQ, is_above_MQ, self.is_above_MQ)
            self.is_top_MQ = torch.where(inside_MQ, is_top_MQ, self.is_top_MQ)
