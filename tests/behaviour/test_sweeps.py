"""Sweeps with Hydra's stock launchers: plans, failures, tables, figures."""

from __future__ import annotations

import errno
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tc_sweeps.store import RunFolder
from tests.behaviour.conftest import QUICK, Launch

LOCAL = [*QUICK, "tracking.mode=none"]


def plan(sweep: str) -> list[str]:
    return list(json.loads(Path("outputs", sweep, "plan.json").read_text())["run_ids"])


def test_a_multirun_begins_the_plan_anew_and_a_single_run_adds_to_it(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", *LOCAL, "seed=0,1")[0] == 0
    first = plan("s")
    assert len(first) == 2
    assert launch("run", "-m", "sweep=s", *LOCAL, "seed=1,2")[0] == 0
    second = plan("s")
    assert second[0] == first[1]
    assert len(second) == 2
    assert launch("run", "sweep=s", "seed=7", *LOCAL)[0] == 0
    assert plan("s")[:2] == second
    assert len(plan("s")) == 3
    assert len(pd.read_parquet("outputs/s/results.parquet")) == 3
    assert launch("table", "s", "--all")[0] == 0


def test_finished_runs_of_a_sweep_are_not_trained_again(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", *LOCAL, "seed=0,1")[0] == 0
    weights = {path: path.stat().st_mtime_ns for path in Path("outputs/s").glob("*/model.safetensors")}
    assert launch("run", "-m", "sweep=s", *LOCAL, "seed=0,1,2")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert len(list(Path("outputs/s").glob("*/model.safetensors"))) == 3


def test_one_run_whose_loss_explodes_fails_alone(launch: Launch) -> None:
    code, out, err = launch("run", "-m", "sweep=s", *LOCAL, "training.learning_rate=1e-2,1e30", "seed=0,1")
    assert code == 1
    assert "2 failed: the loss was not finite at step" in out
    assert "2 of 4 jobs failed." in err
    assert (out + err).count("not finite") == 1  # each failure is said in one place
    assert "Traceback" not in err
    results = pd.read_parquet("outputs/s/results.parquet")
    assert sorted(results["state"]) == ["failed", "failed", "finished", "finished"]
    failed = results[results["state"] == "failed"]
    assert failed["training.learning_rate"].tolist() == [1e30, 1e30]
    assert failed["reason"].str.contains("not finite at step").all()
    assert not any((Path("outputs/s") / name / "model.safetensors").exists() for name in failed["run_id"])
    table = launch("table", "s")[1]
    assert "not finite" in table


def test_status_says_what_failed_and_its_command_tries_it_again(launch: Launch) -> None:
    axes = ["training.learning_rate=1e-2,1e30", "seed=0,1"]
    closing = launch("run", "-m", "sweep=s", *LOCAL, *axes)[1]
    code, out, err = launch("status", "s")
    assert (code, err) == (0, "")
    assert out.startswith("s: 4 runs: 2 finished, 2 failed\n")
    assert "  1e+30                        -       2\n" in out
    assert "retry_failed" not in out + closing
    assert "Runs whose loss exploded would do so again" in closing
    by_accident = next(path.parent for path in Path("outputs/s").glob("*/status.json") if "failed" in path.read_text())
    RunFolder(by_accident).set_state("failed", reason="by accident")
    out = launch("status", "s")[1]
    [again] = [line for line in out.splitlines() if line.startswith("To try what failed again:")]
    assert out.splitlines()[0] in closing
    assert "  1e+30  " not in closing  # the counts by axis are left to `status`
    words = shlex.split(again.partition(":")[2])
    assert words[:2] == ["tc-sweeps", "run"]
    assert words[2:] == ["-m", "sweep=s", *LOCAL, *axes, "hydra.launcher.retry_failed=true"]
    assert launch(*words[1:])[0] == 1
    attempts = {path: json.loads(path.read_text())["attempt"] for path in Path("outputs/s").glob("*/status.json")}
    assert sorted(attempts.values()) == [1, 1, 2, 2]
    code, _, err = launch("status", "z")
    assert code == 1
    assert "it holds s." in err


def test_a_sweep_ends_with_what_to_type_next(launch: Launch) -> None:
    code, out, _ = launch("run", "-m", "sweep=s", *LOCAL, "seed=0,1")
    assert code == 0
    assert "s: 2 runs: 2 finished\n" in out
    assert "tc-sweeps table s\n" in out
    assert "2 finished" not in launch("run", "sweep=s", *LOCAL, "seed=0")[1]  # a single run says no more than its log


def test_a_full_disk_ends_a_sweep_with_its_status(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "finish", full)
    code, out, err = launch("run", "-m", "sweep=s", *LOCAL, "seed=0,1", "hydra.launcher.workers=1")
    assert code == 1
    assert "No space left on device" in err
    assert "s: 2 runs: 2 interrupted\n" in out
    assert "2 interrupted: OSError: " in out
    assert "To train the 2 runs missing:  tc-sweeps run -m sweep=s" in out


@pytest.mark.slow
def test_joblib_launches_the_same_runs(launch: Launch) -> None:
    arguments = ["-m", "sweep=s", "seed=0,1,2,3", *LOCAL]
    assert launch("run", *arguments, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")[0] == 0
    assert len(plan("s")) == 4
    assert set(pd.read_parquet("outputs/s/results.parquet")["state"]) == {"finished"}


@pytest.mark.parametrize("experiment", sorted(path.stem for path in Path("conf/experiment").glob("*.yaml")))
def test_every_experiment_trains_and_draws_its_own_figure(launch: Launch, experiment: str) -> None:
    short = ["training.steps=4", "training.evaluations=2", "tracking.mode=none"]
    searches = experiment in ("search_kinships", "frontier")
    short += [] if searches else ["seed=0,1"]
    assert launch("run", "-m", f"experiment={experiment}", "sweep=tiny", *short, *TINY.get(experiment, []))[0] == 0
    code, out, err = launch("figure", "tiny")  # the experiment is recorded in plan.json
    assert (code, err) == (0, "")
    figure = "search" if searches else experiment
    assert f"outputs/tiny/figures/{figure}.png" in out
    assert Path(f"outputs/tiny/figures/{figure}.png").stat().st_size > 20_000


TINY = {
    # Data whose ranks are found at once.
    "claim_c": [
        *("data.seed=0", "data.num_sentences=30", "training.steps=300"),
        "hydra.sweeper.blocks=[{params: {data: latent, data.vocab_size: 8, data.classes: '2,4'}}]",
    ],
    "claim_d": ["data=grammar", "training.steps=200", "training.learning_rate=2e-2"],
    "rank_peak": ["data.vocab_size=12", "data.num_sentences=30,40"],
    "figure2": ["data.num_sentences=20,40"],
    "figure3": ["model.width=8,16"],
    "kinships": ["data.held_out_fraction=0.9,0.1", "model.width=8", "training.batch_size=16"],
    # Long enough that a trial has labelled artifacts, of which a share is asked for.
    "frontier": ["hydra.sweeper.trials=2"],
    # Long enough that there are artifacts of both kinds without any method.
    "tradeoff": ["data=grammar", "training.steps=80", "training.learning_rate=2e-2"],
    "search_kinships": ["training.steps=100", "training.learning_rate=1e-2", "hydra.sweeper.trials=2"],
}


def test_any_sweep_can_be_drawn(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", *LOCAL, "model.width=8,16", "seed=0,1")[0] == 0
    assert (
        launch("figure", "s", "--x", "model.width", "--y", "artifacts/per_ngram", "--by", "objective.positions")[0] == 0
    )
    assert launch("figure", "s", "--x", "step", "--y", "train/loss", "--by", "model.width")[0] == 0
    assert len(list(Path("outputs/s/figures").glob("*.png"))) == 2
    code, _, err = launch("figure", "s", "--x", "model.widht", "--y", "artifacts/per_ngram")
    assert code == 1
    assert "model.width" in err
    assert launch("figure", "s")[0] == 1  # no experiment recorded: says so


def test_table_prints_means_with_intervals(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", *LOCAL, "model.width=8,16", "seed=0,1,2")[0] == 0
    code, out, _ = launch("table", "s")
    assert code == 0
    assert "95 %" in out
    assert {"results.csv", "results.parquet", "summary.csv"} <= {path.name for path in Path("outputs/s").iterdir()}
    assert len(pd.read_csv("outputs/s/results.csv")) == 6
    code, _, err = launch("table", "nothing_here")
    assert code == 1
    assert "nothing_here" in err
