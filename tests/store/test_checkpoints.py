"""Checkpoints: one file per stack, read run by run."""

from __future__ import annotations

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
    checkpoints.prune([folders[1].run_id, folders[2].run_id])
    assert {saved.file.stem for saved in checkpoints.find().values()} == {"old", "new"}
    checkpoints.prune([folders[0].run_id])
    assert {saved.file.stem for saved in checkpoints.find().values()} == {"new"}
    checkpoints.prune([])
    assert checkpoints.find() == {}
