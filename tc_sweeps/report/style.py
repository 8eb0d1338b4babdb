"""How every figure looks: colours that colour-blind readers tell apart, error bars, and files written whole.

Figures are made without pyplot, so that drawing leaves nothing behind in the process and needs no display.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as MarkerPath
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from tc_sweeps.report.intervals import clipped
from tc_sweeps.report.where import Where, spell_where
from tc_sweeps.store.files import replace

# Okabe and Ito's palette, the pale yellow left out: it cannot be seen as a line on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
ORANGE, BLUE, GREY = "#E69F00", "#0072B2", "#8A8A8A"
# Wherever a curve is one of the two: the palette's blue and vermilion, which all readers tell apart.
GENERALIZATION, HALLUCINATION = "#0072B2", "#D55E00"
LINES = ["-", "--", ":", "-."]
HATCHES = {"--": "////", ":": "....", "-.": "\\\\\\\\"}  # of a band, by the style of its line
FAINT: Any = {"linewidth": 0.9, "alpha": 0.5}  # a curve where only some of its runs have a value
DASHES = MarkerPath([(-3, 0), (-1.8, 0), (-0.6, 0), (0.6, 0), (1.8, 0), (3, 0)], [1, 2] * 3)  # move to, line to
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]

RC: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # text in a PDF stays text
}

styled = mpl.rc_context(RC)  # a decorator: what is drawn inside has this style, what is drawn elsewhere is left alone


def new_figure(width: float, height: float, *, solid: bool = False) -> Figure:
    """Return an empty figure of that many inches, drawn by Agg; `solid` panels are placed by hand."""
    # The constrained layout does not know what the labels of axes in three dimensions need.
    figure = Figure(figsize=(width, height), layout=None if solid else "constrained")
    FigureCanvasAgg(figure)
    return figure


@styled
def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as `path`.png (200 dpi) and `path`.pdf, each replaced at once, and return both paths."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # every glyph of a PDF is a line, where Hydra logs
    paths = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "pdf")]
    # Without its date a figure of the same runs is the same file.
    replace(paths[0], lambda new: figure.savefig(new, format="png", dpi=200))
    replace(paths[1], lambda new: figure.savefig(new, format="pdf", metadata={"CreationDate": None}))
    return paths


def shades(count: int) -> list[Any]:
    """Return `count` colours in order from dark to light, for values that have an order."""
    return list(mpl.colormaps["viridis"](np.linspace(0.0, 0.85, count)))


def metric_colour(metric: str) -> str:
    """Return the colour of a curve that stands alone: that of generalization or hallucination where it is one."""
    kind = metric.removeprefix("judge/").split("/")[0]
    return {"generalization": GENERALIZATION, "hallucination": HALLUCINATION}.get(kind, COLOURS[0])


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put one legend under all panels, in as many columns as its longest entry leaves room for."""
    inches = 0.7 + 0.065 * max(len(handle.get_label()) for handle in handles)  # of one column, at the legend's size
    columns = int(figure.get_figwidth() / inches)
    figure.legend(
        handles=list(handles),
        loc="outside lower center" if figure.get_layout_engine() else "lower center",
        ncols=max(1, min(columns, len(handles))),
    )


def headline(figure: Figure, text: str, where: Where | None) -> None:
    """Say above all panels what is drawn, and of which runs: a figure is passed on without the command that made it."""
    caption(figure, text)
    caption(figure, f"runs with {spell_where(where)}" if where else "")


def caption(figure: Figure, text: str) -> None:
    """Add a line (or more, where it is long) to what is said above all panels; nothing for an empty one."""
    if text:
        added = textwrap.fill(text, int(13 * figure.get_figwidth()))
        told = "\n".join(filter(None, [figure.get_suptitle(), added]))
        figure.suptitle(told, fontsize=9, parse_math=False)


def line(label: str, colour: Any = GREY, **options: Any) -> Line2D:
    """Return a legend's entry."""
    return Line2D([], [], color=colour, label=label, **options)


def dashed_lines(labels: Iterable[str]) -> list[Line2D]:
    """Return the legend's entries for lines that dashes and markers tell apart, in the order of `LINES`."""
    return [
        line(label, linestyle=LINES[place % len(LINES)], marker=MARKERS[place % len(MARKERS)])
        for place, label in enumerate(labels)
    ]


