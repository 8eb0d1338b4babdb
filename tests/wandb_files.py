"""Reads back what W&B wrote about a run: its `.wandb` file, a log in LevelDB's framing with one protobuf a record."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

MAGIC = b":W&B"
FILE_HEADER = 7  # bytes before the first fragment: the magic number and a version
BLOCK = 32768  # no fragment crosses a multiple of this
FRAGMENT = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
PATIENCE_SECONDS = 10.0


@dataclass
class WandbRun:
    """One run as W&B would show it."""

    path: Path  # the folder that W&B made for the run, `.../wandb/offline-run-<time>-<id>`
    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    project: str = ""
    entity: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)  # without W&B's own keys (`_step`, `_timestamp`, ...)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str | None] = field(default_factory=dict)  # metric or glob -> the metric that is its axis
    exit_code: int | None = None  # None: the run never ended

    def table(self, key: str, row: int = -1) -> list[list[Any]]:
        """Return the rows of the table that a history row holds under `key`."""
        path = self.path / "files" / self.history[row][key]["path"]
        return list(json.loads(path.read_text(encoding="utf-8"))["data"])


def find_runs(path: Path) -> list[Path]:
    """Return the `.wandb` files below a run folder, a `wandb/` folder or any other, each once and in order of time."""
    return sorted(found for found in path.rglob("run-*.wandb") if not found.parent.is_symlink())


def read_run(path: Path, *, ended: bool = True) -> WandbRun:
    """Return the only run that W&B wrote below `path` (a run folder or a `wandb/` folder); more than one is refused.

    W&B's service closes the file some milliseconds after it has called a run finished, so the end of the run is waited
    for; `ended=False` reads a run that was killed or is still open. A tail that is half-written is left out, as W&B
    itself does when it uploads the file.
    """
    found = find_runs(path)
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} runs of W&B, not one.")
    deadline = time.monotonic() + PATIENCE_SECONDS
    run = _read(found[0])
    while ended and run.exit_code is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found[0]} has no end.")
        time.sleep(0.01)
        run = _read(found[0])
    return run


def _read(path: Path) -> WandbRun:
    run = WandbRun(path=path.parent)
    for payload in _payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(payload)
        _apply(record, run)
    return run


def _payloads(log: bytes) -> Iterator[bytes]:
    """Yield the records of a log, each joined from its fragments."""
    if log and log[: len(MAGIC)] != MAGIC:
        raise ValueError("This is no log of W&B.")
    at, joined = FILE_HEADER, b""
    while at + FRAGMENT.size <= len(log):
        room = BLOCK - at % BLOCK
        _, length, kind = FRAGMENT.unpack_from(log, at) if room >= FRAGMENT.size else (0, 0, 0)
        if kind == 0:  # the rest of a block, too short for a fragment
            at += room
            continue
        at += FRAGMENT.size
        if at + length > len(log):
            return
        joined = log[at : at + length] if kind in (FULL, FIRST) else joined + log[at : at + length]
        at += length
        if kind in (FULL, LAST):
            yield joined


def _apply(record: Any, run: WandbRun) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            run.id, run.name, run.group = record.run.run_id, record.run.display_name, record.run.run_group
            run.job_type, run.project, run.entity = record.run.job_type, record.run.project, record.run.entity
            run.tags = list(record.run.tags)
            _merge(run.config, record.run.config.update)
        case "config":
            _merge(run.config, record.config.update)
        case "metric":
            run.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric or None
        case "history":
            row: dict[str, Any] = {}
            _merge(row, record.history.item)
            run.history.append(row)
        case "summary":
            _merge(run.summary, record.summary.update)
        case "exit":
            run.exit_code = record.exit.exit_code


def _merge(into: dict[str, Any], items: Iterable[Any]) -> None:
    """Set the values of protobuf items, some of which name a place within a nested value; W&B's own are left out."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        if (outer or [last])[0].startswith("_"):
            continue
        place = into
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
