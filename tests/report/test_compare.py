"""Two sweeps side by side: which runs are counterparts, how much metrics differ, what is said of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tc_sweeps.config import ConfigError
from tc_sweeps.report import compare_text, load_sweep
from tc_sweeps.report.intervals import student_t, welch
from tc_sweeps.report.matching import differences, matching_of


def finish(outputs: Path, sweep: str, loss: float, **overrides: object) -> str:
    """A finished run, with `__` for the dot of a key; returns its id."""
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return made.finished_run(outputs, sweep, keys, {1000: {"train/excess_loss": loss}}).run_id


def compared(metric: str = "train/excess_loss") -> pd.DataFrame:
    a, b = load_sweep("a"), load_sweep("b")
    return differences(a, b, matching_of(a, b), [metric])


@pytest.mark.parametrize("sizes", [(2, 2), (2, 9), (5, 3)])
def test_welch_agrees_with_scipy(sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(sizes))
    one, two = random.normal(0, 1, sizes[0]), random.normal(3, 5, sizes[1])
    interval = stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    found = welch([*one, math.nan], two)
    assert found[1:3] == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx(two.mean() - one.mean())
    assert found.seeds == sum(sizes)


def test_welch_of_few_and_of_constants() -> None:
    assert math.isnan(welch([1.0], [2.0, 3.0]).low)
    assert welch([1.0], [2.0, 3.0]).mean == 1.5
    assert welch([1, 1], [3, 3])[:3] == (2, 2, 2)
    assert math.isnan(welch([], [1.0]).mean)


def test_runs_of_one_seed_are_paired(outputs: Path) -> None:
    """Seeds differ much and the two sides little: only pairs show it."""
    losses = {0: 1.0, 1: 5.0, 2: 9.0}
    for seed, loss in losses.items():
        finish(outputs, "a", loss, seed=seed)
        finish(outputs, "b", loss + 0.1 + 0.01 * seed, seed=seed, training__weight_decay=0.1)
    [row] = compared().to_dict("records")
    paired = student_t([0.10, 0.11, 0.12])
    low, high = stats.ttest_1samp([0.10, 0.11, 0.12], 0).confidence_interval(0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(paired[:3])
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert (row["paired"], row["seeds_a"], row["a"], row["b"]) == (True, 3, 5, pytest.approx(5.11))
    text = compare_text("a", "b")
    assert "\n  training.weight_decay  A: 0  B: 0.1\n" in text
    assert "Matched by seed: 3 of 3 finished runs of A and 3 of 3 finished runs of B." in text
    assert "0.110 [0.085, 0.135] *" in text
    assert "*: the interval excludes 0, here in 1 of 1." in text
    assert "unpaired" not in text


def test_other_seeds_are_not_paired(outputs: Path) -> None:
    for seed in (0, 1, 2):
        finish(outputs, "a", 1.0 + seed, seed=seed)
        finish(outputs, "b", 3.0 + 2 * seed, seed=seed + 10, training__weight_decay=0.1)
    [row] = compared().to_dict("records")
    interval = stats.ttest_ind([3, 5, 7], [1, 2, 3], equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"], row["paired"]) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
        False,
    )
    text = compare_text("a", "b")
    assert "  seed                   A: 0, 1 and 2  B: 10, 11 and 12\n" in text
    assert "3 and 3, unpaired" in text
    assert "with Welch's 95 % interval" in text
    assert "paired difference" not in text
    assert "0 of 3 finished runs of A" in text


def test_pairs_are_those_seeds_that_both_have(outputs: Path) -> None:
    for seed in range(5):
        finish(outputs, "a", 1.0, seed=seed)
    for seed in range(3, 8):
        finish(outputs, "b", float(seed), seed=seed, training__weight_decay=0.1)
    [row] = compared().to_dict("records")
    assert (row["paired"], row["seeds_a"], row["seeds_b"], row["difference"]) == (True, 2, 2, 2.5)


def test_a_shared_axis_makes_groups_and_its_other_values_have_no_counterpart(outputs: Path) -> None:
    for seed in (0, 1):
        for width in (32, 8, 16):
            finish(outputs, "a", width, model__width=width, seed=seed)
        for width in (16, 32, 64):
            finish(outputs, "b", 2 * width, model__width=width, seed=seed, objective__positions="last")
    table = compared()
    assert table["model.width"].tolist() == ["16", "32"]  # head widths follow it
    assert table["difference"].tolist() == [16, 32]
    text = compare_text("a", "b")
    assert "  model.width          A: 8, 16 and 32  B: 16, 32 and 64\n" in text
    assert "Only in A: model.width=8 (2 runs).\nOnly in B: model.width=64 (2 runs).\n" in text
    assert "Matched by model.width and seed: 4 of 6 finished runs of A and 4 of 6 finished runs of B." in text
    assert "qk_width" not in text


def test_a_key_that_goes_along_with_an_axis_on_one_side_is_what_differs(outputs: Path) -> None:
    """A scales the rate with the width, B does not; one of its rates is B's."""
    for width, rate in ((8, 1e-2), (16, 5e-3)):
        for seed in (0, 1):
            finish(outputs, "a", 1, model__width=width, seed=seed, training__learning_rate=rate)
            finish(outputs, "b", 1.5, model__width=width, seed=seed, training__learning_rate=1e-2)
    assert compared()["difference"].tolist() == [0.5, 0.5]
    text = compare_text("a", "b")
    assert "  training.learning_rate  A: 0.005 and 0.01  B: 0.01\n" in text
    assert "2 runs are the same in both, by run_id." in text


