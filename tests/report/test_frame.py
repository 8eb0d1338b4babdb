from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import made
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tc_sweeps.config import ConfigError
from tc_sweeps.report import load_curves, load_survival, load_sweep, over_seeds, swept_keys
from tc_sweeps.report.frame import figure_command, fully_fitted, hint, to_the_end, together
from tc_sweeps.report.intervals import clipped, spell, student_t, what_is_drawn
from tc_sweeps.store.sweep_folder import SweepFolder


def test_interval_of_one_two_three_is_the_textbook_one() -> None:
    # t with 2 degrees of freedom at 97.5 % is 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3).
    interval = student_t([1, 2, 3])
    assert interval.mean == 2
    assert interval.high - interval.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert interval.seeds == 3


@pytest.mark.parametrize("count", [2, 3, 10])
def test_interval_agrees_with_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    low, high = stats.t.interval(0.95, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert student_t(values)[1:3] == pytest.approx((low, high))


def test_one_seed_has_a_mean_and_no_interval() -> None:
    interval = student_t([4.5, float("nan")])
    assert (interval.mean, interval.seeds) == (4.5, 1)
    assert math.isnan(interval.low)
    assert not interval.above(0)
    assert not interval.below(100)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((18.0234, 17.6123, 18.4345), "18.02 [17.61, 18.43]"),
        ((18.0234, math.nan, math.nan), "18.02"),
        ((3.0, 3.0, 3.0), "3 [3, 3]"),
        ((8e-5, 7e-5, 9e-5), "8.0e-05 [7.0e-05, 9.0e-05]"),
        ((9500.4, 9400.2, 9600.6), "9500 [9400, 9601]"),
        ((0.0, -0.5, 0.5), "0.00 [-0.50, 0.50]"),
        ((math.nan, math.nan, math.nan), ""),
    ],
)
def test_numbers_are_spelled_with_their_interval(numbers: tuple[float, float, float], text: str) -> None:
    assert spell(*numbers) == text


def test_intervals_are_drawn_as_far_as_the_metric_goes() -> None:
    metrics = ["train/accuracy", "hallucination/per_context"]
    frame = pd.DataFrame({"train/accuracy": [0.1, 1.0], "hallucination/per_context": [0.1, 1.0]})
    table = over_seeds(frame, [], metrics)
    share, rate = clipped(table).to_dict("records")
    assert (share["low"], share["high"], share["mean"]) == (0, 1, 0.55)
    assert rate["low"] == 0
    assert rate["high"] > 1  # below a threshold of 1/2 it is no share
    assert (table["low"] < 0).all()
    assert (table["high"] > 1).all()


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([3, 3], "mean and 95 % Student t interval over seeds (3 runs a point)"),
        ([5, 3, 4], "mean and 95 % Student t interval over seeds (3 to 5 runs a point)"),
        ([1, 2], "mean and 95 % Student t interval over seeds (1 to 2 runs a point)"),
        ([1, 1], "1 run a point"),
        ([], ""),
    ],
)
def test_a_title_says_what_is_drawn(counts: list[int], text: str) -> None:
    assert what_is_drawn(counts) == text


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("width", "model.width"),
        ("widht", "model.width"),
        ("data.width", "model.width"),
        ("artifact/count", "artifacts/count"),
        ("generalisation/count", "generalization/count"),
        ("count", "artifacts/count"),
        ("bananas", None),
        ("x", None),
    ],
)
def test_only_near_names_are_suggested(name: str, near: str | None) -> None:
    known = ["seed", "model.width", "model.qk_width", "generalization/count", "artifacts/count"]
    assert hint(name, known, "there is no other") == (f"; did you mean '{near}'?" if near else "; there is no other.")


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ({}, "--x step --y artifacts/per_ngram"),
        ({"model.width": [8, 16]}, "--x model.width --y artifacts/per_ngram"),
        ({"model.width": [8, 16], "model.heads": [1, 2]}, "--x model.width --y artifacts/per_ngram"),
        (
            {"model.width": [8, 16], "model.heads": [1, 2], "training.steps": [1, 2], "training.clip_norm": [None, 1]},
            "--x model.width --y artifacts/per_ngram --by model.heads --where training.clip_norm=null",
        ),
    ],
)
def test_a_command_to_draw_names_as_many_axes_as_it_must(axes: dict[str, list[object]], options: str) -> None:
    runs = pd.DataFrame(list(itertools.product([0, 1], *axes.values())), columns=["seed", *axes])
    assert figure_command(Path("outputs/s"), runs) == f"tc-sweeps figure s {options}"


