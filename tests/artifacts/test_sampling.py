"""Estimates: exact where all is read, their draws and intervals where it is not."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, hypergeom

from tc_sweeps.artifacts import SampledCounter, most_confident
from tc_sweeps.artifacts import sampling as sampling_module
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.intervals import interval
from tc_sweeps.config import Sampling, resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.corpus.tensor import distinct_rows, find_rows
from tc_sweeps.model import ToyTransformer
from tests.artifacts.brute_force import brute_force, considered, rows_of
from tests.artifacts.test_counter import Synchronisations, assert_rows_equal, counter
from tests.artifacts.worlds import MODELS, labelled_world, random_world, sharp_model

CPU = torch.device("cpu")
METHODS = ("uniform", "stratified", "importance")
INTERVAL = ("artifacts/count_low", "artifacts/count", "artifacts/count_high")


def sampled(corpora: list[Corpus], seeds: Any = None, *, asked: dict[str, Any] | None = None, **sampling: Any):  # type: ignore[no-untyped-def]
    chosen = {"order": corpora[0].order, "threshold": 0.5, "contexts": "all", "memory_mib": 256, "device": CPU}
    seeds = range(len(corpora)) if seeds is None else seeds
    return SampledCounter(corpora, sampling=Sampling(**sampling), seeds=seeds, **(chosen | (asked or {})))


def copies(model: ToyTransformer, count: int) -> ToyTransformer:
    stack = model.member(0)
    stack._parameters = {
        name: torch.nn.Parameter(p.detach().expand(count, *p.shape[1:]).contiguous())
        for name, p in model.named_parameters()
    }
    return stack


def few_artifacts(corpus: Corpus, wanted: int) -> tuple[ToyTransformer, float]:
    """Return a model and a threshold of at least 1/2 above which it has so many artifacts."""
    model = sharp_model([corpus], "attention", seed=1, sharpness=2.2)
    p = in_float64(model).probabilities(torch.tensor(considered(corpus, corpus.order, "all"))).amax(-1)
    threshold = float(p.sort(descending=True).values[wanted])
    assert threshold > 0.5
    return model, threshold


def every_other(corpus: Corpus) -> ToyTransformer:
    """Return a model that is sure of token 0 after contexts that end on an even token, and of nothing after others."""
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    with torch.no_grad():
        model.get_parameter("embedding")[0, ::2, 0] = 5
        model.get_parameter("unembedding")[0, 0, 0] = 5
    return model


# ------------------------------------------------------------------------------------------------------ room for all


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    labelled=st.sampled_from(["truth", "all", "list"]),
    contexts=st.sampled_from(["all", "typed"]),
    threshold=st.sampled_from([0.1, 1 / 3, 0.5, 0.9]),
    order=st.integers(2, 4),
    shape=st.sampled_from(list(MODELS)),
    unsupported=st.booleans(),
    looks=st.sampled_from([None, 1e-9]),
    seed=st.integers(0, 50),
)
@example(  # a held-out n-gram whose probability is 0 in float64, its logarithm not minus infinity
    method="uniform",
    labelled="truth",
    contexts="all",
    threshold=0.1,
    order=4,
    shape="cp",
    unsupported=True,
    looks=None,
    seed=0,
)
def test_with_room_for_all_every_number_is_exact(
    method: str,
    labelled: str,
    contexts: str,
    threshold: float,
    order: int,
    shape: str,
    unsupported: bool,
    looks: float | None,
    seed: int,
) -> None:
    corpora = [labelled_world(labelled, order=max(order, 3), seed=seed + s, vocab_size=5) for s in (0, 1)]
    model = sharp_model(corpora, shape, seed=seed, unsupported=unsupported)
    asked = {"order": order, "threshold": threshold, "contexts": contexts}
    found = sampled(corpora, asked=asked, method=method, contexts=130, relative_error=looks).evaluate(
        model, full_survival=True
    )
    exact = counter(corpora, **asked).evaluate(model, full_survival=True)
    for member, corpus in enumerate(corpora):
        expected = brute_force(model, member, corpus, threshold=threshold, order=order, contexts=contexts)
        row = found.rows[member]
        assert_rows_equal(row, expected)
        assert row["artifacts/count_low"] == row["artifacts/count"] == row["artifacts/count_high"]
        at = list(exact.thresholds).index(threshold)
        assert found.survival[member, at] == exact.survival[member, at] == row["artifacts/count"]
        assert (found.survival[member] == exact.survival[member]).mean() > 0.9, "but for what float32 rounds"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("relative_error", [None, 0.1])
def test_where_the_truth_names_every_context_nothing_is_drawn(method: str, relative_error: float | None) -> None:
    corpus = build_corpus(resolve({"data": {"name": "modular", "modulus": 13}}).data)
    model = sharp_model([corpus], "attention", seed=0)
    [row] = sampled([corpus], method=method, contexts=100, relative_error=relative_error).evaluate(model).rows
    assert_rows_equal(row, brute_force(model, 0, corpus, threshold=0.5, order=3, contexts="all"))
    assert row["artifacts/count_low"] == row["artifacts/count_high"] == row["artifacts/count"] > 0


# -------------------------------------------------------------------------------------------------------------- draws


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    contexts=st.sampled_from(["all", "typed"]),
    order=st.integers(2, 4),
    budget=st.integers(100, 300),
    seed=st.integers(0, 1000),
)
def test_what_is_looked_at_is_known_or_drawn_once(
    method: str, contexts: str, order: int, budget: int, seed: int
) -> None:
    vocab_size = {2: 900, 3: 30, 4: 9}[order]
    corpus = random_world(vocab_size, 40, order, seed=seed, sampler="uniform")
    model = sharp_model([corpus], "attention", seed=0)
    asked = {"contexts": contexts}
    seen = rows_of(corpus.tensor(order).contexts_Cn, order - 1)
    everywhere = set(considered(corpus, order, contexts))
    found = [
        tuple(c)
        for c in sampled([corpus], [seed], asked=asked, method=method, contexts=budget).looked_at(model).tolist()
    ]
    assert len(found) == len(set(found))
    assert set(found) <= everywhere
    assert seen <= set(found)
    diagonal = sum(len(set(c)) == 1 for c in everywhere - seen) if order > 2 else 0
    blank = len(everywhere) - len(seen) - diagonal
    drawn = len(found) - len(seen) - diagonal
    assert drawn <= min(blank, budget)
    assert drawn >= min(blank, 0.75 * budget), "but for a pilot and for rounding, all that may be drawn is"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_looked_at_is_drawn_in_pieces_that_memory_holds(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_world(200, 100, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    whole = sampled([corpus], method=method, contexts=5000).looked_at(model)
    little = sampled([corpus], asked={"memory_mib": 1}, method=method, contexts=5000)
    draw, slots = sampling_module._Strata.draw, []

    def noted(strata: Any, drawn_MH: torch.Tensor, slot_C: torch.Tensor, *how: Any) -> Any:
        slots.append(len(slot_C))
        return draw(strata, drawn_MH, slot_C, *how)

    monkeypatch.setattr(sampling_module._Strata, "draw", noted)
    assert torch.equal(little.looked_at(model), whole)
    assert max(slots) <= little._sizes(model).piece < 1000


def test_every_blank_context_is_as_likely_as_another() -> None:
    corpus = random_world(20, 20, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    places = torch.tensor(considered(corpus, 3, "all"))
    times = torch.zeros(len(places), dtype=torch.int64)
    for seed in range(400):
        looked_at = sampled([corpus], [seed], method="uniform", contexts=100).looked_at(model)
        times[find_rows(looked_at, places)] += 1
    blank = times < 400
    expected = 400 * 100 / int(blank.sum())
    spread = (expected * (1 - expected / 400)) ** 0.5
    assert int(blank.sum()) > 100
    assert (times[blank] - expected).abs().max() < 4.5 * spread


def test_the_same_contexts_at_every_evaluation_and_others_with_another_seed() -> None:
    corpus = random_world(40, 60, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=2)
    for method in METHODS:
        measured = sampled([corpus], [1], method=method, contexts=200)
        assert measured.evaluate(model).rows == measured.evaluate(model).rows
        other = sampled([corpus], [2], method=method, contexts=200)
        assert other.evaluate(model).rows[0]["artifacts/count"] != measured.evaluate(model).rows[0]["artifacts/count"]


# ---------------------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_right_on_average_and_what_is_known_is_exact(method: str, threshold: float) -> None:
    data = {"name": "grammar", "subjects": 5, "verbs": 5, "objects": 6, "held_out_fraction": 0.2}
    corpus = build_corpus(resolve({"data": data}).data)
    model = sharp_model([corpus], "attention", seed=3, sharpness=2, unsupported=True)
    [exact] = counter([corpus], threshold=threshold).evaluate(model).rows
    rows = []
    for begin in range(0, 300, 50):
        measured = sampled(
            [corpus] * 50, range(begin, begin + 50), asked={"threshold": threshold}, method=method, contexts=100
        )
        rows += measured.evaluate(copies(model, 50)).rows
    certain = ["artifacts/seen", "artifacts/diagonal", "artifacts/ceiling", "generalization/count"]
    certain += [
        name for name in exact if name.startswith(("train/", "test/", "generalization/", "judge/generalization"))
    ]
    estimated = ["artifacts/count", "artifacts/unseen", "artifacts/unseen_confident_rate", "artifacts/per_ngram"]
    estimated += ["hallucination/count", "hallucination/per_context", "hallucination/share", "judge/artifacts/count"]
    estimated += ["judge/hallucination/count", "judge/hallucination/per_context", "abstention/rate"]
    estimated += ["judge/abstention/rate"]
    for name in certain:
        assert {row[name] for row in rows} == {exact[name]} or name == "test/loss", name
    for name in estimated:
        values = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        assert values.std() > 0, name
        # A ratio of two estimates is off by a hundredth of what it varies by.
        assert abs(values.mean() - exact[name]) < 4 * values.std() / 300**0.5 + 0.005 * exact[name], name


def test_the_survival_curve_is_estimated_from_the_same_draws() -> None:
    corpus = random_world(50, 100, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=1, sharpness=2)
    found = sampled([corpus], contexts=1000).evaluate(model, full_survival=True)
    exact = counter([corpus]).evaluate(model, full_survival=True)
    at = list(found.thresholds).index(0.5)
    assert found.survival[0, at] == found.rows[0]["artifacts/count"]
    assert (found.survival[0, :-1] >= found.survival[0, 1:]).all()
    assert abs(found.survival[0] / exact.survival[0].clip(1) - 1)[exact.survival[0] > 200].max() < 0.3


@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("relative_error", [None, 0.2])
def test_a_member_is_estimated_as_alone_bit_for_bit(
    shape: str, method: str, relative_error: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corpora of different sizes are padded, other members draw longer, and blocks are other ones.

    Of typed contexts, 288, 2,025 and 1,406, one member has more than are gone through for the judge's half.
    """
    monkeypatch.setattr(sampling_module, "_FEW", 1500)
    corpora = [random_world(45, size, 3, seed=size) for size in (20, 400, 90)]
    corpora[1] = random_world(45, 400, 3, seed=5, sampler="uniform")
    model = sharp_model(corpora, shape, seed=0, sharpness=1.7)
    how: dict[str, Any] = {"method": method, "contexts": 700, "relative_error": relative_error}
    for contexts in ("all", "typed"):
        asked = {"contexts": contexts, "memory_mib": 1}
        together = sampled(corpora, [4, 5, 6], asked=asked, **how).evaluate(model, full_survival=True)
        for member, corpus in enumerate(corpora):
            alone = sampled([corpus], [4 + member], asked=asked, **how).evaluate(
                model.member(member), full_survival=True
            )
            assert together.rows[member] == alone.rows[0]
            assert together.survival[member].tolist() == alone.survival[0].tolist()


