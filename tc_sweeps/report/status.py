"""Where a sweep stands: what is done, what went wrong and why, and the command that comes next."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tc_sweeps.report.frame import (
    Sweep,
    figure_command,
    find_sweep,
    find_sweeps,
    own_figure,
    runs_text,
    swept_keys,
    typed,
    unseen,
)
from tc_sweeps.report.trials import load_trials
from tc_sweeps.report.where import in_order, spell_value
from tc_sweeps.store.folder import OUTPUTS, has_diverged
from tc_sweeps.store.lease import standing
from tc_sweeps.store.sweep_folder import SweepFolder

STATES = ["finished", "running", "queued", "failed", "pruned", "interrupted"]
ENDED = ("finished", "failed", "pruned")
MOST_VALUES = 12  # of an axis: with more, one line per value is no longer read
MOST_REASONS = 10  # of failures: with more, something is wrong that the first ones tell as well
LONGEST_REASON = 300  # characters: an error of CUDA is a page

Run = dict[str, Any]  # its id, what status.json says, and its config by dotted key


def sweep_status(sweep: Sweep, *, axes: bool = True, submitted: Sequence[str] = (), at_work: bool = False) -> str:
    """Return as text where the runs of a sweep stand, why some did not finish, and what to type next.

    With `axes` the states are also counted for each value of each axis, that is of each config key by which the runs
    differ. `submitted`: what schedulers say of the sweep's
    workers, a line for each submission; `at_work`: whether some of them will train what is missing. Raises
    `ConfigError` where there is no such sweep.
    """
    folder = find_sweep(sweep)
    runs = folder.standings()
    if not runs:
        return f"The sweep '{folder.path.name}' has no runs yet."
    keys = _axes(runs)
    parts = [
        headline(folder, runs),
        _axes_text(runs, keys) if axes else "",
        _reasons_text(folder.path, runs, keys),
        "\n".join(submitted),
        unseen(folder),
        _next_text(folder, runs, at_work=at_work),
    ]
    return "\n\n".join(part for part in parts if part)


def all_sweeps(*, every: bool = False) -> str:
    """Return as text the sweeps under outputs/, one line each: how many runs are in which state.

    `every=True` also counts the runs of earlier plans.
    """
    lines = []
    for folder in find_sweeps(every=every):
        runs = [{"run_id": run.run_id, **standing(run)} for run in folder.runs()]
        lines.append((folder.path.name, _counted(folder, runs) if runs else "no runs yet"))
    if not lines:
        return f"{OUTPUTS.resolve()} holds no sweep yet."
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {told}" for name, told in lines)


def run_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run, with lists as tuples, so that axes can be told."""
    return pd.DataFrame(
        [{key: tuple(value) if isinstance(value, list) else value for key, value in run.items()} for run in runs]
    )


def _axes(runs: Sequence[Run]) -> list[str]:
    """Return the config keys by which the runs differ, the seed last."""
    keys = swept_keys(run_frame(runs))
    return [*keys, "seed"] if len({run["seed"] for run in runs}) > 1 else keys


# ---------------------------------------------------------------------------------------------------------------- parts


def headline(folder: SweepFolder, runs: Sequence[Run]) -> str:
    """Return the states of a sweep's runs, counted, and in a second line the share of their steps that is done."""
    done, steps = sum(map(steps_done, runs)), sum(run["training.steps"] for run in runs)
    return f"{folder.path.name}: {_counted(folder, runs)}\n{100 * done // steps} % of {steps:,} steps done"


def steps_done(run: Run) -> int:
    """Return the steps of a run that need not be made any more."""
    # A run that has reached its target before its last step is done, and so is one that a search has ended.
    return int(run["training.steps"] if run["state"] in ("finished", "pruned") else run["step"])


def is_done(folder: SweepFolder, runs: Sequence[Run]) -> bool:
    """Whether nothing of a sweep is left to train: all runs have ended and, of a search, all trials."""
    if not runs or any(run["state"] not in ENDED for run in runs):
        return False
    ended, total = _trials(folder, runs) if folder.is_search else (0, 0)
    return ended >= total


def _counted(folder: SweepFolder, runs: Sequence[Run]) -> str:
    text = f"{runs_text(len(runs))}: {in_states(run['state'] for run in runs)}"
    if folder.is_search:
        ended, total = _trials(folder, runs)
        text = f"{ended} of {total} trials; {text}"
    return text


