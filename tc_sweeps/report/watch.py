"""A sweep under way as a live table in the terminal: where its runs stand, and their curves as sparklines."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from rich.console import Console
from rich.console import Group as Stacked
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report.artifacts import printable_lines
from tc_sweeps.report.following import Following, Group
from tc_sweeps.report.frame import Sweep, hint, listed, to_the_end, typed
from tc_sweeps.report.intervals import plain
from tc_sweeps.report.sparkline import average, sparkline
from tc_sweeps.report.status import STATES, headline, is_done
from tc_sweeps.report.table import MOST_RUNS, WIDTH
from tc_sweeps.report.where import Where

# What it is about first: in a narrow terminal the last ones have no room.
DEFAULT_METRICS = ["generalization/recall", "hallucination/per_context", "artifacts/per_ngram", "train/excess_loss"]
SPARKS = (16, 8, 5)  # characters of a sparkline: the most that leave room for all metrics
PATIENCE = 10.0  # times that a look takes until the next one: the cores are for training
SCHEDULER_SECONDS = 15.0  # between questions to schedulers, which many ask
COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}

Workers = Callable[[], Sequence[str]]  # what schedulers say of a sweep's workers, a line for each submission


def watch(
    sweep: Sweep,
    *,
    metrics: Sequence[str] = (),
    where: Where | None = None,
    every: float = 2.0,
    workers: Workers | None = None,
) -> None:
    """Show a sweep in the terminal, drawn anew every `every` seconds or less often, until nothing is left to train.

    There is a row for each run of a small sweep, else for each group of runs that differ in their seed alone, with the
    latest value of each metric and its curve, means over the runs. What was drawn last stays. Where standard output is
    no terminal one plain table is printed. Raises `ConfigError` where there is no such sweep, for an unknown metric,
    and for `every` not above 0.
    """
    if not every > 0:
        raise ConfigError(f"--every {every:g} must be above 0: it is the number of seconds between two looks.")
    for name in metrics:
        if name not in METRICS:
            raise ConfigError(f"--metrics {name} is no metric{hint(name, METRICS, f'there are {listed(METRICS)}')}")
    following = Following(sweep, where=where)
    following.look()
    ask = _now_and_then(workers)
    console = Console(highlight=False, emoji=False, markup=False)
    if not sys.stdout.isatty() or console.is_dumb_terminal:
        size = (shutil.get_terminal_size((WIDTH, 24)).columns, MOST_RUNS + 10)
        console = Console(width=size[0], color_system=None, highlight=False, emoji=False, markup=False)
        console.print(picture(following, console, size, metrics, ask()))
        return

    def drawn() -> tuple[tuple[int, int], Stacked]:
        return (size := console.size), picture(following, console, size, metrics, ask())

    (size, shown), took = drawn(), 0.0
    try:
        with Live(shown, console=console, screen=True, auto_refresh=False) as live:
            while not is_done(following.folder, following.runs):
                _pause(console, size, max(every, PATIENCE * took))
                began = time.monotonic()
                following.look()
                size, shown = drawn()
                live.update(shown, refresh=True)
                took = time.monotonic() - began
    finally:
        # The terminal may have another size by now, for which the last picture is too wide.
        console.print(shown if console.size == size else drawn()[1])


def _now_and_then(workers: Workers | None) -> Workers:
    """Return what asks schedulers, and answers as they last did in between."""
    last: tuple[float, Sequence[str]] = (-math.inf, [])

    def ask() -> Sequence[str]:
        nonlocal last
        if workers is not None and time.monotonic() - last[0] > SCHEDULER_SECONDS:
            said = workers()
            last = (time.monotonic(), said)
        return last[1]

    return ask


def _pause(console: Console, size: tuple[int, int], seconds: float) -> None:
    """Wait, but not for long once the terminal has another size than that of the last picture."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and console.size == size:
        time.sleep(min(left, 0.1))


# ---------------------------------------------------------------------------------------------------------------- table