# ---------------------------------------------------------------------------------------------------------- intervals


@settings(max_examples=200, deadline=None)
@given(draws=st.integers(1, 5000), data=st.data())
def test_with_one_stratum_the_interval_is_that_of_clopper_and_pearson(draws: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, draws))
    share = hits / draws
    low, high = interval(1e6 * share, 1e12 * share * (1 - share) / draws, 1e6 / draws, 1e6)
    assert low == pytest.approx(1e6 * beta.ppf(0.025, hits, draws - hits + 1) if hits else 0, rel=1e-9, abs=1e-3)
    assert high == pytest.approx(1e6 * beta.ppf(0.975, hits + 1, draws - hits) if hits < draws else 1e6, rel=1e-9)


@pytest.mark.parametrize("method", ["uniform", "stratified"])
def test_intervals_hold_where_the_contexts_of_a_piece_differ_more_than_those_of_several(method: str) -> None:
    """Every other context has an artifact, and one of each two is drawn: which ones were tells nothing of the rest."""
    corpus = random_world(60, 60, 3, seed=0)
    model = every_other(corpus)
    [exact] = counter([corpus]).evaluate(model).rows
    measured, held = sampled([corpus] * 50, method=method, contexts=1740), 0
    for begin in range(0, 400, 50):
        measured.seed_M = torch.arange(begin, begin + 50)
        for row in measured.evaluate(copies(model, 50)).rows:
            held += row["artifacts/count_low"] <= exact["artifacts/count"] <= row["artifacts/count_high"]
    assert held >= 0.935 * 400


