"""A stack of models of one shape: what is the same whatever the model computes.

Letters: `M` member of the stack, `R` wanted row, `C` context, `m` tokens of a context, `B` token after a context, `D`
width of a hidden state, `V` vocabulary, `U` the vocabulary and the unsupported token, where there is one, `S` row of a
member's table, `X` whatever a row holds.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tc_sweeps.config import ModelConfig
from tc_sweeps.corpus.randomness import random_bits
from tc_sweeps.model.prefixes import Prefixes

__all__ = ["Route", "StackModel", "drawn", "take"]


@dataclass(frozen=True, eq=False)
class Route:
    """Where a model finds what it reads of prefixes, in tensors; it depends on the prefixes alone."""


class StackModel(nn.Module, ABC):
    """A stack of M models of one shape, whose logits are a product of a hidden state and a matrix.

    Every parameter has the member as its leading axis. Each member's weights are drawn on the CPU from its own seed, so
    they do not depend on the stack or the device.
    """

    config: ModelConfig

    def __init__(
        self,
        config: ModelConfig,
        *,
        vocab_size: int,
        max_length: int,
        seeds: Sequence[int],
        unsupported: bool = False,
    ) -> None:
        """Draw the weights.

        `max_length`: the longest context, the tokens of a sentence less one. `unsupported`: whether there is one more
        token to be answered (section 3.4), which is none of the vocabulary and never part of a context; the other
        weights are the same with and without it.
        """
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.max_length = max_length
        shapes = self._shapes()
        if unsupported:
            shapes["unsupported"] = (self.hidden_width, 1)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(self._initial(name, shape, seeds)))

    # ------------------------------------------------------------------------------------------ what a model adds to it

    @property
    @abstractmethod
    def hidden_width(self) -> int:
        """The width D of the hidden states from which the next token is read."""

    @abstractmethod
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of one member, by name."""

    @abstractmethod
    def _initial(self, name: str, shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
        """Return the initial value of a parameter for every member, [M, *shape]; also that of "unsupported"."""

    @abstractmethod
    def _is_embedding(self, name: str) -> bool:
        """Whether a parameter belongs to what a token is read as or answered by."""

    @abstractmethod
    def _vocabulary_matrix(self) -> Tensor:
        """Return the matrix from hidden states to the logits of the vocabulary, [M, D, V]."""

    @abstractmethod
    def routes(self, prefixes: Prefixes) -> list[Route]:
        """Return where everything is found. Prefixes that are read many times are read faster by their routes."""

    @abstractmethod
    def _read(self, routes: Sequence[Route]) -> Tensor:
        """Return the hidden states at the wanted rows, [M, R, D]."""

    @abstractmethod
    def product_hidden(self, contexts_MCm: Tensor, token_MB: Tensor) -> Tensor:
        """Return the hidden states at every context followed by every token, [M, C, B, D].

        They are `last_hidden` of these C * B longer contexts up to rounding, at a fraction of the work.
        """

    # ------------------------------------------------------------------------------------------------ what all have

    @property
    def num_members(self) -> int:
        """The number M of models in the stack."""
        return next(self.parameters()).shape[0]

    def num_parameters(self, *, embedding: bool) -> int:
        """Return the parameters of one member; `embedding=False` leaves out embedding, positions and unembedding."""
        inside = (p for name, p in self.named_parameters() if name != "unsupported" and not self._is_embedding(name))
        return sum(p[0].numel() for p in (self.parameters() if embedding else inside))

    def member(self, index: int) -> Self:
        """Return one member as a stack of one, with a copy of its weights."""
        alone = copy.copy(self)  # not a deep one: that would copy the whole stack for each of its members
        alone._parameters = {
            name: nn.Parameter(p.detach()[index : index + 1].clone()) for name, p in self.named_parameters()
        }
        return alone

    def unembedding_matrix(self) -> Tensor:
        """Return the matrix from hidden states to logits, [M, D, U]; the unsupported token is the last column."""
        matrix_MDV = self._vocabulary_matrix()
        if "unsupported" not in self._parameters:
            return matrix_MDV
        return torch.cat([matrix_MDV, self.get_parameter("unsupported")], dim=2)

    def hidden(self, prefixes: Prefixes | Sequence[Route]) -> Tensor:
        """Return the hidden states from which the next token is read, at the wanted rows, [M, R, D]."""
        return self._read(self.routes(prefixes) if isinstance(prefixes, Prefixes) else prefixes)

    def logits(self, prefixes: Prefixes | Sequence[Route]) -> Tensor:
        """Return the logits of the next token at the wanted rows, [M, R, U]; prefixes may be given as `routes`."""
        return self.hidden(prefixes) @ self.unembedding_matrix()

    def last_hidden(self, contexts_MCm: Tensor) -> Tensor:
        """Return the hidden states at the last token of contexts, [M, C, D]; times `unembedding_matrix()`: logits."""
        return self.hidden(Prefixes.chains(contexts_MCm))

    def probabilities(self, contexts: Tensor) -> Tensor:
        """Return P(t | context) for every token, in the precision of the weights.

        Where there is an unsupported token, its probability is what a row lacks to 1.

        contexts: [M, C, m] with m = 1..n-1, returns [M, C, V]; for a stack of one also [C, m], returns [C, V].
        Raises ValueError for [C, m] with several members, for contexts longer than the model was made for, and for
        tokens outside the vocabulary.
        """
        if contexts.dim() == 2:
            if self.num_members != 1:
                raise ValueError(f"Contexts need a member axis, [M, C, m], for a stack of {self.num_members} models.")
            return self.probabilities(contexts[None])[0]
        if not 1 <= contexts.shape[2] <= self.max_length:
            raise ValueError(f"Contexts have {contexts.shape[2]} tokens where the model takes 1 to {self.max_length}.")
        if contexts.numel() and not 0 <= contexts.min() <= contexts.max() < self.vocab_size:
            raise ValueError(f"Contexts have tokens outside the vocabulary, 0 to {self.vocab_size - 1}.")
        p_MCU = torch.softmax(self.last_hidden(contexts) @ self.unembedding_matrix(), dim=-1)
        return p_MCU[..., : self.vocab_size]


def drawn(name: str, shape: tuple[int, ...], seeds: Sequence[int], scale: float) -> Tensor:
    """Return a parameter that is normal with standard deviation `scale`, from (seed, name) for every member."""
    values = []
    for seed in seeds:
        bits = int(random_bits(seed, f"weights {name}", 0, torch.zeros(1, dtype=torch.int64)))
        values.append(torch.randn(shape, generator=torch.Generator().manual_seed(bits)) * scale)
    return torch.stack(values)


def take(table_MSX: Tensor, index: Tensor) -> Tensor:
    """Return the rows of the members' tables at an index [M, ...] into [M * S], [M, ..., X].

    One flat embedding look-up: its gradient is added up in the order of the rows, so that a member's gradient is the
    same, bit for bit, in any stack.
    """
    return F.embedding(index, table_MSX.flatten(0, 1))