def test_runs_of_one_seed_are_averaged_over_what_cannot_be_matched(outputs: Path) -> None:
    for seed in (0, 1):
        finish(outputs, "a", 1 + seed, seed=seed)
        for decay in (0.1, 1):
            finish(outputs, "b", 4 + decay, seed=seed, training__weight_decay=decay)
    [row] = compared().to_dict("records")
    assert row["difference"] == pytest.approx(4.55 - 1.5)
    assert row["seeds_b"] == 2
    assert "Runs of one seed are averaged over training.weight_decay." in compare_text("a", "b")


def test_runs_that_are_the_same_differ_in_nothing(outputs: Path) -> None:
    for seed in (0, 1):
        assert finish(outputs, "a", 1 + seed, seed=seed) == finish(outputs, "b", 1 + seed, seed=seed)
    text = compare_text("a", "b")
    assert "Configs do not differ." in text
    assert "2 runs are the same in both, by run_id." in text
    assert "0 [0, 0]" in text
    assert "excludes 0, here in 0 of 1." in text


def test_two_runs_are_compared(outputs: Path) -> None:
    one, two = finish(outputs, "a", 1, seed=0), finish(outputs, "b", 1.5, seed=0, data__num_sentences=400)
    finish(outputs, "a", 100, seed=1)
    text = compare_text(f"a/{one}", f"outputs/b/{two[:8]}")
    assert text.startswith(f"A: a/{one}, 1 of 1 run finished\nB: outputs/b/{two[:8]}, 1 of 1 run finished\n")
    assert "  data.num_sentences  A: 500  B: 400\n" in text
    assert text.splitlines()[-4].split() == ["train/excess_loss", "1", "1.5", "0.5", "1"]
    assert text.endswith("Where there is no interval, there are fewer than two seeds.")
    within = compare_text(f"a/{one}", "a", where={"seed": 0})
    assert "1 run is the same in both, by run_id." in within
    with pytest.raises(ConfigError, match=f"The run 'a/{one}' is not one of those with seed=1"):
        compare_text(f"a/{one}", "a", where={"seed": 1})


def test_models_have_keys_of_their_own(outputs: Path) -> None:
    for seed in (0, 1):
        one = finish(outputs, "a", 1.0 + seed, model__name="cp", model__rank=8, seed=seed)
        finish(outputs, "b", 2.0 + seed, seed=seed)
    finish(outputs, "a", 1.0, seed=2)
    text = compare_text("a", "b", where={"seed": [0, 1]})
    assert "  model.name  A: cp  B: transformer\n" in text
    assert "Only runs of A have model.rank.\n" in text
    assert "Only runs of B have model.width, " in text
    assert "Matched by seed: 2 of 2" in text, "the same data, whatever the model"
    assert "model.width" not in compare_text(f"a/{one}", "a", where={"model.name": "cp"})


