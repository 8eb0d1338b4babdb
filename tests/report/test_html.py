"""The data of the HTML report: what the page is given to draw, against numbers worked out by hand."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import made
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from tc_sweeps import cli
from tc_sweeps.config import METRICS, ConfigError, resolve
from tc_sweeps.report import load_survival, load_sweep, over_seeds, write_report
from tc_sweeps.report.command import run_command, spell_override
from tc_sweeps.report.html import details, payload
from tc_sweeps.report.html.numbers import number
from tc_sweeps.report.html.page import pack
from tc_sweeps.report.intervals import clipped
from tc_sweeps.report.metrics import about
from tc_sweeps.store import run_id

ROOT = Path(__file__).parents[2]
NGRAMS = 500  # of `made.finished_run`


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def data_of(path: Path) -> dict[str, Any]:
    """What a browser finds in the page."""
    [packed] = re.findall(r'<script type="application/octet-stream" id="data">([A-Za-z0-9+/=]+)</script>', read(path))
    return dict(unpacked(packed))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def report(*sweeps: str | Path, **options: Any) -> dict[str, Any]:
    return data_of(write_report(list(sweeps), **options).path)


def details_of(data: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The details of each run, in the order of the table."""
    chunks = [unpacked(chunk) for chunk in data["details"]["chunks"]]
    return [place and chunks[place[0]][place[1]] for place in data["details"]["of"]]


def column(data: dict[str, Any], name: str) -> list[Any]:
    [place] = [place for place, each in enumerate(data["table"]["columns"]) if each["name"] == name]
    return list(data["table"]["values"][place])


# ----------------------------------------------------------------------------------------------------- groups and axes


def test_groups_hold_the_means_over_seeds_and_their_intervals(outputs: Path) -> None:
    for width, values in ((16, (4, 5, 9)), (8, (1, 2, 3))):
        for seed, value in enumerate(values):
            evaluations = {50: {"artifacts/per_ngram": 0.5}, 100: {"artifacts/per_ngram": value}}
            made.finished_run(outputs, "s", {"model.width": width, "seed": seed}, evaluations)
    data = report("s")
    assert data["title"] == "s"
    assert data["axes"] == [{"key": "model.width", "also": [], "values": [8, 16], "numeric": True}]
    assert [metric["name"] for metric in data["metrics"]] == ["artifacts/per_ngram"]
    assert [group["values"] for group in data["groups"]] == [[0], [1]]
    assert [group["runs"] for group in data["groups"]] == [[3, 4, 5], [0, 1, 2]]
    # t with 2 degrees of freedom at 97.5 % is 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3): half is 2.484.
    # The interval ends at 0, below which no ratio lies.
    assert data["groups"][0]["final"]["artifacts/per_ngram"] == [2, 0, 4.4841, 3]
    assert data["groups"][0]["curves"] == {
        "step": [50, 100],
        "artifacts/per_ngram": [[0.5, 2], [0.5, 0], [0.5, 4.4841], [3, 3]],
    }
    assert column(data, "artifacts/per_ngram") == [4, 5, 9, 1, 2, 3]
    assert column(data, "seed") == [0, 1, 2, 0, 1, 2]
    assert column(data, "model.width") == [16, 16, 16, 8, 8, 8]
    assert column(data, "run_id") == list(load_sweep("s")["run_id"])
    assert data["left_out"] is None


def test_a_run_that_has_reached_its_target_stays_in_the_means(outputs: Path) -> None:
    """Else a curve would go on as that of the runs that fit worst, and end elsewhere than the results."""
    keys = {"training.target_excess_loss": 0.1}
    made.finished_run(outputs, "s", {**keys, "seed": 0}, {50: {"artifacts/count": 4}, 100: {"artifacts/count": 6}})
    made.finished_run(outputs, "s", {**keys, "seed": 1}, {n: {"artifacts/count": n} for n in (50, 100, 150, 200)})
    for seed, values in enumerate(({50: 3}, {50: 5, 100: 5})):  # those that are under way do not
        made.begun_run(outputs, "s", {**keys, "seed": seed, "model.width": 8}, "artifacts/count", values)
    unfinished, finished = report("s")["groups"]
    assert finished["curves"]["step"] == [50, 100, 150, 200]
    assert finished["curves"]["artifacts/count"][0] == [27, 53, 78, 103]
    assert finished["final"]["artifacts/count"][0] == 103
    assert unfinished["curves"]["artifacts/count"] == [[4, 5], [0, None], [16.706, None], [2, 1]]


