"""Any metric against any key: the figure for a question that has no figure of its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import (
    config_keys,
    facts,
    find_sweep,
    load_curves,
    load_finished,
    metric_names,
    nearest,
    over_seeds,
    split,
    swept_keys,
)

UNITS = {
    "step": "optimizer step",
    "train/loss": "nats per sentence",
    "train/excess_loss": "nats per sentence",
    "test/loss": "nats per held-out n-gram",
    "data.vocab_size": "tokens",
    "train/accuracy": "share of training n-grams",
    "artifacts/count": "n-grams",
    "artifacts/per_ngram": "per training n-gram",
    "generalization/recall": "share of held-out n-grams",
    "hallucination/share": "share of labelled artifacts",
}


def draw_xy(sweep: str | Path, x: str, y: str, by: str | Sequence[str] | None = None) -> Path:
    """Draw the metric or fact `y` against `x`, one line per value of `by`; return the path of the PNG.

    `x` is a config key, a fact, or `step` for curves over training. Lines are means and bars (bands over training) 95 %
    Student t intervals over seeds, of the finished runs. The file is `<sweep>/figures/<y>_against_<x>.png`, with a PDF
    beside it. Raises `ConfigError` for an unknown column, naming the nearest, and where `y` is undefined in every run.
    """
    path = find_sweep(sweep).path
    by = [by] if isinstance(by, str) else list(by or [])
    runs = load_finished(path)
    keys = config_keys(runs)
    _known("--x", x, ["step", *keys, *facts(runs)])
    _known("--y", y, [*metric_names(runs), *facts(runs)])
    for name in by:
        _known("--by", name, [*keys, *facts(runs)])
    if not pd.to_numeric(runs[y], errors="coerce").notna().any():
        raise ConfigError(f"--y {y} is undefined in every finished run of the sweep '{path.name}'.")
    if x == "step":
        curves = load_curves(path)
        runs = curves[curves["run_id"].isin(runs["run_id"])]
    name = "_".join([_safe(y), "against", _safe(x), *(["by", *map(_safe, by)] if by else [])])
    return style.save(_figure(runs, x, y, by), path / "figures" / name)[0]


@style.styled
def _figure(runs: pd.DataFrame, x: str, y: str, by: list[str]) -> Figure:
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    runs = runs.assign(**{PLACE: _places(axes, runs, x)})
    groups = split(runs, by)
    ordered = len(by) == 1 and pd.api.types.is_numeric_dtype(runs[by[0]]) and len(groups) > 2
    colours = style.shades(len(groups)) if ordered else style.COLOURS
    handles = []
    for place, (values, part) in enumerate(groups):
        colour = colours[place % len(colours)]
        means = over_seeds(part, [PLACE], [y]).dropna(subset="mean")
        marker = style.MARKERS[place // len(colours) % len(style.MARKERS)]
        if x == "step":
            style.draw_band(axes, means, PLACE, colour=colour)
        else:
            linestyle = "none" if _is_words(runs[x]) else "-"  # nothing lies between two words
            style.draw_means(axes, means, PLACE, colour=colour, marker=marker, linestyle=linestyle)
        handles.append(style.line(style.describe(values), colour, marker="" if x == "step" else marker))
    axes.set(xlabel=labelled(x), ylabel=labelled(y))
    axes.set_title(_over(runs, x, by), fontsize=8)
    if by:
        style.legend_below(figure, handles)
    return figure


PLACE = "place on the x axis"


def _places(axes: Axes, runs: pd.DataFrame, x: str) -> pd.Series[Any]:
    """Return where each run stands along x, and set the axis up for it."""
    values = runs[x]
    if _is_words(values):
        names = [style.describe({"": value}).strip() for value in values]
        numeric = pd.api.types.is_numeric_dtype(values)
        order = list(dict.fromkeys(names[place] for place in values.argsort())) if numeric else sorted(set(names))
        axes.set_xticks(range(len(order)), order)
        axes.margins(x=0.2)
        return pd.Series([order.index(name) for name in names], index=runs.index)
    # Sizes that span more than a decade are evenly spread in their logarithm.
    if x != "step" and values.min() > 0 and values.max() / values.min() >= 8:
        style.log_x(axes, values.tolist())
    return values


def _is_words(values: pd.Series[Any]) -> bool:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return not numeric or bool(values.isna().any())


def _over(runs: pd.DataFrame, x: str, by: list[str]) -> str:
    """Return what the intervals are over: a swept key that is neither x nor a line is averaged over, and named."""
    pooled = [key for key in swept_keys(runs) if key not in (x, *by)]
    per_point = runs.groupby([PLACE, *by], dropna=False)["run_id"].nunique()
    low, high = int(per_point.min()), int(per_point.max())
    count = f"{high} run{'s' * (high > 1)}" if low == high else f"{low} to {high} runs"
    what = f"seeds and over {', '.join(pooled)}" if pooled else "seeds"
    return textwrap.fill(f"mean and 95 % Student t interval over {what} ({count} a point)", 90)


def labelled(name: str) -> str:
    """Return a column's name with its unit, if it has one."""
    return f"{name} ({UNITS[name]})" if name in UNITS else name


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)


def _known(option: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ConfigError(f"{option} {name} is not a column of this sweep; did you mean '{nearest(name, known)}'?")
