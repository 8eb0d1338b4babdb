"""Two sweeps or two runs side by side: which configs differ, and by how much the metrics, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tc_sweeps.config import METRICS, MODELS, WORLDS, ConfigError, leaves
from tc_sweeps.report.artifacts import printable_lines
from tc_sweeps.report.frame import (
    config_keys,
    estimated,
    find_run,
    find_sweep,
    hint,
    listed,
    load_sweep,
    names_sweep,
    runs_text,
    unseen,
)
from tc_sweeps.report.intervals import plain, spell
from tc_sweeps.report.matching import Matching, differences, grouped, matching_of, ordered, spelled, values_of
from tc_sweeps.report.table import KEY_METRICS, columns_text
from tc_sweeps.report.where import Where, spell_where

MOST_VALUES = 12  # of a key on one side
MOST_ROWS = 120  # of the table in the terminal

Groups = Mapping[tuple[str, ...], pd.DataFrame]  # runs by their values of the matched keys


def compare_text(
    a: str | Path,
    b: str | Path,
    *,
    metrics: Sequence[str] = (),
    where: Where | None = None,
    every: bool = False,
    file: Path | None = None,
) -> str:
    """Return as text what differs between two sweeps or runs: config keys, runs without a counterpart, metrics.

    `a` and `b` are as in `find_sweep`, or SWEEP/RUN_ID as in `find_run`; `metrics` chooses among those that both have
    (none: the main ones); `where` chooses runs on both sides, `every` adds those of earlier plans; `file`
    gets the table of `differences` as CSV. Raises
    `ConfigError` where there is no such sweep, no run has finished, no metric is in both, or both are the same.
    """
    (path_a, runs_a, unseen_a), (path_b, runs_b, unseen_b) = (_load(side, where, every=every) for side in (a, b))
    if path_a == path_b:
        raise ConfigError(f"'{a}' and '{b}' are the same: there is nothing to compare.")
    finished_a, finished_b = _finished(a, runs_a, where), _finished(b, runs_b, where)
    names = _metrics(finished_a, finished_b, metrics)
    how = matching_of(finished_a, finished_b)
    table = differences(finished_a, finished_b, how, names)
    if file is not None:
        table.to_csv(file, index=False)
    inexact = estimated(pd.concat([finished_a, finished_b], ignore_index=True))
    head = [
        f"{side}: {name}, {len(finished)} of {runs_text(len(runs))} finished"
        for side, name, finished, runs in (("A", a, finished_a, runs_a), ("B", b, finished_b, runs_b))
    ]
    parts = [
        printable_lines("\n".join(head)),
        _configs_text(finished_a, finished_b, how),
        _matched_text(finished_a, finished_b, how),
        _table_text(table, how, marked=not inexact),
        inexact,
        _left_out_text(metrics, names),
        "\n".join(filter(None, dict.fromkeys([unseen_a, unseen_b]))),
    ]
    return "\n\n".join(part for part in parts if part)


def _load(side: str | Path, where: Where | None, *, every: bool) -> tuple[Path, pd.DataFrame, str]:
    """Return where a sweep or run lies, its runs, and the sentence about runs of the sweep that are left out."""
    parent = Path(side).parent
    if names_sweep(side) or (parent.is_dir() and not names_sweep(parent)):
        sweep = find_sweep(side, every=every)
        return sweep.path.resolve(), load_sweep(sweep, where=where), unseen(sweep)
    run = find_run(side)
    runs = load_sweep(run.path.parent, where=where, every=True)
    runs = runs[runs["run_id"] == run.run_id]
    if runs.empty:
        raise ConfigError(f"The run '{side}' is not one of those with {spell_where(where)}.")
    return run.path, runs, ""


def _finished(side: str | Path, runs: pd.DataFrame, where: Where | None) -> pd.DataFrame:
    finished = runs[runs["state"] == "finished"]
    if finished.empty:
        such = f" with {spell_where(where)}" if where else ""
        raise ConfigError(f"No run of '{side}'{such} has finished: there is nothing to compare.")
    # Of the keys that only some worlds or models have, a run of another one in the same sweep brings its own.
    foreign: set[str] = set()
    for group, choices in (("data", WORLDS), ("model", MODELS)):
        own, others = (
            {f"{group}.{key}" for name in names for key, _, _ in leaves(choices[name]())}
            for names in (set(finished[f"{group}.name"]), set(choices))
        )
        foreign |= others - own
    return finished.drop(columns=[*foreign & set(finished)]).reset_index(drop=True)


def _metrics(a: pd.DataFrame, b: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in METRICS:
            raise ConfigError(f"--metrics {name} is no metric{hint(name, METRICS, f'there are {listed(METRICS)}')}")
    both = [name for name in wanted or KEY_METRICS if all(name in side and side[name].notna().any() for side in (a, b))]
    if not both:
        raise ConfigError(f"None of {listed(wanted or KEY_METRICS)} is defined in finished runs of both sides.")
    return list(dict.fromkeys(both))


# ----------------------------------------------------------------------------------------------------------------- text


def _configs_text(a: pd.DataFrame, b: pd.DataFrame, how: Matching) -> str:
    """Return the keys whose values are not the same on both sides, and those that only one side's world has."""
    seeds = [values_of(side, "seed") for side in (a, b)]
    keys = [*how.differing, *(["seed"] if seeds[0] != seeds[1] else [])]
    rows = [(key, *(listed(values_of(side, key) or ["no such key"], MOST_VALUES) for side in (a, b))) for key in keys]
    widths = [max((len(row[place]) for row in rows), default=0) for place in (0, 1)]
    lines = [f"  {key.ljust(widths[0])}  A: {in_a.ljust(widths[1])}  B: {in_b}" for key, in_a, in_b in rows]
    for name, side, other in (("A", a, b), ("B", b, a)):
        own = [key for key in config_keys(side) if key not in other and key not in keys]
        lines += [f"  Only runs of {name} have {listed(own)}."] if own else []
    return printable_lines("\n".join(["Configs differ in:", *lines] if lines else ["Configs do not differ."]))


