"""Spectra against singular values of the whole tensor: log-probabilities in float64, unfolded, one member at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tc_sweeps.artifacts import Counter, JointCounter
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.config import METRICS, MOST_UNFOLDINGS
from tc_sweeps.corpus import Corpus
from tc_sweeps.model import ToyTransformer
from tc_sweeps.rank import Spectra, head_spectra, nuclear_norm, numerical_rank, stable_rank, unfolding_spectra
from tests.artifacts.worlds import random_world, sharp_model

CPU = torch.device("cpu")


def by_brute_force(model: ToyTransformer, places: list[Tensor]) -> list[Tensor]:
    """Return the singular values of every unfolding of one model's centred log-probabilities."""
    doubles = in_float64(model)
    contexts_Cm = torch.cartesian_prod(*places).view(-1, len(places))
    logits_CU = (doubles.last_hidden(contexts_Cm[None]) @ doubles.unembedding_matrix())[0]
    log_p_CV = logits_CU.log_softmax(1)[:, : model.vocab_size]  # with the unsupported token in the sum
    centred = (log_p_CV - log_p_CV.mean(1, keepdim=True)).view(*map(len, places), model.vocab_size)
    return [torch.linalg.svdvals(centred.movedim(i, 0).flatten(1)) for i in range(centred.dim())]


def assert_same_spectrum(found: Tensor, expected: Tensor) -> None:
    """Up to zeros at the end; squares have been added up, so that half the digits are left of small values."""
    length = max(len(found), len(expected))
    one, other = (
        torch.nn.functional.pad(s.sort(descending=True).values, (0, length - len(s))) for s in (found, expected)
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=3e-7 * float(expected.max()))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Corpus], ToyTransformer, list[list[Tensor]]]:
    order = draw(st.integers(2, 4))
    V = draw(st.integers(2, {2: 20, 3: 9, 4: 5}[order]))
    sentences = draw(st.integers(1, min(12, V ** (order - 1))))
    corpora = [random_world(V, sentences, order, seed=seed) for seed in range(draw(st.integers(1, 3)))]
    shape, unsupported = draw(st.sampled_from(["attention", "everything"])), draw(st.booleans())
    model = sharp_model(corpora, shape, seed=draw(st.integers(0, 99)), sharpness=2.0, unsupported=unsupported)
    contexts = draw(st.sampled_from(["all", "typed"]))
    return corpora, model, [corpus.places(order, contexts) for corpus in corpora]


@settings(max_examples=30, deadline=None)
@given(worlds(), st.integers(1, 2000))
def test_unfoldings_have_the_singular_values_of_the_dense_tensor(world: Any, contexts_at_once: int) -> None:
    _, model, places = world
    for m, tokens in enumerate(places):
        alone = model.member(m)
        expected = by_brute_force(alone, tokens)
        found = unfolding_spectra(in_float64(alone), [t[None] for t in tokens], contexts_at_once=contexts_at_once)
        assert len(found) == len(tokens) + 1
        for one, other in zip(found, expected, strict=True):
            assert_same_spectrum(one[0], other)


@settings(max_examples=10, deadline=None)
@given(worlds(), st.integers(1, 500))
def test_members_of_a_stack_are_told_apart(world: Any, contexts_at_once: int) -> None:
    """Together, as on a device: the same up to rounding."""
    corpora, model, _ = world
    M, places = len(corpora), corpora[0].places(corpora[0].order, "all")
    tokens = [t.expand(M, -1) for t in places]
    together = unfolding_spectra(in_float64(model), tokens, contexts_at_once=contexts_at_once)
    for m in range(M):
        for one, other in zip(together, by_brute_force(model.member(m), places), strict=True):
            assert_same_spectrum(one[m], other)


