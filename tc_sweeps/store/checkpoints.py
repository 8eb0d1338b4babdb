"""Checkpoints of unfinished runs, `outputs/<sweep>/.checkpoints/`: one file per stack, sliced by run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from tc_sweeps.store.files import replace
from tc_sweeps.store.folder import RunFolder

__all__ = ["Checkpoints", "Saved"]


@dataclass(frozen=True)
class Saved:
    """Where the newest checkpoint of a run lies."""

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
        contiguous = {key: np.ascontiguousarray(value) for key, value in state.items()}
        replace(self._folder / f"{name}.safetensors", lambda path: save_file(contiguous, path, metadata))

    def find(self) -> dict[str, Saved]:
        """Return the newest checkpoint of every run that has one and whose table reaches it; tensors are not read."""
        newest: dict[str, Saved] = {}
        for file in self._folder.glob("*.safetensors"):
            for saved, run_id in _contents(file):
                if run_id not in newest or newest[run_id].step < saved.step:
                    newest[run_id] = saved
        sweep = self._folder.parent
        return {name: saved for name, saved in newest.items() if RunFolder(sweep / name).has_evaluation(saved.step)}

    def load(self, saved: Sequence[Saved]) -> dict[str, np.ndarray]:
        """Return the state of a stack, [M, ...], one run after the other."""
        parts: dict[str, list[np.ndarray]] = {}
        for one in saved:
            with safe_open(one.file, framework="numpy") as tensors:
                for key in tensors.keys():  # noqa: SIM118  it is no dict
                    parts.setdefault(key, []).append(tensors.get_slice(key)[one.place : one.place + 1])
        return {key: np.concatenate(part) for key, part in parts.items()}

    def prune(self, unfinished: Sequence[str]) -> None:
        """Remove the files that hold the newest checkpoint of no unfinished run."""
        newest = self.find()
        needed = {newest[run_id].file for run_id in unfinished if run_id in newest}
        for file in self._folder.glob("*.safetensors"):
            if file not in needed:
                file.unlink(missing_ok=True)


def _contents(file: Path) -> list[tuple[Saved, str]]:
    try:
        with safe_open(file, framework="numpy") as tensors:
            metadata = tensors.metadata()
    except FileNotFoundError:  # pruned by another worker a moment ago
        return []
    return [
        (Saved(file, place, int(metadata["step"])), name) for place, name in enumerate(json.loads(metadata["run_ids"]))
    ]
