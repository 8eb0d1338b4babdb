"""Contexts and n-grams that the stream tells apart while it passes them: those that are known and no data shows.

They are many (a world may know what is right everywhere), and the stream computes their rows anyway; reading them again
one by one would cost several times what the stream costs.

Letters: `M` member, `C` watched context, `Q` watched n-gram, `K` either of them, `B` block, or place in the buffer of
rows in doubt, `R` watched n-gram that may be in such a row, `n` order, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.artifacts.contexts import Contexts, Sizes, may_wait
from tc_sweeps.corpus.tensor import distinct_rows

__all__ = ["Doubtful", "Layout", "Observed", "Spot", "Watched", "watch"]


@dataclass(frozen=True, eq=False)
class Layout:
    """The items of every member in the order in which pieces pass them, each piece's padded to those of all members."""

    item_MK: Tensor  # which of a member's items stands at a place; -1 for padding
    ends: list[int]  # of each piece: where its items end

    @classmethod
    def of(cls, piece_K: Sequence[Tensor], num_pieces: int) -> Layout:
        """Return the layout of items that lie in these pieces, [K] for each member.

        Example: with items in the pieces (1, 0, 1) and (1) of two pieces, the places hold the items (1, 0, 2) of the
        first member and (-1, 0, -1) of the second; the pieces end at the places 1 and 3.
        """
        count_MB = torch.stack([torch.bincount(pieces, minlength=num_pieces) for pieces in piece_K])
        end_B = count_MB.amax(0).cumsum(0)
        begin_B = end_B - count_MB.amax(0)
        item_MK = torch.full((len(piece_K), int(end_B[-1])), -1, dtype=torch.int64)
        for member, pieces in enumerate(piece_K):
            sorted_K, order_K = pieces.sort(stable=True)
            rank_K = torch.arange(len(pieces)) - (count_MB[member].cumsum(0) - count_MB[member])[sorted_K]
            item_MK[member, begin_B[sorted_K] + rank_K] = order_K
        return cls(item_MK, end_B.tolist())

    def arranged(self, value_K: Sequence[Tensor], device: torch.device) -> Tensor:
        """Return what every member's items have, [K] each, in the order of the layout, [M, K]; 0 for padding."""
        padded = [F.pad(values, (0, 1)) for values in value_K]  # item -1 is the zero at the end
        return torch.stack([values[item_K] for values, item_K in zip(padded, self.item_MK, strict=True)]).to(device)


@dataclass(frozen=True, eq=False)
class Spot:
    """What is watched in one piece of a block; padding points at its first row and token."""

    context_span: slice  # its places in the layout of the contexts
    context_row_MC: Tensor  # row of the piece
    span: slice  # its places in the layout of the n-grams
    row_MQ: Tensor
    token_MQ: Tensor
    ranked_MQ: Tensor

    @classmethod
    def joined(cls, pieces: Sequence[tuple[slice, Spot]]) -> Spot:
        """Return what is watched in a block whose pieces these are, one after the other."""
        spots = [spot for _, spot in pieces]
        return cls(
            slice(spots[0].context_span.start, spots[-1].context_span.stop),
            torch.cat([spot.context_row_MC + piece.start for piece, spot in pieces], dim=1),
            slice(spots[0].span.start, spots[-1].span.stop),
            torch.cat([spot.row_MQ + piece.start for piece, spot in pieces], dim=1),
            torch.cat([spot.token_MQ for spot in spots], dim=1),
            torch.cat([spot.ranked_MQ for spot in spots], dim=1),
        )

    def rows_with(self, flag_MQ: Tensor, rows: int) -> Tensor:
        """Return which of so many rows have a flagged n-gram, [M, C]."""
        found_MC = torch.zeros(len(flag_MQ), rows, dtype=torch.int64, device=flag_MQ.device)
        return found_MC.scatter_add_(1, self.row_MQ, flag_MQ.long()) > 0


@dataclass(frozen=True, eq=False)
class Watched:
    """Where the pieces of a stream's blocks have what is watched, in the order of two layouts."""

    contexts: Layout
    ngrams: Layout
    sizes: Sizes  # of the blocks and pieces
    context_row_MC: Tensor  # row of its piece
    row_MQ: Tensor
    token_MQ: Tensor
    is_item_MQ: Tensor  # False for padding
    ranked_MQ: Tensor  # whether it has to be known exactly if the token is the most probable one
    most: int  # n-grams of one context, at most

    def spots(self) -> Iterator[Spot]:
        """Yield what is watched in each piece of each block, as `Contexts.blocks` yields the blocks."""
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
    sizes: Sizes,
    contexts: Sequence[Tensor],
    ngrams: Sequence[Tensor],
    ranked: Sequence[Tensor],
) -> Watched:
    """Return where the considered blocks of such sizes pass contexts [C, n-1] and n-grams [Q, n] of every member.

    `ranked`: [Q] of every member, as in `Watched`.
    """
    device = considered.total_M.device
    pieces_B = torch.tensor([len(sizes.pieces(rows)) for rows in considered.block_rows(sizes.block)])
    first_B, pieces = pieces_B.cumsum(0) - pieces_B, int(pieces_B.sum())

    def located(member: int, context_Kn: Tensor) -> tuple[Tensor, Tensor]:
        """Return which piece of all has each context, and in which row."""
        block_K, row_K = considered.locate(member, context_Kn, sizes.block)
        return first_B[block_K] + row_K // sizes.piece, row_K % sizes.piece

    context_places = [located(m, listed) for m, listed in enumerate(contexts)]
    places = [located(m, listed[:, :-1]) for m, listed in enumerate(ngrams)]
    of_contexts = Layout.of([piece for piece, _ in context_places], pieces)
    of_ngrams = Layout.of([piece for piece, _ in places], pieces)
    return Watched(
        contexts=of_contexts,
        ngrams=of_ngrams,
        sizes=sizes,
        context_row_MC=of_contexts.arranged([row for _, row in context_places], device),
        row_MQ=of_ngrams.arranged([row for _, row in places], device),
        token_MQ=of_ngrams.arranged([listed[:, -1] for listed in ngrams], device),
        is_item_MQ=(of_ngrams.item_MK >= 0).to(device),
        ranked_MQ=of_ngrams.arranged(ranked, device),
        most=max((int(distinct_rows(listed[:, :-1])[2].max()) for listed in ngrams if len(listed)), default=0),
    )


