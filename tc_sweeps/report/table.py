"""A sweep as tables: one row per run, and the mean over seeds, as files and as text for the terminal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tc_sweeps.report.frame import (
    Sweep,
    estimated,
    find_sweep,
    load_sweep,
    metric_names,
    over_seeds,
    swept_keys,
    unseen,
)
from tc_sweeps.report.intervals import plain, spell
from tc_sweeps.report.where import Where, name_where
from tc_sweeps.store.files import replace

KEY_METRICS = [
    "train/accuracy",
    "train/excess_loss",
    "artifacts/count",
    "artifacts/per_ngram",
    "artifacts/ceiling",
    "generalization/recall",
    "hallucination/share",
    "abstention/rate",
]
WIDTH = 100  # characters, where there is no terminal to ask
MOST_RUNS = 40  # with more, one line per run is no longer read


def write_table(sweep: Sweep, *, where: Where | None = None) -> str:
    """Write results.parquet, results.csv (one row per run) and summary.csv (over seeds); return the text to print.

    The text holds one line per run (up to 40 runs), the means over seeds with their intervals, the runs that did not
    finish and why, and the paths written; it is as wide as the terminal. `where` chooses runs as in `load_sweep`; the
    two CSV files then have it in their names, and results.parquet holds all runs of the plan as ever.
    """
    folder = find_sweep(sweep)
    runs = load_sweep(folder, where=where)
    if runs.empty:
        return f"The sweep '{folder.path.name}' has no runs yet."
    keys = swept_keys(runs)
    finished = runs[runs["state"] == "finished"]
    metrics = [name for name in metric_names(runs) if finished[name].notna().any()]
    folder.remake_results()
    results = folder.path / f"results{name_where(where, every=folder.every)}.csv"
    written = [results] if where or folder.every else [folder.path / "results.parquet", results]
    replace(results, lambda path: runs.to_csv(path, index=False))
    parts = [_runs_text(runs, keys, results.name)]
    if metrics:
        summary = over_seeds(finished, keys, metrics)
        written.append(folder.path / f"summary{name_where(where, every=folder.every)}.csv")
        replace(written[-1], lambda path: summary.to_csv(path, index=False))
        parts.append(_summary_text(summary, keys, len(finished)))
    parts += [
        estimated(finished),
        _unfinished_text(runs),
        unseen(folder),
        "Written: " + "\n         ".join(map(str, written)),
    ]
    return "\n\n".join(part for part in parts if part)


def _runs_text(runs: pd.DataFrame, keys: Sequence[str], file: str) -> str:
    if len(runs) > MOST_RUNS:
        return f"{len(runs)} runs, more than {MOST_RUNS}: only their summary is shown.\n{file} has a row for each."
    shown = [name for name in KEY_METRICS if name in runs and runs[name].notna().any()]
    columns = [*keys, "seed", "run_id", "state", *shown]
    cells = {name: [_cell(value) for value in runs[name]] for name in columns}
    return columns_text(cells, repeated=len(keys) + 1)


def _summary_text(summary: pd.DataFrame, keys: Sequence[str], finished: int) -> str:
    shown = [name for name in KEY_METRICS if name in set(summary["metric"])]
    groups = summary[summary["metric"] == summary["metric"].iloc[0]][list(keys)].reset_index(drop=True)
    if not len(keys):
        groups = pd.DataFrame(index=range(1))
    cells = {name: [_cell(value) for value in groups[name]] for name in keys}
    # Groups stand in the same order for every metric. A run may lack a metric that the others have: the most count.
    by_metric = {name: summary[summary["metric"] == name].reset_index(drop=True) for name in shown}
    most = summary.assign(place=summary.groupby("metric").cumcount()).groupby("place")["runs"].max()
    cells["runs"] = [str(count) for count in most]
    for name, rows in by_metric.items():
        cells[name] = [
            spell(mean, low, high) + (f" ({count} runs)" if 0 < count < most.iloc[place] else "")
            for place, (mean, low, high, count) in enumerate(
                zip(rows["mean"], rows["low"], rows["high"], rows["runs"], strict=True)
            )
        ]
    what = (
        f"{finished} finished run{'s' * (finished != 1)}: mean [low, high], 95 % Student t intervals over seeds.\n"
        "Intervals are as computed; figures end them where the metric does, as at 0 and 1 for a share.\n"
    )
    return what + columns_text(cells, repeated=len(keys) + 1)


def _unfinished_text(runs: pd.DataFrame) -> str:
    lines = []
    failed = runs[runs["state"] == "failed"]
    if len(failed):
        lines.append(f"{len(failed)} failed:")
        lines += [
            f"  {run_id}  at step {step}: {reason if isinstance(reason, str) else 'no reason was recorded'}"
            for run_id, step, reason in zip(failed["run_id"], failed["step"], failed["reason"], strict=True)
        ]
    others = runs[~runs["state"].isin(["finished", "failed"])]["state"].value_counts()
    if len(others):
        lines.append("Not finished: " + ", ".join(f"{count} {state}" for state, count in others.items()) + ".")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return plain(float(value)) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def columns_text(cells: dict[str, list[str]], *, repeated: int) -> str:
    """Return columns as aligned text with headers of two lines, broken into blocks as wide as the terminal at most.

    The first `repeated` columns head every block, so that each line can be read by itself. Where they leave no room
    for one of the others, the rows are numbered instead.
    """
    limit = shutil.get_terminal_size((WIDTH, 24)).columns
    columns = [_column(name, values) for name, values in cells.items()]
    head, rest = columns[:repeated], columns[repeated:]
    if any(_width([*head, column]) > limit for column in rest):
        rows = max(map(len, cells.values()))
        head, rest = [_column("row", [str(place + 1) for place in range(rows)])], columns
    blocks: list[list[list[str]]] = [[]]
    for column in rest:
        if blocks[-1] and _width([*head, *blocks[-1], column]) > limit:
            blocks.append([])
        blocks[-1].append(column)
    return "\n\n".join(
        # No group has a name in a block of run ids and states: its first line is empty.
        "\n".join(filter(None, ("  ".join(line).rstrip() for line in zip(*head, *block, strict=True))))
        for block in blocks
    )


def _column(name: str, values: Sequence[str]) -> list[str]:
    group, dot, last = name.replace(".", "/").rpartition("/")
    width = max(map(len, [group + dot, last, *values]))
    return [text.rjust(width) for text in (group + dot, last, *values)]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(len(column[0]) + 2 for column in columns) - 2
