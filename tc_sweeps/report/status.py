"""Where a sweep stands: what is done, what went wrong and why, and the command that comes next."""

from __future__ import annotations

import json
import pkgutil
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tc_sweeps.report.frame import figure_command, find_sweep, find_sweeps, swept_keys, typed
from tc_sweeps.report.trials import is_search
from tc_sweeps.store.folder import OUTPUTS, RunFolder, is_pruned
from tc_sweeps.store.lease import is_alive
from tc_sweeps.store.sweep_folder import SweepFolder

STATES = ["finished", "running", "queued", "failed", "interrupted"]
MOST_VALUES = 12  # of an axis: with more, one line per value is no longer read
MOST_REASONS = 10  # of failures: with more, something is wrong that the first ones tell as well
LONGEST_REASON = 300  # characters: an error of CUDA is a page

Run = dict[str, Any]  # its id, what status.json says, and its config by dotted key


def sweep_status(sweep: str | Path, *, every: bool = False, axes: bool = True) -> str:
    """Return as text where the runs of a sweep stand, why some did not finish, and what to type next.

    With `axes` the states are also counted for each value of each axis, that is of each config key by which the runs
    differ. A run that says it is running and whose worker is dead counts as interrupted. `every=True` also tells of the
    runs of earlier plans. Raises `ConfigError` where there is no such sweep.
    """
    folder = find_sweep(sweep)
    runs = [seen_from_outside(folder, run) for run in folder.standings(every=every)]
    if not runs:
        return f"The sweep '{folder.path.name}' has no runs yet."
    keys = _axes(runs)
    parts = [
        _headline(folder.path.name, runs),
        _axes_text(runs, keys) if axes else "",
        _reasons_text(folder.path, runs, keys),
        _next_text(folder, runs),
    ]
    return "\n\n".join(part for part in parts if part)


def all_sweeps(*, every: bool = False) -> str:
    """Return as text the sweeps under outputs/, one line each: how many runs are in which state.

    `every=True` also counts the runs of earlier plans.
    """
    lines = []
    for folder in find_sweeps():
        standings = [{"run_id": run.run_id, **run.status} for run in folder.runs(every=every)]
        runs = [seen_from_outside(folder, run) for run in standings]
        lines.append((folder.path.name, f"{_runs(len(runs))}: {_counted(runs)}" if runs else "no runs yet"))
    if not lines:
        return f"{OUTPUTS.resolve()} holds no sweep yet."
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {told}" for name, told in lines)


def seen_from_outside(folder: SweepFolder, run: Run) -> Run:
    """Return the run as it stands: one whose worker was killed had no chance to write so itself."""
    if run["state"] == "running":
        path = RunFolder(folder.path / run["run_id"])
        # A run gives its lease back right after its last status, so the status is looked at once more.
        if not is_alive(path) and path.status["state"] == "running":
            return run | {"state": "interrupted", "reason": "its process is gone; the same command continues it"}
    return run


def _frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run, with lists as tuples, so that axes can be told."""
    return pd.DataFrame(
        [{key: tuple(value) if isinstance(value, list) else value for key, value in run.items()} for run in runs]
    )


def _axes(runs: Sequence[Run]) -> list[str]:
    """Return the config keys by which the runs differ, the seed last."""
    keys = swept_keys(_frame(runs))
    return [*keys, "seed"] if len({run["seed"] for run in runs}) > 1 else keys


# ---------------------------------------------------------------------------------------------------------------- parts


def _headline(name: str, runs: Sequence[Run]) -> str:
    steps = sum(run["training.steps"] for run in runs)
    # A finished run is done, though it may have reached its target before its last step.
    done = sum(run["training.steps"] if run["state"] == "finished" else run["step"] for run in runs)
    return f"{name}: {_runs(len(runs))}: {_counted(runs)}\n{100 * done // steps} % of {steps:,} steps done"


def _counted(runs: Sequence[Run]) -> str:
    counts = Counter(run["state"] for run in runs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _axes_text(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Return the states counted for each value of each axis, values in the order of the plan."""
    states = [state for state in STATES if any(run["state"] == state for run in runs)]
    lines = [["", *states]]
    for key in keys:
        counts: dict[str, Counter[str]] = {}
        for run in runs:
            counts.setdefault(_spell(run.get(key)), Counter())[run["state"]] += 1
        if len(counts) > MOST_VALUES:
            lines.append([f"{key}: {len(counts)} values"])
        else:
            lines.append([key])
            lines += [
                [f"  {value}", *(str(found[state] or "-") for state in states)] for value, found in counts.items()
            ]
    if len(lines) == 1:
        return ""
    width = max(len(line[0]) for line in lines)
    texts = []
    for first, *rest in lines:  # the line of a key has nothing behind it
        cells = [cell.rjust(len(state)) for cell, state in zip(rest, states, strict=False)]
        texts.append("  ".join([first.ljust(width), *cells]).rstrip())
    return "\n".join(texts)


