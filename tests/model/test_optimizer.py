"""AdamW for a stack against PyTorch's, what happens to inactive members, schedules and evaluation steps."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tc_sweeps.config import resolve
from tc_sweeps.model import VectorAdamW, evaluation_steps
from tc_sweeps.model.optimizer import rate_factor

SHAPES = [(4, 3), (5,), (2, 2)]


def training(**values):
    return resolve({"training": {"steps": 1000, "evaluations": 1, **values}}).training


def parameters(members: int, precision=torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(members)
    return [nn.Parameter(torch.randn(members, *s, generator=generator, dtype=precision)) for s in SHAPES]


def gradients_at(step: int, members: int, precision=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(members, *s, generator=generator, dtype=precision) * 10 ** (step % 3 - 1.0) for s in SHAPES]


def values_of(adamw: VectorAdamW) -> list[torch.Tensor]:
    return [t.detach().clone() for part in (adamw.parameters, adamw.mean, adamw.square) for t in part]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"weight_decay": 0.3, "learning_rate": 0.05},
        {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3},
        {"beta1": 0.0, "beta2": 0.0},
        {"clip_norm": 0.7, "weight_decay": 0.1},
        {"warmup_steps": 6, "schedule": "cosine", "steps": 40},
    ],
    ids=str,
)
def test_one_member_moves_as_pytorchs_adamw_does(values):
    s = training(**values)
    ours, theirs = parameters(1), parameters(1)
    adamw = VectorAdamW(ours, [s])
    reference = torch.optim.AdamW(
        theirs, lr=s.learning_rate, betas=(s.beta1, s.beta2), eps=s.epsilon, weight_decay=s.weight_decay
    )
    for step in range(30):
        adamw.step(gradients_at(step, 1), torch.tensor(step), torch.tensor([True]))
        for parameter, gradient in zip(theirs, gradients_at(step, 1), strict=True):
            parameter.grad = gradient
        if s.clip_norm is not None:
            nn.utils.clip_grad_norm_(theirs, s.clip_norm)
        reference.param_groups[0]["lr"] = s.learning_rate * rate_factor(s, step)
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_in_float32_one_member_moves_as_pytorchs_adamw_does_but_for_rounding():
    s = training(weight_decay=0.1, learning_rate=0.01)
    ours, theirs = parameters(1, torch.float32), parameters(1, torch.float32)
    adamw = VectorAdamW(ours, [s])
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1)
    for step in range(30):
        adamw.step(gradients_at(step, 1, torch.float32), torch.tensor(step), torch.tensor([True]))
        for parameter, gradient in zip(theirs, gradients_at(step, 1, torch.float32), strict=True):
            parameter.grad = gradient
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_members_move_with_their_own_rate_and_decay_as_if_alone(clip_norm):
    each = [
        training(learning_rate=rate, weight_decay=decay, clip_norm=clip_norm)
        for rate, decay in ((0.1, 0.0), (0.001, 0.5), (0.02, 0.1))
    ]
    together = VectorAdamW(parameters(3), each)
    alone = [VectorAdamW([nn.Parameter(p[m : m + 1].detach().clone()) for p in parameters(3)], [each[m]])
             for m in range(3)]  # fmt: skip
    for step in range(10):
        gradients = gradients_at(step, 3)
        together.step(gradients, torch.tensor(step), torch.ones(3, dtype=torch.bool))
        for m in range(3):
            alone[m].step([g[m : m + 1] for g in gradients], torch.tensor(step), torch.tensor([True]))
    for m in range(3):
        for stacked, single in zip(values_of(together), values_of(alone[m]), strict=True):
            assert torch.equal(stacked[m], single[0])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_inactive_members_do_not_move_even_when_their_gradient_is_not_finite(poison, clip_norm):
    each = [training(weight_decay=0.2, clip_norm=clip_norm)] * 3
    poisoned, healthy = VectorAdamW(parameters(3), each), VectorAdamW(parameters(3), each)
    everyone = torch.ones(3, dtype=torch.bool)
    for adamw in (poisoned, healthy):
        adamw.step(gradients_at(0, 3), torch.tensor(0), everyone)
    before = values_of(poisoned)
    for step in range(1, 5):
        gradients = gradients_at(step, 3)
        healthy.step(gradients, torch.tensor(step), everyone)
        for gradient in gradients:
            gradient[1] = poison
        poisoned.step(gradients, torch.tensor(step), torch.tensor([True, False, True]))
    for at_first, now, without in zip(before, values_of(poisoned), values_of(healthy), strict=True):
        assert torch.equal(now[1], at_first[1])
        assert torch.equal(now[[0, 2]], without[[0, 2]])
        assert not torch.equal(now[[0, 2]], at_first[[0, 2]])


def test_clipping_looks_at_each_members_norm_over_all_its_parameters():
    s = training(clip_norm=2.0, beta1=0.0)  # without momentum the mean is the gradient that was used
    adamw = VectorAdamW(parameters(3), [s] * 3)
    gradients = gradients_at(1, 3)
    norms = torch.stack([(g * g).flatten(1).sum(1) for g in gradients]).sum(0).sqrt()
    wanted_norms = torch.tensor([0.5, 2.0 * 1.5, 400.0], dtype=torch.float64)
    gradients = [g * (wanted_norms / norms).view(-1, *[1] * (g.dim() - 1)) for g in gradients]
    adamw.step(gradients, torch.tensor(0), torch.ones(3, dtype=torch.bool))
    used = torch.stack([(g * g).flatten(1).sum(1) for g in adamw.mean]).sum(0).sqrt()
    torch.testing.assert_close(used, torch.tensor([0.5, 2.0, 2.0], dtype=torch.float64), rtol=1e-5, atol=0)
    for mean, gradient in zip(adamw.mean, gradients, strict=True):
        assert torch.equal(mean[0], gradient[0]), "below the bound nothing is scaled"
        torch.testing.assert_close(mean[2], gradient[2] / 200, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gone", ["gradient", "moment"])
def test_a_member_that_overflowed_stays_where_it_is_once_it_is_inactive(gone):
    adamw = VectorAdamW(parameters(2, torch.float32), [training()] * 2)
    huge = [g * 1e25 for g in gradients_at(0, 2, torch.float32)]  # its square is infinite in float32
    adamw.step(huge if gone == "moment" else gradients_at(0, 2), torch.tensor(0), torch.tensor([True, True]))
    before = values_of(adamw)
    adamw.step(huge, torch.tensor(1), torch.tensor([True, False]))
    assert all(torch.equal(now[1], at_first[1]) for now, at_first in zip(values_of(adamw), before, strict=True))


def test_parameters_and_moments_can_be_read_and_written_by_parameter():
    given = parameters(3)
    adamw = VectorAdamW(given, [training()] * 3)
    assert all(a is b for a, b in zip(adamw.parameters, given, strict=True))
    for at_first, parameter in zip(parameters(3), given, strict=True):
        assert torch.equal(at_first, parameter)
    everyone = torch.ones(3, dtype=torch.bool)
    for step in range(3):
        adamw.step(gradients_at(step, 3), torch.tensor(step), everyone)
    second = VectorAdamW([nn.Parameter(p.detach().clone()) for p in given], [training()] * 3)
    for old, new in ((adamw.mean, second.mean), (adamw.square, second.square)):
        for moment, written, parameter in zip(old, new, given, strict=True):
            assert moment.shape == parameter.shape
            written.copy_(moment)
    for either in (adamw, second):
        either.step(gradients_at(3, 3), torch.tensor(3), everyone)
    assert all(torch.equal(a, b) for a, b in zip(values_of(adamw), values_of(second), strict=True))


# ------------------------------------------------------------------------------------------------------- the schedules


def test_a_constant_rate_stays():
    s = training()
    assert {rate_factor(s, step) for step in range(1000)} == {1.0}


def test_warm_up_is_linear_from_the_first_step_and_then_full():
    s = training(warmup_steps=4)
    assert [rate_factor(s, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("warmup", [0, 10])
def test_a_cosine_falls_from_1_to_0_over_the_steps_after_the_warm_up(warmup):
    s = training(steps=110, warmup_steps=warmup, schedule="cosine")
    factors = [rate_factor(s, step) for step in range(warmup, 111)]
    assert factors[0] == 1.0
    assert factors[(110 - warmup) // 2] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.0, abs=1e-15)
    assert factors == sorted(factors, reverse=True)
    assert all(rate_factor(s, step) == (step + 1) / 10 for step in range(warmup))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 400), st.sampled_from(["constant", "cosine"]))
def test_the_rate_is_positive_and_never_above_the_configured_one(steps, warmup, schedule):
    s = training(steps=steps, warmup_steps=min(warmup, steps), schedule=schedule)
    assert all(0 < rate_factor(s, step) <= 1 for step in range(steps))


# ----------------------------------------------------------------------------------------------------- the evaluations


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 5000), st.data(), st.sampled_from(["even", "log"]))
def test_evaluations_are_as_many_as_asked_increasing_and_the_last_at_the_last_step(steps, data, spacing):
    evaluations = data.draw(st.integers(1, min(steps, 300)) | st.just(min(steps, 300)))
    chosen = evaluation_steps(training(steps=steps, evaluations=evaluations, spacing=spacing))
    assert len(chosen) == evaluations
    assert chosen[0] >= 1
    assert all(a < b for a, b in pairwise(chosen))
    assert chosen[-1] == steps


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_even_evaluations_are_evenly_spaced(steps, data):
    evaluations = data.draw(st.integers(1, min(steps, 100)))
    chosen = [0, *evaluation_steps(training(steps=steps, evaluations=evaluations))]
    gaps = [b - a for a, b in pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 2
    assert all(abs(gap - steps / evaluations) <= 1 for gap in gaps)


def test_even_and_log_evaluations_by_example():
    assert evaluation_steps(training(steps=1000, evaluations=4)) == [250, 500, 750, 1000]
    assert evaluation_steps(training(steps=1000, evaluations=4, spacing="log")) == [1, 10, 100, 1000]
    assert evaluation_steps(training(steps=10, evaluations=8, spacing="log")) == [1, 2, 3, 4, 5, 6, 7, 10]
    assert evaluation_steps(training(steps=5, evaluations=5, spacing="log")) == [1, 2, 3, 4, 5]
    assert evaluation_steps(training(steps=7, evaluations=1, spacing="log")) == [7]