def draw_means(
    axes: Axes, table: pd.DataFrame, x: str, *, colour: Any, hollow: Sequence[bool] | None = None, **options: Any
) -> None:
    """Draw means with the bars of their intervals against the column `x`; `hollow` points have an empty marker."""
    table = clipped(table).assign(hollow=[False] * len(table) if hollow is None else list(hollow)).sort_values(x)
    marker, linestyle = options.get("marker", "o"), options.get("linestyle", "-")
    axes.plot(table[x], table["mean"], color=colour, linestyle=linestyle)
    bars = table.dropna(subset=["mean", "low", "high"])
    if len(bars):
        # The mean of equal values may lie above them by rounding.
        low, high = (bars["mean"] - bars["low"]).clip(lower=0), (bars["high"] - bars["mean"]).clip(lower=0)
        axes.errorbar(bars[x], bars["mean"], yerr=[low, high], fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)
    for empty, face in ((True, "white"), (False, colour)):
        points = table[table["hollow"] == empty]
        axes.plot(
            points[x], points["mean"], marker=marker, linestyle="none", color=colour, markerfacecolor=face, zorder=3
        )


def draw_band(axes: Axes, table: pd.DataFrame, x: str, *, colour: Any, linestyle: str = "-") -> None:
    """Draw a mean as a line and its interval as a band against the column `x`; bands are told apart as their lines.

    Where fewer of its runs have a value than elsewhere the line is as `draw_curve` has it, without a band.
    """
    table = clipped(table).sort_values(x)
    whole = ~fewer(table)
    draw_curve(axes, table[x], table["mean"], whole, color=colour, linestyle=linestyle)
    band: Any = {"facecolor": colour, "alpha": 0.18, "linewidth": 0}
    if linestyle != "-":
        band = {"facecolor": "none", "edgecolor": colour, "alpha": 0.5, "linewidth": 0.5, "hatch": HATCHES[linestyle]}
    axes.fill_between(table[x], table["low"], table["high"], where=whole, **band)


def draw_curve(axes: Axes, x: pd.Series[float], y: pd.Series[float], whole: pd.Series[bool], **options: Any) -> None:
    """Draw a curve of means over runs, which is faint where it is not `whole`: where some of the runs have no value."""
    if not whole.all():
        axes.plot(x, y, **{**options, **FAINT, "marker": ""})
    axes.plot(x, y.where(whole), **options)


def fewer(table: pd.DataFrame) -> pd.Series[bool]:
    """Return where in a curve of `over_seeds` fewer runs have a value than at its other points."""
    runs: pd.Series[int] = table["runs"]
    return runs < runs.max()


def fewer_entry() -> Line2D:
    """Return the legend's entry for what `draw_curve` draws faint."""
    return line("faint: some of its runs have no value", **FAINT)


def draw_ceiling(axes: Axes, table: pd.DataFrame, x: str, *, colour: Any, joined: bool = True) -> None:
    """Draw means of ceilings against the column `x`: a dashed line, or a short one at each point that no line joins."""
    table = table.sort_values(x)
    axes.plot(table[x], table["mean"], color=colour, **_ceiling(joined and len(table) > 1))


def ceiling_entry(label: str, *, joined: bool = True) -> Line2D:
    """Return the legend's entry for what `draw_ceiling` draws."""
    return line(label, **_ceiling(joined))


def _ceiling(joined: bool) -> dict[str, Any]:
    return {
        "linestyle": "--" if joined else "none",
        "linewidth": 1,
        "marker": "" if joined else DASHES,
        "markersize": 24,
    }


def log_x(axes: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic with ticks at the values that were tried, as many as can be read."""
    axes.set_xscale("log")
    ticks_at(axes, values, most=8, place=np.log)


def ticks_at(
    axes: Axes, values: Sequence[float], *, most: int, place: Callable[[float], float] = lambda value: value
) -> None:
    """Put the ticks of the x axis at some values, from the greatest down, but where `most` of them would not fit.

    `place` is where a value stands along the axis.
    """
    tried = sorted(set(values))
    room = (place(tried[-1]) - place(tried[0])) / (most - 1)
    shown = [tried[-1]]
    for value in reversed(tried[:-1]):
        if place(shown[-1]) - place(value) > room * (1 - 1e-9):
            shown.append(value)
    axes.xaxis.set_major_locator(FixedLocator(shown[::-1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}")
    )


def log_y(axes: Axes) -> None:
    """Make the y axis logarithmic with ticks at 1, 2 and 5 times powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def under_fitted() -> Line2D:
    """Return the legend's entry for hollow points."""
    return line("under-fitted in a seed", marker="o", linestyle="none", markerfacecolor="white")


def describe(values: dict[str, Any]) -> str:
    """Return `width 32, heads 4` for config keys and their values, as legends and sentences name runs."""
    named = []
    for key, value in values.items():
        if key == "objective.positions":
            named.append({"all": "loss on all positions", "last": "loss on the last token"}.get(value, str(value)))
            continue
        name = key.rpartition(".")[2].replace("_", " ")
        missing = value is None or (isinstance(value, float) and np.isnan(value))
        shown = f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        named.append(f"{name} {'null' if missing else shown}")
    return ", ".join(named)