def _reasons_text(path: Path, runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Return the reasons for which runs failed or were interrupted, the most frequent first, each with one example."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run["state"] in ("failed", "interrupted"):
            groups.setdefault((run["state"], _alike(run)), []).append(run)
    lines = []
    for (state, alike), group in sorted(groups.items(), key=lambda item: -len(item[1]))[:MOST_REASONS]:
        same = len({_reason(run) for run in group}) == 1
        example = group[0]
        lines.append(f"{len(group)} {state}: {_reason(example) if same else alike}")
        values = " ".join(f"{key}={_spell(example.get(key))}" for key in keys)
        at = f"at step {example['step']:,} of {example['training.steps']:,}"
        lines.append(f"  {'for example ' * (len(group) > 1)}{path / example['run_id']} {at}: {values}".rstrip(": "))
    if len(groups) > MOST_REASONS:
        lines.append(f"... and {len(groups) - MOST_REASONS} more reasons")
    return "\n".join(lines)


def _next_text(folder: SweepFolder, runs: Sequence[Run]) -> str:
    counts = Counter(run["state"] for run in runs)
    name = typed(folder.path)
    missing, plan = counts["queued"] + counts["interrupted"] - sum(map(is_pruned, runs)), folder.plan
    lines = []
    if counts["running"]:
        lines.append(("To look again:", f"tc-sweeps status {name}"))
    elif missing:
        lines.append((f"To train the {_runs(missing)} missing:", _again(plan)))
    if counts["failed"] and not counts["running"] and not is_search(folder.path):  # a search tries something else
        lines.append(("To try what failed again:", _again(plan, failed=True)))
    if counts["finished"]:
        lines.append(("To see the numbers:", f"tc-sweeps table {name}"))
    if counts["finished"] and not counts["running"] and not missing:
        own = is_search(folder.path) or (plan["experiment"] or folder.path.name) in _experiments()
        drawing = f"tc-sweeps figure {name}" if own else figure_command(folder.path, _frame(runs))
        lines.append(("To draw them:", drawing))
    width = max(len(purpose) for purpose, _ in lines)
    return "\n".join(f"{purpose.ljust(width)}  {command}" for purpose, command in lines)


def _again(plan: dict[str, Any], *, failed: bool = False) -> str:
    """Return the command that goes on with a sweep; `failed`: also with its failed runs."""
    known = plan.get("command")
    command = str(known or "the command that started it")
    # A single run is always tried again, and so are the jobs of Hydra's own launchers, which do not know the key.
    always = plan["launch"] is None or re.search(r"\bhydra/launcher=(?!stacked\b)", command)
    retry = "hydra.launcher.retry_failed=true"
    if not failed or always or retry in command:
        return command
    return f"{command} {retry}" if known else f"{command}, with {retry}"


# ---------------------------------------------------------------------------------------------------------------- words


def _reason(run: Run) -> str:
    return textwrap.shorten(run["reason"] or "no reason was recorded", LONGEST_REASON, placeholder=" ...")


def _alike(run: Run) -> str:
    """Return the reason without its numbers and ids, in which the same failure differs from run to run."""
    return re.sub(r"\w*\d[\w.+-]*\w|\d", "…", _reason(run))


def _spell(value: Any) -> str:
    """Return a config value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _experiments() -> set[str]:
    """Return the experiments that have a figure of their own, without loading what draws them."""
    return {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "figures")])}
