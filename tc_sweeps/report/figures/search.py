"""What a search has tried, and what came out best: value per trial of one objective, one against the other of several.

The file is `<sweep>/figures/search.png` whatever experiment was searched.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.curves import labelled
from tc_sweeps.report.trials import best_text, best_trials, load_trials
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = "None of the paper's: a search shows which settings came out best, and how many were tried for it."

FRONT = style.COLOURS[1]
WORDS = {"maximize": "larger is better", "minimize": "smaller is better"}
WITHOUT = {"pruned": "|", "failed": "x"}  # trials without a value, as marks along the lower edge


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the values of the complete trials.

    One objective: value against the number of the trial, with the best so far as a line and marks for trials that were
    pruned or failed. Two: one against the other, with the front as a line. More: the pairs of the first three, with the
    trials on the front of all objectives marked. What is best is best of all trials, so no filter is taken.
    """
    if where:
        raise ConfigError(f"A search is drawn whole: draw '{sweep.name}' without --where.")
    trials = load_trials(sweep)
    complete = trials[trials["state"] == "complete"]
    if complete.empty:
        raise ConfigError(f"No trial of the search '{sweep.name}' has a value: there is nothing to draw.")
    return _draw_one(trials, complete) if len(trials.attrs["objectives"]) == 1 else _draw_several(trials, complete)


def verdict(sweep: Path | SweepFolder, _: Where | None = None) -> str:
    """Return how many trials there are, and the best of them."""
    return best_text(load_trials(sweep))


def _draw_one(trials: pd.DataFrame, complete: pd.DataFrame) -> Figure:
    [(name, direction)] = trials.attrs["objectives"].items()
    values = complete[name].to_numpy(float)
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(values)
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    axes.plot(complete["number"], values, "o", color=style.BLUE, alpha=0.6)
    axes.step(complete["number"], best, where="post", color=FRONT)
    handles = [
        style.line("trial", style.BLUE, marker="o", linestyle="none"),
        style.line("best so far", FRONT),
    ]
    for state, marker in WITHOUT.items():
        without = trials.loc[trials["state"] == state, "number"]
        if len(without):
            axes.plot(
                without, np.full(len(without), 0.015), marker, color=style.GREY, transform=axes.get_xaxis_transform()
            )
            handles.append(style.line(f"{state} (no value)", marker=marker, linestyle="none"))
    if values.min() > 0 and values.max() / values.min() > 30:
        style.log_y(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{labelled(name)}")
    axes.set_title(f"{len(complete)} of {len(trials)} trials complete; {WORDS[direction]}", fontsize=8)
    style.legend_below(figure, handles)
    return figure


def _draw_several(trials: pd.DataFrame, complete: pd.DataFrame) -> Figure:
    objectives = trials.attrs["objectives"]
    pairs = list(combinations(list(objectives)[:3], 2))
    front = best_trials(trials)
    figure = style.new_figure(1.6 + 4.8 * len(pairs), 4.8)
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    colours = mpl.colors.Normalize(0, max(1, int(trials["number"].max())))
    for axes, (x, y) in zip(panels, pairs, strict=True):
        shown = axes.scatter(complete[x], complete[y], c=complete["number"], norm=colours, cmap="viridis", s=22)
        _draw_front(axes, front, x, y, line=len(objectives) == 2, steps=objectives[x])
        axes.set(xlabel=f"{labelled(x)}\n{WORDS[objectives[x]]}", ylabel=f"{labelled(y)}\n{WORDS[objectives[y]]}")
    figure.colorbar(shown, ax=list(panels), label="trial", pad=0.02).ax.yaxis.set_major_locator(
        MaxNLocator(integer=True)
    )
    figure.suptitle(f"{len(complete)} of {len(trials)} trials complete", fontsize=8)
    linestyle = "-" if len(objectives) == 2 else "none"
    handles = [
        style.line("trial", marker="o", linestyle="none"),
        style.line(
            f"front ({len(front)} trials)", FRONT, marker="o", linestyle=linestyle, markerfacecolor="none", markersize=8
        ),
    ]
    style.legend_below(figure, handles)
    return figure


def _draw_front(axes: Axes, front: pd.DataFrame, x: str, y: str, *, line: bool, steps: str) -> None:
    """Ring the trials of the front; the line bounds what they are better than."""
    front = front.sort_values(x)
    if line:
        axes.step(front[x], front[y], where="pre" if steps == "maximize" else "post", color=FRONT, zorder=1)
    axes.plot(front[x], front[y], "o", color=FRONT, markerfacecolor="none", markersize=8)
