"""The counter against brute force: every number, for every order, kind of context, threshold and label."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tc_sweeps.artifacts import METRICS, Counter, count_artifacts, screen, watching
from tc_sweeps.artifacts import counter as counter_module
from tc_sweeps.artifacts import stream as stream_module
from tc_sweeps.artifacts.contexts import Contexts, Sizes
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.definition import most_tokens, survival_thresholds
from tc_sweeps.artifacts.screen import Operand, screened_logits
from tc_sweeps.artifacts.stream import stream
from tc_sweeps.artifacts.watching import watch
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.corpus.tensor import find_rows
from tc_sweeps.model import ToyTransformer
from tests.artifacts.brute_force import assert_rows_equal, brute_force, considered, probabilities, rows_of
from tests.artifacts.worlds import MODELS, labelled_world, random_world, sharp_model

CPU = torch.device("cpu")
THRESHOLDS = (0.1, 1 / 3, 0.5, 0.7, 0.9)


def counter(corpora: list[Corpus], **settings_: object) -> Counter:
    chosen = {"order": corpora[0].order, "threshold": 0.5, "contexts": "all", "memory_mib": 256, "device": CPU}
    return Counter(corpora, **(chosen | settings_))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize(
    ("labelled", "unsupported"), [("truth", False), ("all", False), ("list", False), ("all", True), ("truth", True)]
)
def test_every_metric_equals_brute_force(
    shape: str, threshold: float, contexts: str, labelled: str, unsupported: bool
) -> None:
    corpora = [labelled_world(labelled, seed=seed) for seed in (0, 1, 2)]
    model = sharp_model(corpora, shape, seed=5, unsupported=unsupported)
    counted = counter(corpora, threshold=threshold, contexts=contexts).evaluate(model)
    for member, corpus in enumerate(corpora):
        expected = brute_force(model, member, corpus, threshold=threshold, order=3, contexts=contexts)
        assert expected["artifacts/count"] > 0
        assert expected["hallucination/count"] > 0
        assert 0 < expected["judge/artifacts/count"] < expected["artifacts/count"]
        assert ("abstention/rate" in counted.rows[member]) == unsupported
        assert_rows_equal(counted.rows[member], expected)
        assert set(counted.rows[member]) <= set(METRICS)


NOISED = [
    {"name": "latent", "vocab_size": 9, "classes": 3, "num_sentences": 20},
    {"name": "modular", "modulus": 8},
    {"name": "low_rank", "num_sentences": None, "vocab_size": 8, "rank": 2, "held_out_fraction": 0.3},
]


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("data", NOISED, ids=lambda data: str(data["name"]))
def test_labels_of_a_noised_world_equal_brute_force(data: dict[str, object], order: int) -> None:
    corpora = [build_corpus(resolve({"data": {**data, "noise": 0.2, "seed": seed}}).data) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=5)
    counted = counter(corpora, order=order, threshold=0.1)
    rows = counted.evaluate(model).rows
    for member, corpus in enumerate(corpora):
        expected = brute_force(model, member, corpus, threshold=0.1, order=order, contexts="all")
        assert_rows_equal(rows[member], expected)
        assert counted.facts(member)["corpus/replaced_ngrams"] == round(0.2 * len(corpus.sentences)) > 0


def test_an_original_that_noise_replaced_is_a_generalization_and_does_not_enter_recall() -> None:
    corpus = build_corpus(resolve({"data": {"name": "modular", "modulus": 5, "noise": 0.3}}).data)
    replaced = {tuple(ngram) for ngram in corpus.replaced.tolist()}
    model = sharp_model([corpus], "attention", seed=1)
    p = in_float64(model).probabilities(corpus.replaced[:, :-1]).gather(1, corpus.replaced[:, -1:])
    threshold = float(p.max()) * 0.999  # so that at least one original is restored
    row = counter([corpus], threshold=threshold).evaluate(model).rows[0]
    forgotten = dataclasses.replace(
        corpus, truth=torch.tensor([w for w in corpus.truth.tolist() if tuple(w) not in replaced])
    )
    without = counter([forgotten], threshold=threshold).evaluate(model).rows[0]
    assert row["generalization/count"] - without["generalization/count"] == int((p > threshold).sum()) > 0
    assert row["generalization/recall"] == without["generalization/recall"]


def test_a_world_without_noise_has_replaced_nothing() -> None:
    assert counter([labelled_world("truth")]).facts(0)["corpus/replaced_ngrams"] == 0


@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_orders_up_to_that_of_the_corpus_equal_brute_force(order: int, threshold: float, contexts: str) -> None:
    corpora = [random_world(6, 30, 4, seed=1, sampler="uniform"), random_world(6, 50, 4, seed=2)]
    model = sharp_model(corpora, "everything", seed=3)
    rows = counter(corpora, order=order, threshold=threshold, contexts=contexts).evaluate(model).rows
    for member, corpus in enumerate(corpora):
        assert_rows_equal(
            rows[member],
            brute_force(model, member, corpus, threshold=threshold, order=order, contexts=contexts),
        )


def test_held_out_facts_truncated_to_a_lower_order_are_labelled_as_brute_force_says() -> None:
    corpora = [labelled_world("truth", order=4, seed=seed, vocab_size=5) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    for order in (2, 3):
        rows = counter(corpora, order=order).evaluate(model).rows
        for member, corpus in enumerate(corpora):
            expected = brute_force(model, member, corpus, threshold=0.5, order=order, contexts="all")
            assert_rows_equal(rows[member], expected)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_loss_of_sentences_of_different_lengths(positions: str) -> None:
    sentences = torch.tensor([[0, 1, 2, 3], [0, 1, 2, -1], [0, 1, -1, -1], [3, 2, 1, 0], [0, 1, 2, 1]])
    corpus = Corpus(vocab_size=4, sentences=sentences)
    model = sharp_model([corpus], "attention", seed=1, sharpness=2)
    row = counter([corpus], positions=positions, order=3).evaluate(model).rows[0]
    expected = brute_force(model, 0, corpus, threshold=0.5, order=3, contexts="all", positions=positions)
    assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-9)
    assert row["train/excess_loss"] >= -1e-12


@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize(
    "world",
    [
        {"name": "grammar", "subjects": 1, "verbs": 1, "objects": 1},
        {"name": "grammar", "subjects": 3, "verbs": 2, "objects": 3, "held_out_fraction": 0.2},
        {"name": "relations", "families": 2, "parents": 0, "children": 2, "contradictions": 0.5},
        {"name": "relations", "families": 2, "parents": 1, "children": 2, "contradictions": 0.4},
    ],
    ids=lambda world: "-".join(map(str, world.values())),
)
def test_closed_worlds_are_labelled_as_brute_force_says(world: dict[str, object], contexts: str) -> None:
    corpora = [build_corpus(resolve({"data": {**world, "seed": seed}}).data) for seed in (0, 1, 2)]
    model = sharp_model(corpora, "attention", seed=4)
    rows = counter(corpora, contexts=contexts).evaluate(model).rows
    for member, corpus in enumerate(corpora):
        expected = brute_force(model, member, corpus, threshold=0.5, order=3, contexts=contexts)
        assert expected["hallucination/count"] > 0
        assert expected["artifacts/labelled_share"] == 1, "in a closed world every artifact is right or wrong"
        assert_rows_equal(rows[member], expected)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sharpness=st.floats(0.5, 12),
    threshold=st.sampled_from([*THRESHOLDS, 0.25, 0.99]),
    order=st.integers(2, 4),
    shape=st.sampled_from(list(MODELS)),
    unsupported=st.booleans(),
)
def test_counts_of_random_sharp_models(
    seed: int, sharpness: float, threshold: float, order: int, shape: str, unsupported: bool
) -> None:
    corpus = random_world(6, 20, order, seed=seed, sampler="uniform" if order == 2 else "functional")
    model = sharp_model([corpus], shape, seed=seed, sharpness=sharpness, unsupported=unsupported)
    counts = count_artifacts(model, corpus, threshold=threshold, full_survival=True)
    expected = brute_force(model, 0, corpus, threshold=threshold, order=order, contexts="all")
    assert counts.count.item() == expected["artifacts/count"]
    assert counts.seen.item() + counts.unseen.item() == counts.count.item()
    assert counts.count.item() <= counts.ceiling.item() == expected["artifacts/ceiling"]
    # N(tau) equals brute force where it is said to be exact; elsewhere float32 may put a row on the wrong side.
    places = counts.survival_thresholds.tolist()
    rows = probabilities(model, 0, considered(corpus, order, "all"))
    train = rows_of(corpus.sentences, order)
    probability = [p for c, row in rows.items() for t, p in enumerate(row) if (*c, t) not in train]
    novel = torch.tensor(probability, dtype=torch.float64)
    everything = torch.tensor(list(rows.values()), dtype=torch.float64)
    for found, tau in zip(counts.survival[0].tolist(), places, strict=True):
        near = int(((everything / tau - 1).abs() < 1e-4).sum())
        assert abs(found - int((novel > tau).sum())) <= near
    for exact in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99, threshold):
        artifacts = brute_force(model, 0, corpus, threshold=exact, order=order, contexts="all")["artifacts/count"]
        assert counts.survival[0, places.index(exact)].item() == artifacts


def test_the_same_counts_whatever_the_chunks() -> None:
    corpora = [random_world(9, 40, 3, seed=s) for s in (1, 2)]
    model = sharp_model(corpora, "attention", seed=0)
    measured = counter(corpora, threshold=0.1)
    doubles = in_float64(model)
    thresholds = survival_thresholds(0.1).tolist()
    nothing = torch.empty(0, 3, dtype=torch.int64)
    totals = [
        stream(
            doubles,
            measured.contexts,
            thresholds=thresholds,
            exact=(0.1, 0.5),
            threshold=0.1,
            buffer=100,
            decided_M=torch.ones(2, dtype=torch.bool),
            judge_seed_M=torch.tensor([1, 2]),
            watched=watch(measured.contexts, sizes, [nothing[:, 1:]] * 2, [nothing] * 2, [nothing[:, 0].bool()] * 2),
        )[0]
        for sizes in (Sizes(1, 1), Sizes(7, 7), Sizes(30, 7), Sizes(81, 16), Sizes(81, 81))
    ]
    for other in totals[1:]:
        assert torch.equal(other.above_MT, totals[0].above_MT)
        assert torch.equal(other.confident_M, totals[0].confident_M)
        assert torch.equal(other.judged_M, totals[0].judged_M)
        assert torch.equal(other.judged_above_M, totals[0].judged_above_M)


def test_a_row_exactly_at_the_threshold_is_no_artifact_and_more_doubts_than_room_are_decided() -> None:
    """With all weights zero every row is in doubt at 1/V, more than the buffer holds; P > 1/V is false."""
    corpus = random_world(40, 30, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    counts = count_artifacts(model, corpus, threshold=1 / 40, full_survival=True)
    assert counts.count.item() == 0
    just_below = math.nextafter(1 / 40, 0)
    assert count_artifacts(model, corpus, threshold=just_below).count.item() == 40**3 - 30


def test_room_for_rows_in_doubt_grows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is in doubt: the first evaluation streams twice, those after it once."""
    corpora = [random_world(40, 30, 3, seed=0)]
    model = sharp_model(corpora, "attention", seed=0, sharpness=0.0)
    measured = counter(corpora, threshold=1 / 40)
    rooms = []
    monkeypatch.setattr(
        "tc_sweeps.artifacts.counter.stream", lambda *a, **k: rooms.append(k["buffer"]) or stream(*a, **k)
    )
    rows = [measured.evaluate(model).rows for _ in range(3)]
    assert len(rooms) == 4
    assert rooms[0] < 40**2 <= rooms[1] == rooms[3]
    assert rows[0] == rows[1] == rows[2]


