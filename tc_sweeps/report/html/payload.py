"""The data of the page, as JSON: groups of runs that differ in their seed alone, a table of all runs, and details.

Curves over training are of all runs but those that have failed, each as far as it has come; what is said of the end
(results, survival curves) is of finished runs alone.

Numbers are rounded to five significant digits, whole ones (counts) excepted; what is undefined is null. What the page
has no room for is left out in steps, from what is looked at least: first of the details of runs, then of the curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report.frame import (
    Sweep,
    estimated,
    facts,
    find_sweep,
    load_sweep,
    metric_names,
    over_seeds,
    own_figure,
    swept_keys,
    to_the_end,
    together,
)
from tc_sweeps.report.html.details import LEAST_THRESHOLDS, MOST_EVALUATIONS, details, read_survival, spread
from tc_sweeps.report.html.numbers import dumps, number, numbers, plain
from tc_sweeps.report.html.page import pack
from tc_sweeps.report.intervals import SHARES, clipped
from tc_sweeps.report.metrics import about
from tc_sweeps.report.status import MOST_REASONS, STATES, alike, in_states
from tc_sweeps.report.where import Where, as_plain, in_order, spell_where
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.identity import code_version
from tc_sweeps.store.sweep_folder import SweepFolder

CORE_SHARE = 0.6  # of the room that all but the details may take; more than that, and curves are thinned
MOST_POINTS = 200  # of a curve: a picture is not wider
ALL_POINTS = 100_000  # of the curves of all groups together, which are in memory at once
BATCH = 500  # runs whose curves are in memory at once
STATUS = ("run_id", "sweep", "state", "reason", "step")

Curves = dict[int, tuple[np.ndarray, np.ndarray]]
"""Of each group: the places, [P], and mean, low, high and number of runs of each metric there, [metrics, P, 4]."""


@dataclass(frozen=True)
class Axis:
    """A key in which runs differ, with those that go along with it and its values in order.

    Null is no value of it where a whole sweep, or all runs of one world or model in it, have nothing else: there the
    key says nothing, and these runs stand nowhere on the axis.
    """

    key: str
    also: list[str]
    values: list[Any]

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers, so that they have a place on a line."""
        shown = map(plain, self.values)
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in shown)


