from __future__ import annotations

from pathlib import Path

import made
import pandas as pd

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


def test_a_large_sweep_prints_its_summary_only(outputs: Path) -> None:
    for seed in range(41):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18)
    text = write_table("s")
    assert "41 runs, more than 40" in text
    assert "Over the seeds of 41 finished runs" in text
    assert len(text.splitlines()) < 12


def test_wide_tables_are_broken_into_blocks_that_repeat_their_keys(outputs: Path) -> None:
    made.kinships_sweep(outputs, seeds=[0, 1])
    lines = write_table("kinships").splitlines()
    assert max(map(len, lines)) <= 140
    heads = [line for line in lines if "run_id" in line]
    assert len(heads) == 2
    assert all("held_out_fraction" in line for line in heads)


def test_a_sweep_without_a_finished_run_still_has_a_table(outputs: Path) -> None:
    made.failed_run(outputs, "s", {})
    made.begin(outputs, "s", {"seed": 1})
    text = write_table("s")
    assert "1 failed:" in text
    assert "Not finished: 1 running." in text
    assert "Student" not in text


def test_a_sweep_without_runs_says_so(outputs: Path) -> None:
    (outputs / "s").mkdir()
    (outputs / "s" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    assert write_table("s") == "The sweep 's' has no runs yet."