def picture(
    following: Following, console: Console, size: tuple[int, int], metrics: Sequence[str], workers: Sequence[str]
) -> Stacked:
    """Return what is drawn of a sweep as of the last look, as wide and high as `size` at most."""
    if not following.runs:
        return Stacked(_text(f"The sweep '{following.folder.path.name}' has no runs yet."))
    head = [*_head(following), *workers]
    notes = [following.unseen] if following.unseen else []
    if any(run["state"] == "failed" for run in following.runs):
        notes.append(f"Why runs failed: tc-sweeps status {typed(following.folder.path)}")
    # An empty line, two of titles, notes, one about metrics that may have no room, and the cursor.
    room = size[1] - len(head) - 5 - len(notes)
    if len(following.groups) > room:
        room = max(1, room - 1)
        notes.append(f"{len(following.groups) - room:,} more rows: those in training come first.")
    shown = _most_active(following, room)
    curves = {name: _curves(following, shown, name) for name in metrics or DEFAULT_METRICS}
    defined = {name: found for name, found in curves.items() if any(value == value for _, value in found)}
    parts = [_text(line) for line in head] + [Text()]
    wide = console.options.update(max_width=10_000)  # a table is measured as it would be with room for everything
    for count in range(len(defined), -1, -1):
        names = list(defined)[:count]
        tables = [_table(following.keys, shown, {name: defined[name] for name in names}, width) for width in SPARKS]
        fitting = [table for table in tables if console.measure(table, options=wide).maximum <= size[0]]
        if fitting or not count:
            break
    if len(names) < len(defined):
        notes.append(f"In a wider terminal: {listed(list(defined)[len(names) :])}.")
    return Stacked(*parts, (fitting or tables[-1:])[0], *map(_text, notes))


def _head(following: Following) -> list[str]:
    head = headline(following.folder, following.runs)
    left = following.seconds_left()
    return (head if left is None else f"{head}, about {_spelled(left)} left at the present pace").split("\n")


def _spelled(seconds: float) -> str:
    """Return a time as two numbers at most: 42 s, 3 min, 2 h 5 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _most_active(following: Following, most: int) -> list[Group]:
    """Return the groups to show, in their order: where there is no room for all, those in training, then the latest."""

    def activity(group: Group) -> tuple[bool, bool, int]:
        states = {run["state"] for run in group.runs}
        return "running" in states, states != {"queued"}, max(map(following.changed, group.runs))

    if len(following.groups) <= most:
        return following.groups
    places = sorted(range(len(following.groups)), key=lambda place: activity(following.groups[place]), reverse=True)
    return [following.groups[place] for place in sorted(places[:most])]


def _table(
    keys: Sequence[str], groups: Sequence[Group], curves: Mapping[str, list[tuple[list[float], float]]], sparks: int
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in [*keys, "runs", "step", *curves]:
        parent, dot, last = name.replace(".", "/").rpartition("/")
        title = _text(f"{parent}{dot}\n{last}")
        table.add_column(title, justify="left" if name == "runs" or name in curves else "right", no_wrap=True)
    latest = {name: [plain(value) or "-" for _, value in means] for name, means in curves.items()}
    for place, group in enumerate(groups):
        cells = [*map(_text, group.values), _states(group), Text(_steps(group))]
        for name, means in curves.items():  # number and curve in one: both have room under one title
            number = latest[name][place].rjust(max(map(len, latest[name])))
            cells.append(Text.assemble(f"{number}  ", (sparkline(means[place][0], sparks), "cyan")))
        table.add_row(*cells)
    return table


def _states(group: Group) -> Text:
    """Return the states of a group's runs, counted where there are several runs."""
    counts = Counter(run["state"] for run in group.runs)
    told = [(f"{counts[state]} {state}", COLOURS.get(state, "")) for state in STATES if counts[state]]
    if len(group.runs) == 1:
        told = [(text.partition(" ")[2], colour) for text, colour in told]
    return Text(", ").join([Text(text, style=colour) for text, colour in told])


def _steps(group: Group) -> str:
    """Return how far the runs of a group have come, the first and the last of them."""
    least, most = min(run["step"] for run in group.runs), max(run["step"] for run in group.runs)
    return f"{most:,}" if least == most else f"{least:,}-{most:,}"


def _text(text: str) -> Text:
    """Return a text that nothing in it can style, no terminal obeys, and no line of which is broken."""
    return Text(printable_lines(text), no_wrap=True, overflow="ellipsis")


def _curves(following: Following, groups: Sequence[Group], metric: str) -> list[tuple[list[float], float]]:
    """Return for each group a metric's means over its runs at each evaluation, and the mean of their latest values.

    Runs that have reached their target stay in the means, as `to_the_end` has them.
    """
    curves = [[(run, following.curve(run, metric)) for run in group.runs] for group in groups]
    rows = [
        (place, run["run_id"], run["state"], step, value if math.isfinite(value) else math.nan)
        for place, members in enumerate(curves)
        for run, curve in members
        for step, value in curve
    ]
    if not rows:
        return [([], math.nan) for _ in groups]
    frame = to_the_end(pd.DataFrame(rows, columns=["group", "run_id", "state", "step", "value"]), ["group"])
    means = frame.groupby(["group", "step"])["value"].mean()
    begun = set(frame["group"])
    return [
        (
            means[place].tolist() if place in begun else [],
            average([curve[-1][1] for _, curve in members if curve]),
        )
        for place, members in enumerate(curves)
    ]
