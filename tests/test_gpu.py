"""What a CUDA device must do like the CPU: train, and count exactly with one synchronisation."""

from __future__ import annotations

import pytest
import torch

from tc_sweeps.artifacts import Counter, count_artifacts
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import ToyTransformer, loss
from tc_sweeps.model.prefixes import full_batch, stack_batches
from tests.artifacts.worlds import random_world, sharp_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", ["attention", "everything"])
def test_counts_equal_those_of_the_cpu(threshold: float, shape: str) -> None:
    corpora = [random_world(50, 200, 3, seed=s) for s in range(3)]
    model = sharp_model(corpora, shape, seed=0)
    expected = count_artifacts(model, corpora, threshold=threshold)
    counts = count_artifacts(model.cuda(), corpora, threshold=threshold)
    assert torch.equal(counts.count, expected.count)
    assert torch.equal(counts.seen, expected.seen)


def test_an_evaluation_synchronises_once() -> None:
    corpora = [random_world(30, 100, 3, seed=s) for s in range(2)]
    model = sharp_model(corpora, "attention", seed=0).cuda()
    counter = Counter(corpora, order=3, threshold=0.5, contexts="all", memory_mib=256, device=torch.device("cuda"))
    counter.evaluate(model)
    doubles = in_float64(model)
    torch.cuda.set_sync_debug_mode("error")
    try:
        counter._values(doubles, counter._read(doubles), 256, full_survival=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
