"""The data tensor D^n of section 2 of the paper, kept sparse, and what it says about a completion.

Letters: `G` distinct n-grams, `C` distinct contexts, `n` order, `V` vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Consistency", "DataTensor", "consistency", "distinct_rows", "find_rows"]


def distinct_rows(rows_Kn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct rows in lexicographic order [G, n], the place of each row among them [K], and counts [G]."""
    if rows_Kn.shape[0] == 0:
        empty = rows_Kn.new_zeros(0)
        return rows_Kn, empty, empty
    low_n = rows_Kn.amin(0)
    sizes = [high - low + 1 for low, high in zip(low_n.tolist(), rows_Kn.amax(0).tolist(), strict=True)]
    if math.prod(sizes) >= 2**63:  # too many to number
        distinct_Gn, place_K, count_G = torch.unique(rows_Kn, dim=0, return_inverse=True, return_counts=True)
        return distinct_Gn, place_K, count_G
    # As numbers in mixed radix, which are sorted ten times faster than rows.
    size_n = torch.tensor(sizes)
    stride_n = torch.tensor([math.prod(sizes[place + 1 :]) for place in range(len(sizes))])
    number_K = ((rows_Kn - low_n) * stride_n).sum(1)
    number_G, place_K, count_G = torch.unique(number_K, return_inverse=True, return_counts=True)
    return number_G[:, None] // stride_n % size_n + low_n, place_K, count_G


def find_rows(rows_Kn: Tensor, table_Gn: Tensor) -> Tensor:
    """Return the index in `table_Gn` (distinct rows) of every row, [K]; -1 where the table does not hold it."""
    _, place, _ = distinct_rows(torch.cat([table_Gn, rows_Kn]))
    table_place, row_place = place[: len(table_Gn)], place[len(table_Gn) :]
    index = torch.full((len(rows_Kn) + len(table_Gn),), -1, dtype=torch.int64)
    index[table_place] = torch.arange(len(table_Gn))
    return index[row_place]


@dataclass(frozen=True, eq=False)
class DataTensor:
    """How often each n-gram occurs as the first n tokens of a sentence: D^n of section 2.

    Example: of the sentences (mouse eats cheese), (mouse eats cheese), (mouse eats fish) the tensor D^3 has the two
    non-zero entries D[mouse, eats, cheese] = 2 and D[mouse, eats, fish] = 1 in one fiber, D[mouse, eats, :], and
    D^2[mouse, eats] = 3.
    """

    vocab_size: int
    ngrams_Gn: Tensor  # distinct, in lexicographic order
    count_G: Tensor

    @classmethod
    def of(cls, sentences_NL: Tensor, order: int, vocab_size: int) -> DataTensor:
        """Return D^n of sentences padded with -1; sentences shorter than `order` do not enter."""
        long_enough = sentences_NL[:, order - 1] >= 0
        ngrams_Gn, _, count_G = distinct_rows(sentences_NL[long_enough, :order])
        return cls(vocab_size, ngrams_Gn, count_G)

    @property
    def order(self) -> int:
        """The number n of tokens in an n-gram."""
        return self.ngrams_Gn.shape[1]

    @cached_property
    def _grouped(self) -> tuple[Tensor, Tensor, Tensor]:
        return distinct_rows(self.ngrams_Gn[:, :-1])

    @property
    def contexts_Cn(self) -> Tensor:
        """The seen contexts: those with a non-zero fiber, [C, n-1], in lexicographic order."""
        return self._grouped[0]

    @property
    def context_of_G(self) -> Tensor:
        """The index into `contexts_Cn` of each n-gram's context, [G]."""
        return self._grouped[1]

    @property
    def is_functional(self) -> bool:
        """Whether every seen context has one answer, so that the data are a partial function."""
        return len(self.contexts_Cn) == len(self.ngrams_Gn)

    @cached_property
    def context_count_C(self) -> Tensor:
        """How often each seen context occurs with a next token, [C]: the sums of the fibers."""
        return torch.zeros(len(self.contexts_Cn), dtype=torch.int64).index_add_(0, self.context_of_G, self.count_G)

    @property
    def empirical_G(self) -> Tensor:
        """The share of each n-gram in its fiber, [G] in float64: the conditional distribution of the data."""
        return self.count_G.double() / self.context_count_C[self.context_of_G]

    def fibers(self, contexts_Kn: Tensor) -> Tensor:
        """Return the fibers D^n[context, :] as counts, [K, V] (zero where the context is unseen)."""
        asked_An, place_K, _ = distinct_rows(contexts_Kn)
        row_G = find_rows(self.contexts_Cn, asked_An)[self.context_of_G]
        asked_AV = torch.zeros(len(asked_An), self.vocab_size, dtype=torch.int64)
        asked_AV[row_G[row_G >= 0], self.ngrams_Gn[row_G >= 0, -1]] = self.count_G[row_G >= 0]
        return asked_AV[place_K]

    def entropy(self) -> float:
        """Return the empirical conditional entropy of the last token, nats per n-gram: the least loss of any table."""
        return float((self.count_G * -self.empirical_G.log()).sum() / self.count_G.sum())


@dataclass(frozen=True, eq=False)
class Consistency:
    """How far the normalised fibers of a completion are from those of the data, per seen context, [C] in float64."""

    kl_C: Tensor  # Kullback-Leibler divergence from the data's fiber to the completion's, nats
    total_variation_C: Tensor  # half the L1 distance, 0..1
    cosine_C: Tensor  # cosine similarity, 0..1; 1 = consistent


def consistency(data: DataTensor, probabilities_CV: Tensor) -> Consistency:
    """Compare a completion with the data on the seen fibers (section 2: 'consistent').

    `probabilities_CV`: the completion's fibers at `data.contexts_Cn`; they are normalised here.
    """
    counts_CV = data.fibers(data.contexts_Cn).double()
    data_CV = counts_CV / counts_CV.sum(1, keepdim=True)
    completed_CV = probabilities_CV.double() / probabilities_CV.double().sum(1, keepdim=True)
    ratio_CV = torch.where(data_CV > 0, data_CV / completed_CV, 1.0)
    return Consistency(
        kl_C=(data_CV * ratio_CV.log()).sum(1),
        total_variation_C=(data_CV - completed_CV).abs().sum(1) / 2,
        cosine_C=torch.cosine_similarity(data_CV, completed_CV, dim=1, eps=0.0),
    )