def test_the_variance_of_strata_is_told_without_bias() -> None:
    """One draw tells none, so that its stratum is taken to vary as all draws do; what is read whole does not vary."""
    corpus = random_world(60, 60, 3, seed=0)
    measured = sampled([corpus], method="importance", contexts=100)
    strata = measured._strata(every_other(corpus))
    whole = int(strata.blank_MH[0, 3])
    values = [[0, 1, 1, 0, 2], [1, 0], [3], [1] * (whole - 1) + [0]]
    tally = measured._tally(4, [0.5])
    for stratum, of_draws in enumerate(values):
        for name, power in (("drawn", 0), ("above", 1), ("square", 2)):
            tally._sum[name][0, stratum] = sum(value**power for value in of_draws)
    everything = torch.tensor([float(value) for of_draws in values for value in of_draws])
    variances = [*(torch.tensor(of_draws).double().var() for of_draws in values[:2]), everything.var(correction=0), 0]
    expected = sum(
        blank**2 * variance / len(of_draws)
        for blank, variance, of_draws in zip(strata.blank_MH[0].tolist(), variances, values, strict=True)
    )
    assert measured._spread(strata, tally)["blank_variance"].item() == pytest.approx(float(expected), rel=1e-6)


def test_nothing_is_left_in_doubt_where_all_was_read() -> None:
    assert interval(7.0, 0.0, 0.0, 100.0) == (7.0, 7.0)


