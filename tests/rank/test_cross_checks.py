"""The bounds on rank against two libraries that fit CP tensors: tensorly and pyttb. They are too slow for an engine.

At the rank of a tensor an alternating least squares fit leaves no error, and below it some, however it begins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pyttb
import tensorly
from tensorly.decomposition import parafac

from tc_sweeps.corpus import DataTensor
from tc_sweeps.rank import rank_bounds
from tests.rank.made import sum_of_terms, tensor_of

NONE = 1e-5  # of an error; squares of float64 are lost below 1e-8, and fits converge slowly
STEPS = 500


def by_tensorly(dense: np.ndarray, rank: int, seed: int) -> float:
    _, errors = parafac(
        tensorly.tensor(dense), rank, n_iter_max=STEPS, init="random", random_state=seed, tol=1e-12, return_errors=True
    )
    return float(errors[-1])


def by_pyttb(dense: np.ndarray, rank: int, seed: int) -> float:
    starts = [np.random.default_rng([seed, place]).random((size, rank)) for place, size in enumerate(dense.shape)]
    fitted, _, _ = pyttb.cp_als(
        pyttb.tensor(dense.copy()), rank, init=pyttb.ktensor(starts), maxiters=STEPS, stoptol=1e-12, printitn=0
    )
    return float(np.linalg.norm(fitted.full().data - dense) / np.linalg.norm(dense))


def least_error(fit: Callable[[np.ndarray, int, int], float], dense: np.ndarray, rank: int, starts: int = 5) -> float:
    """The relative error of the best of a few fits."""
    errors = []
    for seed in range(starts):
        errors.append(fit(dense, rank, seed))
        if errors[-1] < NONE:
            break
    return min(errors)


def dense_of(data: DataTensor) -> np.ndarray:
    """The data tensor without the tokens that never stand at a place."""
    places = [np.unique(place, return_inverse=True)[1] for place in data.ngrams_Gn.numpy().T]
    dense = np.zeros([place.max() + 1 for place in places])
    dense[tuple(places)] = data.count_G.numpy()
    return dense


@pytest.mark.parametrize("fit", [by_tensorly, by_pyttb])
def test_the_database_has_the_rank_of_its_lower_bound(fit, database):
    """Five terms, as test_bounds derives by hand. Four leave at least what they leave of a flattening.

    That by subjects has the rows {P1 S, P2 M}, {P1 S, P2 S}, {P1 M, P2 M}, whose inner products (2 1 1; 1 2 0; 1 0 2)
    have the eigenvalues 2 and 2 +- sqrt 2, and two of length 1 apart from them. The least singular value is
    sqrt(2 - sqrt 2) of a whole of sqrt 8 (Eckart and Young).
    """
    data = database.corpus.tensor(3)
    dense = dense_of(data)
    assert dense.shape == (3, 5, 4)
    assert rank_bounds(data).lower == 5
    assert least_error(fit, dense, 5) < NONE
    least = ((2 - 2**0.5) / 8) ** 0.5
    assert least - 1e-9 <= least_error(fit, dense, 4) <= 1.01 * least


@pytest.mark.parametrize("fit", [by_tensorly, by_pyttb])
@pytest.mark.parametrize(("shape", "rank"), [((5, 5, 5), 2), ((5, 5, 5), 3), ((4, 5, 6), 4), ((3, 3, 3, 3), 2)])
def test_a_sum_of_terms_whose_lower_bound_is_their_number_has_that_rank(fit, shape, rank):
    dense = sum_of_terms(np.random.default_rng(0), shape, rank)
    bounds = rank_bounds(tensor_of(dense))
    assert bounds.lower == rank <= bounds.upper
    assert least_error(fit, dense.astype(float), rank) < NONE
    assert least_error(fit, dense.astype(float), rank - 1, starts=2) > 1000 * NONE
