"""How far a completion is from the data: KL, total variation and cosine against loops and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine as cosine_distance
from scipy.stats import entropy

from tc_sweeps.corpus import DataTensor, consistency


def random_data(seed: int, V: int = 5) -> DataTensor:
    generator = torch.Generator().manual_seed(seed)
    sentences = torch.randint(V, (30, 3), generator=generator)
    return DataTensor.of(sentences, 3, V)


def positive_completion(data: DataTensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(data.contexts_Cn), data.vocab_size, generator=generator, dtype=torch.float64) + 0.01


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.1, 100.0))
def test_kl_total_variation_and_cosine_equal_scipy_and_numpy_after_normalising(seed, scale):
    data = random_data(seed)
    completion = positive_completion(data, seed + 1)
    found = consistency(data, completion * scale)
    for i, context in enumerate(data.contexts_Cn):
        fiber = data.fibers(context[None])[0].numpy().astype(float)
        p, q = fiber / fiber.sum(), completion[i].numpy() / completion[i].numpy().sum()
        assert float(found.kl_C[i]) == pytest.approx(entropy(p, q), abs=1e-12)
        assert float(found.total_variation_C[i]) == pytest.approx(np.abs(p - q).sum() / 2, abs=1e-12)
        assert float(found.cosine_C[i]) == pytest.approx(1 - cosine_distance(p, q), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_a_consistent_completion_has_divergence_0_distance_0_and_cosine_1(seed):
    data = random_data(seed)
    scale = torch.arange(1, len(data.contexts_Cn) + 1)[:, None]
    found = consistency(data, data.fibers(data.contexts_Cn) * scale)
    assert found.kl_C.abs().max() < 1e-14
    assert found.total_variation_C.max() < 1e-14
    assert (found.cosine_C - 1).abs().max() < 1e-14


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_any_other_completion_is_farther_from_the_data(seed):
    data = random_data(seed)
    found = consistency(data, positive_completion(data, seed + 1))
    assert (found.kl_C > 0).all()
    assert ((found.total_variation_C > 0) & (found.total_variation_C <= 1)).all()
    assert ((found.cosine_C > 0) & (found.cosine_C < 1)).all()
    assert (found.kl_C >= 2 * found.total_variation_C**2 - 1e-12).all(), "Pinsker's inequality"


def test_a_completion_that_rules_out_the_data_is_infinitely_far_and_orthogonal():
    data = DataTensor.of(torch.tensor([[0, 1, 2]]), 3, 4)
    found = consistency(data, torch.tensor([[0.5, 0.5, 0.0, 0.0]]))
    assert found.kl_C.tolist() == [torch.inf]
    assert found.total_variation_C.tolist() == [1.0]
    assert found.cosine_C.tolist() == [0.0]


def test_tokens_outside_the_data_and_the_completion_add_nothing_to_the_divergence():
    data = DataTensor.of(torch.tensor([[0, 1], [0, 2]]), 2, 4)
    found = consistency(data, torch.tensor([[0.0, 0.25, 0.75, 0.0]]))
    wanted = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert found.kl_C.tolist() == pytest.approx([wanted], abs=1e-15)
    assert found.total_variation_C.tolist() == pytest.approx([0.25], abs=1e-15)
