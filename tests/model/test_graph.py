"""When a captured step is used: the check and the fall-back, with captures that are right, wrong or impossible."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import CorpusModule, StackModule, ToyTransformer
from tc_sweeps.model.graph import checked


def module_and_data(batch_size: int | None, steps_before: int, seeds=(0, 1, 2), **model):
    configs = [
        resolve({
            "seed": seed, "data": {"vocab_size": 9, "num_sentences": 50},
            "model": {"width": 16, "mlp_width": 8, **model},
            "training": {"steps": 60, "evaluations": 3, "batch_size": batch_size, "weight_decay": 0.1},
        })
        for seed in seeds
    ]  # fmt: skip
    corpora = [build_corpus(config.data) for config in configs]
    module = StackModule(ToyTransformer(configs[0].model, vocab_size=9, max_length=2, seeds=seeds), configs)
    module.on_fit_start()
    batch = CorpusModule(corpora, configs).batch
    data = batch if batch_size else module._rows(batch)
    for _ in range(steps_before):
        module._optimize(data)
    return module, data


def check(module, data, capture):
    """Return (the step that is used, the eager step)."""

    def eager():
        module._optimize(data)

    state, exact = module.state(), module._exact(data)
    return checked(eager, changed=module._changed(), state=state, exact=exact, capture=capture), eager


def spoiled(module, factor: float):
    """Make a capture whose step uses gradients of the embedding that are a little off."""

    def capture(step, restore):
        def replay():
            before = module._adamw.mean[0].clone()
            step()
            module._adamw.mean[0].copy_(before + (module._adamw.mean[0] - before) * factor)

        return replay

    return capture


CASES = pytest.mark.parametrize(("batch_size", "steps_before"), [(None, 0), (None, 40), (16, 0), (16, 40)])


@pytest.mark.parametrize("model", [{}, {"layers": 2, "biases": True, "layer_norm": True, "positions": True}], ids=str)
@CASES
def test_a_right_capture_is_used_and_the_check_leaves_no_trace(batch_size, steps_before, model, caplog):
    module, data = module_and_data(batch_size, steps_before, **model)
    before = [tensor.clone() for tensor in module._changed()]

    def capture(step, restore):
        step()
        restore()
        return lambda: step()

    used, eager = check(module, data, capture)
    assert used is not eager
    assert not caplog.records
    assert all(torch.equal(now, then) for now, then in zip(module._changed(), before, strict=True))


@CASES
@pytest.mark.parametrize("factor", [1.005, 0.0, math.nan])
def test_a_wrong_capture_is_not_used(batch_size, steps_before, factor, caplog):
    module, data = module_and_data(batch_size, steps_before)
    before = [tensor.clone() for tensor in module._changed()]
    with caplog.at_level(logging.WARNING):
        used, eager = check(module, data, spoiled(module, factor))
    assert used is eager
    (record,) = caplog.records
    assert "without a CUDA graph" in record.message
    assert "mean.embedding" in record.message
    assert all(torch.equal(now, then) for now, then in zip(module._changed(), before, strict=True))


def test_a_step_that_changes_no_weights_is_not_used(caplog):
    module, data = module_and_data(None, 3)
    weights = [p for _, p in module.model.named_parameters()]

    def capture(step, restore):
        def replay():
            before = [w.detach().clone() for w in weights]
            step()
            for weight, value in zip(weights, before, strict=True):
                weight.data.copy_(value)

        return replay

    used, eager = check(module, data, capture)
    assert used is eager
    assert "changes the weights" in caplog.text


def test_a_step_that_cannot_be_captured_is_made_as_it_is(caplog):
    module, data = module_and_data(None, 3)
    before = [tensor.clone() for tensor in module._changed()]

    def capture(step, restore):
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    used, eager = check(module, data, capture)
    assert used is eager
    assert "not permitted when stream is capturing" in caplog.text
    assert all(torch.equal(now, then) for now, then in zip(module._changed(), before, strict=True))