@dataclass(eq=False)
class Observed:
    """What a stream saw of the watched contexts and n-grams, in the order of their layouts.

    Exact for members whose rows in doubt are decided.
    """

    above_MC: Tensor  # tokens of each context with a probability above the threshold
    is_above_MQ: Tensor  # whether each n-gram's last token is above it
    is_top_MQ: Tensor  # whether that is the most probable token; exact where `ranked_MQ`
    log_p_MQ: Tensor  # as float32 has the logits, but in float64 for rows in doubt
    _watched: Watched
    _slot_MC: Tensor  # where the context's row is put aside to be decided; beyond the buffer where it is not in doubt
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
            _watched=watched,
            _slot_MC=torch.full_like(row_MC, buffer),
            _slot_MQ=torch.full_like(row_MQ, buffer),
        )

    def write(self, spot: Spot, log_p_MQ: Tensor, is_above_MQ: Tensor, is_top_MQ: Tensor) -> None:
        """Note what the screen says of the n-grams of a piece."""
        self.log_p_MQ[:, spot.span] = log_p_MQ
        self.is_above_MQ[:, spot.span] = is_above_MQ
        self.is_top_MQ[:, spot.span] = is_top_MQ

    def mark(self, spot: Spot, above_MC: Tensor, slot_MC: Tensor) -> None:
        """Note how many tokens of a piece's rows are above the threshold, and where rows in doubt are put aside."""
        if spot.context_row_MC.shape[1]:
            self.above_MC[:, spot.context_span] = above_MC.long().gather(1, spot.context_row_MC)
            self._slot_MC[:, spot.context_span] = slot_MC.gather(1, spot.context_row_MC)
        if spot.row_MQ.shape[1]:
            self._slot_MQ[:, spot.span] = slot_MC.gather(1, spot.row_MQ)

    def doubtful(self, buffer: int) -> Doubtful:
        """Return the n-grams in rows that are put aside, and others up to as many as there could be."""
        slot_MQ = torch.where(self._watched.is_item_MQ, self._slot_MQ, buffer)
        most = min(slot_MQ.shape[1], buffer * self._watched.most)
        if may_wait(slot_MQ.device):
            most = int((slot_MQ < buffer).sum(1).max())
        slot_MR, place_MR = slot_MQ.topk(most, dim=1, largest=False, sorted=False)
        return Doubtful(
            place_MR=place_MR,
            slot_MR=slot_MR,
            token_MR=self._watched.token_MQ.gather(1, place_MR),
            is_above_MR=self.is_above_MQ.gather(1, place_MR),
            is_top_MR=self.is_top_MQ.gather(1, place_MR),
            log_p_MR=self.log_p_MQ.gather(1, place_MR),
            above_MB=[],
        )

    def settle(self, decided: Doubtful) -> None:
        """Put what was decided in the place of what float32 said."""
        self.is_above_MQ.scatter_(1, decided.place_MR, decided.is_above_MR)
        self.is_top_MQ.scatter_(1, decided.place_MR, decided.is_top_MR)
        self.log_p_MQ.scatter_(1, decided.place_MR, decided.log_p_MR)
        above_MB = torch.cat(decided.above_MB, dim=1)
        is_decided_MC = self._slot_MC < above_MB.shape[1]
        decided_MC = above_MB.gather(1, torch.where(is_decided_MC, self._slot_MC, 0))
        self.above_MC = torch.where(is_decided_MC, decided_MC, self.above_MC)


@dataclass(eq=False)
class Doubtful:
    """The watched n-grams in rows that were put aside; some others are among them, of which nothing is decided."""

    place_MR: Tensor  # in the layout
    slot_MR: Tensor  # where the row is put aside
    token_MR: Tensor
    is_above_MR: Tensor
    is_top_MR: Tensor
    log_p_MR: Tensor
    above_MB: list[Tensor]  # tokens above the threshold of the rows put aside, as far as they are decided

    def decide(
        self, begin: int, above_MB: Tensor, logits_MBU: Tensor, probability_MBU: Tensor, threshold: float
    ) -> None:
        """Take what float64 says about the rows that follow, put aside from `begin` on."""
        self.above_MB.append(above_MB)
        rows, U = logits_MBU.shape[1:]
        inside_MR = (self.slot_MR >= begin) & (self.slot_MR < begin + rows)
        row_MR = torch.where(inside_MR, self.slot_MR - begin, 0)
        flat_MR = row_MR * U + self.token_MR
        log_p_MR = torch.log_softmax(logits_MBU, dim=-1).flatten(1).gather(1, flat_MR)
        is_above_MR = probability_MBU.flatten(1).gather(1, flat_MR) > threshold
        is_top_MR = logits_MBU.argmax(-1).gather(1, row_MR) == self.token_MR
        self.log_p_MR = torch.where(inside_MR, log_p_MR, self.log_p_MR)
        self.is_above_MR = torch.where(inside_MR, is_above_MR, self.is_above_MR)
        self.is_top_MR = torch.where(inside_MR, is_top_MR, self.is_top_MR)
