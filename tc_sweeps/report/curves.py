"""Any metric against any key: the figure for a question that has no figure of its own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import (
    Sweep,
    config_keys,
    differ,
    facts,
    find_sweep,
    hint,
    left_out,
    listed,
    load_curves,
    load_finished,
    metric_names,
    over_seeds,
    split,
    swept_keys,
    to_the_end,
    together,
    under_fitted,
)
from tc_sweeps.report.intervals import what_is_drawn
from tc_sweeps.report.metrics import unit
from tc_sweeps.report.where import Where, name_where, spell_value
from tc_sweeps.store.sweep_folder import SweepFolder

FEW = 12  # so many values of x have a tick each
LONGEST_LABEL = 42  # characters beside an axis
CEILING_PER_NGRAM = "ceiling per distinct training n-gram"
CEILINGS = {"artifacts/count": "artifacts/ceiling", "artifacts/per_ngram": CEILING_PER_NGRAM}


def draw_xy(sweep: Sweep, x: str, y: str, by: str | Sequence[str] | None = None, *, where: Where | None = None) -> Path:
    """Draw the metric or fact `y` against `x`, one line per value of `by`; return the path of the PNG.

    `x` is a config key, a fact, or `step` for curves over training. Lines are means and bars (bands over training) 95 %
    Student t intervals over seeds, of the finished runs that `where` chooses (as in `load_sweep`); over training they
    are as in `to_the_end`, and elsewhere hollow points are those that a seed did not fully fit. Beside a number of
    artifacts stands its ceiling. An axis of the sweep that is neither `x`
    nor in `by` gets lines of its own: nothing but seeds is averaged over. The file is
    `<sweep>/figures/<y>_against_<x>.png`, with a PDF beside it. Raises `ConfigError` for an unknown column, naming the
    nearest, where `y` is undefined in every run, and where more than one axis is left.
    """
    folder = find_sweep(sweep)
    by = [by] if isinstance(by, str) else list(by or [])
    figure = figure_xy(folder, x, y, by, where)
    name = "_".join([_safe(y), "against", _safe(x), *(["by", *map(_safe, by)] if by else [])])
    return style.save(figure, folder.path / "figures" / f"{name}{name_where(where, every=folder.every)}")[0]


def figure_xy(sweep: Path | SweepFolder, x: str, y: str, by: Sequence[str] = (), where: Where | None = None) -> Figure:
    """Return the figure that `draw_xy` writes."""
    runs = load_finished(sweep, where)
    keys, metrics = config_keys(runs), metric_names(runs)
    _known("--x", x, ["step", *keys, *facts(runs)], differ(runs))
    _known("--y", y, [*metrics, *facts(runs)], f"its metrics are {listed(metrics, len(metrics))}")
    for name in by:
        _known("--by", name, [*keys, *facts(runs)], differ(runs))
    if not pd.to_numeric(runs[y], errors="coerce").notna().any():
        raise ConfigError(f"--y {y} is undefined in every finished run of the sweep '{sweep.name}'.")
    by = [*by, *_axis_left(runs, x, by)]
    if x == "step":
        curves = load_curves(sweep, where=where)
        runs = to_the_end(curves[curves["run_id"].isin(runs["run_id"])], by)
    figure = _figure(runs, x, y, by, where)
    style.caption(figure, left_out(sweep, where))
    return figure


def _axis_left(runs: pd.DataFrame, x: str, by: Sequence[str]) -> list[str]:
    """Return the axis that needs lines of its own, where there is one: an interval over its values is none over seeds.

    Raises `ConfigError` where there are several. An axis that goes along with another one (a learning rate chosen per
    width) needs none.
    """
    named = [*by] if x == "step" else [x, *by]
    left = _differ_within(runs, named)
    for key in left:
        if not _differ_within(runs, [*named, key]):
            return [key]
    if not left:
        return []
    one, *others = left
    held = " ".join(f"--where {shlex.quote(f'{key}={spell_value(runs[key].iloc[0])}')}" for key in others)
    raise ConfigError(
        f"The runs of one point differ in {listed(left)}, not in the seed alone: draw a line for each value of one of "
        f"these with --by and choose a value of the others with --where, as in --by {one} {held}."
    )


def _differ_within(runs: pd.DataFrame, named: list[str]) -> list[str]:
    """Return the axes in which runs differ that agree in the columns named."""
    groups = runs.groupby([runs[name] for name in named] or (lambda _: 0), dropna=False)
    return [key for key in swept_keys(runs) if key not in named and (groups[key].nunique(dropna=False) > 1).any()]


@style.styled
def _figure(runs: pd.DataFrame, x: str, y: str, by: list[str], where: Where | None) -> Figure:
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    per_ngram = runs["artifacts/ceiling"].astype(float) / runs["corpus/train_ngrams"].astype(float)
    runs = runs.assign(**{PLACE: _places(axes, runs, x), CEILING_PER_NGRAM: per_ngram, UNFIT: under_fitted(runs)})
    groups = split(runs, by)
    ordered = len(by) == 1 and pd.api.types.is_numeric_dtype(runs[by[0]]) and len(groups) > 2
    colours = style.shades(len(groups)) if ordered else style.COLOURS if by else [style.metric_colour(y)]
    handles, counts, has_ceiling, hollow, faint = [], [], False, False, False
    joined = not _is_words(runs[x])  # nothing lies between two words
    for place, (values, part) in enumerate(groups):
        colour = colours[place % len(colours)]
        means = over_seeds(part, [PLACE], [y]).dropna(subset="mean")
        marker = style.MARKERS[place // len(colours) % len(style.MARKERS)]
        if x == "step":
            style.draw_band(axes, means, PLACE, colour=colour)
            counts.append(int(means["runs"].max()) if len(means) else 0)
            faint |= bool(style.fewer(means).any())
        else:
            linestyle = "-" if joined else "none"
            empty = means[PLACE].map(part.groupby(PLACE)[UNFIT].any()).tolist()
            style.draw_means(axes, means, PLACE, colour=colour, hollow=empty, marker=marker, linestyle=linestyle)
            counts += means["runs"].tolist()
            hollow |= any(empty)
        if y in CEILINGS:
            ceiling = over_seeds(part, [PLACE], [CEILINGS[y]]).dropna(subset="mean")
            style.draw_ceiling(axes, ceiling, PLACE, colour=colour, joined=joined)
            has_ceiling |= len(ceiling) > 0
        if by:
            handles.append(style.line(style.describe(values), colour, marker="" if x == "step" else marker))
    axes.set(xlabel=labelled(x) + _goes_along(runs, x, by), ylabel=labelled(y))
    style.headline(figure, what_is_drawn(counts, "curve" if x == "step" else "point"), where)
    if has_ceiling:
        if not by:
            handles.append(style.line(y, colours[0], marker="" if x == "step" else style.MARKERS[0]))
        handles.append(style.ceiling_entry("ceiling of these runs", joined=joined))
    if hollow:
        handles.append(style.under_fitted())
    if faint:
        handles.append(style.fewer_entry())
    if handles:
        style.legend_below(figure, handles)
    return figure


def _goes_along(runs: pd.DataFrame, x: str, by: Sequence[str]) -> str:
    """Return what is to be added to the name of an axis whose values other keys change with, as in a zip."""
    keys = [key for group in together(runs, swept_keys(runs)) if x in group for key in group if key not in (x, *by)]
    return f"\n(and {', '.join(keys)} with it)" if keys else ""


PLACE, UNFIT = "place on the x axis", "has not fitted its data"


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
    elif x != "step" and values.nunique() <= FEW:
        style.ticks_at(axes, values.tolist(), most=FEW)
    elif pd.api.types.is_integer_dtype(values):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return values


def _is_words(values: pd.Series[Any]) -> bool:
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return not numeric or bool(values.isna().any())


def labelled(name: str) -> str:
    """Return a column's name with its unit, if it has one."""
    if name == "step":
        return "optimizer step"
    known = unit(name)
    if not known:
        return name
    between = " " if len(name) + len(known) < LONGEST_LABEL else "\n"
    return f"{name}{between}({known})"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", name)


def _known(option: str, name: str, known: Sequence[str], otherwise: str) -> None:
    if name not in known:
        raise ConfigError(f"{option} {name} is not a column of this sweep{hint(name, known, otherwise)}")
