"""The files of one run: whole or not there, from step 0 to the weights."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from tc_sweeps.config import Config, resolve
from tc_sweeps.store import RunFolder, run_id
from tc_sweeps.store.files import replace, replace_text

METRICS = ["train/loss", "artifacts/count", "generalization/recall"]


@pytest.fixture
def config() -> Config:
    return resolve({"sweep": "demo"})


@pytest.fixture
def folder(config: Config, tmp_path: Path) -> RunFolder:
    folder = RunFolder.of(config, tmp_path)
    folder.begin(config, METRICS)
    return folder


def lines(folder: RunFolder) -> list[str]:
    return (folder.path / "metrics.csv").read_text(encoding="utf-8").splitlines()


# -------------------------------------------------------------------------------------------------- replacing a file


class WriterError(Exception):
    pass


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    replace_text(path, "old")
    seen: list[str] = []

    def write(temporary: Path) -> None:
        temporary.write_text("new", encoding="utf-8")
        seen.append(path.read_text(encoding="utf-8"))

    replace(path, write)
    assert seen == ["old"]
    assert path.read_text(encoding="utf-8") == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    replace_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n", encoding="utf-8")
        raise WriterError

    with pytest.raises(WriterError):
        replace(path, write)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("Only root can mount a small disk.")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"A small disk cannot be mounted here: {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_old_file_and_is_raised(small_disk: Path) -> None:
    path = small_disk / "file.txt"
    replace_text(path, "old")
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number of the error is looked at, its words are libc's
        replace_text(path, "x" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text(encoding="utf-8") == "old"
    assert list(small_disk.iterdir()) == [path]
    replace_text(path, "y" * 10_000)  # the temporary gave its room back
    assert path.stat().st_size == 10_000


def test_a_full_disk_leaves_the_rows_and_the_state_that_were_written(small_disk: Path) -> None:
    config = resolve({"sweep": "demo"})
    folder = RunFolder.of(config, small_disk)
    folder.begin(config, METRICS)
    folder.add_row(50, {"train/loss": 1.0})
    before = lines(folder)
    with pytest.raises(Exception, match=r"(?i)no space left on device"):
        folder.finish({"embedding": np.zeros((1000, 1000), dtype=np.float32)})
    assert lines(folder) == before
    assert folder.status["state"] == "running"
    assert not (folder.path / "model.safetensors").exists()
    assert not list(folder.path.glob(".*"))


# ---------------------------------------------------------------------------------------------------------- beginning


def test_a_run_has_its_files_from_step_0(folder: RunFolder, config: Config, tmp_path: Path) -> None:
    assert folder.path == tmp_path / "demo" / run_id(config)
    assert (folder.sweep, folder.run_id) == ("demo", run_id(config))
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "metrics.csv", "status.json"]
    assert lines(folder) == ["step," + ",".join(METRICS)]
    assert len(folder.read_metrics()) == 0
    assert folder.status == {"state": "running", "reason": None, "step": 0, "attempt": 1}


def test_the_saved_config_is_the_resolved_one(folder: RunFolder, config: Config) -> None:
    assert folder.read_config() == asdict(config)
    assert run_id(resolve(yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8")))) == folder.run_id


def test_a_folder_without_a_run_is_queued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "demo" / "0123456789abcdef")
    assert folder.status == {"state": "queued", "reason": None, "step": 0, "attempt": 0}
    assert not folder.finished
    assert not folder.path.exists()


# ----------------------------------------------------------------------------------------------------------- growing


def test_metrics_grow_by_one_row_an_evaluation(folder: RunFolder) -> None:
    for evaluation in range(1, 4):
        folder.add_row(50 * evaluation, {"train/loss": 1 / evaluation, "artifacts/count": 10 * evaluation})
        assert len(lines(folder)) == 1 + evaluation
        assert folder.status["step"] == 50 * evaluation
        assert folder.status["state"] == "running"
    frame = folder.read_metrics()
    assert list(frame["step"]) == [50, 100, 150]
    assert list(frame["train/loss"]) == [1.0, 1 / 2, 1 / 3]  # every bit survives the text
    assert list(frame["artifacts/count"]) == [10, 20, 30]


def test_an_undefined_metric_is_an_empty_cell(folder: RunFolder) -> None:
    folder.add_row(50, {"train/loss": 0.5, "artifacts/count": None, "generalization/recall": None})
    assert lines(folder)[-1] == "50,0.5,,"
    folder.add_row(100, {"train/loss": 0.5, "artifacts/count": 3})
    assert folder.read_metrics()["generalization/recall"].isna().all()


def test_a_count_stays_whole_beside_an_undefined_one(folder: RunFolder) -> None:
    folder.add_row(50, {"train/loss": 0.5, "artifacts/count": None})
    folder.add_row(100, {"train/loss": 0.5, "artifacts/count": 3})
    assert float(lines(folder)[-1].split(",")[2]) == 3


def test_the_survival_curve_grows_by_evaluation(folder: RunFolder) -> None:
    folder.add_survival(50, np.array([0.5, 0.9]), np.array([4, 1]))
    folder.add_survival(100, np.array([0.5, 0.9]), np.array([8, 2]))
    assert not (folder.path / "survival.parquet").exists()
    folder.save_survival()
    table = folder.read_table("survival")
    assert list(table.columns) == ["step", "threshold", "count"]
    assert table.to_numpy().tolist() == [[50, 0.5, 4], [50, 0.9, 1], [100, 0.5, 8], [100, 0.9, 2]]


def test_facts_vocabulary_and_tables_read_back(folder: RunFolder) -> None:
    assert folder.read_facts() == {}
    assert folder.read_vocabulary() is None
    folder.write_facts({"corpus/ngrams": 500, "corpus/held_out": None}, ["Zürich", "b"])
    assert folder.read_facts() == {"corpus/ngrams": 500, "corpus/held_out": None}
    assert folder.read_vocabulary() == ["Zürich", "b"]
    table = pd.DataFrame({"tokens": [[0, 1, 2]], "probability": [0.75], "label": ["hallucination"], "seen": [True]})
    folder.write_table("artifacts", table)
    assert folder.read_table("artifacts")["probability"].tolist() == [0.75]


def found(first: int, right: list[int]) -> pd.DataFrame:
    row = {"tokens": [first, 1, 2], "probability": 0.75, "label": "hallucination", "seen": True, "right": right}
    return pd.DataFrame([row, row])


def test_a_table_is_written_part_by_part_and_is_there_when_it_is_whole(folder: RunFolder) -> None:
    path = folder.path / "artifacts.parquet"
    there = []

    def parts() -> Iterator[pd.DataFrame]:
        for first, right in enumerate([[], [7], []]):  # of nothing but empty lists nobody knows what they are lists of
            yield found(first, right)
            there.append(path.exists())

    folder.write_parts("artifacts", parts())
    assert there == [False, False, False]
    assert pq.ParquetFile(path).num_row_groups == 3
    table = folder.read_table("artifacts")
    assert table["tokens"].map(list).tolist() == [[first, 1, 2] for first in (0, 0, 1, 1, 2, 2)]
    assert table["right"].map(list).tolist() == [[], [], [7], [7], [], []]


def test_parts_that_end_early_leave_the_table_that_was_there(folder: RunFolder) -> None:
    folder.write_table("artifacts", found(0, []))

    def parts() -> Iterator[pd.DataFrame]:
        yield found(1, [])
        raise WriterError

    with pytest.raises(WriterError):
        folder.write_parts("artifacts", parts())
    assert folder.read_table("artifacts")["tokens"].map(list).tolist() == [[0, 1, 2]] * 2
    assert not list(folder.path.glob(".*.tmp"))


def test_an_empty_table_has_the_types_of_a_full_one(folder: RunFolder) -> None:
    folder.write_table("artifacts", found(0, [3]))
    full = pq.read_schema(folder.path / "artifacts.parquet")
    folder.write_table("artifacts", found(0, [3])[:0])
    assert pq.read_schema(folder.path / "artifacts.parquet").equals(full)
    folder.write_table("artifacts", pd.DataFrame({name: [] for name in found(0, [3])}))
    assert pq.read_schema(folder.path / "artifacts.parquet").equals(full)


# ------------------------------------------------------------------------------------------------------------ ending


def test_the_weights_appear_only_with_the_end(folder: RunFolder) -> None:
    path = folder.path / "model.safetensors"
    folder.add_row(50, {"train/loss": 0.5})
    assert not path.exists()
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    folder.finish({"embedding": weights.T})  # a view that is not contiguous
    assert np.array_equal(load_file(path)["embedding"], weights.T)
    assert folder.finished
    assert folder.status == {"state": "finished", "reason": None, "step": 50, "attempt": 1}


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_an_end_keeps_its_reason_and_its_step(folder: RunFolder, state: str) -> None:
    folder.add_row(50, {"train/loss": 0.5})
    folder.set_state(state, reason="the loss was not finite")
    assert folder.status == {"state": state, "reason": "the loss was not finite", "step": 50, "attempt": 1}
    folder.set_state(state, reason="the loss was not finite", step=100)
    assert folder.status["step"] == 100
    assert not folder.finished


def test_a_new_begin_is_another_attempt_without_the_old_results(folder: RunFolder, config: Config) -> None:
    folder.add_row(50, {"train/loss": 0.5})
    folder.add_survival(50, np.array([0.5]), np.array([4]))
    folder.finish({"embedding": np.zeros(3, dtype=np.float32)})
    again = RunFolder.of(config, folder.path.parent.parent)  # another process
    again.begin(config, METRICS)
    assert not (again.path / "model.safetensors").exists()
    assert again.status == {"state": "running", "reason": None, "step": 0, "attempt": 2}
    assert len(lines(again)) == 1
    again.add_survival(50, np.array([0.5]), np.array([5]))
    again.save_survival()
    assert again.read_table("survival")["count"].tolist() == [5]


def test_a_begin_that_is_cut_short_leaves_no_finished_run_without_weights(
    folder: RunFolder, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.finish({"embedding": np.zeros(3, dtype=np.float32)})

    def full(path: Path, text: str, *, durable: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tc_sweeps.store.folder.replace_text", full)
    with pytest.raises(OSError, match="No space"):
        folder.begin(config, METRICS)
    assert (folder.path / "model.safetensors").exists() or not folder.finished


def test_a_new_begin_leaves_no_table_of_the_attempt_before(folder: RunFolder, config: Config) -> None:
    folder.add_survival(50, np.array([0.5]), np.array([4]))
    folder.write_table("artifacts", pd.DataFrame({"probability": [0.75]}))
    folder.write_table("fibers", pd.DataFrame({"probability": [0.75]}))
    folder.begin(config, METRICS)
    assert not list(folder.path.glob("*.parquet"))


def test_status_is_what_the_contract_says(folder: RunFolder) -> None:
    assert list(json.loads((folder.path / "status.json").read_text(encoding="utf-8"))) == [
        "state",
        "reason",
        "step",
        "attempt",
    ]


def test_an_attempt_goes_on_behind_a_checkpoint(folder: RunFolder, config: Config) -> None:
    """Rows and curves after the checkpoint are forgotten, so that the next evaluation is neither missing nor double."""
    for step in (50, 100, 150):
        folder.add_row(step, {"train/loss": 1 / step, "artifacts/count": step})
        folder.add_survival(step, np.array([0.5]), np.array([step]))
        if step == 100:
            folder.save_survival()
    assert folder.has_evaluation(100)
    assert not folder.has_evaluation(10)
    again = RunFolder.of(config, folder.path.parent.parent)
    again.begin(config, METRICS, step=100)
    assert again.status == {"state": "running", "reason": None, "step": 100, "attempt": 2}
    assert again.rows() == [
        (step, {"train/loss": 1 / step, "artifacts/count": step, "generalization/recall": None}) for step in (50, 100)
    ]
    again.add_row(150, {"train/loss": 1 / 150, "artifacts/count": 150})
    assert lines(again) == lines(folder)
    again.add_survival(150, np.array([0.5]), np.array([150]))
    again.save_survival()
    assert again.read_table("survival").to_numpy().tolist() == [[step, 0.5, step] for step in (50, 100, 150)]


def test_a_queued_run_keeps_its_frozen_config(config: Config, tmp_path: Path) -> None:
    folder = RunFolder.of(config, tmp_path)
    folder.queue(config)
    assert folder.status["state"] == "queued"
    assert folder.read_config() == asdict(config)
    assert np.isnan(list(folder.read_last().values())).all()
    frozen = (folder.path / "config.yaml").stat().st_mtime_ns
    folder.queue(config)
    folder.begin(config, METRICS)
    assert (folder.path / "config.yaml").stat().st_mtime_ns == frozen
