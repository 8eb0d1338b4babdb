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
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.definition import survival_thresholds
from tc_sweeps.artifacts.screen import true_float32
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


@pytest.mark.parametrize("engine", ["reference", "chunked"])
def test_counts_equal_float64_where_two_ways_to_a_hidden_state_lie_far_apart(engine: str) -> None:
    """Attention scores of a million are rounded in their tenth place, and so is what a context attends to.

    The threshold lies between the probabilities that the two ways give one of the contexts.
    """
    corpus, contexts = random_world(9, 3, 3, seed=0), torch.cartesian_prod(torch.arange(9), torch.arange(9))
    config = resolve({"model": {"width": 6, "heads": 1}}).model
    tried = 0
    for seed in range(8):
        model = ToyTransformer(config, vocab_size=9, max_length=2, seeds=[seed])
        with torch.no_grad():
            model.get_parameter("embedding")[..., 0] = 1.0
            for name in ("query0", "key0"):
                model.get_parameter(name)[:, 0] *= 3000
        doubles, every = in_float64(model), torch.arange(9)[None]
        ways = (
            doubles.last_hidden(contexts[None])[0],
            doubles.product_hidden(every[..., None], every)[0].flatten(0, 1),
        )
        one_C, other_C = ((hidden @ doubles.unembedding_matrix()[0]).softmax(1).amax(1) for hidden in ways)
        furthest = int((one_C - other_C).abs().argmax())
        threshold = float(one_C[furthest] + other_C[furthest]) / 2
        if not min(one_C[furthest], other_C[furthest]) < threshold < max(one_C[furthest], other_C[furthest]):
            continue
        tried += 1
        counts = count_artifacts(model, corpus, threshold=threshold, engine=engine)  # type: ignore[arg-type]
        expected = counted_by_brute_force(model, 0, corpus, threshold)
        assert [int(counts.seen), int(counts.unseen)] == expected
    assert tried >= 4


def test_the_survival_curve_is_never_negative() -> None:
    """Where a training n-gram is above a threshold by less than float32 can tell."""
    corpus = Corpus(vocab_size=3, sentences=torch.tensor([[0, 0], [1, 0], [2, 0]]))
    config = resolve({"model": {"width": 2, "heads": 1}}).model
    model = ToyTransformer(config, vocab_size=3, max_length=1, seeds=[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.get_parameter("embedding")[..., 0] = 1.0
    for t in survival_thresholds(0.5)[1:].tolist():
        logit = math.log(2 * t / (1 - t))
        for _ in range(8):
            with torch.no_grad():
                model.get_parameter("unembedding")[0, 0, 0] = logit
            assert (count_artifacts(model, corpus).survival >= 0).all()
            logit = math.nextafter(logit, 9) + 1e-8


def test_words_that_mean_nothing_are_refused() -> None:
    corpus = random_world(6, 10, 3, seed=0)
    model = adversarial([corpus], width=4, layers=1, seed=0, sharpness=1.0, twins=1, unsupported=False)
    with pytest.raises(ValueError, match="engine='chunk' must be"):
        count_artifacts(model, corpus, engine="chunk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="contexts='al' must be 'all' or 'typed'"):
        count_artifacts(model, corpus, contexts="al")  # type: ignore[arg-type]


def test_float32_is_asked_for_while_rows_are_screened_and_what_was_set_is_set_again() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with true_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


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