@pytest.mark.parametrize("shape", ["attention", "everything"])
def test_heads_have_the_singular_values_of_their_products(shape: str) -> None:
    model = sharp_model([random_world(6, 8, 3, seed=seed) for seed in (0, 1)], shape, seed=3)
    config, found = model.config, head_spectra(in_float64(model))
    for m in range(2):
        for layer in range(config.layers):
            query, key, value, output = (
                model.get_parameter(f"{name}{layer}")[m].detach().double()
                for name in ("query", "key", "value", "output")
            )
            for h in range(config.heads):
                qk = slice(h * config.qk_width, (h + 1) * config.qk_width)
                vo = slice(h * config.vo_width, (h + 1) * config.vo_width)
                for name, product in (
                    ("query_key", query[:, qk] @ key[:, qk].T),
                    ("value_output", value[:, vo] @ output[vo]),
                ):
                    assert_same_spectrum(found[name][m, layer, h], torch.linalg.svdvals(product))


def test_what_is_told_of_a_spectrum() -> None:
    spectrum = torch.tensor([[4.0, 2.0, 0.5, 0.3], [0.0, 0.0, 0.0, 0.0], [math.nan, 1.0, 1.0, 1.0]])
    told = [of(spectrum) for of in (stable_rank, nuclear_norm, numerical_rank)]
    assert [value[0].item() for value in told] == pytest.approx([20.34 / 16, 6.8, 3])
    assert told[0][1].isnan()
    assert [told[1][1].item(), told[2][1].item()] == [0, 0]
    assert all(value[2].isnan() for value in told)


def test_metrics_are_means_over_heads_and_layers() -> None:
    corpora = [random_world(6, 8, 3, seed=seed) for seed in (0, 1)]
    model = in_float64(sharp_model(corpora, "everything", seed=0))
    told = Spectra([c.places(3, "all") for c in corpora], memory_mib=1, device=CPU)(model)
    assert set(told) < set(METRICS)
    heads = head_spectra(model)
    for name in ("query_key", "value_output"):
        for m in range(2):
            rank = sum(stable_rank(heads[name][m, layer, h]).item() for layer in range(2) for h in range(2)) / 4
            assert told[f"spectra/{name}/stable_rank"][m].item() == pytest.approx(rank, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(worlds())
def test_a_member_has_the_numbers_it_has_alone_bit_for_bit(world: Any) -> None:
    _, model, places = world
    told = Spectra(places, memory_mib=1, device=CPU)(in_float64(model))
    for m, tokens in enumerate(places):
        alone = Spectra([tokens], memory_mib=1, device=CPU)(in_float64(model.member(m)))
        for name, value_M in told.items():
            torch.testing.assert_close(value_M[m : m + 1], alone[name], rtol=0, atol=0, equal_nan=True)


def test_a_member_that_has_diverged_spoils_nobody_and_has_empty_cells() -> None:
    corpora = [random_world(7, 10, 3, seed=seed) for seed in (0, 1, 2)]
    model = sharp_model(corpora, "attention", seed=0)
    told = Spectra([c.places(3, "all") for c in corpora], memory_mib=1, device=CPU)
    expected = told(in_float64(model))
    with torch.no_grad():
        model.get_parameter("embedding")[1] = math.inf
    spoilt = told(in_float64(model))
    for name, value_M in spoilt.items():
        assert torch.equal(value_M[[0, 2]], expected[name][[0, 2]])
        if "unfolding" in name:
            assert value_M[1].isnan()


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("measure", ["conditional", "joint"])
def test_what_is_told_beside_the_counts_enters_the_rows(order: int, measure: str) -> None:
    corpora = [random_world(7, 6, 3, seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    places = [c.places(order, "all") for c in corpora]
    settings: dict[str, Any] = {"order": order, "memory_mib": 16, "device": CPU}
    counter = (
        JointCounter(corpora, epsilon=None, **settings)
        if measure == "joint"
        else Counter(corpora, threshold=0.5, contexts="all", **settings)
    )
    plain = counter.evaluate(model).rows
    told = Spectra(places, memory_mib=16, device=CPU)
    rows = counter.evaluate(model, beside=told).rows
    expected = told(in_float64(model))
    for m, row in enumerate(rows):
        assert {name: row.pop(name) for name in expected} == {name: v[m].item() for name, v in expected.items()}
        assert row == plain[m]
    assert [f"spectra/unfolding_{place}/stable_rank" in expected for place in range(1, MOST_UNFOLDINGS + 1)] == [
        place <= order for place in range(1, MOST_UNFOLDINGS + 1)
    ]
