"""A sweep under way, looked at again and again: each look reads only the files that are new."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tc_sweeps.report.frame import Sweep, chosen, find_sweep, swept_keys, unseen
from tc_sweeps.report.status import Run, run_frame, steps_done
from tc_sweeps.report.where import Where, spell_value
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.lease import standing
from tc_sweeps.store.sweep_folder import flat

FEW_RUNS = 12  # up to so many have a row each, more are grouped by what is swept but the seed
PACE_SECONDS = 600.0  # of which the pace is the mean

Curve = list[tuple[int, float]]  # step and value, NaN where it is undefined
_Stamp = tuple[int, int, int] | None  # when a file was written, which it is and how long; None: it is not there


@dataclass(frozen=True)
class Group:
    """Runs that agree in what is swept: the values of the keys, as one would type them, and the runs."""

    values: tuple[str, ...]
    runs: list[Run]


class Following:
    """Where the runs of a sweep stand, as of the last look.

    `runs` are as `SweepFolder.standings` gives them, those that `where` chooses, in the order of the plan; `groups` are
    the runs that agree in `keys`, the swept config keys; `unseen` tells of runs that are
    left out. Raises `ConfigError` where there is no such sweep, and as
    `load_sweep` for a `where` that fits no run.
    """

    def __init__(self, sweep: Sweep, *, where: Where | None = None) -> None:
        self.folder = find_sweep(sweep)
        self.runs: list[Run] = []
        self.keys: list[str] = []
        self.groups: list[Group] = []
        self.unseen = ""
        self._where = where
        self._plan: dict[str, Any] = {}
        self._run_ids: list[str] = []
        self._plan_stamp: _Stamp = None
        self._known: dict[str, Run] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._curves: dict[str, tuple[_Stamp, dict[str, Curve]]] = {}
        self._pace: deque[tuple[float, int]] = deque()

    def look(self) -> None:
        """Read what has changed since the last look: the plan, configs of new runs, and statuses."""
        stamp = _stamp(self.folder.path / "plan.json")
        if planned_anew := stamp != self._plan_stamp:
            self._plan_stamp, self._plan = stamp, self.folder.plan
            self._run_ids, self.unseen = self.folder.run_ids(), unseen(self.folder)
        known = len(self._known)
        for run_id in self._run_ids:
            # A finished run is trained no more, whatever is launched.
            if run_id not in self._known or self._known[run_id]["state"] != "finished":
                self._read_status(run_id)
        if planned_anew or len(self._known) > known:
            self._regroup()
        self._pace.append((time.time(), sum(map(steps_done, self.runs))))
        while len(self._pace) > 2 and self._pace[1][0] < time.time() - PACE_SECONDS:
            self._pace.popleft()

    def changed(self, run: Run) -> int:
        """Return when the status of a run was written, in nanoseconds since 1970; 0 where it never was."""
        return (self._stamps[run["run_id"]] or (0,))[0]

    def curve(self, run: Run, metric: str) -> Curve:
        """Return a metric of a run at every evaluation so far; nothing where it has not begun or has no such metric."""
        folder = RunFolder(self.folder.path / run["run_id"])
        stamp = _stamp(folder.path / "metrics.csv")
        last, curves = self._curves.get(run["run_id"], (None, {}))
        if stamp != last:
            curves = {}
            self._curves[run["run_id"]] = (stamp, curves)
        if metric not in curves:
            try:
                curves[metric] = folder.read_curve(metric)
            except ValueError:  # of an older version, which had no such metric
                curves[metric] = []
        return curves[metric]

    def seconds_left(self) -> float | None:
        """Return how long the rest takes at the pace of the last minutes; None where nothing tells.

        Nothing does of a sweep that nobody trains, and of a search, whose trials are not known beforehand.
        """
        (since, before), (now, done) = self._pace[0], self._pace[-1]
        trained = any(run["state"] == "running" for run in self.runs)
        if not trained or self.folder.is_search or done <= before or now <= since:
            return None
        left: int = sum(run["training.steps"] for run in self.runs) - done
        return left * (now - since) / (done - before)

    def _read_status(self, run_id: str) -> None:
        folder = RunFolder(self.folder.path / run_id)
        stamp = _stamp(folder.path / "status.json")
        run = self._known.get(run_id)
        if run is None:
            try:
                config = flat(folder.read_config())
            except FileNotFoundError:  # it is planned, and its folder is not written yet
                return
            run = self._known[run_id] = {"run_id": run_id, **config}
        # Of a run in training it is not its status alone that says whether somebody trains it.
        elif stamp == self._stamps[run_id] and run["state"] not in ("running", "interrupted"):
            return
        status = standing(folder)
        run |= {name: status.get(name) for name in ("state", "reason", "step", "attempt", "seconds_per_step")}
        self._stamps[run_id] = stamp

    def _regroup(self) -> None:
        self.runs = [self._known[run_id] for run_id in self._run_ids if run_id in self._known]
        if not self.runs:
            return
        frame = run_frame(self.runs)
        if self._where:
            kept = set(chosen(frame, self._where, self.folder)["run_id"])
            self.runs = [run for run in self.runs if run["run_id"] in kept]
            frame = frame[frame["run_id"].isin(kept)]
        several = len({run["seed"] for run in self.runs}) > 1
        self.keys = [*swept_keys(frame), *(["seed"] if several and len(self.runs) <= FEW_RUNS else [])]
        self.groups = _grouped(self.runs, self.keys)
        self._pace = deque(self._launched())

    def _launched(self) -> list[tuple[float, int]]:
        """Return when the present launch began, and the steps that were done by then."""
        try:
            launch = datetime.fromisoformat(str(self._plan["launch"])).timestamp()
        except ValueError:  # single runs are of no launch
            return []
        since = [run for run in self.runs if self.changed(run) >= launch * 1e9]
        return [(launch, sum(map(steps_done, self.runs)) - sum(map(steps_done, since)))]


def _grouped(runs: Sequence[Run], keys: Sequence[str]) -> list[Group]:
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(spell_value(run.get(key)) for key in keys), []).append(run)
    return [Group(values, members) for values, members in groups.items()]


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
