"""Data tensors of the tests of rank."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tc_sweeps.corpus import DataTensor


def tensor_of(dense: np.ndarray) -> DataTensor:
    """The data tensor with these entries; its shape may differ from place to place."""
    places = np.argwhere(dense)
    return DataTensor(max(dense.shape), torch.from_numpy(places), torch.from_numpy(dense[tuple(places.T)]))


def sum_of_terms(rng: np.random.Generator, shape: tuple[int, ...], rank: int) -> np.ndarray:
    """A tensor of counts: the sum of so many random rank-one tensors of zeros and ones, none of them zero."""
    total = np.zeros(shape, dtype=np.int64)
    for _ in range(rank):
        term = np.ones((), dtype=np.int64)
        for size in shape:
            vector = (rng.random(size) < 0.5).astype(np.int64)
            vector[rng.integers(size)] = 1
            term = np.multiply.outer(term, vector)
        total += term
    return total


def functional(contexts_Cn: Tensor, answer_C: Tensor, vocab_size: int) -> DataTensor:
    """The data tensor of one answer to each context."""
    return DataTensor.of(torch.cat([contexts_Cn, answer_C[:, None]], 1), contexts_Cn.shape[1] + 1, vocab_size)


def planted(rank: int, vocab_size: int, contexts: int, seed: int = 0) -> DataTensor:
    """The greatest logits in a random CP tensor of this rank, so that no more than it is needed.

    The contexts are those whose greatest logit is farthest above the next: a fit can find them without luck.
    """
    draw = torch.Generator().manual_seed(seed)
    factors = [torch.randn(vocab_size, rank, generator=draw, dtype=torch.float64) for _ in range(3)]
    all_Cn = torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))
    logits_CV = (factors[0][all_Cn[:, 0]] * factors[1][all_Cn[:, 1]]) @ factors[2].T
    best_C2 = logits_CV.topk(2).values
    clear_C = (best_C2[:, 0] - best_C2[:, 1]).argsort(descending=True)[:contexts]
    return functional(all_Cn[clear_C], logits_CV.argmax(1)[clear_C], vocab_size)
