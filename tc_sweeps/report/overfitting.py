"""Ways to overfit, and what changes along each of them: a sweep's runs in order of one knob, all else equal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tc_sweeps.report import style
from tc_sweeps.report.frame import fully_fitted, last_evaluations, listed, over_seeds, runs_text, split, swept_keys
from tc_sweeps.report.seeds import least_squares
from tc_sweeps.report.where import in_order, matching, spell_value

EXCESS = "train/excess_loss"
LEAST_FIT = 0.75  # a level counts where at least this share of its runs fits
_STEPS, _RATE, _REPLAY, _TIMES = (
    "training.steps",
    "training.learning_rate",
    "objective.replay",
    "objective.replay_times",
)


class Knob(NamedTuple):
    """What is turned; more of it is more overfitting, or less of it where `sign` is -1."""

    name: str
    key: str  # of the config, or `step`
    axis: str  # what is doubled
    sign: int
    more: str  # what is more overfitting, in words

    @property
    def step(self) -> str:
        """A step towards overfitting, of which `Way.slopes` are per one."""
        return "doubling" if self.sign > 0 else "halving"

    @property
    def per(self) -> str:
        """The same with what is doubled or halved."""
        return f"{self.step} of {self.axis}"


WIDER = Knob("wider", "model.width", "the width", 1, "the wider models are")
LONGER = Knob("longer", "step", "the steps", 1, "the longer models train")
REPEATS = Knob("more repeats", _TIMES, "the repeats", 1, "the more often a part of the data is repeated")
DECAY = Knob("less decay", "training.weight_decay", "the decay", -1, "the less weights decay")


class Way(NamedTuple):
    """One knob in one world: a row for each run (or evaluation) and level, of which some are `counted`."""

    world: str
    name: str
    knob: Knob
    rows: pd.DataFrame

    @property
    def counted(self) -> pd.DataFrame:
        """The rows that count."""
        return self.rows[self.rows["counted"]]

    def slopes(self, column: str) -> np.ndarray:
        """Return each seed's slope of a column along the knob, by least squares, per doubling (or halving), [S].

        A seed whose levels are fewer than two has none. With the values 1, 3, 5 at the widths 8, 16, 32 it is 2.
        """
        found = []
        for _, rows in self.counted.groupby("seed"):
            x = self.knob.sign * np.log2(rows["level"].to_numpy(float))
            found.append(float(least_squares(x, rows[column].to_numpy(float))))
        return np.array(found)

    def left_out(self) -> str:
        """Return in words the levels and seeds that do not count; nothing where all do."""
        if self.knob is LONGER:
            return ""
        levels = sorted(set(self.rows["level"]) - set(self.counted["level"]))
        seeds = self.rows["seed"].nunique() - self.counted["seed"].nunique()
        told = [f"{self.knob.key}={level:g}" for level in levels]
        return ", ".join([*told, *([f"{seeds} of {self.rows['seed'].nunique()} seeds"] if seeds else [])])


def ways(evaluations: pd.DataFrame) -> list[Way]:
    """Return the ways to overfit that a sweep has, world by world, from the evaluations of its finished runs.

    `evaluations` is a frame of `load_curves`. A knob's runs are those that have the sweep's most common value of every
    other key. What counts are runs that end fully fitted: a level where 3 of 4 of its runs do, a seed where its runs at
    all these levels do. Over time, in the runs with the most steps, each at its learning rate, all evaluations of a
    seed from the first that is fully fitted.
    """
    last = last_evaluations(evaluations)
    found = []
    for world, runs in _worlds(last):
        longest = _alone(runs, [_STEPS, _RATE])
        longest = longest[longest[_STEPS] == longest[_STEPS].max()]
        found += _along_runs(world, runs, lambda rows: fully_fitted(rows))
        for rate, part in split(longest, [_RATE]):
            several = longest[_RATE].nunique() > 1
            rows = evaluations[evaluations["run_id"].isin(part["run_id"])]
            first = rows["step"].where(fully_fitted(rows)).groupby(rows["run_id"]).transform("min")
            rows = rows.assign(level=rows["step"].astype(float), counted=rows["step"] >= first)
            name = f"{LONGER.name}, rate {rate[_RATE]:g}" if several else LONGER.name
            found.append(Way(world, name, LONGER, rows))
    return sorted(found, key=lambda way: (way.world, [WIDER, LONGER, REPEATS, DECAY].index(way.knob), way.name))


def told_left_out(found: Sequence[Way], runs: pd.DataFrame) -> list[str]:
    """Return a sentence for each way of which levels or seeds do not count, and for each world with runs on no way.

    `runs` are those, or the evaluations of those, that the ways were found in.
    """
    unfitted = [
        f"Left out as not fully fitted, {way.world}, {way.name}: {way.left_out()}." for way in found if way.left_out()
    ]
    return unfitted + [
        f"Left out, {world}: {aside}."
        for world, part in _worlds(runs.drop_duplicates("run_id"))
        if (aside := _aside(part, {run for way in found if way.world == world for run in way.rows["run_id"]}))
    ]


def _aside(runs: pd.DataFrame, used: Collection[str]) -> str:
    """Return in words the runs of a world that are not used: by a value that no used one has, where there is one."""
    inside = runs["run_id"].isin(used)
    if not inside.any():
        return "all its runs"
    rest, told = runs[~inside], []
    for key in swept_keys(runs):
        values = [value for value in in_order(rest[key]) if not matching(runs.loc[inside, key], value).any()]
        if values:
            told.append(f"runs with {key}={','.join(map(spell_value, values))}")
            rest = rest[~matching(rest[key], values)]
    if len(rest):
        told.append(f"{runs_text(len(rest))} with several knobs turned")
    return listed(told) if told else ""


def matched_ways(evaluations: pd.DataFrame, excess: float, columns: Sequence[str]) -> list[Way]:
    """Return the ways whose knob is not the time, with each run as it was when it came down to an excess loss.

    Between the first evaluation at or below `excess` and the one before, the columns are interpolated in the logarithm
    of the loss. Levels and seeds count as in `ways`, with runs that have come so far as those that fit.
    """
    last = last_evaluations(evaluations)
    reached = {run_id: _at_excess(rows, excess, columns) for run_id, rows in evaluations.groupby("run_id")}
    values = pd.DataFrame.from_dict(reached, orient="index", columns=list(columns))
    last = last.drop(columns=list(columns)).merge(values, left_on="run_id", right_index=True)
    found = []
    for world, runs in _worlds(last):
        found += _along_runs(world, runs, lambda rows: rows[columns[0]].notna())
    return found


def _at_excess(rows: pd.DataFrame, excess: float, columns: Sequence[str]) -> list[float]:
    """Return the columns of a run where its excess loss first is at or below a value; NaN where it never is."""
    rows = rows.sort_values("step")
    losses, values = rows[EXCESS].to_numpy(float), rows[list(columns)].to_numpy(float)
    below = np.flatnonzero(losses <= excess)
    if not len(below):
        return [np.nan] * len(columns)
    place = int(below[0])
    if place == 0 or losses[place] <= 0:
        return list(values[place])
    before, after = np.log(losses[place - 1 : place + 1])
    share = (before - np.log(excess)) / (before - after)
    return list((1 - share) * values[place - 1] + share * values[place])


def _worlds(last: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(values["data.name"]), part) for values, part in split(last, ["data.name"])]


def _along_runs(world: str, runs: pd.DataFrame, fits: Any) -> list[Way]:
    """Return the ways along which different runs stand."""
    found = []
    for knob, turned in ((WIDER, [WIDER.key]), (REPEATS, [_REPLAY, _TIMES]), (DECAY, [DECAY.key])):
        if knob.key not in runs:  # a CP tensor has no width
            continue
        rows = _alone(runs, turned)
        level = rows[knob.key].astype(float)
        if knob is REPEATS:
            level = level.where(rows[_REPLAY] > 0, 1.0)
        rows = rows.assign(level=level, fits=fits(rows))[level > 0]  # no decay is infinitely many halvings away
        if rows["level"].nunique() > 1:
            found.append(Way(world, knob.name, knob, rows.assign(counted=counts(rows))))
    return found


def _alone(runs: pd.DataFrame, turned: Sequence[str]) -> pd.DataFrame:
    """Return the runs that have the most common value of every key but those that are turned."""
    kept = pd.Series(True, index=runs.index)
    for key in swept_keys(runs):
        if key not in turned:
            kept &= matching(runs[key], runs[key].value_counts(dropna=False).index[0])
    return runs[kept]


def counts(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows count: those of levels that enough runs fit, and of seeds that fit at all of these."""
    level_fits = rows.groupby("level")["fits"].transform("mean") >= LEAST_FIT
    levels = rows.loc[level_fits, "level"].nunique()
    fitted = (rows["fits"] & level_fits).groupby(rows["seed"]).transform("sum")
    counted: pd.Series[bool] = level_fits & (fitted == levels) & (levels > 1)
    return counted


def draw_way(axes: Axes, way: Way, column: str, colour: Any, *, hollow: bool = False) -> list[int]:
    """Draw a column's means over the seeds that count along a way, to the right always more overfitting.

    Returns how many runs stand behind the points.
    """
    means = over_seeds(way.counted, ["level"], [column]).dropna(subset="mean")
    if means.empty:
        return []
    if way.knob is LONGER:
        axes.set_xscale("log")
        decades = np.log10(means["level"].max() / means["level"].min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.3 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("optimizer step")
        style.draw_band(axes, means, "level", colour=colour)
        return [int(means["runs"].max())]
    style.log_x(axes, sorted(set(way.rows["level"])))
    axes.set_xlabel(way.knob.key)
    axes.xaxis.set_inverted(way.knob.sign < 0)
    line = ":" if hollow else "-"
    style.draw_means(axes, means, "level", colour=colour, hollow=[hollow] * len(means), linestyle=line)
    return [int(runs) for runs in means["runs"]]