def test_means_and_intervals_are_those_of_figures(outputs: Path) -> None:
    made.kinships_sweep(outputs)
    data = report("kinships")
    keys = ["data.held_out_fraction", "model.width"]
    assert [axis["key"] for axis in data["axes"]] == keys
    metrics = [metric["name"] for metric in data["metrics"]]
    assert {metric["name"] for metric in data["metrics"] if metric["share"]} >= {"generalization/recall"}
    expected = clipped(over_seeds(load_sweep("kinships"), keys, metrics))
    for row in expected.to_dict("records"):
        place = [axis["values"].index(row[axis["key"]]) for axis in data["axes"]]
        [group] = [group for group in data["groups"] if group["values"] == place]
        found = group["final"][row["metric"]]
        assert found[3] == row["runs"] == 3
        assert found[:3] == pytest.approx([row["mean"], row["low"], row["high"]], rel=1e-4)
        assert [part[-1] for part in group["curves"][row["metric"]]] == found
    assert len(data["groups"]) == 6


def test_survival_curves_are_ratios_at_the_last_evaluation(outputs: Path) -> None:
    for seed in (0, 1):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda threshold: 20 * (1 - threshold))
    data = report("s")
    [group] = data["groups"]
    assert group["values"] == data["axes"] == []
    expected = over_seeds(load_survival("s"), ["threshold"], ["ratio"])
    assert group["survival"]["threshold"] == list(made.THRESHOLDS)
    for part, name in zip(group["survival"]["ratio"], ("mean", "low", "high", "runs"), strict=True):
        assert part == pytest.approx(list(expected[name]), rel=1e-4)
    first = details_of(data)[0]
    assert first is not None
    assert first["survival"]["threshold"] == list(made.THRESHOLDS)
    assert first["survival"]["count"][0] == round(18 * NGRAMS * (1 + 0.02 * np.random.default_rng(0).standard_normal()))


def test_axes_that_are_zipped_are_one(outputs: Path) -> None:
    for width, rate in ((8, 0.02), (16, 0.01), (32, 0.005)):
        for decay in (0.0, 0.1):
            overrides = {"model.width": width, "training.learning_rate": rate, "training.weight_decay": decay}
            made.finished_run(outputs, "s", overrides, {100: {"train/loss": 1}})
    data = report("s")
    assert [(axis["key"], axis["also"]) for axis in data["axes"]] == [
        ("model.width", ["training.learning_rate"]),
        ("training.weight_decay", []),
    ]
    assert column(data, "training.learning_rate") == [0.02, 0.02, 0.01, 0.01, 0.005, 0.005]
    kinds = {each["name"]: each["kind"] for each in data["table"]["columns"]}
    assert kinds["training.learning_rate"] == kinds["seed"] == "config"
    assert kinds["state"] == "status"
    assert kinds["model/parameters"] == "fact"
    assert kinds["train/loss"] == "metric"


def test_null_words_and_lists_are_values_in_order(outputs: Path) -> None:
    for size, objective in ((None, "last"), (300, "all"), (100, "last")):
        overrides = {"data.name": "latent", "data.num_sentences": size, "objective.positions": objective}
        made.finished_run(outputs, "s", overrides, {100: {"train/loss": 1}})
    made.finished_run(outputs, "lists", {"data.name": "pykeen"}, {100: {"train/loss": 1}})
    turned = {"data.name": "pykeen", "data.columns": ["object", "subject", "relation"]}
    made.finished_run(outputs, "lists", turned, {100: {"train/loss": 1}})
    sizes, objectives = report("s")["axes"]
    assert sizes["values"] == [None, 100, 300]
    assert all(isinstance(value, int) for value in sizes["values"][1:])
    assert not sizes["numeric"]
    assert objectives["values"] == ["all", "last"]
    assert report("lists")["axes"][0]["values"] == ["[object,subject,relation]", "[subject,object,relation]"]


def test_numeric_facts_that_differ_between_groups_are_xs(outputs: Path) -> None:
    for width in (8, 16):
        made.finished_random_run(outputs, "s", {"model.width": width}, ratio=lambda _: 18)
    data = report("s")
    assert data["xs"] == ["model/parameters", "model/non_embedding_parameters"]
    assert [group["facts"]["model/non_embedding_parameters"] for group in data["groups"]] == [256, 1024]
    failed = made.begin(outputs, "s", {"model.width": 8, "seed": 1})  # on other data: no number of the group has it
    failed.write_facts(made.random_facts({"model.width": 8, "data.num_sentences": 10}), None)
    failed.set_state("failed", reason="The loss became non-finite at step 37.", step=37)
    assert [group["facts"]["corpus/train_ngrams"] for group in report("s")["groups"]] == [500, 500]


