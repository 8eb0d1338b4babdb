"""What the runs of a sweep share: the plan and the table of results."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tc_sweeps.config import Config, data_file, resolve
from tc_sweeps.store import RunFolder, SweepFolder
from tc_sweeps.store import folder as run_folder

METRICS = ["train/loss", "artifacts/count", "generalization/recall"]
MONDAY, TUESDAY = "2026-11-23_10-00-00", "2026-11-24_10-00-00"


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "demo")


def a_run(sweep: SweepFolder, *, begun: bool = True, planned: bool = True, **config: Any) -> tuple[Config, RunFolder]:
    resolved = resolve({"sweep": "demo", **config})
    folder = RunFolder.of(resolved, sweep.path.parent)
    if begun:
        folder.begin(resolved, METRICS)
    if planned:
        sweep.add_runs([folder.run_id], experiment="figure2", launch=None)
    return resolved, folder


# ---------------------------------------------------------------------------------------------------------------- plan


def test_a_sweep_without_a_plan_has_no_runs(sweep: SweepFolder) -> None:
    assert sweep.plan == {"experiment": None, "launch": None, "run_ids": []}
    assert sweep.runs() == []
    assert not sweep.path.exists()


def test_a_new_multirun_begins_the_list_anew(sweep: SweepFolder) -> None:
    for run in ("a", "b"):
        sweep.add_runs([run], experiment="figure2", launch=MONDAY)
    assert sweep.plan == {"experiment": "figure2", "launch": MONDAY, "launches": [MONDAY], "run_ids": ["a", "b"]}
    for run in ("b", "c"):
        sweep.add_runs([run], experiment="figure3", launch=TUESDAY)
    both = [MONDAY, TUESDAY]
    assert sweep.plan == {"experiment": "figure3", "launch": TUESDAY, "launches": both, "run_ids": ["b", "c"]}


def test_the_plan_keeps_the_command_that_began_it(sweep: SweepFolder) -> None:
    sweep.add_runs(["a"], experiment=None, launch=MONDAY, command="first")
    sweep.add_runs(["b"], experiment=None, launch=None, command="a single run")
    assert sweep.plan["command"] == "first"
    sweep.add_runs(["c"], experiment=None, launch=TUESDAY, command="second")
    assert sweep.plan["command"] == "second"


def test_a_single_run_adds_to_the_list(sweep: SweepFolder) -> None:
    sweep.add_runs(["a"], experiment="figure2", launch=MONDAY)
    sweep.add_runs(["b"], experiment=None, launch=None)
    assert sweep.plan == {"experiment": "figure2", "launch": MONDAY, "launches": [MONDAY], "run_ids": ["a", "b"]}


def test_a_multirun_after_single_runs_begins_the_list_anew(sweep: SweepFolder) -> None:
    sweep.add_runs(["a"], experiment=None, launch=None)
    sweep.add_runs(["b"], experiment="figure2", launch=MONDAY)
    assert sweep.plan["run_ids"] == ["b"]


def test_a_job_of_an_older_multirun_adds_itself(sweep: SweepFolder) -> None:
    sweep.add_runs(["a"], experiment="figure2", launch=TUESDAY)
    sweep.add_runs(["b"], experiment="figure2", launch=MONDAY)
    both = [TUESDAY, MONDAY]
    assert sweep.plan == {"experiment": "figure2", "launch": TUESDAY, "launches": both, "run_ids": ["a", "b"]}
    # Each of them says at its end where the sweep stands.
    assert [found.path for launch in both for found in SweepFolder.of_launch(launch, sweep.path.parent)] == [
        sweep.path
    ] * 2


def test_a_run_is_listed_once(sweep: SweepFolder) -> None:
    for _ in range(2):
        sweep.add_runs(["a"], experiment="figure2", launch=MONDAY)
    assert sweep.plan["run_ids"] == ["a"]


def add_50(path: Path, name: str) -> None:
    sweep = SweepFolder(path)
    for i in range(50):
        sweep.add_runs([f"{name}-{i}"], experiment="figure2", launch=MONDAY)


def test_two_processes_that_add_runs_lose_none(sweep: SweepFolder) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_50, args=(sweep.path, name)) for name in ("first", "second")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    listed = sweep.plan["run_ids"]
    assert len(listed) == 100
    assert set(listed) == {f"{name}-{i}" for name in ("first", "second") for i in range(50)}
    for name in ("first", "second"):  # each in its own order
        assert [run for run in listed if run.startswith(name)] == [f"{name}-{i}" for i in range(50)]


def test_runs_come_in_the_order_of_the_plan_and_the_rest_when_asked(sweep: SweepFolder) -> None:
    _, later = a_run(sweep, seed=2)
    _, sooner = a_run(sweep, seed=1)
    _, unplanned = a_run(sweep, seed=3, planned=False)
    a_run(sweep, seed=4, begun=False)  # planned, but no worker has come to it
    assert [run.run_id for run in sweep.runs()] == [later.run_id, sooner.run_id]
    every = SweepFolder(sweep.path, every=True)
    assert [run.run_id for run in every.runs()] == [later.run_id, sooner.run_id, unplanned.run_id]


# ------------------------------------------------------------------------------------------------------------- results


def test_the_results_have_one_row_per_run_also_failed_ones(sweep: SweepFolder) -> None:
    _, finished = a_run(sweep, seed=0)
    finished.write_facts({"corpus/ngrams": 500}, None)
    finished.add_row(50, {"train/loss": 1.0, "artifacts/count": 7, "generalization/recall": 0.25})
    finished.add_row(100, {"train/loss": 0.5, "artifacts/count": 9, "generalization/recall": None})
    finished.finish({"embedding": np.zeros(3, dtype=np.float32)})
    _, failed = a_run(sweep, seed=1)
    failed.set_state("failed", reason="the loss was not finite at step 50", step=50)
    _, running = a_run(sweep, seed=2)
    running.add_row(50, {"train/loss": 1.0, "artifacts/count": 7})
    sweep.remake_results()

    table = pd.read_parquet(sweep.path / "results.parquet").set_index("run_id")
    assert list(table.index) == [finished.run_id, failed.run_id, running.run_id]
    assert list(table["state"]) == ["finished", "failed", "interrupted"]  # nobody holds its lease
    assert table.loc[failed.run_id, "reason"] == "the loss was not finite at step 50"
    assert list(table["step"]) == [100, 50, 50]
    assert list(table["attempt"]) == [1, 1, 1]
    assert table.loc[finished.run_id, "artifacts/count"] == 9
    assert table["generalization/recall"].isna().all()  # the last value, though an earlier one was defined
    assert list(table["train/loss"].isna()) == [False, True, False]
    assert table.loc[finished.run_id, "corpus/ngrams"] == 500
    assert list(table["seed"]) == [0, 1, 2]
    assert set(table["data.name"]) == {"random"}


def test_results_hold_lists_and_values_of_several_worlds(sweep: SweepFolder) -> None:
    triples = {"name": "triples", "path": data_file("kinships.tsv"), "columns": [0, 1, 2]}
    a_run(sweep, data=triples)
    a_run(sweep, data={"name": "pykeen"})
    a_run(sweep)
    sweep.remake_results()
    table = pd.read_parquet(sweep.path / "results.parquet")
    assert list(table["data.name"]) == ["triples", "pykeen", "random"]
    assert list(table["data.columns"].dropna()) == ["[0, 1, 2]", '["subject", "object", "relation"]']


def test_results_are_made_anew_each_time(sweep: SweepFolder) -> None:
    _, folder = a_run(sweep)
    sweep.remake_results()
    folder.add_row(50, {"train/loss": 1.0, "artifacts/count": 7})
    sweep.remake_results()
    table = pd.read_parquet(sweep.path / "results.parquet")
    assert list(table["artifacts/count"]) == [7]
    assert not list(sweep.path.glob(".results*"))


def test_results_of_a_sweep_without_runs_are_an_empty_table(sweep: SweepFolder) -> None:
    sweep.remake_results()
    assert len(pd.read_parquet(sweep.path / "results.parquet")) == 0


@pytest.mark.parametrize(("again", "files"), [(False, 0), (False, 1), (False, 2), (True, 0), (True, 1)])
def test_a_run_that_dies_as_it_begins_spoils_no_table(
    sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, files: int, again: bool
) -> None:
    """Its beginning is cut off after so many of its files: it is never read as finished, nor as broken."""
    _, folder = a_run(sweep)
    config, killed = a_run(sweep, begun=again, seed=1)
    if again:
        killed.finish({"embedding": np.zeros(3, dtype=np.float32)})
    left, replace_text = files, run_folder.replace_text

    def dying(path: Path, text: str, *, durable: bool) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        replace_text(path, text, durable=durable)

    monkeypatch.setattr(run_folder, "replace_text", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.begin(config, METRICS)
    assert killed.finished == (killed.path / "model.safetensors").exists()
    sweep.remake_results()
    known = [folder.run_id, killed.run_id] if again else [folder.run_id]
    assert list(pd.read_parquet(sweep.path / "results.parquet")["run_id"]) == known


def test_results_hold_runs_that_all_left_a_metric_undefined(sweep: SweepFolder) -> None:
    _, folder = a_run(sweep)
    folder.add_row(50, {"train/loss": 1.0, "artifacts/count": 7, "generalization/recall": None})
    sweep.remake_results()
    assert pd.read_parquet(sweep.path / "results.parquet")["generalization/recall"].isna().all()
