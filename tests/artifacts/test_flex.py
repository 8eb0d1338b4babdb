"""The fused screen around its kernel, which only runs on CUDA: `tests/test_gpu.py` has the kernel itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.artifacts import count_artifacts, flex
from tc_sweeps.artifacts.contexts import Contexts, Sizes
from tc_sweeps.artifacts.flex import FlexScreen, Halves, flex_margin, lse_and_max
from tc_sweeps.artifacts.screen import Question, Screened
from tc_sweeps.artifacts.watching import Observed, Spot, watch
from tests.artifacts.rough_kernel import rough_lse_and_max
from tests.artifacts.worlds import random_world, sharp_model

CPU = torch.device("cpu")
NONE = torch.empty(0, 2, dtype=torch.int64)
NOTHING = watch(Contexts([[torch.arange(1)]], CPU), Sizes(1, 1), [NONE[:, :1]], [NONE], [torch.ones(0) > 0])


def read(screen: FlexScreen, hidden_MCD: torch.Tensor) -> Screened:
    """Return what a screen says of rows of which none is watched."""
    pieces = [(slice(0, hidden_MCD.shape[1]), next(NOTHING.spots()))]
    return screen.read(hidden_MCD, pieces, Observed.of(NOTHING, 1))


def test_halves_hold_sixteen_bits() -> None:
    value = torch.tensor([[1 / 3, -1e20, 1e-20, 0.0]], dtype=torch.float64)
    halves = Halves(value, dim=-1)
    assert halves.first[0, 0].item() == 0.333984375
    left = value - halves.first.double() - halves.second.double()
    assert (left.abs() <= 2.0**-16 * value.abs()).all()
    assert halves.of_left == left.norm()


@settings(max_examples=200, deadline=None)
@given(h=st.floats(1, 2), u=st.floats(1, 2))
def test_the_margin_holds_what_splitting_leaves_out(h: float, u: float) -> None:
    """Of one term, beside which what adding up many may lose is small."""
    hidden, tokens = (Halves(torch.tensor([[[value]]], dtype=torch.float64), dim=-1) for value in (h, u))
    nothing_MC = torch.zeros(1, 1, dtype=torch.float64)
    odds_MC = flex_margin(hidden, tokens, nothing_MC, nothing_MC, width=1, vocab_size=1, deepest=1.0).odds_MC
    (h1, h2), (u1, u2) = ((part.first.item(), part.second.item()) for part in (hidden, tokens))
    assert abs(h1 * u1 + h1 * u2 + h2 * u1 - h * u) <= odds_MC.item() / 2 <= 2.0**-13


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sharpness=st.sampled_from([1e-30, 0.1, 1.0, 4.0, 30.0]),
    vocab=st.integers(2, 300),
    width=st.integers(1, 40),
    rows=st.sampled_from([1, 50, 130]),
    unsupported=st.booleans(),
)
def test_what_is_sure_is_what_float64_says(
    seed: int, sharpness: float, vocab: int, width: int, rows: int, unsupported: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, rows, width, generator=generator, dtype=torch.float64) * sharpness
    matrix = torch.randn(2, width, vocab + unsupported, generator=generator, dtype=torch.float64)
    exact = torch.softmax(hidden @ matrix, dim=-1)
    # At exactly the probabilities that rows have, and at those beside them.
    tops = exact[..., :vocab].amax(-1).flatten()
    tops = tops[(tops >= 0.5) & (tops < 1 - 1e-9)][:2].tolist()
    thresholds = sorted({0.5, 0.99, *tops, *(math.nextafter(top, 0) for top in tops if top > 0.5)})
    question = Question.of(thresholds, threshold=thresholds[0], exact=thresholds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "lse_and_max", rough_lse_and_max)
        screen = FlexScreen(matrix, vocab, question, rows=150)
        found = read(screen, hidden)
    assert found.sure_MC.double().mean() > (0.5 if 0.1 <= sharpness <= 4 and width > 4 and not tops else -1)
    for threshold in thresholds:
        said = (found.top_MC > threshold) == (exact[..., :vocab].amax(-1) > threshold)
        assert said[found.sure_MC].all()
    if unsupported:
        assert found.unsupported_MC is not None
        said = (found.unsupported_MC > thresholds[0]) == (exact[..., -1] > thresholds[0])
        assert said[found.sure_MC].all()
    else:
        assert found.unsupported_MC is None


def test_its_operands_have_shapes_that_do_not_change() -> None:
    """The widths are powers of 2 and the rows a multiple of 128, whatever a block has."""
    shapes = set()

    def recording(query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.add((query.dtype, *query.shape, *key.shape))
        return rough_lse_and_max(query, key)

    matrix = torch.randn(2, 6, 9, dtype=torch.float64)
    question = Question.of([0.5], threshold=0.5, exact=[0.5])
    screen = FlexScreen(matrix, 9, question, rows=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "lse_and_max", recording)
        for rows in (300, 77):
            assert read(screen, torch.randn(2, rows, 6, dtype=torch.float64)).top_MC.shape == (2, rows)
    assert shapes == {(torch.bfloat16, 2, 1, 384, 32, 2, 1, 9, 32)}


def test_pieces_of_a_block_are_joined() -> None:
    def spot(begin: int, rows: list[list[int]]) -> Spot:
        row = torch.tensor(rows)
        end = begin + row.shape[1]
        return Spot(slice(begin, end), row, slice(begin, end), row, row + 5, row > 0)

    joined = Spot.joined([(slice(0, 4), spot(7, [[0, 3]])), (slice(4, 8), spot(9, [[1]]))])
    assert (joined.span, joined.context_span) == (slice(7, 10), slice(7, 10))
    assert joined.row_MQ.tolist() == joined.context_row_MC.tolist() == [[0, 3, 5]]
    assert joined.token_MQ.tolist() == [[5, 8, 6]]
    assert joined.ranked_MQ.tolist() == [[False, True, True]]
    assert joined.rows_with(torch.tensor([[True, False, True]]), 6).nonzero()[:, 1].tolist() == [0, 5]


def test_it_fails_rather_than_have_all_logits_in_memory() -> None:
    corpus = random_world(8, 20, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    with pytest.raises(RuntimeError, match="flex needs a CUDA device"):
        count_artifacts(model, corpus, engine="flex")
    operand = torch.zeros(1, 1, 128, 16)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        lse_and_max(operand, operand)
    with pytest.raises(RuntimeError, match="has to be compiled"):
        flex._attention(operand, operand, operand)


def test_thresholds_below_a_half_are_not_for_it() -> None:
    with pytest.raises(ValueError, match=r"nothing about the threshold 0\.3"):
        FlexScreen(torch.zeros(1, 2, 3), 3, Question.of([0.3], threshold=0.3, exact=[]), rows=1)


def test_wider_models_than_its_kernel_holds_are_not_for_it() -> None:
    question = Question.of([0.5], threshold=0.5, exact=[])
    FlexScreen(torch.zeros(1, 170, 3), 3, question, rows=1)
    with pytest.raises(ValueError, match="holds models of a width up to 170"):
        FlexScreen(torch.zeros(1, 171, 3), 3, question, rows=1)


def test_most_of_the_memory_is_for_hidden_states_where_no_logits_are_held() -> None:
    corpus = random_world(300, 30, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    contexts = Contexts([corpus.places(3, "all")], torch.device("cpu"))
    held, fused = (contexts.sizes(model, 1 << 20, fused=fused) for fused in (False, True))
    assert fused.block > 2 * held.block
    assert fused.piece < held.piece