def test_means_of_one_fact_are_no_x_whatever_their_last_digit(outputs: Path) -> None:
    share = 0.1
    for width, seeds in ((8, 3), (16, 1)):
        for seed in range(seeds):
            run = made.finished_run(outputs, "s", {"model.width": width, "seed": seed}, {100: {"train/loss": 1}})
            run.write_facts(made.random_facts({}) | {"corpus/fully_fitted_accuracy": share}, None)
    assert pd.Series([share] * 3).mean() != share
    data = report("s")
    assert "corpus/fully_fitted_accuracy" not in data["xs"]
    assert [group["facts"]["corpus/fully_fitted_accuracy"] for group in data["groups"]] == [share, share]


def test_several_sweeps_are_an_axis_in_the_order_given(outputs: Path) -> None:
    made.finished_run(outputs, "b", {"model.width": 8}, {100: {"train/loss": 1}})
    made.finished_run(outputs, "a", {"model.width": 8}, {100: {"train/loss": 3}})
    path = write_report(["b", outputs / "a", "b"]).path
    assert path == outputs / "b" / "report+a.html"
    data = data_of(path)
    assert data["title"] == "b, a"
    assert [sweep["name"] for sweep in data["sweeps"]] == ["b", "a"]
    assert data["axes"] == [{"key": "sweep", "also": [], "values": ["b", "a"], "numeric": False}]
    assert [group["final"]["train/loss"][0] for group in data["groups"]] == [1, 3]
    assert column(data, "sweep") == ["b", "a"]
    assert all(details_of(data))


def test_a_key_of_which_a_sweep_or_world_knows_nothing_is_no_axis_of_it(outputs: Path) -> None:
    for fraction in (0.1, 0.7):
        made.finished_kinships_run(outputs, "facts", {"data.held_out_fraction": fraction}, recall=0.5)
    for size in (500, 1000):
        made.finished_random_run(outputs, "triples", {"data.num_sentences": size}, ratio=lambda _: 18)
    data = report("facts", "triples")
    axes = {axis["key"]: axis for axis in data["axes"]}
    assert (axes["data.num_sentences"]["values"], axes["data.held_out_fraction"]["values"]) == ([500, 1000], [0.1, 0.7])
    assert axes["data.num_sentences"]["numeric"]
    place = list(axes).index("data.num_sentences")
    assert [group["values"][place] for group in data["groups"]] == [None, None, 0, 1]
    assert column(data, "data.num_sentences") == [None, None, 500, 1000]
    made.finished_run(outputs, "latents", {"data.name": "latent", "data.num_sentences": None}, {100: {"train/loss": 1}})
    made.finished_run(outputs, "latents", {"data.name": "latent", "data.num_sentences": 9}, {100: {"train/loss": 1}})
    [sizes] = [axis for axis in report("latents", "triples")["axes"] if axis["key"] == "data.num_sentences"]
    assert sizes["values"] == [None, 9, 500, 1000]  # where it is one of several values, null is one


def test_sweeps_of_one_name_are_named_by_their_paths(outputs: Path) -> None:
    for folder in (outputs, outputs.parent / "other"):
        made.finished_run(folder, "s", {}, {100: {"train/loss": 1}})
    assert report("s", "other/s")["axes"][0]["values"] == ["outputs/s", "other/s"]


# ------------------------------------------------------------------------------------------- what is not (yet) finished


def test_runs_under_way_are_in_curves_as_far_as_they_have_come_and_failed_ones_nowhere(outputs: Path) -> None:
    made.finished_run(outputs, "s", {"seed": 0}, {50: {"train/loss": 2}, 100: {"train/loss": 1}})
    for seed, step in ((1, 37), (2, 41)):
        run = made.begun_run(outputs, "s", {"seed": seed}, "train/loss", {30: 100})
        run.set_state("failed", reason=f"The loss became non-finite at step {step}.", step=step)
    made.begun_run(outputs, "s", {"seed": 3, "model.width": 8}, "train/loss", {50: 7})
    made.begun_run(outputs, "s", {"seed": 4}, "train/loss", {50: 4})
    data = report("s")
    assert data["sweeps"][0]["states"] == {"finished": 1, "failed": 2, "interrupted": 2}
    assert data["sweeps"][0]["failures"] == [{"reason": "The loss became non-finite at step ….", "count": 2}]
    unfinished, group = data["groups"]
    assert group["runs"] == [0, 1, 2, 4]
    assert group["final"]["train/loss"] == [1, None, None, 1]  # of the one that has finished
    # (2 + 4) / 2, and t with one degree of freedom: 12.706 * sqrt(2) / sqrt(2).
    assert group["curves"] == {"step": [50, 100], "train/loss": [[3, 1], [0, None], [15.706, None], [2, 1]]}
    assert unfinished["final"]["train/loss"] == [None, None, None, 0]
    assert unfinished["curves"] == {"step": [50], "train/loss": [[7], [None], [None], [1]]}
    assert column(data, "state") == ["finished", "failed", "failed", "interrupted", "interrupted"]
    assert column(data, "reason")[0] is None
    assert column(data, "step") == [100, 37, 41, 50, 50]
    failed = details_of(data)[1]
    assert failed is not None
    assert failed["curves"] == {"step": [30], "train/loss": [100]}
    assert (failed["artifacts"], failed["fibers"]) == (None, None)
    text = read(outputs / "s" / "report.html")
    assert "<li>2 failed: The loss became non-finite at step ….</li>" in text
    assert "5 runs: 1 finished, 2 failed, 2 interrupted" in text


