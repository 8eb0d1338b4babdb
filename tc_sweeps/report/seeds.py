"""What each seed says along an axis: its values, their slope, where they are greatest; and their means, drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import listed, over_seeds, swept_keys
from tc_sweeps.report.where import spell_value


def seeded_by_data(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the seed of their data as their seed where they all have one seed: the data then differ."""
    return runs.assign(seed=runs["data.seed"]) if runs["seed"].nunique() == 1 else runs


def require_one_by_one(runs: pd.DataFrame, by: Sequence[str], free: Collection[str] | None = None) -> None:
    """Raise `ConfigError` where several runs agree in the columns `by`: one cannot stand for the others.

    Where the config keys in which runs may differ are given (`free`), a difference in any other is refused too.
    """
    twice = runs[runs.duplicated(list(by), keep=False)]
    together = twice.groupby(list(by), dropna=False)
    keys = [key for key in swept_keys(twice) if together[key].nunique(dropna=False).max() > 1]
    if free is not None:
        keys = [key for key in swept_keys(runs) if key not in free] or keys
    if keys:
        raise ConfigError(
            f"Runs differ in {listed(keys)}, not in {listed(by)} alone: choose one value of each, as in "
            f"--where {keys[0]}={spell_value(runs[keys[0]].iloc[0])}."
        )


def by_seed(runs: pd.DataFrame, x: str, metric: str) -> pd.DataFrame:
    """Return a metric with a row for each seed and a column for each value of `x`, in order.

    Only seeds that have a value everywhere: one that lacks some would tell of another axis than the rest. Raises
    `ConfigError` where a seed has several runs at one value.
    """
    require_one_by_one(runs, [x, "seed"])
    table = runs.pivot_table(index="seed", columns=x, values=metric, observed=True)
    return table.sort_index(axis=1).dropna().astype(float)


def slopes(table: pd.DataFrame, place: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """Return the slope of each row of `by_seed` by least squares, [S]; `place` is where a column stands on the axis.

    The values 1, 3, 5 at 8, 16, 32 have the slope 2 where `place` is log2: per doubling.
    """
    return least_squares(place(table.columns.to_numpy(float)), table.to_numpy(float))


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of y on x, [N], by least squares, [...] where y is [..., N]; NaN where x is a single place."""
    x = x - x.mean()
    return np.asarray(y @ x / (x @ x) if x.any() else np.full(y.shape[:-1], np.nan))


def greatest(table: pd.DataFrame) -> np.ndarray:
    """Return where each row of `by_seed` is greatest, [S]: the first such place where several are alike."""
    return np.asarray(table.columns.to_numpy(float)[table.to_numpy(float).argmax(axis=1)])


def draw_along(axes: Axes, runs: pd.DataFrame, x: str, metric: str, *, colour: Any, **options: Any) -> list[int]:
    """Draw a metric's means over seeds against the column `x`, and return how many runs stand behind each.

    Points are hollow where a run is not `fitted`, a column of the runs.
    """
    fitted = runs.groupby(x)["fitted"].all().reset_index()
    means = over_seeds(runs, [x], [metric]).merge(fitted, on=x)
    style.draw_means(axes, means, x, colour=colour, hollow=(~means["fitted"]).tolist(), **options)
    return list(means["runs"])