def _matched_text(a: pd.DataFrame, b: pd.DataFrame, how: Matching) -> str:
    """Return how many runs have a counterpart, which have none, and which are the same on both sides."""
    keys = [*how.keys, *([] if how.apart else ["seed"])]
    lines = []
    if keys:
        runs_a, runs_b = spelled(a, keys), spelled(b, keys)
        sides = (("A", runs_a, set(runs_b)), ("B", runs_b, set(runs_a)))
        of = [
            f"{sum(run in other for run in runs)} of {len(runs)} finished runs of {name}" for name, runs, other in sides
        ]
        lines += [f"Matched by {listed(keys)}: {' and '.join(of)}."]
    if how.apart:
        lines += [f"Seeds are not paired: with other values of {listed(how.apart)} a seed draws other data."]
    lines += [f"Runs of one seed are averaged over {listed(how.averaged)}."] if how.averaged else []
    in_a, in_b = grouped(a, how.keys), grouped(b, how.keys)
    for name, side, other in (("A", in_a, in_b), ("B", in_b, in_a)):
        alone = ordered(pd.concat([a, b]), how.keys, side.keys() - other.keys())
        told = [_config(how.keys, values) + f" ({runs_text(len(side[values]))})" for values in alone]
        lines += [f"Only in {name}: {listed(told, 3)}."] if told else []
        lines += [] if how.apart else _seeds_text(name, side, other, how.keys)
    same = len(set(a["run_id"]) & set(b["run_id"]))
    lines += [f"{same} run{'s are' if same != 1 else ' is'} the same in both, by run_id."] if same else []
    return printable_lines("\n".join(lines))


def _seeds_text(name: str, side: Groups, other: Groups, keys: Sequence[str]) -> list[str]:
    """Return which seeds of a side have no counterpart in groups that both have, a line for each set of seeds."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for values in side.keys() & other.keys():
        there = set(values_of(other[values], "seed"))
        if alone := tuple(seed for seed in values_of(side[values], "seed") if seed not in there):
            groups.setdefault(alone, []).append(_config(keys, values))
    lines = []
    for alone, configs in sorted(groups.items()):
        of = "" if len(configs) == len(side.keys() & other.keys()) else f" of {listed(sorted(configs), 3)}"
        lines.append(f"Only in {name}: seed{'s' * (len(alone) > 1)} {listed(alone, MOST_VALUES)}{of}.")
    return lines


def _table_text(table: pd.DataFrame, how: Matching, *, marked: bool) -> str:
    """Return the differences as text; `marked`: whether it is said which intervals exclude 0."""
    keys = how.keys
    if table.empty:
        return "No run of A can be compared with one of B."
    shown = table.head(MOST_ROWS)
    known = table["low"].notna()
    apart = marked & known & ((table["low"] > 0) | (table["high"] < 0))
    cells = {"metric": shown["metric"].tolist()} | {key: shown[key].tolist() for key in keys}
    cells |= {"A": list(map(plain, shown["a"])), "B": list(map(plain, shown["b"]))}
    cells["B - A"] = [
        f"{spell(mean, low, high)} {'*' if excludes else ' '}"
        for mean, low, high, excludes in zip(shown["difference"], shown["low"], shown["high"], apart, strict=False)
    ]
    cells["seeds"] = [
        f"{one}" if paired else f"{one} and {two}, unpaired"
        for one, two, paired in zip(shown["seeds_a"], shown["seeds_b"], shown["paired"], strict=True)
    ]
    notes = [f"{len(table) - MOST_ROWS} more rows: --csv FILE has them all."] if len(table) > MOST_ROWS else []
    if table["paired"].any():
        notes.append("B - A: mean over seeds of the paired difference, with its 95 % Student t interval.")
    if not table["paired"].all():
        why = "seeds are other data" if how.apart else "too few seeds are on both sides"
        notes.append(f"unpaired: {why}; difference of the means, with Welch's 95 % interval.")
    if not known.all():
        notes.append("Where there is no interval, there are fewer than two seeds.")
    if known.any() and marked:
        chance = f"; by chance alone it would be about {known.sum() / 20:.0f}" if known.sum() >= 20 else ""
        notes.append(f"*: the interval excludes 0, here in {apart.sum()} of {known.sum()}{chance}.")
    return printable_lines(columns_text(cells, repeated=len(keys) + 1) + "\n\n" + "\n".join(notes))


def _left_out_text(wanted: Sequence[str], shown: Sequence[str]) -> str:
    """Return which metrics that were asked for cannot be compared; nothing where all can."""
    left = [name for name in dict.fromkeys(wanted) if name not in shown]
    return f"Not defined in finished runs of both sides: {listed(left)}." if left else ""


def _config(keys: Sequence[str], values: Sequence[str]) -> str:
    return " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