def test_members_that_have_diverged_put_no_row_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = [random_world(40, 30, 3, seed=seed) for seed in (0, 1, 2)]
    model = sharp_model(corpora, "attention", seed=0)
    alone = counter(corpora[:1]).evaluate(model.member(0)).rows
    with torch.no_grad():
        model.get_parameter("embedding")[1] = math.nan
        model.get_parameter("embedding")[2] *= 1e30
    rooms = []
    monkeypatch.setattr(
        "tc_sweeps.artifacts.counter.stream", lambda *a, **k: rooms.append(k["buffer"]) or stream(*a, **k)
    )
    evaluated = counter(corpora).evaluate(model, running_M=torch.tensor([True, True, False]))
    assert evaluated.rows[:1] == alone
    assert len(rooms) == 1


def answered(corpus: Corpus, model: ToyTransformer) -> tuple[Corpus, torch.Tensor]:
    """Return a corpus that holds out what a model says first in every unseen context, and the log-probabilities."""
    V = corpus.vocab_size
    contexts = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    contexts = contexts[(contexts[:, 0] != contexts[:, 1]) & (find_rows(contexts, corpus.tensor(3).contexts_Cn) < 0)]
    doubles = in_float64(model)
    log_p_CV = torch.log_softmax((doubles.last_hidden(contexts[None]) @ doubles.unembedding_matrix())[0], dim=-1)
    held_out = torch.cat([contexts, log_p_CV.argmax(1)[:, None]], dim=1)
    made = dataclasses.replace(corpus, held_out=held_out, truth=torch.cat([corpus.sentences, held_out]))
    return made, log_p_CV.amax(1)