@pytest.mark.parametrize("method", METHODS)
def test_an_interval_without_any_artifact_met_reaches_as_far_as_there_may_be_some(method: str) -> None:
    corpus = random_world(60, 80, 3, seed=0)
    model, threshold = few_artifacts(corpus, 2)
    rows = []
    for begin in range(0, 50, 25):
        measured = sampled(
            [corpus] * 25, range(begin, begin + 25), asked={"threshold": threshold}, method=method, contexts=200
        )
        rows += measured.evaluate(copies(model, 25)).rows
    [exact] = counter([corpus], threshold=threshold).evaluate(model).rows
    assert exact["artifacts/count"] == 2
    none = [row for row in rows if row["artifacts/count"] == 0]
    assert len(none) > 10
    for row in none:
        assert row["artifacts/count_low"] == 0
        assert row["artifacts/count_high"] >= 2
    if method == "uniform":  # the most of which 200 draws miss all with a probability of 1/40
        most = int(none[0]["artifacts/count_high"])
        blank = 60**2 - 80 - 60
        assert hypergeom.cdf(0, blank, most + 2, 200) < 1 / 40 < hypergeom.cdf(0, blank, most - 3, 200)


@pytest.mark.parametrize("wanted", [5, 100, 2000])
@pytest.mark.parametrize("method", METHODS)
def test_intervals_hold_the_exact_count(method: str, wanted: int) -> None:
    """For rare and common artifacts; benchmarks/coverage.py measures it more closely."""
    corpus = random_world(60, 80, 3, seed=0)
    model, threshold = (
        few_artifacts(corpus, wanted) if wanted < 2000 else (sharp_model([corpus], "attention", seed=1), 0.2)
    )
    [exact] = counter([corpus], threshold=threshold).evaluate(model).rows
    held = 0
    for begin in range(0, 200, 50):
        seeds = range(begin, begin + 50)
        measured = sampled([corpus] * 50, seeds, asked={"threshold": threshold}, method=method, contexts=300)
        for row in measured.evaluate(copies(model, 50)).rows:
            low, count, high = (row[name] for name in INTERVAL)
            assert low <= count <= high
            held += low <= exact["artifacts/count"] <= high
    assert held >= 0.935 * 200


