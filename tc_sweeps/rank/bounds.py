"""Bounds on the rank of the data tensor D^n: the least number of rank-one tensors that sum to it (section 2.1).

The rank of a tensor is hard to compute; what stands here are two numbers that enclose it. All arithmetic is exact.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from tc_sweeps.corpus.tensor import DataTensor, distinct_rows

__all__ = ["RankBounds", "flattening_ranks", "merged_terms", "rank_bounds", "seen_fibers_rank", "slice_terms"]

_PRIME = 2**31 - 1  # products of two residues fit into int64
_Vector = frozenset[tuple[int, int]]  # the non-zero entries of a vector of natural numbers: (token, entry)


@dataclass(frozen=True)
class RankBounds:
    """The rank of D^n lies between `lower` and `upper`; each is the best of its parts, which are kept by name."""

    flattenings: dict[str, int]  # rank of each flattening, by its rows: "1" is t_1 against all other places
    merged: int  # rank-one terms after merging non-zeros
    slices: int  # rank-one terms of the best slicing into matrices

    @property
    def lower(self) -> int:
        """The greatest rank of a flattening."""
        return max(self.flattenings.values())

    @property
    def upper(self) -> int:
        """The fewest rank-one terms found that sum to the tensor."""
        return min(self.merged, self.slices)


def rank_bounds(data: DataTensor) -> RankBounds:
    """Return bounds on the rank of D^n.

    Example: facts f(a, b) with f(0, 0) = f(0, 1) = 2 and f(1, 0) = 3 make the tensor
    e_0 x (e_0 + e_1) x e_2 + e_1 x e_0 x e_3. Two terms are enough, and two different answers need two: the rank is 2.
    """
    return RankBounds(flattening_ranks(data), merged_terms(data), slice_terms(data))


def flattening_ranks(data: DataTensor) -> dict[str, int]:
    """Return a lower bound on the rank of D^n from each way to flatten it into a matrix, by the places of its rows.

    A rank-one tensor flattens into a matrix of rank one, so D^n has at least the rank of any of its flattenings. That
    is computed over the integers modulo a prime, where it is never greater than over the rationals. For functional data
    the flattening of contexts against last tokens has the rank |range f|, the number of different answers.
    """
    rows_Gn, count_G = data.ngrams_Gn, data.count_G.numpy()
    ranks = {}
    for size in range(1, data.order // 2 + 1):
        for places in combinations(range(data.order), size):
            others = [place for place in range(data.order) if place not in places]
            if 2 * size == data.order and places[0] != 0:
                continue  # the transpose of one that has been
            heads, row_G, _ = distinct_rows(rows_Gn[:, list(places)])
            tails, column_G, _ = distinct_rows(rows_Gn[:, others])
            matrix = np.zeros((len(heads), len(tails)), dtype=np.int64)
            matrix[row_G.numpy(), column_G.numpy()] = count_G
            ranks[" ".join(str(place + 1) for place in places)] = _rank_modulo_prime(matrix)
    return ranks


def seen_fibers_rank(data: DataTensor) -> int:
    """Return the rank of the matrix of seen fibers, [C, V]: no completion that is consistent with D^n has less.

    Its flattening of contexts against last tokens holds those rows, up to scale, whatever it says of other contexts.
    """
    return _rank_modulo_prime(data.fibers(data.contexts_Cn).numpy())


def _rank_modulo_prime(matrix: np.ndarray) -> int:
    """Return the rank of a matrix of integers over the field of a prime's residues, by elimination."""
    matrix = np.unique(matrix, axis=1) % _PRIME  # equal columns, of which data tensors have many, add nothing
    rank = 0
    for column in range(matrix.shape[1]):
        pivots = np.flatnonzero(matrix[rank:, column])
        if len(pivots) == 0:
            continue
        pivot = rank + int(pivots[0])
        matrix[[rank, pivot]] = matrix[[pivot, rank]]
        row = matrix[rank, column:] * pow(int(matrix[rank, column]), -1, _PRIME) % _PRIME
        below = rank + 1 + np.flatnonzero(matrix[rank + 1 :, column])
        factor = matrix[below, column][:, None]
        matrix[below, column:] = (matrix[below, column:] - factor * row % _PRIME) % _PRIME
        rank += 1
        if rank == len(matrix):
            break
    return rank


def merged_terms(data: DataTensor) -> int:
    """Return how many rank-one terms sum to D^n once its non-zeros are merged, the fewest over the orders of places.

    Every non-zero is a rank-one term: count * e_{t_1} x ... x e_{t_n}. Terms that agree in all places but one are one
    term, whose vector at that place is the sum of theirs: u x v + u x w = u x (v + w). Merging along one place leaves
    the non-zero fibers of that place; merging along the others goes on from there.
    """
    non_zeros = [
        (count, tuple(frozenset({(token, 1)}) for token in tokens))
        for tokens, count in zip(data.ngrams_Gn.tolist(), data.count_G.tolist(), strict=True)
    ]
    fewest = len(non_zeros)
    for places in permutations(range(data.order)):
        terms = non_zeros
        for place in places:
            terms = _merge(terms, place)
        fewest = min(fewest, len(terms))
    return fewest


def _merge(terms: Iterable[tuple[int, tuple[_Vector, ...]]], place: int) -> list[tuple[int, tuple[_Vector, ...]]]:
    """Return the terms (factor, vectors) with those added that agree outside `place`; no vector has a common divisor.

    Without a common divisor two vectors that are multiples of each other are equal.
    """
    sums: dict[tuple[tuple[_Vector, ...], tuple[_Vector, ...]], Counter[int]] = defaultdict(Counter)
    for factor, vectors in terms:
        total = sums[vectors[:place], vectors[place + 1 :]]
        for token, entry in vectors[place]:
            total[token] += factor * entry
    merged = []
    for (before, after), total in sums.items():
        divisor = math.gcd(*total.values())
        vector = frozenset((token, entry // divisor) for token, entry in total.items())
        merged.append((divisor, (*before, vector, *after)))
    return merged


def slice_terms(data: DataTensor) -> int:
    """Return the fewest rank-one terms that slices need, over the pairs of places that may span the slices.

    With all places but two fixed, D^n falls into matrices, and its rank is at most the sum of theirs. A matrix has at
    most the rank of the number of its different non-zero rows, or columns (multiples count once). For the matrix of a
    partial function that is the size of its range, and its rank: rank(M_f) = |range f|.
    """
    fewest = len(data.ngrams_Gn)
    ngrams = list(zip(data.ngrams_Gn.tolist(), data.count_G.tolist(), strict=True))
    for pair in combinations(range(data.order), 2):
        slices: dict[tuple[int, ...], list[tuple[int, int, int]]] = defaultdict(list)
        for tokens, count in ngrams:
            fixed = tuple(token for place, token in enumerate(tokens) if place not in pair)
            slices[fixed].append((tokens[pair[0]], tokens[pair[1]], count))
        terms = sum(
            min(_distinct_rows(entries), _distinct_rows((column, row, count) for row, column, count in entries))
            for entries in slices.values()
        )
        fewest = min(fewest, terms)
    return fewest


def _distinct_rows(entries: Iterable[tuple[int, int, int]]) -> int:
    """Return how many non-zero rows of a matrix, given as (row, column, entry), are no multiples of each other."""
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row, column, entry in entries:
        rows[row].append((column, entry))
    divisors = {row: math.gcd(*(entry for _, entry in cells)) for row, cells in rows.items()}
    return len({frozenset((column, entry // divisors[row]) for column, entry in cells) for row, cells in rows.items()})