def test_keys_that_go_along_one_to_one_are_together() -> None:
    runs = pd.DataFrame(
        {
            "model.width": [8, 8, 16, 16],
            "training.learning_rate": [2.0, 2.0, 1.0, 1.0],
            "training.clip_norm": [None, None, 1.0, 1.0],
            "model.heads": [1, 2, 1, 2],
            "training.steps": [5, 5, 5, 7],
        }
    )
    zipped = ["model.width", "training.learning_rate", "training.clip_norm"]
    assert together(runs, list(runs)) == [zipped, ["model.heads"], ["training.steps"]]
    assert figure_command(Path("outputs/s"), runs.drop(columns="training.steps").assign(seed=0)) == (
        "tc-sweeps figure s --x model.width --y artifacts/per_ngram"
    )


def test_over_seeds_leaves_out_undefined_values_and_keeps_null_keys() -> None:
    frame = pd.DataFrame(
        {
            "state": ["finished"] * 5 + ["failed"],
            "data.num_sentences": [500, 500, 500, None, None, 500],
            "artifacts/count": [1.0, 3.0, np.nan, 7.0, 9.0, 1000.0],
        }
    )
    table = over_seeds(frame, ["data.num_sentences"], ["artifacts/count"])
    assert list(table.columns) == ["data.num_sentences", "metric", "mean", "low", "high", "runs"]
    known, null = table.iloc[0], table.iloc[1]
    assert (known["data.num_sentences"], known["mean"], known["runs"]) == (500, 2, 2)
    assert known["high"] - known["mean"] == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2))
    assert np.isnan(null["data.num_sentences"])
    assert (null["mean"], null["runs"]) == (8, 2)


def test_over_seeds_without_keys_is_one_group_and_of_nothing_is_empty() -> None:
    frame = pd.DataFrame({"state": ["finished"] * 2, "m": [1.0, 2.0], "nothing": [None, None]})
    table = over_seeds(frame, [], ["m", "nothing"]).set_index("metric")
    assert table.loc["m", "mean"] == 1.5
    assert table.loc["nothing", "runs"] == 0
    assert np.isnan(table.loc["nothing", "mean"])