def test_the_loss_of_what_a_model_is_nearly_sure_of() -> None:
    """Float32 would round off what is left beside a probability of nearly 1."""
    corpus = random_world(30, 40, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=4.5)
    made, log_p_C = answered(corpus, model)
    nearly = log_p_C > -1e-7
    assert int(nearly.sum()) > 5
    made = dataclasses.replace(made, held_out=made.held_out[nearly])
    expected = float(-log_p_C[nearly].mean())
    assert 0 < expected < 1e-7
    assert counter([made]).evaluate(model).rows[0]["test/loss"] == pytest.approx(expected, rel=1e-3)


def test_right_answers_with_less_than_half_are_not_all_in_doubt() -> None:
    corpus = random_world(40, 60, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=1.0)
    made, log_p_C = answered(corpus, model)
    assert int((log_p_C < math.log(0.5)).sum()) > 1000
    measured = counter([made])
    assert measured.evaluate(model).rows[0]["test/accuracy"] == 1
    assert measured._buffer < 50, "no room was made for rows in doubt"


def test_weights_that_overflow_float32_are_counted_in_float64() -> None:
    corpus = random_world(6, 20, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=1e14)
    for threshold in (0.1, 0.5):
        expected = brute_force(model, 0, corpus, threshold=threshold, order=3, contexts="all")
        assert count_artifacts(model, corpus, threshold=threshold).count.item() == expected["artifacts/count"] > 0


