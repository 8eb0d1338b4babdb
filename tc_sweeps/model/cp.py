"""A tensor of logits of low CP rank: completion as it is usually meant (footnote 1 of the paper), done explicitly.

Letters: `M` member of the stack, `P` prefix, `A` ancestor, `R` wanted row, `C` context, `m` tokens of a context, `B`
token after a context, `K` term of the sum (as many as the rank), `S` row of a factor, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.config import CPConfig
from tc_sweeps.model.prefixes import Prefixes
from tc_sweeps.model.stack import Route, StackModel, drawn, take

__all__ = ["CPTensor"]


@dataclass(frozen=True, eq=False)
class PlaceRoute(Route):
    """Which rows of the factor of one place are read."""

    row_MR: Tensor  # as an index into the factors of all members in a row, [M * S]


class CPTensor(StackModel):
    """A stack of M tensors of logits, each a sum of as many products as its rank.

    The logit of the n-gram (t_1..t_n) is

        l[t_1..t_n] = sum_k A_1[t_1, k] A_2[t_2, k] ... A_n[t_n, k]

    with a factor A_i, [V, rank], for each place: the parameters `factor0` to `factor{n-1}`. The products of the first
    n-1 factors are the hidden states, and the last factor is the unembedding. Every place has a factor of its own, so
    the model tells (a, b) from (b, a), and (a, a) from (a).

    A context of fewer than n-1 tokens is read as if blanks stood before it: the factor of every place but those of the
    last two tokens has one more row, its last one, for the blank. For n = 3 the context (a) has the hidden state
    A_1[V] A_2[a]. With `objective.positions=last` the rows of blanks are never read, and keep what they begin with.
    """

    config: CPConfig

    @property
    def hidden_width(self) -> int:
        """The rank: terms of the sum."""
        return self.config.rank

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {f"factor{place}": (self._rows(place), self.config.rank) for place in range(self.max_length + 1)}

    def _rows(self, place: int) -> int:
        """Return how many rows the factor of a place has: there is a token at the last two whatever the context."""
        return self.vocab_size + (place < self.max_length - 1)

    def _initial(self, name: str, shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
        """Return the initial value of a factor for every member, [M, *shape]: normal, all of the same variance.

        A logit is a sum of `rank` products of n independent numbers, so its variance is rank times the n-th power of
        theirs: that of `init_scale`, its standard deviation, where theirs is (init_scale^2 / rank)^(1 / n).
        """
        variance = (self.config.init_scale**2 / self.config.rank) ** (1 / (self.max_length + 1))
        return drawn(name, shape, seeds, variance**0.5)

    def _is_embedding(self, name: str) -> bool:
        return name.startswith("factor")  # each is what a token is read as, or answered by: there is nothing else

    def _vocabulary_matrix(self) -> Tensor:
        return self.get_parameter(f"factor{self.max_length}").transpose(1, 2)

    def routes(self, prefixes: Prefixes) -> list[Route]:
        """Return the route of every place of a context."""
        member_M1 = torch.arange(len(prefixes.token_MP), device=prefixes.token_MP.device)[:, None]
        length_MR = prefixes.length_MP.gather(1, prefixes.wanted_MR)
        ancestor_MRA = prefixes.ancestor_MPA[member_M1, prefixes.wanted_MR]
        token_MRA = prefixes.token_MP.gather(1, ancestor_MRA.flatten(1)).view_as(ancestor_MRA)
        routes: list[Route] = []
        for place in range(self.max_length):
            nth_MR = length_MR - self.max_length + place  # token of the prefix; below 0 there is none, but a blank
            token_MR = token_MRA.gather(2, nth_MR.clamp_min(0)[..., None])[..., 0]
            token_MR = token_MR.masked_fill(nth_MR < 0, self.vocab_size)
            routes.append(PlaceRoute(token_MR + member_M1 * self._rows(place)))
        return routes

    def _read(self, routes: Sequence[Route]) -> Tensor:
        return self._product([route.row_MR for route in routes if isinstance(route, PlaceRoute)])

    def _product(self, index: Sequence[Tensor]) -> Tensor:
        """Return the products of the rows of the first factors, [..., K], one index for each of them."""
        first, *others = (take(self.get_parameter(f"factor{place}"), rows) for place, rows in enumerate(index))
        for other in others:
            first = first * other
        return first

    def product_hidden(self, contexts_MCm: Tensor, token_MB: Tensor) -> Tensor:
        """Return the hidden states at every context followed by every token, [M, C, B, K].

        They are `last_hidden` of these C * B longer contexts, at one product for each: what comes before the last token
        is multiplied once.
        """
        M, C, m = contexts_MCm.shape
        member_M1 = torch.arange(M, device=token_MB.device)[:, None]
        last = self.max_length - 1
        token_MBK = take(self.get_parameter(f"factor{last}"), token_MB + member_M1 * self._rows(last))
        if last == 0:
            return token_MBK[:, None].expand(-1, C, -1, -1)
        blank_MC = contexts_MCm.new_full((M, C), self.vocab_size)
        tokens = [blank_MC] * (last - m) + list(contexts_MCm.unbind(2))
        before_MCK = self._product([token + member_M1 * self._rows(place) for place, token in enumerate(tokens)])
        return before_MCK[:, :, None] * token_MBK[:, None]
