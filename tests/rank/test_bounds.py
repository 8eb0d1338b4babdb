"""Bounds on the rank of a data tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.corpus import DataTensor
from tc_sweeps.rank import flattening_ranks, merged_terms, rank_bounds, slice_terms
from tests.rank.made import functional, sum_of_terms, tensor_of

SHAPES = [(4, 4), (3, 4, 5), (5, 5, 5), (3, 3, 3, 3)]


def test_the_bounds_of_the_database_by_hand(database):
    """Predicates x subjects x objects; written P1 P2 P3, A B C M S and S M R D (cities, then currencies).

    Rows by predicate are three non-empty matrices with disjoint or different entries: rank 3. Rows by subject: A, B and
    C have the entries {P1 S, P2 M}, {P1 S, P2 S}, {P1 M, P2 M}, which are independent; M and S have one entry each,
    P3 R and P3 D: rank 5. Rows by object are four independent ones. From above, each predicate is a function with two
    answers: six terms. (The rank is 5: P1 and P2 are a 2 x 3 x 2 tensor, which needs three terms at most.)
    """
    tensor = database.corpus.tensor(3)
    bounds = rank_bounds(tensor)
    assert bounds.flattenings == {"1": 3, "2": 5, "3": 4}
    assert bounds.slices == slice_terms(tensor) == 6
    assert bounds.merged == merged_terms(tensor) == 6
    assert (bounds.lower, bounds.upper) == (5, 6)


def test_the_example_of_the_docstring_has_rank_two():
    data = functional(torch.tensor([[0, 0], [0, 1], [1, 0]]), torch.tensor([2, 2, 3]), 4)
    bounds = rank_bounds(data)
    assert (bounds.lower, bounds.upper) == (2, 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3, 6])
def test_flattenings_are_no_greater_than_the_number_of_terms_and_equal_the_svd(shape, rank):
    for seed in range(5):
        dense = sum_of_terms(np.random.default_rng(seed), shape, rank)
        ranks = flattening_ranks(tensor_of(dense))
        assert max(ranks.values()) <= rank
        for rows, found in ranks.items():
            places = [int(place) - 1 for place in rows.split()]
            others = [place for place in range(len(shape)) if place not in places]
            size = int(np.prod([shape[place] for place in places]))
            assert found == np.linalg.matrix_rank(dense.transpose(places + others).reshape(size, -1))


@pytest.mark.parametrize("seed", range(5))
def test_one_term_is_found_to_be_one_whatever_its_counts(seed):
    dense = 6 * sum_of_terms(np.random.default_rng(seed), (4, 5, 3), 1)
    dense[1] *= 2  # still a product
    bounds = rank_bounds(tensor_of(dense))
    assert (bounds.lower, bounds.merged) == (1, 1)


def test_a_diagonal_has_the_rank_of_its_length():
    dense = np.zeros((6, 6, 6), dtype=np.int64)
    dense[range(6), range(6), range(6)] = 1
    bounds = rank_bounds(tensor_of(dense))
    assert (bounds.lower, bounds.upper) == (6, 6)


def test_a_matrix_of_a_function_has_the_rank_of_its_range():
    data = functional(torch.arange(7)[:, None], torch.tensor([1, 1, 4, 2, 4, 4, 1]), 7)
    bounds = rank_bounds(data)
    assert (bounds.lower, bounds.upper) == (3, 3)


@st.composite
def dense_tensors(draw):
    shape = draw(st.sampled_from(SHAPES))
    size = int(np.prod(shape))
    entries = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size).filter(any))
    return np.array(entries, dtype=np.int64).reshape(shape)


@settings(max_examples=40, deadline=None)
@given(dense_tensors(), st.integers(0, 2**31))
def test_the_lower_bound_is_below_the_upper_and_names_of_tokens_do_not_matter(dense, seed):
    rng = np.random.default_rng(seed)
    bounds = rank_bounds(tensor_of(dense))
    assert 1 <= bounds.lower <= bounds.upper <= np.count_nonzero(dense)
    renamed = dense[np.ix_(*(rng.permutation(size) for size in dense.shape))]
    assert rank_bounds(tensor_of(renamed)) == bounds


def test_a_tensor_without_entries_has_rank_zero():
    empty = DataTensor(4, torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert rank_bounds(empty).lower == rank_bounds(empty).upper == 0