def test_load_sweep_by_name_and_by_path_with_one_row_per_run(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    runs = load_sweep("figure2")
    pd.testing.assert_frame_equal(runs, load_sweep(outputs / "figure2"))
    assert len(runs) == 2 * 5 * 3 + 1
    assert runs["state"].value_counts().to_dict() == {"finished": 30, "failed": 1}
    assert swept_keys(runs) == ["data.num_sentences", "objective.positions"]
    assert list(fully_fitted(runs[runs["data.num_sentences"] == 4000]).unique()) == [False]


def test_runs_of_all_states_are_there_and_can_be_chosen_by_state(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    assert set(load_sweep("figure2")["state"]) == {"finished", "failed"}
    assert len(load_sweep("figure2", where={"state": "finished"})) == 30
    assert len(load_sweep("figure2", where={"state": ["failed", "running"]})) == 1
    with pytest.raises(ConfigError, match=r"has state=running; there are failed and finished\."):
        load_sweep("figure2", where={"state": "running"})


def test_every_adds_the_runs_of_earlier_plans(outputs: Path) -> None:
    run = made.finished_random_run(outputs, "s", {"seed": 0}, ratio=lambda _: 18)
    made.finished_random_run(outputs, "s", {"seed": 1}, ratio=lambda _: 18)
    SweepFolder(outputs / "s").add_runs([run.run_id], experiment="s", launch="2026")
    assert len(load_sweep("s")) == 1
    assert len(load_sweep("s", every=True)) == 2


def test_curves_have_a_row_per_evaluation_and_survival_a_row_per_threshold(outputs: Path) -> None:
    made.widths_sweep(outputs, slope=-1, seeds=[0])
    curves = load_curves("figure3")
    assert len(curves) == 12 * len(made.STEPS)
    assert {"model.width", "corpus/train_ngrams", "train/accuracy", "step"} <= set(curves)
    survival = load_survival("figure3")
    assert len(survival) == 12 * len(made.THRESHOLDS)
    assert (survival["ratio"] == survival["count"] / 500).all()
    assert set(load_survival("figure3", [0.1, 0.9])["threshold"]) == {0.1, 0.9}


def test_curves_leave_out_runs_that_have_not_begun(outputs: Path) -> None:
    made.finished_run(outputs, "s", {"seed": 0}, {50: {"train/loss": 1}})
    made.queued_run(outputs, "s", {"seed": 1})
    assert load_curves("s")["seed"].tolist() == [0]


def test_a_finished_run_stands_at_later_steps_of_its_group_with_what_it_has_come_to() -> None:
    rows = [
        *(("a", "finished", 8, 10, 1.0), ("a", "finished", 8, 20, 2.0)),
        *(("b", "finished", 8, step, 5.0) for step in (10, 20, 30, 40)),
        ("c", "finished", None, 10, 7.0),  # of another group, which nobody has gone beyond
        ("d", "running", 8, 10, 9.0),
    ]
    curves = pd.DataFrame(rows, columns=["run_id", "state", "model.width", "step", "train/loss"])
    added = to_the_end(curves.sample(frac=1, random_state=0), ["model.width"]).iloc[len(curves) :]
    assert added[["run_id", "model.width", "step", "train/loss"]].to_numpy().tolist() == [
        ["a", 8, 30, 2.0],
        ["a", 8, 40, 2.0],
    ]
    assert to_the_end(curves, [])["run_id"].tolist()[len(curves) :] == ["a", "a", "c", "c", "c"]
    assert to_the_end(curves.iloc[:0], ["model.width"]).empty


def test_swept_keys_leave_out_what_follows(outputs: Path) -> None:
    for width, seed in ((16, 0), (32, 1)):
        overrides = {"model.width": width, "seed": seed, "tracking.mode": "none" if seed else "offline"}
        made.begin(outputs, "following", overrides)
    assert swept_keys(load_sweep("following")) == ["model.width"]
    for seed, data_seed, qk_width in ((0, 7, 4), (1, 8, 16)):
        made.begin(outputs, "own", {"seed": seed, "data.seed": data_seed, "model.qk_width": qk_width})
    assert swept_keys(load_sweep("own")) == ["data.seed", "model.qk_width"]


def test_swept_keys_between_models_are_their_name_and_those_that_vary_within_one(outputs: Path) -> None:
    for chosen in ({"model.width": 8}, {"model.width": 16}, {"model.name": "cp"}):
        made.finished_random_run(outputs, "models", chosen, ratio=lambda _: 18)
    assert swept_keys(load_sweep("models")) == ["model.name", "model.width"]
    made.finished_random_run(outputs, "models", {"model.name": "cp", "model.rank": 4}, ratio=lambda _: 18)
    assert swept_keys(load_sweep("models")) == ["model.name", "model.width", "model.rank"]


def test_runs_from_before_models_had_names_are_transformers(outputs: Path) -> None:
    run = made.finished_random_run(outputs, "old", {"seed": 1}, ratio=lambda _: 18)
    made.finished_random_run(outputs, "old", {"seed": 2}, ratio=lambda _: 18)
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("  name: transformer\n", ""))
    assert load_sweep("old")["model.name"].tolist() == ["transformer"] * 2
    assert swept_keys(load_sweep("old")) == []


def test_swept_keys_between_worlds_are_their_name_alone(outputs: Path) -> None:
    made.begin(outputs, "worlds", {"data.name": "random"})
    made.begin(outputs, "worlds", {"data.name": "kinships"})
    assert swept_keys(load_sweep("worlds")) == ["data.name"]


def test_a_null_is_a_value_that_can_be_swept(outputs: Path) -> None:
    made.begin(outputs, "nulls", {"data.name": "kinships", "data.num_sentences": None})
    made.begin(outputs, "nulls", {"data.name": "kinships", "data.num_sentences": 1000})
    assert swept_keys(load_sweep("nulls")) == ["data.num_sentences"]


def test_a_sweep_without_runs_is_an_empty_frame(outputs: Path) -> None:
    (outputs / "empty").mkdir()
    (outputs / "empty" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    assert load_sweep("empty").empty
    assert load_curves("empty").empty
    assert load_survival("empty").empty


def test_an_unknown_sweep_names_the_nearest_or_what_there_is(outputs: Path) -> None:
    home = re.escape(str(outputs.resolve()))
    with pytest.raises(ConfigError, match=rf"^There is no sweep 'x': {home} holds no sweep yet\.$"):
        load_sweep("x")
    made.begin(outputs, "figure2", {})
    made.begin(outputs, "kinships", {})
    for name in ("figur2", "figur2/", "outputs/figur2", str(outputs.resolve() / "figur2")):
        with pytest.raises(ConfigError, match=rf"^There is no sweep 'figur2' in {home}; did you mean 'figure2'\?$"):
            load_sweep(name)
    with pytest.raises(ConfigError, match=rf"^There is no sweep 'nope' in {home}; it holds figure2 and kinships\.$"):
        load_sweep("nope")