def gather(sweeps: Sequence[Sweep], where: Where | None = None) -> Gathered:
    """Return the runs of some sweeps, and what there is to say of each sweep.

    Raises `ConfigError` where there is no such sweep, for a filter that chooses no run in one of them, and where none
    of them has a run.
    """
    found = [find_sweep(sweep) for sweep in sweeps]
    folders = list({folder.path.resolve(): folder for folder in found}.values())
    names = [folder.path.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    frames = [load_sweep(folder, where=where).assign(sweep=name) for folder, name in zip(folders, names, strict=True)]
    told = [_sweep(*each, where) for each in zip(folders, names, frames, strict=True)]
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        raise ConfigError(f"The sweep '{names[0]}' has no runs yet: there is nothing to report.")
    runs = filled[0] if len(filled) == 1 else pd.concat(filled, ignore_index=True)
    paths = dict(zip(names, (folder.path for folder in folders), strict=True))
    title = ", ".join(names) + (f" with {spell_where(where)}" if where else "")
    return Gathered(title, folders[0], told, runs, paths)


def _sweep(folder: SweepFolder, name: str, runs: pd.DataFrame, where: Where | None) -> dict[str, Any]:
    """Return what is said of one sweep."""
    counts = Counter(runs["state"])
    failed = runs[runs["state"] == "failed"]
    rows = [{"state": "failed", "reason": as_plain(reason)} for reason in failed["reason"]]
    groups = [(told, len(group)) for _, told, group in alike(rows)]
    failures = [{"reason": told, "count": count} for told, count in groups[:MOST_REASONS]]
    if len(groups) > MOST_REASONS:
        others = sum(count for _, count in groups[MOST_REASONS:])
        failures.append({"reason": f"{len(groups) - MOST_REASONS} other reasons", "count": others})
    claim, verdict = _judged(folder, where) if len(runs) else (None, None)
    return {
        "name": name,
        "experiment": folder.plan["experiment"],
        "search": folder.is_search,
        "command": folder.plan.get("command"),
        "claim": claim,
        "verdict": verdict,
        "states": {state: counts[state] for state in [*STATES, *sorted(set(counts) - set(STATES))] if counts[state]},
        "failures": failures,
        "estimated": estimated(runs) or None,
    }


def _judged(folder: SweepFolder, where: Where | None) -> tuple[str | None, str | None]:
    """Return the claim of the experiment that a sweep is of and what its runs say about it, where that can be said.

    Of a search it is what came out best of all trials, as of its figure: nothing where a filter leaves some out.
    """
    experiment = own_figure(folder)
    if experiment is None or (folder.is_search and where):
        return None, None
    from tc_sweeps.report.figures import figure_module  # draws with matplotlib, which no other part of this needs

    module = figure_module(experiment)
    try:
        return module.CLAIM, module.verdict(folder, where)
    except ConfigError:  # no run has what the figure shows
        return module.CLAIM, None


@dataclass(frozen=True)
class Gathered:
    """Runs of some sweeps, one row each, and what there is to say of the sweeps."""

    title: str
    folder: SweepFolder  # of the first sweep
    sweeps: list[dict[str, Any]]
    runs: pd.DataFrame
    paths: dict[str, Path]  # by the sweep's name

    def payload(self, room: int) -> str:
        """Return the data of the page as JSON; packed it takes about so many bytes at most, if that can be."""
        core: dict[str, Any] = {
            "title": self.title,
            "made": {"date": datetime.now(UTC).date().isoformat(), "version": code_version()},
            "sweeps": self.sweeps,
            "axes": [
                {"key": axis.key, "also": axis.also, "values": list(map(plain, axis.values)), "numeric": axis.numeric}
                for axis in self.axes
            ],
            "metrics": [{"name": name, "about": about(name), "share": name in SHARES} for name in self.metrics],
            "xs": self._xs,
            "table": self._table(),
        }
        curves, _, longest = self._curves
        points, thresholds = max((len(steps) for steps, _ in curves.values()), default=0), MOST_POINTS
        while True:
            groups = self._groups(points, thresholds)
            size = len(pack(dumps(core | {"groups": groups}).encode()))
            if size <= CORE_SHARE * room or not points:
                break
            points = min(points - 1, int(points * CORE_SHARE * room / size))
            points = points if points >= 3 else 0
            thresholds = max(points, LEAST_THRESHOLDS)
        places = 500 + 4 * len(self.runs)  # where each run's details are, and what is left out
        told = details(self.folders, [self._stands_for(members) for members in self.members], room - size - places)
        left_out = [told.left_out] if told.left_out else []
        if longest > MOST_EVALUATIONS:
            left_out.insert(0, f"Curves of runs are thinned to {MOST_EVALUATIONS} points at most.")
        if points < longest:
            thinned = f"thinned to {points} points" if points else "left out"
            left_out.insert(0, f"Curves of groups are {thinned} to keep this page small.")
        core |= {
            "groups": groups,
            "details": {"chunks": told.chunks, "of": told.of},
            "left_out": " ".join(left_out) or None,
        }
        return dumps(core)

    def unfinished(self) -> str:
        """Return which runs have not finished and where they are in the page nonetheless, and which are estimates."""
        told = in_states(self.runs["state"][~self._finished])
        sentence = (
            f"Not finished: {told}. What the report says of the end leaves them out; curves over training go as far as "
            "each has come, without those that failed."
        )
        return " ".join(filter(None, [told and sentence, estimated(self.runs[self._finished])]))

    # ----------------------------------------------------------------------------------------------------------- groups

    @cached_property
    def axes(self) -> list[Axis]:
        """The keys in which runs differ, the seed left out; the sweep first where there are several."""
        keys = [*(["sweep"] if self.runs["sweep"].nunique() > 1 else []), *swept_keys(self.runs)]
        searched = any(sweep["search"] for sweep in self.sweeps)
        axes = []
        for key, *also in together(self.runs, keys, searched=searched):
            values = self.runs[key][~self._without(key)]
            axes.append(Axis(key, also, list(dict.fromkeys(values)) if key == "sweep" else in_order(values)))
        return axes

    def _without(self, key: str) -> np.ndarray:
        """Return which runs stand nowhere on an axis, as `Axis` says."""
        missing = self.runs[key].isna()
        alike = (["sweep", "data.name"], ["sweep", "model.name"])
        nowhere = [missing.groupby([self.runs[name] for name in names]).transform("all") for names in alike]
        return np.asarray(nowhere[0] | nowhere[1])

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each run stands on each axis, [runs, axes]; -1: nowhere."""
        places = np.zeros((len(self.runs), len(self.axes)), dtype=int)
        for column, axis in enumerate(self.axes):
            place = {(isinstance(value, bool), value): place for place, value in enumerate(axis.values)}
            values = map(as_plain, self.runs[axis.key])
            places[:, column] = [place.get((isinstance(value, bool), value), -1) for value in values]
        return places

    @cached_property
    def members(self) -> list[np.ndarray]:
        """The runs of each group, in the order of the axes and their values."""
        if not self.axes:
            return [np.arange(len(self.runs))]
        _, group = np.unique(self._places, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        return np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)

    @cached_property
    def _finished(self) -> np.ndarray:
        return (self.runs["state"] == "finished").to_numpy()

    @cached_property
    def _failed(self) -> np.ndarray:
        return (self.runs["state"] == "failed").to_numpy()

    def _stands_for(self, members: np.ndarray) -> int:
        """Return the run of a group whose details come first: one that has finished, if any has."""
        return int(members[np.argmax(self._finished[members])])

    @cached_property
    def _group_of(self) -> np.ndarray:
        group = np.empty(len(self.runs), dtype=int)
        for place, members in enumerate(self.members):
            group[members] = place
        return group

    def _groups(self, points: int, thresholds: int) -> list[dict[str, Any]]:
        curves, survival, _ = self._curves
        nothing = np.empty(0), np.empty((len(self._candidates), 0, 4))
        groups = []
        for place, members in enumerate(self.members):
            steps, values = curves.get(place, nothing)
            kept = spread(len(steps), points)
            drawn = {
                name: [numbers(row) for row in values[metric, kept].T]
                for metric, name in enumerate(self._candidates)
                if not np.isnan(values[metric, kept, 0]).all()
            }
            group: dict[str, Any] = {
                "values": [None if place < 0 else place for place in self._places[members[0]].tolist()],
                "runs": members.tolist(),
                "facts": {
                    name: value for name, column in self._facts.items() if (value := number(column[place])) is not None
                },
                "final": {
                    name: [*numbers(final[place, :3]), int(final[place, 3])] for name, final in self._final.items()
                },
                "curves": {"step": numbers(steps[kept]), **drawn},
            }
            if place in survival:
                places, ratio = survival[place]
                kept = spread(len(places), thresholds)
                ratios = [numbers(row) for row in ratio[0, kept].T]
                group["survival"] = {"threshold": numbers(places[kept]), "ratio": ratios}
            groups.append(group)
        return groups

    @cached_property
    def _facts(self) -> dict[str, np.ndarray]:
        """Numeric facts, as means over the runs of each group that have not failed."""
        found = {}
        for name in facts(self.runs):
            column = pd.to_numeric(self.runs[name], errors="coerce").where(~self._failed)
            if column.notna().any():
                found[name] = column.astype(float).groupby(self._group_of).mean().to_numpy()
        return found

    @property
    def _xs(self) -> list[str]:
        """The facts that differ between groups as they are shown: means of one value may differ in their last digit."""
        return [name for name, column in self._facts.items() if len(set(numbers(column)) - {None}) > 1]

    @cached_property
    def _final(self) -> dict[str, np.ndarray]:
        """Mean, low, high and number of runs of each metric for each group, [groups, 4]; of finished runs alone."""
        finals = {name: np.full((len(self.members), 4), np.nan) for name in self.metrics}
        known = [name for name in self.metrics if name in self.runs]
        finished = self.runs[self._finished].assign(group=self._group_of[self._finished])
        if len(finished) and known:
            table = clipped(over_seeds(finished, ["group"], known))
            for name, rows in table.groupby("metric"):
                finals[str(name)][rows["group"]] = rows[["mean", "low", "high", "runs"]]
        for final in finals.values():
            final[:, 3] = np.nan_to_num(final[:, 3])
        return finals

    # ----------------------------------------------------------------------------------------------------------- curves

    @cached_property
    def _candidates(self) -> list[str]:
        """All metrics that some run knows, in the order in which every page has them."""
        known = metric_names(self.runs)
        return [*(name for name in METRICS if name in known), *(name for name in known if name not in METRICS)]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that are defined somewhere in these runs."""
        defined = {name for name in self._candidates if self.runs[name].notna().any()}
        for _, values in self._curves[0].values():
            there = np.flatnonzero(~np.isnan(values[..., 0]).all(axis=1))
            defined |= {self._candidates[metric] for metric in there}
        return [name for name in self._candidates if name in defined]

    @cached_property
    def _curves(self) -> tuple[Curves, Curves, int]:
        """The means over seeds of all metrics at each step, and of artifacts per n-gram at each threshold.

        Runs that have reached their target stand at later steps with what they have come to. Behind the means stands
        how many evaluations a run has at most.
        """
        most = min(MOST_POINTS, max(10, ALL_POINTS // len(self.members)))
        curves: Curves = {}
        survival: Curves = {}
        longest = 0
        for batch in self._batches():
            evaluations, ratios = _Rows(), _Rows()
            for place, run in [(place, run) for place, runs in batch.items() for run in runs]:
                evaluations.add(place, run, *self.folders[run].read_evaluations())
                if self._finished[run]:
                    thresholds, counts = read_survival(self.folders[run])
                    ratio = np.column_stack([thresholds, counts / self._ngrams[run]])
                    ratios.add(place, run, ["threshold", "ratio"], ratio)
            longest = max(longest, evaluations.longest)
            rows = evaluations.frame()
            if len(rows):
                state = self.runs["state"].to_numpy()[rows["run_id"].astype(int)]
                rows = to_the_end(rows.assign(state=state), ["group"])
            curves |= _means(rows, "step", self._candidates, most)
            survival |= _means(ratios.frame(), "threshold", ["ratio"], MOST_POINTS)
        return curves, survival, longest

    def _batches(self) -> Iterator[dict[int, list[int]]]:
        """Yield the runs that are drawn of some groups at a time: those that have not failed."""
        batch: dict[int, list[int]] = {}
        count = 0
        for place, members in enumerate(self.members):
            batch[place] = members[~self._failed[members]].tolist()
            count += len(batch[place])
            if count >= BATCH:
                yield batch
                batch, count = {}, 0
        if batch:
            yield batch

    @cached_property
    def folders(self) -> list[RunFolder]:
        """The folders of the runs."""
        named = zip(self.runs["sweep"], self.runs["run_id"], strict=True)
        return [RunFolder(self.paths[sweep] / run_id) for sweep, run_id in named]

    @cached_property
    def _ngrams(self) -> np.ndarray:
        """How many distinct training n-grams each run has."""
        if "corpus/train_ngrams" not in self.runs:
            return np.full(len(self.runs), np.nan)
        return self.runs["corpus/train_ngrams"].to_numpy(float)

    # ------------------------------------------------------------------------------------------------------------ table

    def _table(self) -> dict[str, Any]:
        """Return one column after the other, each with a value for every run."""
        keys = ["seed", *(key for axis in self.axes for key in (axis.key, *axis.also) if key != "sweep")]
        known = [name for name in facts(self.runs) if self.runs[name].notna().any()]
        measured = [name for name in self.metrics if name in self.runs]
        kinds = [("status", STATUS), ("config", keys), ("fact", known), ("metric", measured)]
        columns = [{"name": name, "kind": kind} for kind, names in kinds for name in names]
        values = [
            numbers(self.runs[column["name"]].to_numpy(float))
            if column["kind"] == "metric"
            else list(map(plain, self.runs[column["name"]]))
            for column in columns
        ]
        return {"columns": columns, "values": values}


class _Rows:
    """Rows of many runs, put together as a frame at once: a frame of each would take longer than to read them."""

    def __init__(self) -> None:
        self.longest = 0  # how many rows a run has at most
        self._parts: dict[tuple[str, ...], list[np.ndarray]] = {}  # by their columns

    def add(self, group: int, run: int, columns: Sequence[str], values: np.ndarray) -> None:
        """Add the rows of a run of a group."""
        self.longest = max(self.longest, len(values))
        if len(values):
            about = np.tile([group, run], (len(values), 1))
            self._parts.setdefault(("group", "run_id", *columns), []).append(np.hstack([about, values]))

    def frame(self) -> pd.DataFrame:
        """Return all rows, with the columns `group` and `run_id` (its place among all)."""
        frames = [pd.DataFrame(np.concatenate(rows), columns=list(names)) for names, rows in self._parts.items()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _means(frame: pd.DataFrame, place: str, names: Sequence[str], most: int) -> Curves:
    """Return the means over the runs of each group at each value of the column `place`.

    Of more places than `most`, as many, evenly spread.
    """
    frame = frame.reindex(columns=["group", place, *names])
    if frame.empty or not names:  # none, where no run had been evaluated when the table of runs was read
        return {}
    table = clipped(over_seeds(frame, ["group", place], names))
    rows = len(table) // len(names)  # the same groups and places for every name
    groups, places = table["group"].to_numpy()[:rows].astype(int), table[place].to_numpy(float)[:rows]
    values = table[["mean", "low", "high", "runs"]].to_numpy(float).reshape(len(names), rows, 4)
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    found = {}
    for begin, end in zip(begins, [*begins[1:], rows], strict=True):
        kept = begin + spread(end - begin, most)
        found[int(groups[begin])] = (places[kept], values[:, kept])
    return found
