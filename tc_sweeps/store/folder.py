"""One run's folder, `outputs/<sweep>/<run_id>/`: the local files that are the truth about a run."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tc_sweeps.config import Config
from tc_sweeps.store.files import remove_left_behind, replace, replace_tensors, replace_text
from tc_sweeps.store.identity import run_id

OUTPUTS = Path("outputs")  # relative to where the user stands
PRUNED = "pruned by the search"  # how the reason begins of a run that a search has ended early
DIVERGED = "the loss was not finite"  # and of one that has failed by itself

Value = float | int | None


class RunFolder:
    """Writes and reads the files of one run; every file is replaced at once, so none is ever half-written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.sweep = path.parent.name
        self._rows: list[list[str]] = []
        self._survival: list[dict[str, np.ndarray]] = []

    @classmethod
    def of(cls, config: Config, outputs: Path = OUTPUTS) -> RunFolder:
        """Return the folder that belongs to a resolved config."""
        return cls(outputs / config.sweep / run_id(config))

    # --------------------------------------------------------------------------------------------------------- status

    @property
    def status(self) -> dict[str, Any]:
        """The dict of status.json; `{"state": "queued", ...}` where no run has started."""
        try:
            return dict(json.loads((self.path / "status.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {"state": "queued", "reason": None, "step": 0, "attempt": 0}

    @property
    def finished(self) -> bool:
        """Whether the run's results stand."""
        return bool(self.status["state"] == "finished")

    @property
    def done(self) -> bool:
        """Whether nobody trains the run any more, unless it is launched anew: it has finished, failed or is pruned."""
        status = self.status
        return status["state"] in ("finished", "failed") or is_pruned(status)

    @property
    def pruned(self) -> bool:
        """Whether a search has ended the run early."""
        return is_pruned(self.status)

    def request_prune(self) -> None:
        """Ask whoever trains the run to end it at its next evaluation."""
        (self.path / ".prune").touch()

    @property
    def prune_requested(self) -> bool:
        """Whether the run is to end at its next evaluation."""
        return (self.path / ".prune").exists()

    def prune(self, step: int) -> None:
        """Record that a search has ended the run at a step."""
        self.set_state("interrupted", reason=f"{PRUNED} at step {step}", step=step)
        (self.path / ".prune").unlink(missing_ok=True)

    def diverge(self, step: int) -> None:
        """Record that the run has failed by its loss."""
        reason = f"{DIVERGED} at step {step}; a lower training.learning_rate may help"
        self.set_state("failed", reason=reason, step=step)

    def unprune(self) -> None:
        """Have the run trained to its end after all; its checkpoint, if it has one still, is what it goes on from."""
        (self.path / ".prune").unlink(missing_ok=True)
        if self.pruned:
            self.set_state("queued")

    def set_state(
        self, state: str, *, reason: str | None = None, step: int | None = None, seconds_per_step: float | None = None
    ) -> None:
        """Write status.json; `step` is kept where it is not given."""
        status = self.status
        status |= {"state": state, "reason": reason, "step": status["step"] if step is None else step}
        if seconds_per_step is not None:
            status["seconds_per_step"] = seconds_per_step
        replace_text(self.path / "status.json", json.dumps(status), durable=state != "running")

    # -------------------------------------------------------------------------------------------------------- writing

    def queue(self, config: Config) -> None:
        """Freeze the config of a run that waits for its turn, unless it has one: its id stands for what it says."""
        if not (self.path / "config.yaml").exists():
            replace_text(self.path / "status.json", json.dumps(self.status), durable=False)
            text = yaml.dump(asdict(config), sort_keys=False, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
            replace_text(self.path / "config.yaml", text, durable=False)

    def begin(self, config: Config, columns: Sequence[str], *, step: int = 0) -> None:
        """Start an attempt at the run: anew, or behind the evaluation at `step`, where its checkpoint stands.

        What was written after that step is forgotten, so that no evaluation is missing and none comes twice.
        """
        # In this order, whatever moment the process dies at: no run is read as finished without its weights.
        attempt = self.status["attempt"] + 1
        status = {"state": "running", "reason": None, "step": step, "attempt": attempt}
        replace_text(self.path / "status.json", json.dumps(status), durable=False)
        for stale in ("model.safetensors", "artifacts.parquet", "fibers.parquet"):
            (self.path / stale).unlink(missing_ok=True)
        remove_left_behind(self.path)
        self._columns = ["step", *columns]
        self._rows, self._survival = [], []
        if step:
            kept = self.read_table("survival")
            kept = kept[kept["step"] <= step]
            self._survival = [{str(name): kept[name].to_numpy() for name in kept.columns}]
            with (self.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
                self._rows = [row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) <= step]
        else:
            (self.path / "survival.parquet").unlink(missing_ok=True)
        self._write_metrics()
        self.queue(config)

    def has_evaluation(self, step: int) -> bool:
        """Whether metrics.csv has a row for a step."""
        try:
            return f"\n{step}," in (self.path / "metrics.csv").read_text(encoding="utf-8")
        except FileNotFoundError:
            return False

    def write_facts(self, facts: Mapping[str, Value | str], vocabulary: Sequence[str] | None) -> None:
        """Write what is known before training: sizes of corpus and model, the code, the tokens' names if any."""
        replace_text(self.path / "facts.json", json.dumps(dict(facts)), durable=False)
        if vocabulary is not None:
            text = json.dumps(list(vocabulary), ensure_ascii=False)
            replace_text(self.path / "vocabulary.json", text, durable=False)

    def add_row(self, step: int, metrics: Mapping[str, Value]) -> None:
        """Add one evaluation to metrics.csv and its step to status.json."""
        row = {"step": step, **metrics}
        self._rows.append(["" if row.get(name) is None else str(row[name]) for name in self._columns])
        self._write_metrics()
        self.set_state("running", step=step)

    def add_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        """Add the survival curve of one evaluation: the number of artifacts above each threshold. In memory only."""
        steps = np.full(len(counts), step)
        self._survival.append({"step": steps, "threshold": np.asarray(thresholds), "count": np.asarray(counts)})

    def rows(self) -> list[tuple[int, dict[str, Value]]]:
        """Return the evaluations of this attempt and of those it continues: step and metrics."""
        names = self._columns[1:]
        return [
            (int(step), {name: _number(value) for name, value in zip(names, values, strict=True)})
            for step, *values in self._rows
        ]

    def save_survival(self) -> None:
        """Write the survival curves so far to survival.parquet: with every checkpoint, and when the run finishes."""
        names = ("step", "threshold", "count")
        columns = {name: np.concatenate([part[name] for part in self._survival] or [np.empty(0)]) for name in names}
        replace(self.path / "survival.parquet", lambda path: pq.write_table(pa.table(columns), path))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write `<name>.parquet`: the tables `artifacts` and `fibers` that the report reads."""
        replace(self.path / f"{name}.parquet", lambda path: table.to_parquet(path, index=False))

    def finish(self, weights: Mapping[str, np.ndarray], *, seconds_per_step: float | None = None) -> None:
        """Write the trained weights and only then call the run finished.

        `seconds_per_step`: what a step took of a device, counting and files included; the members of a stack share it.
        """
        self.save_survival()
        replace_tensors(self.path / "model.safetensors", weights)
        self.set_state("finished", seconds_per_step=seconds_per_step)

    def _write_metrics(self) -> None:
        lines = [",".join(row) for row in [self._columns, *self._rows]]
        replace_text(self.path / "metrics.csv", "\n".join(lines) + "\n", durable=False)

    # -------------------------------------------------------------------------------------------------------- reading

    def read_config(self) -> dict[str, Any]:
        """Return config.yaml as a nested dict."""
        text = (self.path / "config.yaml").read_text(encoding="utf-8")
        return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    def read_last(self) -> dict[str, float]:
        """Return the last row of metrics.csv without its step: what the run has come to, NaN where it is undefined.

        Nothing where the run has not begun.
        """
        lines = self._metrics_lines()
        if not lines:
            return {}
        names, values = lines[0].split(","), lines[-1].split(",")
        if len(lines) == 1:
            values = [""] * len(names)
        return {name: float(value or "nan") for name, value in zip(names[1:], values[1:], strict=True)}

    def read_curve(self, metric: str) -> list[tuple[int, float]]:
        """Return a metric at every evaluation so far: step and value, NaN where it is undefined.

        In a thirtieth of the time of `read_metrics`, for whoever looks again and again.
        """
        lines = self._metrics_lines()
        if not lines:
            return []
        place = lines[0].split(",").index(metric)
        cells = [line.split(",") for line in lines[1:]]
        return [(int(row[0]), float(row[place] or "nan")) for row in cells]

    def read_evaluations(self) -> tuple[list[str], np.ndarray]:
        """Return the columns of metrics.csv, `step` the first, and their values so far, [evaluations, columns].

        What is undefined is NaN. In a thirtieth of the time of `read_metrics`, for whoever reads thousands of runs; no
        column and no value where the run has not begun.
        """
        lines = self._metrics_lines()
        if not lines:
            return [], np.empty((0, 0))
        names = lines[0].split(",")
        cells = [[float(cell or "nan") for cell in line.split(",")] for line in lines[1:]]
        return names, np.array(cells, dtype=float).reshape(len(cells), len(names))

    def _metrics_lines(self) -> list[str]:
        """Return the lines of metrics.csv, the first with the names; none where the run has not begun."""
        try:
            return (self.path / "metrics.csv").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def read_metrics(self) -> pd.DataFrame:
        """Return metrics.csv: one row per evaluation, NaN where a metric is undefined; nothing of a run not begun."""
        try:
            return pd.read_csv(self.path / "metrics.csv")
        except FileNotFoundError:
            return pd.DataFrame()

    def read_facts(self) -> dict[str, Value | str]:
        """Return facts.json, or nothing where the run failed before it was written."""
        path = self.path / "facts.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def read_vocabulary(self) -> list[str] | None:
        """Return the tokens' names, or None where tokens are bare integers."""
        path = self.path / "vocabulary.json"
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def read_table(self, name: str) -> pd.DataFrame:
        """Return `<name>.parquet`: survival, artifacts or fibers."""
        return pd.read_parquet(self.path / f"{name}.parquet")


@dataclass(frozen=True)
class Job:
    """A run to train: a resolved config, and the folder of the identity that it has at this moment.

    The identity is worked out once: a file of data may change while others train.
    """

    config: Config
    folder: RunFolder

    @classmethod
    def of(cls, config: Config, outputs: Path = OUTPUTS) -> Job:
        """Return the job of a resolved config."""
        return cls(config, RunFolder.of(config, outputs))


def has_diverged(status: Mapping[str, Any]) -> bool:
    """Whether a status says that a run has failed by its loss, which it would again: the same steps, bit for bit."""
    return status["state"] == "failed" and str(status["reason"]).startswith(DIVERGED)


def is_pruned(status: Mapping[str, Any]) -> bool:
    """Whether a status says that a search has ended the run early."""
    return status["state"] == "interrupted" and str(status["reason"]).startswith(PRUNED)


def _number(cell: str) -> Value:
    """Return what a cell of metrics.csv says: counts are whole, undefined metrics empty."""
    if not cell:
        return None
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
