"""What a CUDA device must do like the CPU: train, and count exactly with one synchronisation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

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
from tc_sweeps.artifacts.flex import Halves, flex_margin, lse_and_max
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


@pytest.mark.parametrize("threshold", [0.5, 0.9])
@pytest.mark.parametrize("unsupported", [False, True])
@pytest.mark.parametrize("width", [8, 32])
def test_the_fused_engine_counts_what_the_others_do(width: int, unsupported: bool, threshold: float) -> None:
    corpora = [random_world(70, 200, 3, seed=s) for s in range(3)]
    config = resolve({"model": {"width": width}}).model
    model = ToyTransformer(config, vocab_size=70, max_length=2, seeds=[0, 1, 2], unsupported=unsupported).cuda()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    counts = {
        engine: count_artifacts(model, corpora, threshold=threshold, engine=engine)
        for engine in ("reference", "chunked", "flex")
    }
    assert counts["reference"].count.min() > 0
    for engine in ("chunked", "flex"):
        for name in ("count", "seen", "unseen", "diagonal", "ceiling"):
            assert torch.equal(getattr(counts[engine], name), getattr(counts["reference"], name)), (engine, name)
    for member, corpus in enumerate(corpora):
        contexts = torch.cartesian_prod(torch.arange(70), torch.arange(70)).cuda()
        p_CV = in_float64(model.member(member)).probabilities(contexts)  # type: ignore[attr-defined]
        train = corpus.sentences.cuda()
        found = (p_CV > threshold).sum() - (p_CV[train[:, 0] * 70 + train[:, 1], train[:, 2]] > threshold).sum()
        assert counts["flex"].count[member] == found


@pytest.mark.parametrize("shape", [(2, 128, 100, 10), (1, 512, 1024, 32), (3, 256, 70, 5)])
def test_the_fused_kernel_is_within_its_margin(shape: tuple[int, int, int, int]) -> None:
    M, C, V, D = shape
    generator = torch.Generator("cuda").manual_seed(0)
    hidden_MCD = 4 * torch.randn(M, C, D, generator=generator, dtype=torch.float64, device="cuda")
    token_MVD = torch.randn(M, V, D, generator=generator, dtype=torch.float64, device="cuda")
    hidden, tokens = Halves(hidden_MCD, dim=-1), Halves(token_MVD, dim=-1)
    beyond = (0, max(16, 1 << (3 * D - 1).bit_length()) - 3 * D)
    query = F.pad(torch.cat([hidden.first, hidden.first, hidden.second], dim=-1), beyond)[:, None]
    key = F.pad(torch.cat([tokens.first, tokens.second, tokens.first], dim=-1), beyond)[:, None]
    lse_MC, max_MC = (found[:, 0].double() for found in lse_and_max(query, key))
    margin = flex_margin(hidden, tokens, lse_MC, max_MC, width=D, vocab_size=V, deepest=1.0)
    logits_MCV = hidden_MCD @ token_MVD.mT
    exact_MC = logits_MCV.amax(-1) - logits_MCV.logsumexp(-1)
    assert ((max_MC - lse_MC - exact_MC).abs() <= margin.nats_MC).all()
    assert ((max_MC - logits_MCV.amax(-1)).abs() <= margin.odds_MC / 2 + margin.share_MC).all()


@pytest.mark.parametrize("terms", [48, 192, 384])
def test_a_tensor_core_loses_no_more_of_a_sum_than_the_margin_allows(terms: int) -> None:
    """A large first term hides what is just below half of its last place in all others, and is taken off at the end."""
    for exponent in range(21):
        left = torch.ones(1, 1, 128, 512, dtype=torch.bfloat16, device="cuda")
        left[..., terms:] = 0
        right = torch.full_like(left, 0.49 * 2.0 ** (exponent - 23))
        right[..., 0], right[..., terms - 1] = 2.0**exponent, -(2.0**exponent)
        right[..., terms:] = 0
        exact = (left.double() * right.double()).sum(-1)
        size = (left.double() * right.double()).abs().sum(-1)
        lse, _ = lse_and_max(left, right[:, :, :1])
        assert ((lse.double() - exact).abs() <= 2.0**-22 * terms * size + 2.0**-22 * exact.abs()).all()


def test_the_fused_kernel_does_not_hold_logits() -> None:
    query, key = (torch.zeros(2, 1, rows, 32, dtype=torch.bfloat16, device="cuda") for rows in (2**15, 2**13))
    lse_and_max(query, key)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    lse_and_max(query, key)
    assert torch.cuda.max_memory_allocated() - before < 2 * 2**15 * 2**13 / 8  # an eighth of a byte for each


def test_the_fused_engine_fails_where_it_has_too_many_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tc_sweeps.artifacts.flex._SHAPES", 1)
    torch._dynamo.reset()
    operands = [torch.zeros(1, 1, rows, 16, dtype=torch.bfloat16, device="cuda") for rows in (128, 256)]
    lse_and_max(operands[0], operands[0])
    with pytest.raises(RuntimeError, match="was compiled for 1 shapes"):
        lse_and_max(operands[1], operands[1])


def test_artifacts_are_listed_as_on_the_cpu() -> None:
    corpus = random_world(50, 200, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=2)  # few of so equal a probability that order is luck
    for table in (
        lambda: pd.concat(enumerate_artifacts(model, corpus), ignore_index=True),
        lambda: most_confident(model, corpus, limit=50),
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


@pytest.mark.parametrize("engine", ["chunked", "flex"])
def test_an_evaluation_synchronises_once(engine: str) -> None:
    corpora = [random_world(30, 100, 3, seed=s) for s in range(2)]
    model = sharp_model(corpora, "attention", seed=0).cuda()
    counter = Counter(
        corpora,
        order=3,
        threshold=0.5,
        contexts="all",
        memory_mib=256,
        device=torch.device("cuda"),
        engine=engine,
    )
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