def test_survival_curves_are_of_finished_runs(outputs: Path) -> None:
    """They are said to be those at the end."""
    made.finished_random_run(outputs, "s", {"seed": 0}, ratio=lambda _: 4)
    run = made.begun_run(outputs, "s", {"seed": 1}, "artifacts/count", {50: 7})
    run.add_survival(50, made.THRESHOLDS, np.full(6, 10**6))
    run = made.begun_run(outputs, "s", {"seed": 2, "model.width": 8}, "artifacts/count", {50: 7})
    run.add_survival(50, made.THRESHOLDS, np.full(6, 10**6))
    unfinished, group = report("s")["groups"]
    assert max(group["survival"]["ratio"][0]) < 5
    assert group["survival"]["ratio"][3] == [1] * 6
    assert "survival" not in unfinished


def test_a_sweep_of_which_some_runs_wait_has_a_verdict(outputs: Path) -> None:
    made.kinships_sweep(outputs)
    made.queued_run(outputs, "kinships", {"data.name": "kinships", "seed": 9})
    [sweep] = report("kinships")["sweeps"]
    assert sweep["verdict"].startswith("Both generalizations and hallucinations are there")


def test_what_has_not_finished_is_told_beside_the_path(outputs: Path) -> None:
    made.finished_run(outputs, "s", {"seed": 0}, {50: {"train/loss": 2}})
    assert write_report("s").unfinished == ""
    made.begun_run(outputs, "s", {"seed": 1}, "train/loss", {50: 4})
    made.failed_run(outputs, "s", {"seed": 2})
    assert write_report("s").unfinished.startswith("Not finished: 1 failed, 1 interrupted. What the report says of the")


def test_a_sweep_of_which_nothing_has_begun_has_a_report(outputs: Path) -> None:
    made.queued_run(outputs, "s", {})
    data = report("s")
    assert data["metrics"] == []
    assert data["groups"] == [{"values": [], "runs": [0], "facts": {}, "final": {}, "curves": {"step": []}}]
    [detail] = details_of(data)
    assert detail is not None
    assert detail["curves"] == {"step": []}
    assert detail["config"]["model.width"] == 32


def test_a_sweep_that_is_evaluated_for_the_first_time_while_it_is_read_has_a_report(outputs: Path) -> None:
    run = made.queued_run(outputs, "s", {})
    gathered = payload.gather(["s"])
    run.begin(resolve(made.nested({"sweep": "s"})), METRICS)
    run.add_row(50, dict.fromkeys(METRICS, math.nan) | {"train/loss": 1})
    data = json.loads(gathered.payload(10**7))
    assert data["metrics"] == []
    assert data["groups"][0]["curves"] == {"step": []}


def test_what_is_undefined_is_null_and_what_is_defined_nowhere_is_no_metric(outputs: Path) -> None:
    evaluations = {50: {"train/loss": math.inf, "test/loss": 3}, 100: {"train/loss": 2, "artifacts/count": 0}}
    made.finished_run(outputs, "s", {}, evaluations)
    data = report("s")
    assert [metric["name"] for metric in data["metrics"]] == ["train/loss", "test/loss", "artifacts/count"]
    assert column(data, "test/loss") == [None]
    [group] = data["groups"]
    assert group["final"]["artifacts/count"] == [0, None, None, 1]
    assert group["final"]["test/loss"] == [None, None, None, 0]
    assert group["curves"]["test/loss"][0] == [3, None]
    assert group["curves"]["train/loss"][0] == [None, 2]