@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("shape", MODELS)
def test_every_metric_of_a_stack_equals_that_of_its_members_alone_bit_for_bit(shape: str, contexts: str) -> None:
    """Corpora of different sizes are padded in a stack; no sum may notice, not even those of the losses."""
    corpora = [random_world(12, size, 3, seed=size) for size in (20, 47, 90)]
    labelled = [labelled_world("truth", seed=seed, vocab_size=12) for seed in (0, 1, 2)]
    labelled[1] = dataclasses.replace(labelled[1], sentences=labelled[1].sentences[::3])
    for stack in (corpora, labelled):
        model = sharp_model(stack, shape, seed=0, sharpness=1.7)
        together = counter(stack, contexts=contexts).evaluate(model, full_survival=True)
        for member, corpus in enumerate(stack):
            alone = counter([corpus], contexts=contexts).evaluate(model.member(member), full_survival=True)
            assert together.rows[member] == alone.rows[0]
            assert together.survival[member].tolist() == alone.survival[0].tolist()


@pytest.mark.parametrize("world", ["random", "latent"])
def test_members_of_a_large_stack_are_counted_as_alone(world: str) -> None:
    """As above where blocks of contexts and chunks of listed contexts are other ones in the stack than alone."""
    sizes = (100, 230, 400)
    data = {"name": world, "vocab_size": 60}
    corpora = [build_corpus(resolve({"data": {**data, "num_sentences": n, "seed": n}}).data) for n in sizes]
    model = sharp_model(corpora, "attention", seed=0, sharpness=2.5)
    together = counter(corpora, memory_mib=1).evaluate(model)
    for member, corpus in enumerate(corpora):
        alone = counter([corpus], memory_mib=1).evaluate(model.member(member))
        assert together.rows[member] == alone.rows[0]
        assert alone.rows[0]["artifacts/count"] > 0


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=1, max_size=3),
    order=st.integers(2, 4),
    rows_at_once=st.integers(1, 40),
)
def test_blocks_hold_every_context_once(sizes: list[tuple[int, ...]], order: int, rows_at_once: int) -> None:
    places = [[torch.randperm(9)[:size] for size in member[: order - 1]] for member in sizes]
    contexts = Contexts(places, CPU)
    for m, tokens in enumerate(places):
        rows: list[int] = []
        wanted = set(itertools.product(*(place.tolist() for place in tokens)))
        found = []
        for block in contexts.blocks(rows_at_once):
            P, S = block.head_MPm.shape[1], block.last_MS.shape[1]
            assert block.head_MPm.shape[2] == order - 2
            assert block.number_C.shape == (P * S,)
            assert len(block.number_C) <= rows_at_once
            rows.append(len(block.number_C))
            head_PSm = block.head_MPm[m, :, None].expand(-1, S, -1)
            pairs = torch.cat([head_PSm, block.last_MS[m, None, :, None].expand(P, -1, -1)], dim=2).flatten(0, 1)
            valid = block.valid_MC[m]
            assert torch.equal(contexts.decode(block.number_C.expand(len(sizes), -1))[m][valid], pairs[valid])
            found += [tuple(context) for context in pairs[valid].tolist()]
        assert len(found) == len(wanted) == contexts.totals[m]
        assert set(found) == wanted
        assert rows == contexts.block_rows(rows_at_once)