def test_worlds_have_keys_of_their_own(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    made.kinships_sweep(outputs)
    text = compare_text("figure2", "kinships")
    assert "  data.name               A: random " in text
    assert "  data.held_out_fraction  A: no such key " in text
    assert "  Only runs of A have data.vocab_size and data.sampler.\n" in text
    assert "generalization/recall" not in text.split("\n\n")[-2]  # random triples have no truth
    assert "artifacts/per_ngram" in text
    with pytest.raises(ConfigError, match=r"None of generalization/recall is defined in finished runs of both sides\."):
        compare_text("figure2", "kinships", metrics=["generalization/recall"])
    text = compare_text("figure2", "kinships", metrics=["generalization/recall", "train/accuracy"])
    assert text.endswith("\n\nNot defined in finished runs of both sides: generalization/recall.")


@pytest.mark.parametrize(
    ("key", "value", "paired"),
    [("data__vocab_size", 50, False), ("data__sampler", "uniform", False), ("data__num_sentences", 400, True)],
)
def test_seeds_are_paired_where_they_draw_the_same_data(outputs: Path, key: str, value: object, paired: bool) -> None:
    for seed in (0, 1, 2):
        finish(outputs, "a", 1.0 + seed, seed=seed)
        finish(outputs, "b", 2.0 + seed, seed=seed, **{key: value})
    [row] = compared().to_dict("records")
    assert row["paired"] is paired
    text = compare_text("a", "b")
    apart = f"Seeds are not paired: with other values of {key.replace('__', '.')} a seed draws other data.\n"
    assert (apart in text) is not paired
    assert ("Matched by seed: 3 of 3" in text) is paired
    assert ("unpaired: seeds are other data; difference of the means, with Welch's" in text) is not paired


def test_worlds_are_not_paired(outputs: Path) -> None:
    made.kinships_sweep(outputs)
    made.sizes_sweep(outputs)
    text = compare_text("figure2", "kinships", metrics=["artifacts/per_ngram"])
    assert "Seeds are not paired: with other values of data.name a seed draws other data." in text
    assert "paired difference" not in text


def test_seeds_without_a_counterpart_are_named(outputs: Path) -> None:
    for width in (8, 16):
        for seed in range(4):
            finish(outputs, "a", 1.0, model__width=width, seed=seed)
        for seed in range(2, 7 if width == 8 else 5):
            finish(outputs, "b", 2.0, model__width=width, seed=seed, training__weight_decay=0.1)
    text = compare_text("a", "b")
    assert "Only in A: seeds 0 and 1.\n" in text
    assert "Only in B: seed 4 of model.width=16.\nOnly in B: seeds 4, 5 and 6 of model.width=8.\n" in text


def test_keys_of_runs_that_are_not_compared_are_not_told(outputs: Path) -> None:
    one, two = finish(outputs, "a", 1), finish(outputs, "a", 2, training__weight_decay=0.1)
    finish(outputs, "a", 3, data__name="kinships")
    for text in (compare_text(f"a/{one}", f"a/{two}"), compare_text("a", f"a/{two}", where={"data.name": "random"})):
        assert "held_out_fraction" not in text
        assert "  training.weight_decay " in text


def test_undefined_values_and_unfinished_runs_are_left_out(outputs: Path) -> None:
    for seed in range(4):
        finish(outputs, "a", math.nan if seed == 0 else 1.0, seed=seed)
        finish(outputs, "b", math.nan if seed == 1 else 2.0 + seed, seed=seed, training__weight_decay=0.1)
    made.failed_run(outputs, "b", {"seed": 9})
    text = compare_text("a", "b", file=Path("differences.csv"))
    assert "B: b, 4 of 5 runs finished" in text
    [row] = pd.read_csv("differences.csv").to_dict("records")
    assert (row["metric"], row["seeds_a"], row["difference"]) == ("train/excess_loss", 2, 3.5)


def test_what_is_infinite_is_shown_and_differs_by_nothing_that_can_be_said(outputs: Path) -> None:
    for seed in (0, 1):
        finish(outputs, "a", 1.0, seed=seed)
        finish(outputs, "b", math.inf, seed=seed, training__weight_decay=0.1)
    [row] = [line.split() for line in compare_text("a", "b").splitlines() if line.startswith("train/excess_loss")]
    assert row == ["train/excess_loss", "1", "inf", "inf", "2"]


def test_many_differences_are_told_with_what_chance_would_make(outputs: Path) -> None:
    for sweep in ("a", "b"):
        for width in range(4, 604, 4):
            finish(outputs, sweep, width, model__width=width, training__weight_decay=float(sweep == "b"))
            if width < 120:
                finish(outputs, sweep, width, model__width=width, seed=1, training__weight_decay=float(sweep == "b"))
    text = compare_text("a", "b", file=Path("all.csv"))
    assert "30 more rows: --csv FILE has them all." in text
    assert len(pd.read_csv("all.csv")) == 150
    assert "here in 0 of 29; by chance alone it would be about 1." in text


@pytest.mark.usefixtures("outputs")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: compare_text("a", "z"), r"There is no sweep 'z' in .*; it holds a and failed\."),
        (lambda: compare_text("a", "a/0000"), r"The sweep 'a' has no run '0000'; it has "),
        (lambda: compare_text("a", "outputs/a"), r"'a' and 'outputs/a' are the same: there is nothing to compare\."),
        (lambda: compare_text("a", "failed"), r"No run of 'failed' has finished: there is nothing to compare\."),
        (lambda: compare_text("a", "failed", where={"sed": 0}), r"has no config key 'sed'; did you mean 'seed'\?"),
        (lambda: compare_text("a", "failed", metrics=["loss"]), r"No run of 'failed' has finished"),
    ],
)
def test_what_cannot_be_compared_is_said(outputs: Path, call: Callable[[], str], said: str) -> None:
    finish(outputs, "a", 1)
    made.failed_run(outputs, "failed", {})
    with pytest.raises(ConfigError, match=said):
        call()


def test_an_unknown_metric_has_a_hint(outputs: Path) -> None:
    finish(outputs, "a", 1)
    finish(outputs, "b", 1)
    with pytest.raises(ConfigError, match=r"--metrics test/los is no metric; did you mean 'test/loss'\?"):
        compare_text("a", "b", metrics=["test/los"])
    made.finished_run(outputs, "c", {}, {1000: {}})
    with pytest.raises(ConfigError, match=r"is defined in finished runs of both sides"):
        compare_text("a", "c")


def test_names_that_a_terminal_would_obey_are_escaped(outputs: Path) -> None:
    for sweep in ("a", "b\x1b[2J"):
        finish(outputs, sweep, 1)
    assert r"B: b\x1b[2J, 1 of 1 run finished" in compare_text("a", "b\x1b[2J")
