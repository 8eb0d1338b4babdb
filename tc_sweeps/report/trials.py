"""The trials of a search as a table, and which of them are best; from `<sweep>/trials.parquet` alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tc_sweeps.config import ConfigError
from tc_sweeps.report.frame import Sweep, find_sweep

__all__ = ["best_text", "best_trials", "load_trials", "losses"]

MOST_LINES = 5  # of the best trials of one objective
MOST_FRONT = 20  # of a front: with more, a table is no longer read


def load_trials(sweep: Sweep) -> pd.DataFrame:
    """Return one row per trial: number, state, objectives, searched keys, and the run that it is.

    `attrs["objectives"]` holds the objectives' directions by metric name, `attrs["trials"]` how many trials the search
    shall have. The states are complete, pruned, failed and
    running; a trial without a value has NaN. Raises `ConfigError` where there is no such sweep, or it is no search.
    """
    folder = find_sweep(sweep)
    if not folder.is_search:
        raise ConfigError(f"The sweep '{folder.path.name}' is no search: it has no trials.parquet.")
    return pd.read_parquet(folder.path / "trials.parquet")


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials worth a look, each run once: of one objective all, the best first; else the front.

    The front (Pareto's) holds the trials than which no other is as good in every objective and better in one.
    """
    objectives = trials.attrs["objectives"]
    complete = trials.loc[trials["state"] == "complete"].drop_duplicates("run_id")
    loss = losses(complete, objectives)
    if len(objectives) > 1:
        no_worse, better = np.all(loss[None] <= loss[:, None], axis=2), np.any(loss[None] < loss[:, None], axis=2)
        best = ~np.any(no_worse & better, axis=1)
        complete, loss = complete.loc[best], loss[best]
    return complete.iloc[np.argsort(loss[:, 0], kind="stable")]


def losses(trials: pd.DataFrame, objectives: Mapping[str, str]) -> np.ndarray:
    """Return the objectives, [trials, objectives], with the sign of those to maximize turned."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()])
    return np.asarray(trials[list(objectives)].to_numpy(float) * signs)


def best_text(trials: pd.DataFrame) -> str:
    """Return what a search has come to: how many trials ended how, and the best of them."""
    objectives = trials.attrs["objectives"]
    counts = trials["state"].value_counts()
    lines = [f"{len(trials)} trials: {', '.join(f'{count} {state}' for state, count in counts.items())}."]
    best = best_trials(trials)
    if best.empty:
        return f"{lines[0]} None has a value."
    asked = ", ".join(f"{direction} {name}" for name, direction in objectives.items())
    if len(objectives) == 1:
        lines.append(f"The best of them, to {asked}:")
        shown = best.head(MOST_LINES)
    else:
        more = f", {MOST_FRONT} of {len(best)}" if len(best) > MOST_FRONT else ""
        lines.append(f"The front, to {asked}{more}:")
        shown = best.head(MOST_FRONT)
    table = shown.drop(columns="state").rename(columns={"number": "trial"})
    lines.append(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    return "\n".join(lines)
