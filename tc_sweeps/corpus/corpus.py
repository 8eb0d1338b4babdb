"""A corpus: what a model is trained on, what is kept from it, and what is true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tc_sweeps.corpus.randomness import judged
from tc_sweeps.corpus.tensor import DataTensor, distinct_rows, find_rows

__all__ = ["Corpus", "truncated"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Sentences over the tokens `0..vocab_size-1`, and the labels that the outside world gives to n-grams.

    Shorter sentences are padded with -1. `labelled` names the contexts in which an artifact that is not in `truth` is a
    hallucination: those that occur in `truth`, all (a closed world, where silence means 'no'), or an explicit list,
    which must contain every context of `truth`.
    """

    vocab_size: int
    sentences: Tensor  # [N, n], the training sentences
    held_out: Tensor | None = None  # [K, n], n-grams of `truth` kept from training
    truth: Tensor | None = None  # [K, n], W: the n-grams that are right; None where the world defines none
    labelled: Literal["truth", "all"] | Tensor = "truth"  # or [C, n-1]
    contexts: Literal["all", "typed"] = "all"  # the contexts considered, unless a config says otherwise
    replaced: Tensor | None = None  # [K, n], the distinct n-grams in whose place noise is trained; still in `truth`
    tokens: Sequence[str] | None = None  # the tokens' names, [V]
    judge_seed: int = 0  # which half of the contexts is the judge's
    remarks: Sequence[str] = ()  # what a user should be told about the data, in whole sentences
    _tensors: dict[int, DataTensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def order(self) -> int:
        """Tokens in the longest sentence."""
        return self.sentences.shape[1]

    def tensor(self, order: int) -> DataTensor:
        """Return the data tensor D^n, made once: of a million sentences it takes a quarter of a second."""
        if order not in self._tensors:
            self._tensors[order] = DataTensor.of(self.sentences, order, self.vocab_size)
        return self._tensors[order]

    def held_out_ngrams(self, order: int) -> Tensor | None:
        """Return the distinct held-out n-grams truncated to `order`, [K, order], without those that are in D^n."""
        if self.held_out is None:
            return None
        ngrams = truncated(self.held_out, order)
        return ngrams[find_rows(ngrams, self.tensor(order).ngrams_Gn) < 0]

    def truth_ngrams(self, order: int) -> Tensor | None:
        """Return W truncated to `order` as distinct n-grams, [K, order]."""
        return None if self.truth is None else truncated(self.truth, order)

    def replaced_ngrams(self, order: int) -> Tensor | None:
        """Return what noise replaced, truncated to `order`, as distinct n-grams, [K, order]."""
        return None if self.replaced is None else truncated(self.replaced, order)

    def labelled_contexts(self, order: int) -> Tensor | Literal["all"] | None:
        """Return the labelled contexts of n-grams of `order`, [C, order-1], "all", or None without a truth."""
        if self.truth is None:
            return None
        if isinstance(self.labelled, Tensor):
            return distinct_rows(self.labelled[:, : order - 1])[0]
        if self.labelled == "all":
            return "all"
        return distinct_rows(truncated(self.truth, order)[:, :-1])[0]

    def judged(self, contexts_Cm: Tensor) -> Tensor:
        """Return whether contexts belong to the judge's half, on which no method may teach, [C]."""
        return judged(self.judge_seed, contexts_Cm[:, :-1], contexts_Cm[:, -1])

    def places(self, order: int, contexts: Literal["all", "typed"]) -> list[Tensor]:
        """Return, for each place of a context, the tokens considered there; contexts are their Cartesian product.

        `all`: every token at every place, V^(n-1) contexts. `typed`: at place i only tokens that stand at place i of an
        n-gram of D^n or W.
        """
        if contexts == "all":
            return [torch.arange(self.vocab_size)] * (order - 1)
        parts = [self.tensor(order).ngrams_Gn, self.truth_ngrams(order)]
        ngrams = torch.cat([part for part in parts if part is not None])
        return [torch.unique(ngrams[:, place]) for place in range(order - 1)]


def truncated(ngrams_KL: Tensor, order: int) -> Tensor:
    """Return the distinct first `order` tokens of the n-grams that are long enough, [K, order]."""
    return distinct_rows(ngrams_KL[ngrams_KL[:, order - 1] >= 0, :order])[0]
