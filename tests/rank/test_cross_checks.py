"""Bounds and masked fits against two libraries that fit CP tensors: tensorly and pyttb, too slow for an engine.

At the rank of a tensor an alternating least squares fit leaves no error, and below it some, however it begins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pyttb
import tensorly
import torch
from pyttb.gcp.fg_setup import Objectives
from pyttb.gcp.optimizers import LBFGSB
from tensorly.decomposition import parafac

from tc_sweeps.corpus import DataTensor
from tc_sweeps.rank import effective_rank, rank_bounds, seen_fibers_rank
from tests.rank.made import functional, sum_of_terms, tensor_of

NONE = 1e-5  # of an error; squares of float64 are lost below 1e-8, and fits converge slowly
STEPS = 500


def by_tensorly(dense: np.ndarray, rank: int, seed: int) -> float:
    _, errors = parafac(
        tensorly.tensor(dense), rank, n_iter_max=STEPS, init="random", random_state=seed, tol=1e-12, return_errors=True
    )
    return float(errors[-1])


def starts_of_pyttb(dense: np.ndarray, rank: int, seed: int) -> pyttb.ktensor:
    draws = [np.random.default_rng([seed, place]).random((size, rank)) for place, size in enumerate(dense.shape)]
    return pyttb.ktensor([np.asfortranarray(factor) for factor in draws])


def by_pyttb(dense: np.ndarray, rank: int, seed: int) -> float:
    fitted, _, _ = pyttb.cp_als(
        pyttb.tensor(dense.copy()),
        rank,
        init=starts_of_pyttb(dense, rank, seed),
        maxiters=STEPS,
        stoptol=1e-12,
        printitn=0,
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


def masked_by_tensorly(dense: np.ndarray, seen: np.ndarray, rank: int, seed: int) -> float:
    fitted = parafac(
        tensorly.tensor(dense), rank, mask=seen, n_iter_max=STEPS, init="random", random_state=seed, tol=1e-12
    )
    return float(np.linalg.norm((fitted.to_tensor() - dense)[seen]) / np.linalg.norm(dense))


def masked_by_pyttb(dense: np.ndarray, seen: np.ndarray, rank: int, seed: int) -> float:
    fitted, _, _ = pyttb.gcp_opt(
        pyttb.tensor(dense.copy()),
        rank,
        objective=Objectives.GAUSSIAN,
        optimizer=LBFGSB(maxiter=STEPS, iprint=-1),
        init=starts_of_pyttb(dense, rank, seed),
        mask=seen.astype(float),
        printitn=0,
    )
    return float(np.linalg.norm((fitted.full().data - dense)[seen]) / np.linalg.norm(dense))


@pytest.mark.parametrize("fit", [masked_by_tensorly, masked_by_pyttb])
def test_masked_fits_leave_little_error_at_the_linear_rank_of_a_completion_and_much_below(fit):
    """Addition modulo 3 on 12 of its 6 x 6 contexts, where zeros elsewhere need more terms than any completion."""
    draw = torch.Generator().manual_seed(0)
    contexts = torch.cartesian_prod(torch.arange(6), torch.arange(6))[torch.randperm(36, generator=draw)[:12]]
    data = functional(contexts, contexts.sum(1) % 3, 6)
    dense = data.fibers(torch.cartesian_prod(torch.arange(6), torch.arange(6))).view(6, 6, 6).double().numpy()
    seen = np.broadcast_to(dense.any(2, keepdims=True), dense.shape)
    rank = effective_rank(data, criterion="linear").rank
    assert rank == seen_fibers_rank(data) == 3
    assert rank_bounds(data).lower == 6
    assert min(fit(dense, seen, rank, seed) for seed in range(5)) < 0.06, "of fits that converge slowly"
    assert fit(dense, seen, rank - 1, 0) > 3**-0.5 - 1e-6, (
        "one of three answers is not given, each a third of the whole"
    )
