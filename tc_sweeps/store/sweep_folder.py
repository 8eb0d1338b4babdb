"""A sweep's folder, `outputs/<sweep>/`: the list of its runs and the table of their results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tc_sweeps.config import TransformerConfig
from tc_sweeps.store.files import locked, replace, replace_text
from tc_sweeps.store.folder import OUTPUTS, RunFolder
from tc_sweeps.store.lease import standing

MOST_LAUNCHES = 20  # named in plan.json: as many may go on at once


class SweepFolder:
    """Reads and writes what the runs of one sweep share; `every`: its runs are also those of earlier plans."""

    def __init__(self, path: Path, *, every: bool = False) -> None:
        self.path = path
        self.every = every

    @classmethod
    def of_launch(cls, launch: str, outputs: Path = OUTPUTS) -> list[SweepFolder]:
        """Return the sweeps that a multirun has added runs to."""
        sweeps = [cls(plan.parent) for plan in sorted(outputs.glob("*/plan.json"))]
        return [sweep for sweep in sweeps if launch in sweep.plan.get("launches", [])]

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.path.name

    @property
    def is_search(self) -> bool:
        """Whether the runs are the trials of a search."""
        return (self.path / "trials.parquet").is_file()

    # ----------------------------------------------------------------------------------------------------------- plan

    @property
    def plan(self) -> dict[str, Any]:
        """The dict of plan.json: `experiment`, `launch` and `run_ids`, the runs that belong to the sweep now.

        Where a multirun began the list, `command` is what was typed to start it, if that is known.
        """
        try:
            return dict(json.loads((self.path / "plan.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {"experiment": None, "launch": None, "run_ids": []}

    def add_runs(
        self, run_ids: Sequence[str], *, experiment: str | None, launch: str | None, command: str | None = None
    ) -> None:
        """Add runs to plan.json before they start.

        `launch` names the multirun that the runs are jobs of, None for a single run. The first jobs of a multirun begin
        the list anew; a single run adds to it. Names of launches sort by time: a job of an older multirun that is still
        going on adds itself to the list of the newer one.
        """
        with locked(self.path / ".lock"):
            plan = self.plan
            launches = plan.get("launches", [])
            if launch is not None and launch > (plan["launch"] or ""):
                known = {} if command is None else {"command": command}
                plan = {"experiment": experiment, "launch": launch, **known, "run_ids": []}
            if launch is not None:  # all that may still be going on
                plan["launches"] = list(dict.fromkeys([*launches, launch]))[-MOST_LAUNCHES:]
            plan["run_ids"] = list(dict.fromkeys([*plan["run_ids"], *run_ids]))
            plan["experiment"] = plan["experiment"] or experiment
            replace_text(self.path / "plan.json", json.dumps(plan, indent=1))

    def run_ids(self) -> list[str]:
        """Return the ids of the sweep's runs in the order of the plan, and then of those of earlier plans if wanted."""
        return [*self.plan["run_ids"], *(self.earlier() if self.every else [])]

    def earlier(self) -> list[str]:
        """Return the ids of the runs that are here and in the plan no more: another command began it anew."""
        planned = set(self.plan["run_ids"])
        return sorted({path.parent.name for path in self.path.glob("*/config.yaml")} - planned)

    def runs(self) -> list[RunFolder]:
        """Return the folders of the sweep's runs, those that there are by now."""
        return [RunFolder(self.path / name) for name in self.run_ids() if (self.path / name / "config.yaml").exists()]

    # ---------------------------------------------------------------------------------------------------- submissions

    @property
    def jobs(self) -> Path:
        """The folder of what was submitted to schedulers: records, logs, snapshots of the code."""
        return self.path / ".jobs"

    def add_submission(self, record: dict[str, Any]) -> None:
        """Keep what was submitted: `executor` and `id`, and whatever else is known."""
        replace_text(self.jobs / f"{record['executor']}-{record['id']}.json", json.dumps(record, indent=1))

    def submissions(self) -> list[dict[str, Any]]:
        """Return the records of what was submitted, in the order of time."""
        records = [dict(json.loads(path.read_text(encoding="utf-8"))) for path in self.jobs.glob("*-*.json")]
        return sorted(records, key=lambda record: str(record["submitted"]))

    # -------------------------------------------------------------------------------------------------------- results

    def standings(self) -> list[dict[str, Any]]:
        """Return for each run its id, where it stands and its config by dotted key: `results` without numbers."""
        return [_standing(run) for run in self.runs()]

    def results(self) -> pd.DataFrame:
        """Return one row per run: id, state, the config by dotted key, facts, and the last value of each metric."""
        return pd.DataFrame([_result(run) for run in self.runs()])

    def remake_results(self) -> None:
        """Write results.parquet from the folders of the plan's runs."""
        with locked(self.path / ".lock"):
            table = SweepFolder(self.path).results()
            # Parquet wants one type per column, and a list beside a null is two.
            for name in table.columns[table.map(lambda value: isinstance(value, list)).any()]:
                table[name] = table[name].map(json.dumps, na_action="ignore")
            replace(self.path / "results.parquet", lambda path: table.to_parquet(path, index=False))


def _standing(run: RunFolder) -> dict[str, Any]:
    status = standing(run)
    row = {
        "run_id": run.run_id,
        **{name: status.get(name) for name in ("state", "reason", "step", "attempt", "seconds_per_step")},
    }
    # Configs from before there were two models do not name theirs.
    return row | {"model.name": TransformerConfig.name} | flat(run.read_config())


def _result(run: RunFolder) -> dict[str, Any]:
    return _standing(run) | run.read_facts() | run.read_last()


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested dict by dotted key."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
