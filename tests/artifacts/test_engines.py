"""Every exact engine counts what float64 says of every n-gram, also where rounding has every chance to go wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.artifacts import Counter, count_artifacts, flex
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus
from tc_sweeps.model import ToyTransformer
from tests.artifacts.rough_kernel import rough_lse_and_max
from tests.artifacts.worlds import random_world

ENGINES = ("reference", "chunked", "flex")


@pytest.fixture(autouse=True, scope="module")
def rough_kernel() -> Iterator[None]:
    """Let the kernel of the fused engine, which needs CUDA, be as wrong as it may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "lse_and_max", rough_lse_and_max)
        yield


def adversarial(
    corpora: list[Corpus], *, width: int, layers: int, seed: int, sharpness: float, twins: int, unsupported: bool
) -> ToyTransformer:
    """Return a stack in which `twins` tokens are written and read alike: exact ties, and equal rows."""
    config = resolve({"model": {"width": width, "heads": 2, "layers": layers, "mlp_width": 3 * (layers - 1)}}).model
    corpus = corpora[0]
    model = ToyTransformer(
        config,
        vocab_size=corpus.vocab_size,
        max_length=corpus.order - 1,
        seeds=[seed + m for m in range(len(corpora))],
        unsupported=unsupported,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpness)
        for name, axis in (("unembedding", 2), ("embedding", 1)):
            table = model.get_parameter(name)
            table.narrow(axis, 0, twins).copy_(table.narrow(axis, 0, 1).clone().expand_as(table.narrow(axis, 0, twins)))
    return model


def counted_by_brute_force(model: ToyTransformer, member: int, corpus: Corpus, threshold: float) -> list[int]:
    """Return how many n-grams outside the data are above the threshold, in seen and in other contexts."""
    order, V = corpus.order, corpus.vocab_size
    contexts = list(itertools.product(range(V), repeat=order - 1))
    p = model.member(member).double().probabilities(torch.tensor(contexts))
    train = {tuple(sentence) for sentence in corpus.sentences.tolist()}
    seen = {ngram[:-1] for ngram in train}
    found = [0, 0]
    for place, token in (p > threshold).nonzero().tolist():
        if (*contexts[place], token) not in train:
            found[contexts[place] not in seen] += 1
    return found


@settings(max_examples=220, deadline=None)
@given(
    vocab=st.integers(2, 9),
    order=st.integers(2, 4),
    width=st.sampled_from([2, 6, 10]),
    layers=st.integers(1, 2),
    members=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    sharpness=st.sampled_from([0.0, 1e-30, 1.0, 3.0, 8.0, 1e6, 1e14]),
    twins=st.integers(1, 4),
    threshold=st.sampled_from([0.5, 0.1, 0.7, 0.99, 1 / 3, 0.25, "uniform", "below", "top"]),
    unsupported=st.booleans(),
    memory_mib=st.sampled_from([1, 256]),
)
def test_counts_equal_float64_whatever_the_weights(
    vocab: int,
    order: int,
    width: int,
    layers: int,
    members: int,
    seed: int,
    sharpness: float,
    twins: int,
    threshold: float | str,
    unsupported: bool,
    memory_mib: int,
) -> None:
    corpora = [random_world(vocab, 1 + vocab // 2, order, seed=seed + m) for m in range(members)]
    model = adversarial(
        corpora,
        width=width,
        layers=layers,
        seed=seed,
        sharpness=sharpness,
        twins=min(twins, vocab),
        unsupported=unsupported,
    )
    if threshold == "top":  # exactly a probability that the model has somewhere
        context = torch.full((members, 1, order - 1), vocab - 1)
        top = model.double().probabilities(context).max().item()
        model = model.float()
        tau = min(max(top, 1e-3), math.nextafter(1.0, 0))
    elif isinstance(threshold, str):
        tau = 1 / (vocab + unsupported)
        tau = tau if threshold == "uniform" else math.nextafter(tau, 0)
    else:
        tau = threshold
    expected = [counted_by_brute_force(model, m, corpus, tau) for m, corpus in enumerate(corpora)]
    for engine in ENGINES:
        counts = count_artifacts(model, corpora, threshold=tau, memory_mib=memory_mib, engine=engine)
        assert torch.stack([counts.seen, counts.unseen], dim=1).tolist() == expected, engine


@pytest.mark.parametrize("engine", ENGINES)
def test_the_share_of_rows_in_doubt_is_told(engine: str) -> None:
    """With all weights zero every row of float32 and of float64 lies at 1/V."""
    corpus = random_world(40, 30, 3, seed=0)
    model = adversarial([corpus], width=4, layers=1, seed=0, sharpness=0.0, twins=1, unsupported=False)
    shares = {}
    for threshold in (1 / 40, 0.5):
        counter = Counter(
            [corpus],
            order=3,
            threshold=threshold,
            contexts="all",
            memory_mib=256,
            device=torch.device("cpu"),
            engine=engine,
        )
        shares[threshold] = counter.evaluate(model).rows[0]["artifacts/doubtful_share"]
    assert shares == {1 / 40: 1, 0.5: 0}
