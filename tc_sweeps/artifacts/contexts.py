"""Which contexts are considered, and in which blocks they are visited.

Contexts are a Cartesian product of tokens per place, visited in blocks of that product, whose parts share work; V^n is
never in memory.

Letters: `M` member, `P` head of a context (all its tokens but the last), `S` token at a place, `C` context of a block,
`n` and `m` tokens of a context, `B` piece of the heads or of the last tokens, `D` width, `U` the vocabulary and any
unsupported token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.corpus.randomness import judged
from tc_sweeps.model import CountedModel

__all__ = ["TILE", "Block", "Contexts", "Sizes", "chunks", "may_wait"]

# Rows are read in multiples of this: a product of matrices adds up its last odd rows in another order, and which rows
# these are would depend on the blocks, and so on the stack that a member is in.
TILE = 16

# Entries of a piece's logits, and rows of a block, over all members. On a CPU: what stays in the cache beside another
# core's, and enough rows to share the cost of asking for them. On CUDA: what fills the device.
_LIKED = {"cpu": (1 << 21, 1 << 14), "cuda": (1 << 26, 1 << 20)}


def chunks(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of consecutive pieces of `0..total-1`, none longer than `size` and all about as long."""
    pieces = -(-total // size)
    for piece in range(pieces):
        yield piece * total // pieces, (piece + 1) * total // pieces


def may_wait(device: torch.device) -> bool:
    """Return whether sizes can depend on values: only on a CPU, since a device would have to be waited for."""
    return device.type == "cpu"


@dataclass(frozen=True)
class Sizes:
    """How many contexts, at most, are looked at together."""

    block: int  # whose hidden states are computed at once
    piece: int  # of a block, whose logits are: V times as much memory, which should stay in a cache

    def pieces(self, rows: int) -> list[slice]:
        """Return the pieces of a block of so many rows; all but the last are full."""
        return [slice(begin, min(begin + self.piece, rows)) for begin in range(0, rows, self.piece)]


@dataclass(frozen=True, eq=False)
class Block:
    """Some heads of contexts times some last tokens: the contexts `C` in the order (head, last token)."""

    head_MPm: Tensor
    last_MS: Tensor
    number_C: Tensor
    valid_MC: Tensor  # False where a member has fewer contexts than others

    def hidden(self, model: CountedModel) -> Tensor:
        """Return the hidden states at the contexts of the block, [M, C, D]."""
        return model.product_hidden(self.head_MPm, self.last_MS).flatten(1, 2)

    def judged(self, seed_M: Tensor) -> Tensor:
        """Return whether the contexts of the block belong to the judge's half, [M, C]."""
        return judged(seed_M[:, None, None], self.head_MPm[:, :, None], self.last_MS[:, None]).flatten(1)


class Contexts:
    """The considered contexts of every member: the product of the tokens at each place, numbered in mixed radix.

    Example: with tokens {0, 2} at the first place and {1, 3, 4} at the second, the contexts 0..5 are
    (0 1), (0 3), (0 4), (2 1), (2 3), (2 4). The radix of the last place is the same for all members, so that the
    contexts of a stack are one grid of heads (all tokens but the last) and last tokens; members with fewer are masked.
    """

    def __init__(self, places: Sequence[list[Tensor]], device: torch.device) -> None:
        """`places`: per member and place the tokens considered there, increasing, as `Corpus.places` gives them."""
        self._places = places
        sizes = [[len(tokens) for tokens in member] for member in places]
        self.totals = [math.prod(member) for member in sizes]
        self.total = max(self.totals)
        self.total_M = torch.tensor(self.totals, device=device)
        length = len(places[0])
        table = torch.zeros(len(places), length, max(map(max, sizes)), dtype=torch.int64)
        for m, member in enumerate(places):
            for place, tokens in enumerate(member):
                table[m, place, : len(tokens)] = tokens
        self._table_MnS = table.to(device)
        self._size_Mn = torch.tensor(sizes, device=device)
        self._lasts = max(member[-1] for member in sizes)
        heads = [math.prod(member[:-1]) for member in sizes]
        self._heads = max(heads)
        self._heads_M = torch.tensor(heads, device=device)

    def decode(self, number_MC: Tensor) -> Tensor:
        """Return the contexts with the given numbers, [M, C, n-1]."""
        last_MC = self._table_MnS[:, -1].gather(1, number_MC % self._lasts)
        return torch.cat([self._heads_of(number_MC // self._lasts), last_MC[..., None]], dim=-1)

    def _heads_of(self, rest_MP: Tensor) -> Tensor:
        head_MPm = rest_MP[..., None][..., :0]
        for place in reversed(range(self._table_MnS.shape[1] - 1)):
            size_M1 = self._size_Mn[:, place, None]
            token_MP = self._table_MnS[:, place].gather(1, rest_MP % size_M1)
            head_MPm = torch.cat([token_MP[..., None], head_MPm], dim=-1)
            rest_MP = rest_MP // size_M1
        return head_MPm

    def blocks(self, rows_at_once: int) -> Iterator[Block]:
        """Yield all contexts, about `rows_at_once` or fewer at a time, with as many heads as last tokens if it can be.

        What is computed once for a head serves all its last tokens and the other way round.
        """
        device = self.total_M.device
        of_heads, of_lasts = self._grid(rows_at_once)
        for begin, end in of_heads:
            head_P = torch.arange(begin, end, device=device)
            head_MPm = self._heads_of(head_P.expand(len(self.total_M), -1))
            for first, beyond in of_lasts:
                last_S = torch.arange(first, beyond, device=device)
                valid_MPS = (head_P < self._heads_M[:, None])[..., None] & (last_S < self._size_Mn[:, -1:])[:, None]
                number_PS = head_P[:, None] * self._lasts + last_S
                last_MS = self._table_MnS[:, -1, first:beyond]
                yield Block(head_MPm, last_MS, number_PS.flatten(), valid_MPS.flatten(1))

    def locate(self, member: int, context_Cn: Tensor, rows_at_once: int) -> tuple[Tensor, Tensor]:
        """Return where `blocks(rows_at_once)` has contexts of a member: which block, and which row of it, [C] each.

        Raises ValueError where a context is not among those of the member.
        """
        index_Cn = torch.empty_like(context_Cn)
        for place, tokens in enumerate(self._places[member]):
            asked = context_Cn[:, place].contiguous()
            index_Cn[:, place] = torch.searchsorted(tokens, asked).clamp_max(len(tokens) - 1)
            if not torch.equal(tokens[index_Cn[:, place]], asked):
                raise ValueError(f"A context holds a token that is not considered at place {place + 1}.")
        head_C = torch.zeros(len(context_Cn), dtype=torch.int64)
        for index_C, tokens in zip(index_Cn.T[:-1], self._places[member], strict=False):
            head_C = head_C * len(tokens) + index_C
        of_heads, of_lasts = self._grid(rows_at_once)
        first_head_B, first_last_B = (torch.tensor([begin for begin, _ in part]) for part in (of_heads, of_lasts))
        size_B = torch.tensor([beyond - first for first, beyond in of_lasts])
        part_C = torch.searchsorted(first_head_B, head_C, right=True) - 1
        last_part_C = torch.searchsorted(first_last_B, index_Cn[:, -1].contiguous(), right=True) - 1
        row_C = (head_C - first_head_B[part_C]) * size_B[last_part_C] + index_Cn[:, -1] - first_last_B[last_part_C]
        return part_C * len(of_lasts) + last_part_C, row_C

    def block_rows(self, rows_at_once: int) -> list[int]:
        """Return how many contexts each block of `blocks(rows_at_once)` has."""
        of_heads, of_lasts = self._grid(rows_at_once)
        return [(end - begin) * (beyond - first) for begin, end in of_heads for first, beyond in of_lasts]

    def _grid(self, rows_at_once: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return how the heads and the last tokens are cut, (begin, end) of each piece; every pair makes a block."""
        lasts = min(self._lasts, max(math.isqrt(rows_at_once), rows_at_once // self._heads))
        return list(chunks(self._heads, rows_at_once // lasts)), list(chunks(self._lasts, lasts))

    def sizes(self, model: CountedModel, memory_bytes: int, *, itemsize: int = 4, fused: bool = False) -> Sizes:
        """Return how large blocks and their pieces may be: within the memory, and as the device likes them.

        `itemsize`: bytes of a number that is screened. `fused`: whether blocks are read without logits in memory, so
        that most of it is better spent on hidden states; pieces are of what is decided in float64 then.
        """
        M, D, U = model.unembedding_matrix().shape
        # Per row: the logits twice, and of a quarter of the rows three times in float64 where they are decided; about
        # ten float64 vectors of the width per token.
        logits_bytes, hidden_bytes = M * U * (2 * itemsize + 6), M * D * 8 * 10 * (self._table_MnS.shape[1] + 1)
        entries, rows = _LIKED.get(self.total_M.device.type, _LIKED["cuda"])
        piece = min(entries // (M * U), memory_bytes // (8 if fused else 1) // (logits_bytes + hidden_bytes))
        piece = max(TILE, piece // TILE * TILE)
        block = min(max(rows // M, piece), max(piece, (memory_bytes - piece * logits_bytes) // hidden_bytes))
        return Sizes(block, piece)