def test_members_with_fewer_typed_contexts_are_counted_alone() -> None:
    corpora = [random_world(12, 5, 3, seed=1), random_world(12, 60, 3, seed=2)]
    model = sharp_model(corpora, "attention", seed=0)
    together = count_artifacts(model, corpora, contexts="typed", full_survival=True)
    for member, corpus in enumerate(corpora):
        alone = count_artifacts(model.member(member), corpus, contexts="typed", full_survival=True)
        for name in ("count", "seen", "unseen", "diagonal", "ceiling", "survival"):
            assert torch.equal(getattr(together, name)[member], getattr(alone, name)[0]), name


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sharpness=st.floats(0.1, 30),
    vocab=st.integers(2, 300),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_error_bound_holds_on_every_row(seed: int, sharpness: float, vocab: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, 50, 16, generator=generator, dtype=torch.float64) * sharpness
    matrix = torch.randn(2, 16, vocab, generator=generator, dtype=torch.float64)
    logits, margin = screened_logits(hidden, Operand.of(matrix, dtype), 5.0)
    logits = logits - logits.amax(-1, keepdim=True)
    screened = (logits - logits.exp2().sum(-1, keepdim=True).log2()).double() * math.log(2)
    exact = torch.log_softmax(hidden @ matrix, dim=-1)
    compared = exact > -5
    assert ((screened - exact).abs() <= margin.nats_MC[..., None].double())[compared].all()
    for threshold in (0.01, 0.1, 0.5, 0.9, 0.99, 1 - 1e-6):
        surely = screened > margin.surely_above(threshold)[..., None].double()
        maybe = screened >= margin.maybe_above(threshold)[..., None].double()
        assert (exact[surely] > math.log(threshold)).all()
        assert (exact[~maybe & compared] < math.log(threshold)).all()


def test_few_rows_of_a_trained_model_are_in_doubt() -> None:
    corpus = build_corpus(resolve({}).data)
    model = sharp_model([corpus], "attention", seed=0, sharpness=3)
    measured = counter([corpus])
    totals, _ = stream(
        in_float64(model),
        measured.contexts,
        thresholds=[0.5],
        exact=(0.5, 0.9),
        threshold=0.5,
        buffer=10,
        decided_M=torch.ones(1, dtype=torch.bool),
        judge_seed_M=torch.zeros(1, dtype=torch.int64),
        watched=measured._labels(model).watched,
    )
    assert totals.doubtful_M.item() < 10  # of 10,000


