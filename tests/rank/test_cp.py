"""CP logit tensors: their gradients, norms and starts, against dense tensors in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.rank.cp import CPLogits, _gradients, _rows, fit, joined, random_starts, truncated
from tests.rank.made import planted

V = 5


def random_logits(members: int, rank: int, order: int, seed: int = 0) -> CPLogits:
    draw = torch.Generator().manual_seed(seed)
    factors = [torch.randn(members, V, rank, generator=draw, dtype=torch.float64) for _ in range(order)]
    return CPLogits(torch.full((members,), rank), torch.zeros(members, dtype=torch.bool), tuple(factors))


def dense(factors: tuple[torch.Tensor, ...], member: int, component: int) -> torch.Tensor:
    """One component as a tensor of V^n entries."""
    entries = torch.ones((), dtype=factors[0].dtype)
    for factor in factors:
        entries = entries[..., None] * factor[member, :, component]
    return entries


@pytest.mark.parametrize("order", [2, 3, 4])
def test_logits_are_the_sum_over_components_of_products_of_factors(order):
    stack = random_logits(2, 3, order)
    contexts = torch.cartesian_prod(*[torch.arange(V)] * (order - 1)).view(-1, order - 1)
    for member, logits_CV in enumerate(stack.logits(contexts)):
        whole = sum(dense(stack.factors, member, component) for component in range(3))
        torch.testing.assert_close(logits_CV, whole.view(-1, V))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_by_hand_are_those_of_autograd(order):
    stack = random_logits(2, 3, order)
    contexts = torch.randint(V, (30, order - 1), generator=torch.Generator().manual_seed(1))
    answers = torch.arange(30) % V
    factors = [factor.requires_grad_() for factor in stack.factors]
    logits_MCV = stack.logits(contexts)
    loss = (logits_MCV.logsumexp(2) - logits_MCV[:, torch.arange(30), answers]).sum()
    expected = torch.autograd.grad(loss, factors)
    with torch.no_grad():
        rows = _rows(factors, contexts)
        residual_MCV = logits_MCV.softmax(2) - torch.nn.functional.one_hot(answers, V)
        found = _gradients(residual_MCV, rows, math.prod(rows[1:], start=rows[0]), factors, contexts)
    torch.testing.assert_close(found, list(expected))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
def test_the_norm_is_the_sum_of_the_components_root_mean_squares(members, rank, order, seed):
    stack = random_logits(members, rank, order, seed)
    for member in range(members):
        sizes = [dense(stack.factors, member, component).square().mean().sqrt() for component in range(rank)]
        torch.testing.assert_close(stack.norm_M[member], sum(sizes))
        if order == 2:  # no way to write a matrix has less than its nuclear norm
            whole = sum(dense(stack.factors, member, component) for component in range(rank))
            assert torch.linalg.matrix_norm(whole, "nuc") <= V * stack.norm_M[member] * (1 + 1e-9)


@pytest.mark.parametrize("order", [2, 3])
def test_truncated_fits_keep_their_largest_components_at_unit_variance(order):
    stack = random_logits(3, 4, order)
    starts = truncated(stack, 2, 3)
    assert starts.rank_M.tolist() == [2, 2, 2]
    for member in range(3):
        before = [dense(stack.factors, member, component) for component in range(4)]
        largest = sorted(before, key=lambda entries: -float(entries.norm()))[:2]
        after = sorted((dense(starts.factors, member, c) for c in range(2)), key=lambda entries: -float(entries.norm()))
        scale = after[0].norm() / largest[0].norm()
        for kept, entries in zip(largest, after, strict=True):
            torch.testing.assert_close(entries, scale * kept)
        assert float(sum(entries.square().mean() for entries in after)) == pytest.approx(1.0)
        for factor in starts.factors[1:]:  # spread evenly over the factors
            torch.testing.assert_close(factor[member].norm(dim=0), starts.factors[0][member].norm(dim=0))


def test_consistent_fits_are_truncated_before_others():
    stack = random_logits(3, 2, 3)
    marked = CPLogits(stack.rank_M, torch.tensor([False, True, False]), stack.factors)
    assert torch.equal(truncated(marked, 1, 1).factors[0], truncated(marked, 1, 3).factors[0][:1])
    alone = CPLogits(stack.rank_M[1:2], torch.tensor([True]), tuple(factor[1:2] for factor in stack.factors))
    assert torch.equal(truncated(marked, 1, 1).factors[0], truncated(alone, 1, 1).factors[0])


def test_random_starts_are_those_of_a_larger_stack_and_rank_up_to_scale():
    data = planted(2, vocab_size=6, contexts=12)
    alone = random_starts(data, [2], restarts=2, seed=3)
    stack = random_starts(data, [4, 2], restarts=3, seed=3)
    for one, many in zip(alone.factors, stack.factors, strict=True):
        assert torch.equal(one, many[3:5, :, :2])
        torch.testing.assert_close(one / many[:2, :, :2], torch.full_like(one, 2 ** (1 / 6)))


def test_a_stack_ends_once_enough_fits_are_consistent():
    data = planted(2, vocab_size=8, contexts=40)
    starts = joined([random_starts(data, [4], restarts=4, seed=seed) for seed in (0, 1)])
    assert fit(data, starts).consistent_M.all()
    assert 2 <= fit(data, starts, enough=2).consistent_M.sum() < 8