def test_no_sweep_no_run_and_no_such_run_are_refused(outputs: Path) -> None:
    made.finished_run(outputs, "s", {}, {100: {"train/loss": 1}})
    (outputs / "empty").mkdir()
    (outputs / "empty" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    for sweep, said in (("t", "There is no sweep 't'"), ("empty", "'empty' has no runs yet: there is nothing to")):
        with pytest.raises(ConfigError, match=said):
            write_report([sweep])
    with pytest.raises(ConfigError, match=r"No run of the sweep 's' has model\.width=7"):
        write_report(["s"], where={"model.width": 7})
    data = report("empty", "s")
    assert data["sweeps"][0]["states"] == {}
    assert data["axes"] == []  # all runs are of one sweep


def test_a_filter_chooses_runs_and_names_the_file(outputs: Path) -> None:
    for width in (8, 16):
        made.finished_run(outputs, "s", {"model.width": width}, {100: {"train/loss": width}})
    path = write_report("s", where={"model.width": 8}).path
    assert path.name == "report_where_model.width=8.html"
    data = data_of(path)
    assert column(data, "train/loss") == [8]
    assert data["title"] == "s with model.width=8"  # a page is passed on without the command that made it


# ---------------------------------------------------------------------------------------------------- claim and verdict


def test_claim_and_verdict_are_those_of_the_figure(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    [sweep] = report("figure2")["sweeps"]
    assert sweep["experiment"] == "figure2"
    assert sweep["claim"].startswith("Toy models trained on random triples have very many artifacts")
    assert sweep["verdict"].startswith("Holds at some sizes.")
    assert "<strong>Verdict:</strong> Holds at some sizes.<br>" in read(outputs / "figure2" / "report.html")


def test_without_a_figure_or_a_finished_run_there_is_no_verdict(outputs: Path) -> None:
    made.finished_run(outputs, "mine", {}, {100: {"train/loss": 1}})
    made.failed_run(outputs, "figure2", {})
    mine, figure2 = report("mine", "figure2")["sweeps"]
    assert (mine["claim"], mine["verdict"]) == (None, None)
    assert figure2["claim"]
    assert figure2["verdict"] is None


def test_of_a_search_the_best_trials_are_told(outputs: Path) -> None:
    widths = (8, 16, 32)
    runs = [
        made.finished_run(
            outputs, "figure2", {"model.width": width, "training.weight_decay": 1 / width}, {100: {"train/loss": 1}}
        )
        for width in widths
    ]
    trials = pd.DataFrame({"number": range(3), "state": "complete", "train/loss": [32.0, 16.0, 8.0]})
    trials["run_id"] = [run.run_id for run in runs]
    trials.attrs |= {"objectives": {"train/loss": "minimize"}, "trials": 3}
    trials.to_parquet(outputs / "figure2" / "trials.parquet")
    data = report("figure2")
    [sweep] = data["sweeps"]
    # Its keys are drawn one by one, though no value of theirs has come twice.
    assert [(axis["key"], axis["also"]) for axis in data["axes"]] == [
        ("model.width", []),
        ("training.weight_decay", []),
    ]
    assert sweep["claim"].startswith("None of the paper's: a search")  # whatever experiment was searched
    assert sweep["verdict"].startswith("3 trials: 3 complete.\nThe best of them, to minimize train/loss:\n")
    assert [line.split()[0] for line in sweep["verdict"].splitlines()[3:]] == ["2", "1", "0"]
    # It is a table, whose columns stand one under the other.
    assert '<pre class="verdict"><strong>Verdict:</strong> 3 trials: ' in read(outputs / "figure2" / "report.html")
    [sweep] = report("figure2", where={"model.width": 8})["sweeps"]  # the best of all is none of these
    assert (sweep["claim"], sweep["verdict"]) == (None, None)
    made.finished_run(outputs, "search", {}, {100: {"train/loss": 1}})  # a name makes no search
    assert report("search")["sweeps"][0]["claim"] is None


# -------------------------------------------------------------------------------------------------------------- details


def test_the_details_of_a_run(outputs: Path) -> None:
    run = made.finished_mice_run(outputs, "mice")
    [detail] = details_of(report("mice"))
    assert detail is not None
    assert detail["config"]["data.vocab_size"] == 7
    assert detail["command"] == (
        "python -m tc_sweeps sweep=mice data=random data.vocab_size=7 data.num_sentences=6 model.width=4 model.heads=1"
    )
    assert detail["curves"] == {"step": [1000], "train/accuracy": [1], "artifacts/count": [4]}
    assert detail["vocabulary"] == ["mouse", "mice", "eats", "eat", "cheese", "grain", "sleep"]
    assert detail["artifacts"] == {
        "tokens": [[0, 3, 4], [1, 5, 5], [6, 6, 0], [4, 4, 6]],
        "probability": [0.9] * 4,
        "label": ["unlabelled"] * 4,
        "seen": [False] * 4,
        "right": [[]] * 4,
        "right_count": [0] * 4,
        "kept": 4,
    }
    fibers = detail["fibers"]
    assert (fibers["whole"], fibers["vocab_size"], fibers["order"]) == (True, 7, 3)
    assert fibers["contexts"] == [[a, b] for a in range(7) for b in range(7)]
    place = fibers["contexts"].index([0, 2])  # mouse eats: cheese, and all other tokens at .1 / 6
    assert fibers["tokens"][place][0] == 4
    assert fibers["count"][place] == [1, 0, 0, 0, 0, 0, 0]
    assert fibers["probability"][place] == [0.9, *[0.016667] * 6]
    table = run.read_table("fibers")
    table.loc[table["token"] != 4, "probability"] = 0.001
    run.write_table("fibers", table)
    [detail] = details_of(report("mice"))
    assert detail is not None
    assert detail["fibers"]["tokens"][place] == [4]
    assert detail["fibers"]["tokens"][fibers["contexts"].index([0, 0])] == [4]  # .1 / 6, and most probable


def test_fewer_fibers_are_spread_over_contexts_of_the_data_and_others(outputs: Path) -> None:
    run = made.finished_mice_run(outputs, "mice")
    short = details.detail(run, details.Level(artifacts=2, contexts=8, tokens=2))
    assert short["artifacts"]["tokens"] == [[0, 3, 4], [1, 5, 5]]
    fibers = short["fibers"]
    assert not fibers["whole"]
    assert len(fibers["contexts"]) == len(fibers["tokens"]) == 8
    assert [sum(count) for count in fibers["count"]].count(1) == 4
    assert {len(tokens) for tokens in fibers["tokens"]} == {2}
    # Only tokens that are shown have names.
    rows = [*fibers["contexts"], *fibers["tokens"], *short["artifacts"]["tokens"]]
    shown = {token for row in rows for token in row}
    assert [bool(name) for name in short["vocabulary"]] == [token in shown for token in range(7)]
    few = details.detail(run, details.Level(artifacts=2, contexts=47, tokens=1))["fibers"]["contexts"]
    assert len(few) == 47
    assert few == sorted(few)


def test_what_is_right_is_cut_and_counted(outputs: Path) -> None:
    run = made.finished_mice_run(outputs, "mice")
    table = run.read_table("artifacts").assign(right=[[1], [], list(range(100)), [2, 3]])
    run.write_table("artifacts", table)
    [detail] = details_of(report("mice"))
    assert detail is not None
    assert detail["artifacts"]["right"] == [[1], [], list(range(10)), [2, 3]]
    assert detail["artifacts"]["right_count"] == [1, 0, 100, 2]


@pytest.mark.parametrize("seeds", [3, 1])
def test_what_does_not_fit_is_left_out_step_by_step_and_said(outputs: Path, seeds: int) -> None:
    for width in range(8, 8 + 20 * 4, 4):
        for seed in range(seeds):
            made.finished_random_run(outputs, "s", {"model.width": width, "seed": seed}, ratio=lambda _: 18)
    gathered = payload.gather(["s"])
    whole = gathered.payload(10**7)
    assert json.loads(whole)["left_out"] is None
    size, least = (len(pack(text.encode())) for text in (whole, gathered.payload(0)))  # the table is never left out
    told = []
    for share in (0.9, 0.6, 0.4, 0.2, 0.05):
        room = int(share * size)
        text = gathered.payload(room)
        data = json.loads(text)
        assert len(pack(text.encode())) <= max(room, least)
        assert len(data["table"]["values"][0]) == 20 * seeds
        assert len(data["groups"]) == 20
        assert data["left_out"]
        told.append(sum(map(bool, data["details"]["of"])))
        for place, detail in zip(data["details"]["of"], details_of(data), strict=True):
            assert (place is None) == (detail is None)
    assert told == sorted(told, reverse=True)
    assert data["groups"][0]["curves"] == {"step": []}
    assert "Curves of groups are left out" in data["left_out"]


def test_curves_of_more_evaluations_than_a_picture_shows_are_thinned_and_that_is_said(outputs: Path) -> None:
    made.finished_run(outputs, "s", {}, {step: {"train/loss": step} for step in range(1, 402)})
    data = report("s")
    assert data["left_out"] == (
        "Curves of groups are thinned to 200 points to keep this page small. "
        "Curves of runs are thinned to 200 points at most."
    )
    [detail], [group] = details_of(data), data["groups"]
    assert detail is not None
    assert len(detail["curves"]["step"]) == len(group["curves"]["step"]) == 200
    assert detail["curves"]["step"][-1] == group["curves"]["step"][-1] == 401


# -------------------------------------------------------------------------------------------------- commands of runs

CONFIGS: list[dict[str, Any]] = [
    {},
    {"seed": 3},
    {"seed": 3, "data.seed": 0},
    {"sweep": "a b (c)=1", "seed": -1},
    {"sweep": "null"},
    {"sweep": "1e5"},
    {"sweep": "it ${seed}"},
    {"sweep": 'a "b" $HOME `ls`'},
    {"sweep": "ü&<script>"},
    {"data.name": "kinships", "data.num_sentences": 500, "data.held_out_fraction": 0.3, "artifacts.contexts": "all"},
    {"data.name": "latent", "data.num_sentences": None},
    {"data.name": "grammar", "objective.outside.method": "hinge", "objective.outside.weight": 1e-7},
    {"data.name": "pykeen", "data.columns": ["object", "subject", "relation"]},
    {"data.name": "triples", "data.path": "it's a\\b.tsv"},
    {"data.name": "triples", "data.path": "it's a\\b.tsv", "data.columns": [1, 0], "data.delimiter": ";"},
    {"data.name": "triples", "data.path": "it's a\\b.tsv", "data.columns": ["x y", "1", "z"], "data.header": True},
    {"data.name": "triples", "data.path": "it's a\\b.tsv", "data.delimiter": "\\"},
    {"data.name": "text", "data.path": "it's a\\b.tsv", "data.lowercase": True},
    {"model.width": 30, "model.qk_width": 7, "model.vo_width": 5, "model.heads": 4},
    {"model.width": 30, "model.heads": 2, "training.clip_norm": 0.1, "training.batch_size": 7},
    {"training.learning_rate": 0.1 + 0.2, "training.weight_decay": 1e22, "tracking.mode": "none"},
    {"data.order": 4, "artifacts.order": 3, "data.vocab_size": 9},
    {"model.name": "cp", "model.rank": 8, "data.name": "ratings"},
]


@pytest.mark.parametrize("overrides", CONFIGS, ids=str)
def test_the_command_of_a_run_makes_this_very_run(overrides: dict[str, Any], outputs: Path) -> None:
    Path("it's a\\b.tsv").write_text("x y\t1\tz\na\tb\tc\n")
    config = resolve(made.nested(overrides))
    command = run_command(asdict(config))
    shell = subprocess.run(
        ["sh", "-c", f"python() {{ printf '%s\\n' \"$@\"; }}; {command}"], capture_output=True, text=True, check=True
    )
    module, *words = shell.stdout.splitlines()[1:]
    assert module == "tc_sweeps"
    with initialize_config_dir(str(cli._conf()), version_base="1.3"):
        again = resolve(compose("config", words))
    assert asdict(again) == asdict(config)
    assert run_id(again) == run_id(config)


def test_a_command_names_only_what_is_no_default() -> None:
    command = run_command(asdict(resolve(made.nested({"seed": 3, "model.width": 64, "sweep": "s"}))))
    assert command == "python -m tc_sweeps sweep=s data=random seed=3 model.width=64"
    command = run_command(asdict(resolve(made.nested({"model.name": "cp", "model.rank": 8, "sweep": "s"}))))
    assert command == "python -m tc_sweeps sweep=s data=random model=cp model.rank=8"


def test_values_are_spelled_in_hydras_grammar() -> None:
    values = [None, True, 3, 1e-05, "plain/x.tsv", "NULL", "1", "a b", [0, "b,c", None]]
    assert [spell_override(value) for value in values] == [
        *("null", "true", "3", "1e-05", "plain/x.tsv", '"NULL"', '"1"', '"a b"', '[0,"b,c",null]'),
    ]


# ------------------------------------------------------------------------------------------------------------- the file

HOSTILE = "</script><script>alert(1)</script>"


def test_nothing_that_a_user_has_written_gets_out_of_its_place(outputs: Path) -> None:
    name = "<img src=x onerror=alert(1)> & {{data}} \u202e"
    run = made.finished_mice_run(outputs, name)
    run.path.joinpath("vocabulary.json").write_text(json.dumps([HOSTILE, *"abcdef"]))
    failed = made.failed_run(outputs, name, {})
    failed.set_state("failed", reason=f"{HOSTILE} {{{{library}}}}\u202e", step=1)
    path = write_report([outputs / name]).path
    text = read(path)
    for written in ("alert(1)</script>", "<img", "\u202e"):
        assert written not in text
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; {{data}} \\u202e" in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; {{library}}" in text
    data = data_of(path)
    assert data["title"] == name
    assert details_of(data)[0]["vocabulary"][0] == HOSTILE  # type: ignore[index]


def test_names_of_tokens_are_short_and_printable(outputs: Path) -> None:
    run = made.finished_mice_run(outputs, "mice")
    run.path.joinpath("vocabulary.json").write_text(json.dumps(["x" * 1000, "\x1b[2J", *"abcde"]))
    [detail] = details_of(report("mice"))
    assert detail is not None
    assert detail["vocabulary"][:2] == [f"{'x' * 37}...", "\\x1b[2J"]


def test_the_same_runs_make_the_same_page(outputs: Path) -> None:
    made.sizes_sweep(outputs, seeds=(0, 1))
    first = write_report(["figure2"]).path.read_bytes()
    assert write_report(["figure2"]).path.read_bytes() == first


def test_the_page_brings_plotly_along(outputs: Path) -> None:
    made.finished_run(outputs, "s", {}, {100: {"train/loss": 1}})
    text = read(write_report(["s"]).path)
    [packed] = re.findall(r'<script type="application/octet-stream" id="library">([A-Za-z0-9+/=]+)</script>', text)
    assert gzip.decompress(base64.b64decode(packed)).startswith(b"/**\n* plotly.js v")
    assert not re.search(r'(src|href)=["\']?(https?:)?//', text)
    assert not re.search(r"\{\{\w+\}\}", text)


def test_numbers_are_rounded_but_for_whole_ones() -> None:
    values = [0.1234567, 123456.7, 1234567.0, 1e-9, -0.0, 1e300, math.nan, -math.inf]
    assert [number(value) for value in values] == [0.12346, 123460, 1234567, 1e-09, 0, 1e300, None, None]


def test_every_metric_is_told_in_words() -> None:
    assert [name for name in METRICS if not about(name)] == []
    assert about("judge/generalization/recall").endswith(", in the judge's half of the contexts")
    assert about("nothing/known") == ""


# ------------------------------------------------------------------------------------------------------- the whole path


def test_the_verb_writes_and_says_where(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in (8, 16):
        made.finished_run(outputs, "s", {"model.width": width}, {100: {"train/loss": width}})
    monkeypatch.setattr(sys, "argv", ["tc-sweeps", "report", "s", "--where", "model.width=8"])
    cli.main()
    assert re.fullmatch(r"Written: outputs/s/report_where_model.width=8.html \(\d\.\d MB\)\n", capsys.readouterr().out)
    made.failed_run(outputs, "s", {"model.width": 8, "seed": 1})
    cli.main()
    assert re.fullmatch(r"Written: .+\nNot finished: 1 failed\. .+\.\n", capsys.readouterr().out)


def test_the_report_needs_no_torch_and_its_help_no_matplotlib(outputs: Path) -> None:
    made.finished_run(outputs, "s", {}, {100: {"train/loss": 1}})
    script = """
import sys
sys.argv = ["tc-sweeps", "report", sys.argv[1]]
from tc_sweeps.cli import main
try:
    main()
except SystemExit:
    pass
print([name for name in ("torch", "matplotlib", "plotly", "wandb") if name in sys.modules])
"""
    found = {}
    for argument in ("--help", "s"):
        done = subprocess.run([sys.executable, "-c", script, argument], capture_output=True, text=True, check=True)
        found[argument] = done.stdout.splitlines()[-1]
    assert found == {"--help": "[]", "s": "['plotly']"}


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_benchmark", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 1])
def test_a_thousand_runs_are_less_than_five_megabytes(outputs: Path, seeds: int) -> None:
    benchmark().make_sweep(outputs / "made", 1000, seeds=seeds)
    path = write_report(["made"]).path
    assert path.stat().st_size < 5_000_000
    data = data_of(path)
    assert len(data["groups"]) == 1000 // seeds
    assert len(column(data, "run_id")) == 1000
    assert sum(map(bool, data["details"]["of"])) >= 800
    assert data["left_out"]


def test_a_trained_sweep_has_all_parts(tmp_path: Path) -> None:
    overrides = ["sweep=tiny", "data=mice", "training.steps=20", "training.evaluations=2", "tracking=none", "seed=0,1"]
    subprocess.run([sys.executable, "-m", "tc_sweeps", "-m", *overrides], cwd=tmp_path, check=True, capture_output=True)
    data = report(tmp_path / "outputs" / "tiny")
    [sweep] = data["sweeps"]
    assert sweep["states"] == {"finished": 2}
    assert "sweep=tiny" in sweep["command"]
    [group] = data["groups"]
    assert group["runs"] == [0, 1]
    assert group["curves"]["step"] == [10, 20]
    assert len(group["survival"]["threshold"]) == len(group["survival"]["ratio"][0]) > 40
    for run, detail in zip(column(data, "run_id"), details_of(data), strict=True):
        assert detail is not None
        assert detail["fibers"]["whole"]
        assert "mouse" in detail["vocabulary"]
        folder = made.RunFolder(tmp_path / "outputs" / "tiny" / run)
        assert len(detail["artifacts"]["tokens"]) == min(100, len(folder.read_table("artifacts")))
        assert detail["curves"]["train/loss"] == pytest.approx(list(folder.read_metrics()["train/loss"]), rel=1e-4)