class Synchronisations(TorchDispatchMode):
    """Records operations that would make the CPU wait for a device."""

    WAITING = ("_local_scalar_dense", "nonzero.", "masked_select", "unique", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if any(name in str(func) for name in self.WAITING):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_model_that_always_abstains_has_no_artifact() -> None:
    """Also where its other probabilities are too small for float32: none of these rows is in doubt."""
    corpus = random_world(40, 30, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, unsupported=True)
    with torch.no_grad():
        embedding_MVD = model.get_parameter("embedding")
        embedding_MVD.copy_(embedding_MVD[:, :1].clone().expand_as(embedding_MVD))  # one hidden state for all contexts
        hidden_D = model.last_hidden(torch.tensor([[[0, 1]]]))[0, 0]
        model.get_parameter("unembedding").zero_()
        model.get_parameter("unsupported").copy_((300 * hidden_D / hidden_D.square().sum())[None, :, None])
    measured = counter([corpus])
    row = measured.evaluate(model).rows[0]
    assert row["artifacts/count"] == row["train/accuracy"] == 0
    assert row["abstention/rate"] == row["judge/abstention/rate"] == 1
    assert measured._buffer < 100, "no room was made for rows in doubt"


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_nothing_waits_for_the_device_before_the_one_transfer(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (counter_module, screen, stream_module, watching):
        monkeypatch.setattr(module, "may_wait", lambda _: False)  # as on a device
    corpora = [labelled_world("truth", seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "everything", seed=5, unsupported=True)
    measured = counter(corpora, threshold=threshold)
    _ = measured._losses, measured._floor_M
    doubles = in_float64(model)
    assert measured._labels(doubles).watched.row_MQ.numel() > 0
    with Synchronisations() as waiting:
        reading = measured._read(doubles)
        measured._values(doubles, reading, torch.ones(2, dtype=torch.bool), full_survival=True)
        measured._losses_of(doubles, reading)
    assert waiting.found == []


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_what_may_not_wait_counts_the_same_at_low_thresholds(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = labelled_world("truth", seed=0)
    model = sharp_model([corpus], "everything", seed=5, unsupported=True)
    with torch.no_grad():
        model.get_parameter("embedding").mul_(scale)  # tied; 0: every token is as probable as any other
    waited = count_artifacts(model, corpus, threshold=0.1, full_survival=True)
    monkeypatch.setattr(screen, "may_wait", lambda _: False)
    assert torch.equal(count_artifacts(model, corpus, threshold=0.1, full_survival=True).survival, waited.survival)


def test_most_tokens_is_exact_rational_arithmetic() -> None:
    assert [most_tokens(t, 100) for t in (0.5, 0.1, 0.2, 0.25, 0.3, 0.34, 0.99)] == [1, 9, 4, 3, 3, 2, 1]
    assert most_tokens(1 / 3, 100) == 3  # the float is just below a third: three tokens of exactly 1/3 fit
    assert most_tokens(0.01, 5) == 5


def test_survival_thresholds_hold_the_exact_ones_and_increase() -> None:
    grid = survival_thresholds(0.123)
    assert {0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.123} <= set(grid.tolist())
    assert (grid[1:] > grid[:-1]).all()
    assert grid[0] == pytest.approx(0.01)


def test_contexts_are_numbered_in_mixed_radix() -> None:
    places = [[torch.tensor([0, 2]), torch.tensor([1, 3, 4])], [torch.tensor([5]), torch.tensor([6, 7])]]
    contexts = Contexts(places, CPU)
    assert contexts.totals == [6, 2]
    decoded = contexts.decode(torch.arange(6).expand(2, -1))
    assert decoded[0].tolist() == [[0, 1], [0, 3], [0, 4], [2, 1], [2, 3], [2, 4]]
    assert decoded[1, :2].tolist() == [[5, 6], [5, 7]]


def test_bad_questions_are_refused() -> None:
    corpus = random_world(6, 10, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    with pytest.raises(ValueError, match=r"threshold=1\.5"):
        count_artifacts(model, corpus, threshold=1.5)
    with pytest.raises(ValueError, match="order=4"):
        count_artifacts(model, corpus, order=4)
    with pytest.raises(ValueError, match="2 corpora for a stack of 1"):
        count_artifacts(model, [corpus, corpus])


def test_a_float64_model_is_counted_as_it_is() -> None:
    corpus = random_world(9, 40, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64) * 1e-5)  # not float32 numbers any more
    for threshold in (0.1, 0.5):
        expected = brute_force(model, 0, corpus, threshold=threshold, order=3, contexts="all")
        assert count_artifacts(model, corpus, threshold=threshold).count.item() == expected["artifacts/count"]
    assert isinstance(model, ToyTransformer)
    assert model.get_parameter("embedding").dtype == torch.float64