# ------------------------------------------------------------------------------------------------------------ budgets


def half_width(row: dict[str, Any]) -> float:
    return (row["artifacts/count_high"] - row["artifacts/count_low"]) / 2 / row["artifacts/count"]


@pytest.mark.parametrize("method", METHODS)
def test_drawing_ends_when_the_error_is_small_enough(method: str) -> None:
    corpus = random_world(80, 100, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=1, sharpness=2)
    [all_drawn] = sampled([corpus], method=method, contexts=3000).evaluate(model).rows
    [ended] = sampled([corpus], method=method, contexts=3000, relative_error=0.2).evaluate(model).rows
    assert half_width(all_drawn) < 0.07 < half_width(ended) <= 0.2
    [never] = sampled([corpus], method=method, contexts=3000, relative_error=1e-6).evaluate(model).rows
    assert never == all_drawn


def test_a_budget_of_time_ends_drawing_at_the_first_look() -> None:
    corpus = random_world(80, 100, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=1, sharpness=2)
    [hurried] = sampled([corpus], contexts=3000, seconds=1e-9).evaluate(model).rows
    [patient] = sampled([corpus], contexts=3000, seconds=1e9).evaluate(model).rows
    assert half_width(hurried) > 3 * half_width(patient)
    assert patient == sampled([corpus], contexts=3000).evaluate(model).rows[0]


@pytest.mark.parametrize("method", METHODS)
def test_contexts_without_number_are_never_passed_over(method: str) -> None:
    corpus = random_world(1000, 200, 4, seed=0)
    model = sharp_model([corpus], "everything", seed=1)
    [row] = sampled([corpus], method=method, contexts=500).evaluate(model).rows
    assert row["artifacts/ceiling"] == 1000**3 - row["train/above_threshold"]
    assert 0 < row["artifacts/count_low"] < row["artifacts/count"] < row["artifacts/count_high"] < 1000**3


# -------------------------------------------------------------------------------------------------------------- other


@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_waits_for_the_device_before_the_one_transfer(method: str, threshold: float) -> None:
    corpora = [labelled_world("truth", seed=seed, vocab_size=15) for seed in (0, 1)]
    model = sharp_model(corpora, "everything", seed=5, unsupported=True)
    measured = sampled(corpora, asked={"threshold": threshold}, method=method, contexts=100)
    doubles = in_float64(model)
    everyone = torch.ones(2, dtype=torch.bool)

    def evaluate() -> None:
        reading = measured._read(doubles)
        measured._values(doubles, reading, everyone, full_survival=True)
        measured._losses_of(doubles, reading)

    evaluate()  # what is made once
    with Synchronisations() as waiting:
        evaluate()
    assert waiting.found == []


def test_a_model_that_has_diverged_spoils_nobody() -> None:
    corpora = [random_world(40, 30, 3, seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    alone = sampled(corpora[:1], contexts=200).evaluate(model.member(0)).rows
    with torch.no_grad():
        model.get_parameter("embedding")[1] = math.nan
    for method in METHODS:
        sampled(corpora, method=method, contexts=200).evaluate(model)
    assert sampled(corpora, contexts=200).evaluate(model).rows[:1] == alone


def test_the_artifacts_among_some_contexts_are_those_of_all_that_lie_there() -> None:
    corpus = labelled_world("all", vocab_size=20)
    model = sharp_model([corpus], "attention", seed=0)
    among = sampled([corpus], contexts=100).looked_at(model)
    asked: dict[str, Any] = {"threshold": 0.3, "order": 3, "contexts": "all", "limit": 10_000}
    everything = most_confident(model, corpus, **asked)
    found = most_confident(model, corpus, **asked, among=among)
    lies_there = find_rows(torch.tensor(everything["tokens"].tolist())[:, :-1], distinct_rows(among)[0]) >= 0
    assert 0 < len(found) < len(everything)
    expected = everything[lies_there.numpy()].reset_index(drop=True)
    assert found.drop(columns="probability").equals(expected.drop(columns="probability"))
    assert found["probability"].tolist() == pytest.approx(expected["probability"].tolist(), rel=1e-12)
