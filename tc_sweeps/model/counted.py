"""What a model has to offer to be asked about every context.

Letters: `M` member, `C` context, `P` head of a context (all its tokens but the last), `S` token at a place, `m` tokens,
`D` width, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["CountedModel"]


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

    def product_hidden(self, contexts_MPm: Tensor, token_MS: Tensor) -> Tensor:
        """Return the hidden states at every context followed by every token, [M, P, S, D]."""
        ...

    def unembedding_matrix(self) -> Tensor:
        """Return the matrix from hidden states to logits, [M, D, U]: the vocabulary, then any unsupported token."""
        ...
