"""One run's folder, `outputs/<sweep>/<run_id>/`: the local files that are the truth about a run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from safetensors.numpy import save_file

from tc_sweeps.config import Config
from tc_sweeps.store.files import replace, replace_text
from tc_sweeps.store.identity import run_id

OUTPUTS = Path("outputs")  # relative to where the user stands

Value = float | int | None


class RunFolder:
    """Writes and reads the files of one run; every file is replaced at once, so none is ever half-written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.name
        self.sweep = path.parent.name
        self._rows: list[dict[str, Value]] = []
        self._survival: list[pd.DataFrame] = []

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

    def set_state(self, state: str, *, reason: str | None = None, step: int | None = None) -> None:
        """Write status.json; `step` is kept where it is not given."""
        status = self.status
        status |= {"state": state, "reason": reason, "step": status["step"] if step is None else step}
        replace_text(self.path / "status.json", json.dumps(status))

    # -------------------------------------------------------------------------------------------------------- writing

    def begin(self, config: Config, columns: Sequence[str]) -> None:
        """Start the run anew: config.yaml, status.json and a metrics.csv with nothing but its header."""
        # In this order, whatever moment the process dies at: no run is read as finished without its weights, and a
        # folder with a config.yaml has every file that the tables read.
        status = {"state": "running", "reason": None, "step": 0, "attempt": self.status["attempt"] + 1}
        replace_text(self.path / "status.json", json.dumps(status))
        for stale in ("model.safetensors", "survival.parquet", "artifacts.parquet", "fibers.parquet"):
            (self.path / stale).unlink(missing_ok=True)
        self._columns = ["step", *columns]
        self._rows, self._survival = [], []
        self._write_metrics()
        replace_text(self.path / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))

    def write_facts(self, facts: Mapping[str, Value], vocabulary: Sequence[str] | None) -> None:
        """Write what is known of a run before it trains: sizes of corpus and model, and the tokens' names if any."""
        replace_text(self.path / "facts.json", json.dumps(dict(facts)))
        if vocabulary is not None:
            replace_text(self.path / "vocabulary.json", json.dumps(list(vocabulary), ensure_ascii=False))

    def add_row(self, step: int, metrics: Mapping[str, Value]) -> None:
        """Add one evaluation to metrics.csv and its step to status.json."""
        self._rows.append({"step": step, **metrics})
        self._write_metrics()
        self.set_state("running", step=step)

    def add_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        """Add the survival curve of one evaluation: the number of artifacts above each threshold."""
        self._survival.append(pd.DataFrame({"step": step, "threshold": thresholds, "count": counts}))
        table = pd.concat(self._survival, ignore_index=True)
        replace(self.path / "survival.parquet", lambda path: table.to_parquet(path, index=False))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write `<name>.parquet`: the tables `artifacts` and `fibers` that the report reads."""
        replace(self.path / f"{name}.parquet", lambda path: table.to_parquet(path, index=False))

    def finish(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the trained weights and only then call the run finished."""
        contiguous = {name: np.ascontiguousarray(value) for name, value in weights.items()}
        replace(self.path / "model.safetensors", lambda path: save_file(contiguous, path))
        self.set_state("finished")

    def _write_metrics(self) -> None:
        text = io.StringIO()
        pd.DataFrame(self._rows, columns=self._columns).to_csv(text, index=False)
        replace_text(self.path / "metrics.csv", text.getvalue())

    # -------------------------------------------------------------------------------------------------------- reading

    def read_config(self) -> dict[str, Any]:
        """Return config.yaml as a nested dict."""
        text = (self.path / "config.yaml").read_text(encoding="utf-8")
        return dict(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    def read_metrics(self) -> pd.DataFrame:
        """Return metrics.csv: one row per evaluation, NaN where a metric is undefined."""
        return pd.read_csv(self.path / "metrics.csv")

    def read_facts(self) -> dict[str, Value]:
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
