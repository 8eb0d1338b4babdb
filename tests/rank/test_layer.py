"""The layer tensor against the model itself, its bounds against ranks of given weights, and what it decodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tc_sweeps.artifacts import count_artifacts
from tc_sweeps.config import resolve
from tc_sweeps.model import ToyTransformer
from tc_sweeps.rank import (
    decoded_tensor,
    layer_rank_bounds,
    layer_tensor,
    numerical_flattening_ranks,
    rank_bounds,
    softmax_at_least,
)
from tc_sweeps.rank.layer import first_token_share
from tests.artifacts.worlds import random_world


def model_of(vocab_size: int, seeds: list[int], *, unsupported: bool = False, **shape: Any) -> ToyTransformer:
    config = resolve({"model": shape}).model
    return ToyTransformer(config, vocab_size=vocab_size, max_length=2, seeds=seeds, unsupported=unsupported)


def all_contexts(vocab_size: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(vocab_size), torch.arange(vocab_size))


@st.composite
def layers(draw: st.DrawFn) -> ToyTransformer:
    width, heads = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    return model_of(
        draw(st.integers(2, 9)),
        draw(st.lists(st.integers(0, 99), min_size=1, max_size=3)),
        unsupported=draw(st.booleans()),
        width=width,
        heads=heads,
        qk_width=draw(st.integers(1, 4)),
        vo_width=draw(st.integers(1, 4)),
        tied=draw(st.booleans()),
        init_scale=3.0,
    )


@settings(max_examples=40, deadline=None)
@given(layers())
def test_the_layer_tensor_has_the_logits_of_the_model(model: ToyTransformer) -> None:
    M, V = model.num_members, model.vocab_size
    layer_MVVV = layer_tensor(model)
    model.double()
    logits_MCU = model.last_hidden(all_contexts(V).expand(M, -1, -1)) @ model.unembedding_matrix()
    torch.testing.assert_close(layer_MVVV, logits_MCU[..., :V].detach().view(M, V, V, V), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer_MVVV.diagonal(dim1=1, dim2=2).mT[:, 0], layer_MVVV[:, 0, 0])


@settings(max_examples=40, deadline=None)
@given(layers())
def test_no_flattening_has_a_rank_beyond_the_bounds(model: ToyTransformer) -> None:
    bounds = layer_rank_bounds(model.config, model.vocab_size)
    for layer_VVV in layer_tensor(model):
        lower = numerical_flattening_ranks(layer_VVV)
        for place, rank in lower.items():
            assert rank <= bounds.flattenings[place]
        assert max(lower.values()) <= bounds.upper


def terms(layer: ToyTransformer) -> list[tuple[Tensor, Tensor]]:
    """The terms of `layer_rank_bounds` through the heads: matrices [V, V] over (a, b) with vectors [V] over c.

    One head and one member; the first part is written with columns of its own matrix over (b, c).
    """
    weights = {name: value[0].detach().double() for name, value in layer.named_parameters()}
    embedding, unembedding = weights["embedding"], weights["unembedding"]
    x_VK, y_KV = embedding @ weights["value0"], weights["output0"] @ unembedding
    share_VV = first_token_share(layer)[0, 0]
    left, values, right = torch.linalg.svd(embedding @ unembedding + x_VK @ y_KV, full_matrices=False)
    rank = int((values > 1e-10 * values[0]).sum())
    direct = [((left[:, k] * values[k]).expand(len(left), -1), right[k]) for k in range(rank)]  # 1[a] times f(b)
    moved = [(share_VV * (x[:, None] - x[None]), y) for x, y in zip(x_VK.T, y_KV, strict=True)]
    return [*direct, *moved]


@pytest.mark.parametrize("vo_width", [1, 2, 5])
def test_as_many_terms_as_the_bound_through_the_heads_sum_to_the_layer_tensor(vo_width: int) -> None:
    model = model_of(7, [0], width=5, heads=1, qk_width=1, vo_width=vo_width)
    parts = terms(model)
    summed = sum(matrix[..., None] * vector for matrix, vector in parts)
    torch.testing.assert_close(summed, layer_tensor(model)[0], rtol=1e-10, atol=1e-10)
    needed = sum(int(torch.linalg.matrix_rank(matrix)) for matrix, _ in parts)
    assert needed <= layer_rank_bounds(model.config, 7).heads


def test_bounds_grow_with_heads_and_their_value_width_but_not_with_the_query_width() -> None:
    def upper(**shape: Any) -> int:
        return layer_rank_bounds(resolve({"model": {"width": 32, **shape}}).model, 100).upper

    assert upper(heads=1, vo_width=1) == 100 * 1 + 32
    assert upper(heads=4, vo_width=2) == 100 * 8 + 32
    assert upper(heads=4, vo_width=8) == upper(heads=8, vo_width=8) == 100 * 32  # the residual stream is the limit
    assert upper(heads=4, vo_width=2, qk_width=1) == upper(heads=4, vo_width=2, qk_width=64)
    assert layer_rank_bounds(resolve({"model": {"width": 32}}).model, 10).upper == 10 * 10


def test_attention_has_full_rank_though_queries_have_one_dimension() -> None:
    """The sigmoid is taken entry by entry: scores of rank 2 become a matrix of rank V."""
    model = model_of(12, [0], width=16, heads=1, qk_width=1, init_scale=8.0)
    share_VV = first_token_share(model)[0, 0]
    assert torch.linalg.matrix_rank(torch.logit(share_VV), rtol=1e-9) == 2
    assert torch.linalg.matrix_rank(share_VV) == 12
    assert numerical_flattening_ranks(layer_tensor(model)[0])["1"] == 12


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"layers": 2}, "model.layers=2"),
        ({"mlp_width": 4}, "model.layers=1, model.mlp_width=4"),
        ({"positions": True, "biases": True}, "model.positions=True, model.biases=True"),
        ({"layer_norm": True}, "model.layer_norm=True"),
    ],
)
def test_other_models_have_no_layer_tensor(shape: dict[str, Any], said: str) -> None:
    model = model_of(5, [0], width=4, heads=1, **shape)
    with pytest.raises(ValueError, match=said):
        layer_tensor(model)


def test_layer_tensors_that_are_too_large_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 layer tensors of 210\^3 entries"):
        layer_tensor(model_of(210, [0, 1], width=4, heads=1))


# ------------------------------------------------------------------------------------------------------ what is decoded


def test_softmax_at_least_takes_in_what_is_tau() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
    assert softmax_at_least(logits, 0.5).tolist() == [[1, 1], [1, 0]]
    assert softmax_at_least(logits, 0.51).tolist() == [[0, 0], [1, 0]]


@pytest.fixture(scope="module")
def memorised() -> tuple[ToyTransformer, Any]:
    """A model that has memorised functional triples, the last token of each, and its corpus."""
    corpus = random_world(9, 20, 3, seed=1)
    model = model_of(9, [0], width=16, heads=2)
    context, answer = corpus.sentences[:, :-1], corpus.sentences[:, -1]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -model.probabilities(context)[torch.arange(20), answer].log().mean()
        loss.backward()
        optimizer.step()
    return model.double().requires_grad_(False), corpus


def test_what_is_decoded_on_seen_fibers_is_the_data(memorised: tuple[ToyTransformer, Any]) -> None:
    model, corpus = memorised
    data = corpus.tensor(3)
    seen = decoded_tensor(model, data.contexts_Cn, 0.5)
    assert torch.equal(seen.ngrams_Gn, data.ngrams_Gn)
    assert rank_bounds(seen) == rank_bounds(data)
    whole = decoded_tensor(model, all_contexts(9), 0.5)
    assert {tuple(row) for row in whole.ngrams_Gn.tolist()} >= {tuple(row) for row in data.ngrams_Gn.tolist()}
    assert len(whole.ngrams_Gn) - 20 == count_artifacts(model, corpus, threshold=0.5).count.item() > 0
    # The fibers of the data are some of those that are decoded: the flattening of last tokens has no smaller rank.
    assert rank_bounds(whole).flattenings["3"] >= rank_bounds(data).flattenings["3"]
    assert rank_bounds(whole).lower <= rank_bounds(whole).upper


def test_decoding_equals_that_of_the_layer_tensor(memorised: tuple[ToyTransformer, Any]) -> None:
    model, _ = memorised
    for tau in (0.1, 0.5, 0.999):
        decoded = decoded_tensor(model, all_contexts(9), tau)
        assert torch.equal(torch.nonzero(softmax_at_least(layer_tensor(model)[0], tau)), decoded.ngrams_Gn)


def test_only_one_completion_is_decoded() -> None:
    with pytest.raises(ValueError, match="a stack of 2"):
        decoded_tensor(model_of(5, [0, 1], width=4, heads=1), all_contexts(5), 0.5)
