"""What a CUDA device must do like the CPU: train, and count exactly with one synchronisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import torch

from tc_sweeps.artifacts import (
    Counter,
    SampledCounter,
    artifact_sample,
    count_artifacts,
    enumerate_artifacts,
    joint_artifacts,
    most_confident,
)
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.config import Sampling, resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import CorpusModule, StackModule, ToyTransformer, build_model, loss
from tc_sweeps.model import graph as graph_of_a_step
from tc_sweeps.model.prefixes import Batch, full_batch, stack_batches
from tests.artifacts.worlds import random_world, sharp_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Let whatever makes the CPU wait for the device fail."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", ["attention", "everything", "cp"])
def test_counts_equal_those_of_the_cpu(threshold: float, shape: str) -> None:
    corpora = [random_world(50, 200, 3, seed=s) for s in range(3)]
    model = sharp_model(corpora, shape, seed=0)
    expected = count_artifacts(model, corpora, threshold=threshold)
    counts = count_artifacts(model.cuda(), corpora, threshold=threshold)
    assert torch.equal(counts.count, expected.count)
    assert torch.equal(counts.seen, expected.seen)


def test_artifacts_are_listed_as_on_the_cpu() -> None:
    corpus = random_world(50, 200, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    for table in (
        lambda: pd.concat(enumerate_artifacts(model, corpus), ignore_index=True),
        lambda: most_confident(model, corpus, limit=100),
        lambda: artifact_sample(model, corpus, limit=100, seed=0),
    ):
        expected = table()
        model.cuda()
        pd.testing.assert_frame_equal(table(), expected)
        model.cpu()


def test_joint_artifacts_are_those_of_the_cpu() -> None:
    corpora = [random_world(50, 200, 3, seed=s) for s in range(3)]
    model = sharp_model(corpora, "everything", seed=0, sharpness=2)
    expected = joint_artifacts(model, corpora)
    found = joint_artifacts(model.cuda(), corpora)
    assert found.certificate.complete_M.all()
    assert expected.count.min() > 0
    for one, other in zip(found.tables, expected.tables, strict=True):
        assert sorted(one["tokens"].tolist()) == sorted(other["tokens"].tolist())


def test_an_evaluation_synchronises_once() -> None:
    corpora = [random_world(30, 100, 3, seed=s) for s in range(2)]
    model = sharp_model(corpora, "attention", seed=0).cuda()
    counter = Counter(corpora, order=3, threshold=0.5, contexts="all", memory_mib=256, device=torch.device("cuda"))
    counter.evaluate(model)
    doubles, read_M = in_float64(model), torch.ones(2, dtype=torch.bool, device="cuda")
    with no_synchronisation():
        counter._values(doubles, counter._read(doubles), read_M, full_survival=False)


@pytest.mark.parametrize("method", ["uniform", "stratified", "importance"])
def test_an_estimate_synchronises_once_and_is_that_of_the_cpu(method: str) -> None:
    corpora = [random_world(60, 100, 3, seed=s) for s in range(2)]
    model = sharp_model(corpora, "attention", seed=0, sharpness=2)
    asked: dict[str, Any] = {"order": 3, "threshold": 0.5, "contexts": "all", "memory_mib": 256, "seeds": [0, 1]}
    asked["sampling"] = Sampling(method=method, contexts=500)
    [of_cpu, counter] = [SampledCounter(corpora, **asked, device=torch.device(name)) for name in ("cpu", "cuda")]
    expected = of_cpu.evaluate(model).rows
    model = model.cuda()
    for row, other in zip(counter.evaluate(model).rows, expected, strict=True):
        for name in ("artifacts/count", "artifacts/count_low", "artifacts/count_high", "artifacts/seen"):
            assert row[name] == other[name]
    doubles, read_M = in_float64(model), torch.ones(2, dtype=torch.bool, device="cuda")
    with no_synchronisation():
        counter._values(doubles, counter._read(doubles), read_M, full_survival=True)


def test_gradients_equal_float64_on_the_device() -> None:
    config = resolve({})
    corpus = build_corpus(config.data)
    model = ToyTransformer(config.model, vocab_size=100, max_length=2, seeds=[0]).cuda()
    batch = stack_batches([full_batch(corpus, "all")]).to("cuda")

    def gradients(stack: ToyTransformer) -> list[torch.Tensor]:
        value = loss(stack.logits(batch.prefixes), batch.targets)
        return list(torch.autograd.grad(value.sum(), list(stack.parameters())))

    exact = gradients(in_float64(model).requires_grad_(True))  # type: ignore[attr-defined]
    for single, double in zip(gradients(model), exact, strict=True):
        assert (single.double() - double).norm() <= 1e-5 * double.norm()


EVERYTHING = {"layers": 2, "mlp_width": 12, "positions": True, "layer_norm": True, "biases": True}
STEPS = {
    "the paper's": {},
    "everything": {"model": EVERYTHING},
    "minibatch": {"training": {"batch_size": 16}},
    "CP": {"model": {"name": "cp"}},
    "clipping and schedule": {"training": {"clip_norm": 0.3, "schedule": "cosine", "warmup_steps": 10}},
}


def on_device(shape: dict[str, Any]) -> tuple[StackModule, Any]:
    """Return a module whose optimizer is made, on the device, and the data of its steps."""
    training = {"steps": 60, "evaluations": 1, **shape.get("training", {})}
    configs = [resolve({"seed": s, "model": shape.get("model", {}), "training": training}) for s in range(3)]
    corpora = [build_corpus(config.data) for config in configs]
    model = build_model(configs[0].model, vocab_size=corpora[0].vocab_size, max_length=2, seeds=range(3))
    module = StackModule(model, configs).cuda()
    module.on_fit_start()
    batch = CorpusModule(corpora, configs).batch
    if isinstance(batch, Batch):
        return module, module._rows(batch.to("cuda"))  # type: ignore[arg-type]
    return module, [tensor.cuda() for tensor in batch]


@pytest.mark.parametrize("shape", STEPS.values(), ids=STEPS)
def test_captured_steps_equal_eager_steps(shape: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Over 50 steps, to 1 % of the way that the weights have gone: rounding grows as training goes on."""
    (module, data), (eager, same) = on_device(shape), on_device(shape)
    initial = {name: value.clone() for name, value in eager.state().items()}
    step = module._ready(data)
    assert not caplog.records, "the capture has passed its check"
    assert int(module.steps_made) == 0
    for _ in range(50):
        step()
        eager._optimize(same)
    assert int(module.steps_made) == int(eager.steps_made) == 50
    for name, wanted in eager.state().items():
        if "key" not in name or "bias" not in name:  # the gradient of these is rounding alone
            way = (wanted - initial[name]).norm()
            assert (module.state()[name] - wanted).norm() <= 1e-2 * way, name


@pytest.mark.parametrize("shape", STEPS.values(), ids=STEPS)
def test_a_captured_step_equals_float64_in_the_middle_of_training(shape: dict[str, Any]) -> None:
    module, data = on_device(shape)
    step = module._ready(data)
    for _ in range(20):
        step()
    exact = module._exact(data)
    before = {name: value.clone() for name, value in module.state().items()}
    step()
    assert graph_of_a_step.disagreement(before, module.state(), exact) is None


def test_a_sleeping_member_does_not_move_in_a_captured_step() -> None:
    module, data = on_device({})
    step = module._ready(data)
    step()
    before = {name: value.clone() for name, value in module.state().items()}
    module.active_M[1] = False
    step()
    for name, value in module.state().items():
        assert torch.equal(value[1], before[name][1]), name
        assert not torch.equal(value[0], before[name][0]), name


def test_a_step_that_synchronises_is_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    module, data = on_device({})
    optimize: Callable[[Any], None] = module._optimize

    def synchronising(given: Any) -> None:
        optimize(given)
        module.active_M.any().item()

    module._optimize = synchronising  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        step = module._ready(data)
    assert "without a CUDA graph" in caplog.text
    step()
    assert int(module.steps_made) == 1
