"""Checkpoints of unfinished runs, `outputs/<sweep>/.checkpoints/`: one file per stack, sliced by run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from tc_sweeps.store.files import remove_left_behind, replace_tensors
from tc_sweeps.store.folder import RunFolder

__all__ = ["Checkpoints", "Saved"]


@dataclass(frozen=True)
class Saved:
    """Where the newest checkpoint of a run lies."""

    run_id: str
    file: Path
    place: int  # along the leading axis of the file's tensors
    step: int  # optimizer steps made


class Checkpoints:
    """Reads and writes the checkpoints of a sweep."""

    def __init__(self, sweep: Path) -> None:
        self._folder = sweep / ".checkpoints"

    def save(self, name: str, folders: Sequence[RunFolder], step: int, state: Mapping[str, np.ndarray]) -> None:
        """Replace the checkpoint of a stack; `state` holds tensors [M, ...] with one place per run."""
        metadata = {"run_ids": json.dumps([folder.run_id for folder in folders]), "step": str(step)}
        replace_tensors(self._folder / f"{name}.safetensors", state, metadata)

    def find(self) -> dict[str, Saved]:
        """Return the newest checkpoint of every run that has one and whose table reaches it; tensors are not read."""
        newest: dict[str, Saved] = {}
        for file in self._folder.glob("*.safetensors"):
            for saved in _contents(file):
                if saved.run_id not in newest or newest[saved.run_id].step < saved.step:
                    newest[saved.run_id] = saved
        sweep = self._folder.parent
        return {name: saved for name, saved in newest.items() if RunFolder(sweep / name).has_evaluation(saved.step)}

    def load(self, saved: Sequence[Saved]) -> dict[str, np.ndarray]:
        """Return the state of a stack, [M, ...], one run after the other.

        Raises OSError where a file is not what `find` saw: a worker that was taken for dead has replaced it.
        """
        parts: dict[str, list[np.ndarray]] = {}
        for one in saved:
            with safe_open(one.file, framework="numpy") as tensors:
                if one not in _listed(one.file, tensors.metadata()):
                    raise OSError(f"{one.file} was replaced while it was read; the same command goes on.")
                for key in tensors.keys():  # noqa: SIM118  it is no dict
                    parts.setdefault(key, []).append(tensors.get_slice(key)[one.place : one.place + 1])
        return {key: np.concatenate(part) for key, part in parts.items()}

    def prune(self) -> None:
        """Remove the files that no unfinished run has its newest checkpoint in, and what killed workers left behind."""
        files = list(self._folder.glob("*.safetensors"))  # before `find`: what is saved after it is somebody's newest
        sweep = self._folder.parent
        needed = {saved.file for saved in self.find().values() if not RunFolder(sweep / saved.run_id).done}
        for file in files:
            if file not in needed:
                file.unlink(missing_ok=True)
        remove_left_behind(self._folder)


def _contents(file: Path) -> list[Saved]:
    try:
        with safe_open(file, framework="numpy") as tensors:
            return _listed(file, tensors.metadata())
    except FileNotFoundError:  # pruned by another worker a moment ago
        return []


def _listed(file: Path, metadata: Mapping[str, str]) -> list[Saved]:
    step = int(metadata["step"])
    return [Saved(run_id, file, place, step) for place, run_id in enumerate(json.loads(metadata["run_ids"]))]
