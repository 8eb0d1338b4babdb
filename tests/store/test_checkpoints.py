"""Checkpoints: one file per stack, read run by run."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tc_sweeps.config import resolve
from tc_sweeps.store import Checkpoints, RunFolder


@pytest.fixture
def folders(tmp_path: Path) -> list[RunFolder]:
    folders = []
    for seed in range(3):
        config = resolve({"sweep": "s", "seed": seed})
        folder = RunFolder.of(config, tmp_path)
        folder.begin(config, ["train/loss"])
        for step in (50, 100):
            folder.add_row(step, {"train/loss": 1.0})
        folders.append(folder)
    return folders


def state(*values: float) -> dict[str, np.ndarray]:
    return {"embedding": np.array([[[v, v + 1]] for v in values], dtype=np.float32)}


def test_a_stack_is_saved_and_read_run_by_run(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    assert checkpoints.find() == {}
    checkpoints.save("first", folders[:2], 50, state(1, 2))
    checkpoints.save("second", folders[2:], 100, state(3))
    found = checkpoints.find()
    assert {name: saved.step for name, saved in found.items()} == {
        folders[0].run_id: 50,
        folders[1].run_id: 50,
        folders[2].run_id: 100,
    }
    loaded = checkpoints.load([found[folders[2].run_id], found[folders[1].run_id]])
    assert np.array_equal(loaded["embedding"], state(3, 2)["embedding"])


def test_the_newest_counts(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    checkpoints.save("late", folders, 100, state(4, 5, 6))
    checkpoints.save("early", folders, 50, state(1, 2, 3))
    assert {saved.step for saved in checkpoints.find().values()} == {100}


def test_a_table_that_does_not_reach_a_checkpoint_makes_it_void(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    checkpoints.save("first", folders, 150, state(1, 2, 3))
    assert checkpoints.find() == {}


def test_what_nobody_needs_is_removed(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    checkpoints.save("old", folders, 50, state(1, 2, 3))
    checkpoints.save("new", folders[:2], 100, state(1, 2))
    folders[0].set_state("finished")
    checkpoints.prune()
    assert {saved.file.stem for saved in checkpoints.find().values()} == {"old", "new"}
    folders[2].set_state("failed")
    checkpoints.prune()
    assert {saved.file.stem for saved in checkpoints.find().values()} == {"new"}
    folders[1].set_state("finished")
    checkpoints.prune()
    assert checkpoints.find() == {}


def test_a_file_that_was_replaced_is_not_taken_for_the_one_that_was_found(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    checkpoints.save("stack", folders, 50, state(1, 2, 3))
    found = checkpoints.find()[folders[1].run_id]
    checkpoints.save("stack", folders[1:], 100, state(4, 5))
    with pytest.raises(OSError, match="was replaced"):
        checkpoints.load([found])


def test_a_disk_that_takes_no_more_is_an_error_of_the_system(folders: list[RunFolder]) -> None:
    """The libraries that write tensors raise errors of their own, which would pass for a bug and fail the run."""
    checkpoints = Checkpoints(folders[0].path.parent)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoints.save("stack", folders, 50, state(1, 2, 3))
        with pytest.raises(OSError, match="File too large"):
            folders[0].finish({"embedding": np.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.find() == {}
    assert not folders[0].finished


def test_what_killed_writers_left_behind_is_removed(folders: list[RunFolder]) -> None:
    checkpoints = Checkpoints(folders[0].path.parent)
    checkpoints.save("stack", folders, 50, state(1, 2, 3))
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = socket.gethostname()
    names = [f"{here}-{ended.pid}-1", f"other-{os.getpid()}-1", f"other-{ended.pid}-1", f"{here}-{os.getpid()}-1"]
    files = [folders[0].path.parent / ".checkpoints" / f".a.safetensors.{name}.tmp" for name in names]
    for file in files:
        file.touch()
    os.utime(files[1], (0, 0))
    checkpoints.prune()
    assert [file.exists() for file in files] == [False, False, True, True]
    assert len(checkpoints.find()) == 3