def _trials(folder: SweepFolder, runs: Sequence[Run]) -> tuple[int, int]:
    """Return how many trials of a search have ended, whatever became of them, and how many it shall have."""
    trials = load_trials(folder.path)
    states = {run["run_id"]: run["state"] for run in runs}  # newer than the table
    ended = [
        states.get(run_id) in ENDED or state in ("complete", "pruned", "failed")
        for run_id, state in zip(trials["run_id"], trials["state"], strict=True)
    ]
    return sum(ended), int(trials.attrs.get("trials", len(trials)))


def _axes_text(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Return the states counted for each value of each axis."""
    states = [state for state in STATES if any(run["state"] == state for run in runs)]
    lines, frame = [["", *states]], run_frame(runs)
    for key in keys:
        counts: dict[str, Counter[str]] = {spell_value(value): Counter() for value in in_order(frame[key])}
        for run in runs:
            counts[spell_value(run.get(key))][run["state"]] += 1
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
    """Return the reasons for which runs did not finish, the most frequent first, each with one example."""
    stopped = [run for run in runs if run["state"] in ("failed", "interrupted")]
    groups = alike([*stopped, *(run for run in runs if run["state"] == "queued" and run["reason"])])
    lines = []
    for state, told, group in groups[:MOST_REASONS]:
        example = group[0]
        lines.append(f"{len(group)} {state}: {told}")
        values = " ".join(f"{key}={spell_value(example.get(key))}" for key in keys)
        at = f"at step {example['step']:,} of {example['training.steps']:,}"
        lines.append(f"  {'for example ' * (len(group) > 1)}{path / example['run_id']} {at}: {values}".rstrip(": "))
    if len(groups) > MOST_REASONS:
        lines.append(f"... and {len(groups) - MOST_REASONS} more reasons")
    return "\n".join(lines)


def alike(runs: Sequence[Run]) -> list[tuple[str, str, list[Run]]]:
    """Return runs in groups of one state and one reason, each with these and its runs, the largest group first.

    Reasons that differ in numbers and ids alone are one, which then has an ellipsis for each of these.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["state"], _alike(run)), []).append(run)
    return [
        (state, _reason(group[0]) if len({_reason(run) for run in group}) == 1 else told, group)
        for (state, told), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _next_text(folder: SweepFolder, runs: Sequence[Run], *, at_work: bool) -> str:
    counts = Counter(run["state"] for run in runs)
    name, every = typed(folder.path), " --all" if folder.every else ""
    missing, plan = counts["queued"] + counts["interrupted"], folder.plan
    purpose = f"To train the {runs_text(missing)} missing:"
    if folder.is_search:
        ended, total = _trials(folder, runs)
        missing, purpose = total - ended, "To go on with the search:"
    lines = []
    if counts["running"] or (missing and at_work):
        lines.append(("To look again:", f"tc-sweeps status {name}"))
    elif missing:
        lines.append((purpose, _again(plan)))
    hopeless = sum(map(has_diverged, runs))
    # A search tries something else by itself.
    if counts["failed"] > hopeless and not counts["running"] and not folder.is_search:
        lines.append(("To try what failed again:", _again(plan, failed=True)))
    if counts["finished"]:
        lines.append(("To see the numbers:", f"tc-sweeps table {name}{every}"))
    if counts["finished"] and not counts["running"] and not missing:
        drawing = f"tc-sweeps figure {name}" if own_figure(folder) else figure_command(folder.path, run_frame(runs))
        lines.append(("To draw them:", f"{drawing}{every}"))
    width = max((len(purpose) for purpose, _ in lines), default=0)
    told = [f"{purpose.ljust(width)}  {command}" for purpose, command in lines]
    if hopeless and not folder.is_search:
        told.append("Runs whose loss exploded would do so again, bit for bit: they need other settings.")
    return "\n".join(told)


def _again(plan: dict[str, Any], *, failed: bool = False) -> str:
    """Return the command that goes on with a sweep; `failed`: also with its failed runs."""
    known = plan.get("command")
    command = str(known or "the command that started it")
    # A single run is always tried again, and so are the jobs of Hydra's own launchers, which do not know the key.
    always = plan["launch"] is None or re.search(r"\bhydra/launcher=(?!(stacked|slurm|ray)\b)", command)
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


def in_states(states: Iterable[str]) -> str:
    """Return `5 finished, 1 failed`, given the state of each run."""
    counts = Counter(states)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
