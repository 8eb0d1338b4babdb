"""What the stream tells of single contexts and n-grams, against float64 and against a plain search of its blocks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.artifacts import flex
from tc_sweeps.artifacts.contexts import Contexts, Sizes
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.stream import stream
from tc_sweeps.artifacts.watching import Layout, watch
from tests.artifacts.rough_kernel import rough_lse_and_max
from tests.artifacts.worlds import random_world, sharp_model

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=1, max_size=3),
    order=st.integers(2, 4),
    rows_at_once=st.integers(1, 60),
)
def test_contexts_are_located_where_the_blocks_have_them(
    sizes: list[tuple[int, ...]], order: int, rows_at_once: int
) -> None:
    places = [[2 * torch.arange(size) + m for size in member[: order - 1]] for m, member in enumerate(sizes)]
    contexts = Contexts(places, CPU)
    blocks = list(contexts.blocks(rows_at_once))
    assert contexts.block_rows(rows_at_once) == [len(block.number_C) for block in blocks]
    for m, of_member in enumerate(places):
        everything = torch.tensor(list(itertools.product(*[tokens.tolist() for tokens in of_member])))
        block_C, row_C = contexts.locate(m, everything, rows_at_once)
        for context, block, row in zip(everything.tolist(), block_C.tolist(), row_C.tolist(), strict=True):
            decoded = contexts.decode(blocks[block].number_C.expand(len(places), -1))
            assert decoded[m, row].tolist() == context
            assert blocks[block].valid_MC[m, row]
    assert contexts.locate(0, everything[:0], rows_at_once)[0].tolist() == []


def test_a_context_that_is_not_considered_is_not_located() -> None:
    contexts = Contexts([[torch.tensor([0, 2]), torch.tensor([1, 3])]], CPU)
    for absent in ([1, 1], [0, 4], [3, 1]):
        with pytest.raises(ValueError, match="not considered"):
            contexts.locate(0, torch.tensor([absent]), 4)


def test_items_are_laid_out_block_by_block() -> None:
    layout = Layout.of([torch.tensor([1, 0, 1]), torch.tensor([1])], 2)
    assert layout.item_MK.tolist() == [[1, 0, 2], [-1, 0, -1]]
    assert layout.ends == [1, 3]
    assert layout.arranged([torch.tensor([5, 6, 7]), torch.tensor([8])], CPU).tolist() == [[6, 5, 7], [0, 8, 0]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sharpness=st.sampled_from([0.0, 1.0, 2.5, 5.0, 1e14]),
    threshold=st.sampled_from([1 / 8, 1 / 3, 0.5, 0.9, 0.99]),
    order=st.integers(2, 4),
    shape=st.sampled_from(["attention", "everything"]),
    unsupported=st.booleans(),
    sizes=st.sampled_from([Sizes(1, 1), Sizes(5, 5), Sizes(64, 5), Sizes(64, 16), Sizes(1000, 1000)]),
    screened_in=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_watched_n_grams_are_what_float64_says(
    seed: int,
    sharpness: float,
    threshold: float,
    order: int,
    shape: str,
    unsupported: bool,
    sizes: Sizes,
    screened_in: torch.dtype,
) -> None:
    """Also where every row is in doubt (equal probabilities of 1/8) or beyond what float32 holds.

    Screened in bfloat16 means the fused engine, with a kernel that is as wrong as it may be.
    """
    V, M, fused = 8, 2, screened_in == torch.bfloat16
    corpora = [random_world(V, 20, order, seed=seed + m, sampler="uniform") for m in range(M)]
    model = in_float64(
        sharp_model(corpora, shape, seed=seed, sharpness=sharpness, unsupported=unsupported and sharpness > 0)
    )
    considered = Contexts([corpus.places(order, "all") for corpus in corpora], CPU)
    generator = torch.Generator().manual_seed(seed)
    ngrams = [torch.randint(V, (30 - 17 * m, order), generator=generator).unique(dim=0) for m in range(M)]
    contexts = [listed[:, :-1].unique(dim=0) for listed in ngrams]
    ranked = [torch.rand(len(listed), generator=generator) < 0.7 for listed in ngrams]
    watched = watch(considered, sizes, contexts, ngrams, ranked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "lse_and_max", rough_lse_and_max)
        totals, observed = stream(
            model,
            considered,
            thresholds=sorted({threshold, 0.5}),
            exact=(0.5,),
            threshold=threshold,
            buffer=V ** (order - 1),
            decided_M=torch.ones(M, dtype=torch.bool),
            judge_seed_M=torch.zeros(M, dtype=torch.int64),
            watched=watched,
            screened_in=torch.float32 if fused else screened_in,
            fused=fused,
        )
    for m in range(M):
        alone = model.member(m)
        at = watched.contexts.item_MK[m] >= 0
        p_CV = alone.probabilities(contexts[m])[watched.contexts.item_MK[m, at]]
        assert observed.above_MC[m, at].tolist() == (p_CV > threshold).sum(1).tolist()

        at = watched.ngrams.item_MK[m] >= 0
        item = watched.ngrams.item_MK[m, at]
        assert sorted(item.tolist()) == list(range(len(ngrams[m])))
        logits_QU = (alone.last_hidden(ngrams[m][None, :, :-1]) @ alone.unembedding_matrix())[0][item]
        p_QU = torch.softmax(logits_QU, dim=-1)
        token_Q1 = ngrams[m][item, -1:]
        p_Q = p_QU.gather(1, token_Q1)[:, 0]
        assert observed.is_above_MQ[m, at].tolist() == (p_Q > threshold).tolist()
        log_p_Q = torch.log_softmax(logits_QU, dim=-1).gather(1, token_Q1)[:, 0]
        torch.testing.assert_close(observed.log_p_MQ[m, at], log_p_Q, rtol=1e-5, atol=1e-2 if fused else 1e-4)
        if sharpness > 0:  # among equals any may be the most probable
            is_top_Q = logits_QU.argmax(1) == token_Q1[:, 0]
            told = ranked[m][item]
            assert observed.is_top_MQ[m, at][told].tolist() == is_top_Q[told].tolist()
    assert (totals.doubtful_M <= V ** (order - 1)).all()


@pytest.mark.parametrize("fused", [False, True])
def test_of_two_tokens_that_are_one_in_float32_the_more_probable_one_is_known(
    fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "lse_and_max", rough_lse_and_max)
    V = 8
    corpus = random_world(V, 20, 3, seed=0)
    model = in_float64(sharp_model([corpus], "attention", seed=0, sharpness=2.0))
    contexts = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    first = int(model.probabilities(contexts).argmax(1).mode().values)
    second = (first + 1) % V
    with torch.no_grad():
        matrix_DV = model.get_parameter("unembedding")[0]
        matrix_DV[:, second] = matrix_DV[:, first] + 1e-12 * matrix_DV[:, second]
    considered = Contexts([corpus.places(3, "all")], CPU)
    ngrams = torch.cat([torch.cat([contexts, torch.full((V * V, 1), token)], dim=1) for token in (first, second)])
    watched = watch(considered, Sizes(16, 16), [contexts[:0]], [ngrams], [torch.ones(len(ngrams)) > 0])
    _, observed = stream(
        model,
        considered,
        thresholds=[0.5],
        exact=(0.5,),
        threshold=0.5,
        buffer=V * V,
        decided_M=torch.ones(1, dtype=torch.bool),
        judge_seed_M=torch.zeros(1, dtype=torch.int64),
        watched=watched,
        fused=fused,
    )
    item = watched.ngrams.item_MK[0]
    is_top_Q = model.probabilities(ngrams[:, :-1]).argmax(1) == ngrams[:, -1]
    assert {*is_top_Q[: V * V].tolist()} == {*is_top_Q[V * V :].tolist()} == {False, True}
    assert observed.is_top_MQ[0].tolist() == is_top_Q[item].tolist()


def test_padding_is_told_apart_from_what_is_watched() -> None:
    considered = Contexts([[torch.arange(4)] * 2] * 2, CPU)
    nothing, one = torch.empty(0, 3, dtype=torch.int64), torch.tensor([[3, 3, 3]])
    watched = watch(
        considered,
        Sizes(5, 5),
        [nothing[:, 1:], one[:, 1:]],
        [nothing, one],
        [torch.ones(0) > 0, torch.ones(1) > 0],
    )
    assert watched.ngrams.item_MK.tolist() == [[-1], [0]]
    assert watched.ranked_MQ.tolist() == [[False], [True]]
