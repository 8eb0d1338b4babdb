from __future__ import annotations

from pathlib import Path

import made
import pandas as pd
import pytest

from tc_sweeps.report import write_table


def small_sweep(outputs: Path) -> Path:
    for width in (16, 32):
        for seed in (0, 1, 2):
            made.finished_random_run(outputs, "s", {"model.width": width, "seed": seed}, ratio=lambda _: 18)
    made.failed_run(outputs, "s", {"model.width": 64})
    return outputs / "s"


def test_table_has_runs_summary_failures_and_paths(outputs: Path) -> None:
    path = small_sweep(outputs)
    text = write_table("s")
    assert "95 % Student t intervals over seeds" in text
    assert "1 failed:" in text
    assert "at step 37: The loss became non-finite at step 37." in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 140
    assert sum("finished  " in line for line in lines) == 6
    for name in ("results.parquet", "results.csv", "summary.csv"):
        assert str(path / name) in text
        assert (path / name).stat().st_size > 0
    assert "hallucination" not in text  # undefined in this world


def test_files_are_tidy(outputs: Path) -> None:
    path = small_sweep(outputs)
    write_table("s")
    results, summary = pd.read_csv(path / "results.csv"), pd.read_csv(path / "summary.csv")
    assert len(results) == 7
    assert results["run_id"].is_unique
    assert len(pd.read_parquet(path / "results.parquet")) == 7
    ratio = summary[summary["metric"] == "artifacts/per_ngram"]
    assert ratio["model.width"].tolist() == [16, 32]
    assert (ratio["runs"] == 3).all()
    assert (ratio["low"] < ratio["mean"]).all()
    assert (ratio["mean"] < ratio["high"]).all()


def test_intervals_are_as_computed(outputs: Path) -> None:
    for seed, accuracy in enumerate((0.2, 1.0)):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18, accuracy=accuracy)
    assert "\nIntervals are as computed; figures end them where the metric does" in write_table("s")
    share = pd.read_csv("outputs/s/summary.csv").set_index("metric").loc["train/accuracy"]
    # t with 1 degree of freedom at 97.5 % is 12.7062; the standard error of 0.2 and 1 is 0.4.
    assert share[["low", "high"]].tolist() == pytest.approx([0.6 - 5.0825, 0.6 + 5.0825], abs=1e-4)


def test_a_large_sweep_prints_its_summary_only(outputs: Path) -> None:
    for seed in range(41):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18)
    text = write_table("s")
    assert "41 runs, more than 40" in text
    assert "41 finished runs: mean [low, high]" in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize(("columns", "blocks"), [(160, 1), (100, 2), (80, 3), (60, 5)])
def test_wide_tables_are_broken_into_blocks_that_repeat_their_keys(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, columns: int, blocks: int
) -> None:
    made.kinships_sweep(outputs, seeds=[0, 1])
    monkeypatch.setenv("COLUMNS", str(columns))
    text = write_table("kinships").split("12 finished runs")[0]
    assert max(map(len, text.splitlines())) <= columns
    heads = [line for line in text.splitlines() if "seed" in line]
    assert len(heads) == blocks
    assert all(line.split()[:3] == ["held_out_fraction", "width", "seed"] for line in heads)
    assert text.count("run_id") == 1


def test_rows_are_numbered_where_their_keys_leave_no_room(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.kinships_sweep(outputs, seeds=[0, 1])
    monkeypatch.setenv("COLUMNS", "40")
    runs, means = write_table("kinships").split("12 finished runs")
    tables = [line for line in [*runs.splitlines(), *means.splitlines()] if line[:1] == " " and "outputs" not in line]
    assert max(map(len, tables)) <= 40
    assert sum("row" in line for line in runs.splitlines()) > 3
    assert runs.count("held_out_fraction") == means.count("held_out_fraction") == 1


def test_a_cell_wider_than_the_terminal_stands_alone(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [Path(letter * 60 + ".tsv") for letter in "ab"]
    for path in paths:
        path.write_text(f"a\tb\t{path.name[0]}\n")
        made.finished_random_run(outputs, "s", {"data.name": "triples", "data.path": str(path)}, ratio=lambda _: 18)
    monkeypatch.setenv("COLUMNS", "50")
    runs = write_table("s").split("2 finished runs")[0]
    wide = [line.split() for line in runs.splitlines() if len(line) > 50]
    assert wide == [["data/"], ["row", "path"], ["1", str(paths[0])], ["2", str(paths[1])]]


def test_a_table_of_some_runs_leaves_the_files_of_all_runs_alone(outputs: Path) -> None:
    path = small_sweep(outputs)
    write_table("s")
    before = (path / "results.csv").read_text()
    text = write_table("s", where={"model.width": 16, "seed": [0, 1]})
    assert "2 finished runs" in text
    assert "failed" not in text
    name = "where_model.width=16_and_seed=0,1.csv"
    assert f"Written: {path}/results_{name}\n         {path}/summary_{name}" in text
    assert len(pd.read_csv(path / f"results_{name}")) == 2
    assert (pd.read_csv(path / f"summary_{name}")["runs"] == 2).all()
    assert (path / "results.csv").read_text() == before
    assert len(pd.read_parquet(path / "results.parquet")) == 7


def test_a_sweep_without_a_finished_run_still_has_a_table(outputs: Path) -> None:
    made.failed_run(outputs, "s", {})
    made.begin(outputs, "s", {"seed": 1})
    text = write_table("s")
    assert "1 failed:" in text
    assert "Not finished: 1 interrupted." in text
    assert "Student" not in text


def test_a_sweep_without_runs_says_so(outputs: Path) -> None:
    (outputs / "s").mkdir()
    (outputs / "s" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    assert write_table("s") == "The sweep 's' has no runs yet."
