"""Generalization and hallucination over training, world by world: which comes first, and whether recall jumps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import listed, load_curves, load_finished, over_seeds, split, swept_keys, to_the_end
from tc_sweeps.report.intervals import Interval, student_t, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Generalizations and hallucinations are artifacts alike (Section 3). When in training each of them appears the "
    "paper does not say."
)

RECALL, ACCURACY, EXCESS = "generalization/recall", "train/accuracy", "train/excess_loss"
WRONG = {  # what hallucinations are measured by, the first that a world defines: its name in the legend, its line
    "hallucination/per_context": ("hallucinations per labelled unseen context", "-"),
    "hallucination/share": ("hallucinations as a share of labelled artifacts", ":"),
}
FITTED, LOW, HIGH = 0.99, 0.1, 0.9  # a jump: recall is below LOW with accuracy above FITTED, and later above HIGH
LEAST_RECALL = 0.05  # below, half of it is noise
MOST_COLUMNS = 4  # panels side by side
MOST_PANELS = 12
LEAST_EXCESS = 1e-9  # nats per sentence: what is below is rounding


class _Panel(NamedTuple):
    """The runs of one world and config, which differ in their seeds alone."""

    name: str
    curves: pd.DataFrame  # one row per run and evaluation
    wrong: str  # the metric of its hallucinations


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return recall, hallucinations and training accuracy against the step, a panel per world, excess loss below each.

    Lines are means and bands 95 % Student t intervals over seeds, those of the excess loss of its logarithm, of runs as
    in `to_the_end`; they are faint where some of these have no value. Worlds without recall or without hallucinations
    are left out.
    """
    panels = [panel._replace(curves=to_the_end(panel.curves, [])) for panel in _panels(sweep, where)]
    rows = -(-len(panels) // MOST_COLUMNS)
    columns = -(-len(panels) // rows)
    figure = style.new_figure(max(6.4, 0.6 + 3.4 * columns), 0.8 + 4.2 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False, sharey="row", height_ratios=[3, 1.2] * rows)
    faint = False
    excess = pd.concat([_excess(panel)["mean"] for panel in panels])
    least, most = excess.min(), excess.max()
    for place in range(rows * columns):
        upper, lower = grid[2 * (place // columns) : 2 * (place // columns) + 2, place % columns]
        if place >= len(panels):
            upper.set_axis_off()
            lower.set_axis_off()
            continue
        faint |= _draw_panel(upper, lower, panels[place])
        if place % columns == 0:
            upper.set_ylabel("share, or number per context")
            lower.set_ylabel("excess loss, nats\nper sentence")
        lower.set_ylim(least / 2, most * 2)
    for upper in grid[::2, 0]:  # once all panels of the row are drawn, which share their axis
        upper.set_ylim(0, max(1.02, upper.get_ylim()[1]))
    seeds = [panel.curves["run_id"].nunique() for panel in panels]
    style.headline(figure, what_is_drawn(seeds, "curve"), where)
    measures = [WRONG[metric] for metric in WRONG if any(panel.wrong == metric for panel in panels)]
    style.legend_below(
        figure,
        [
            style.line("recall of held-out n-grams", style.GENERALIZATION),
            *(style.line(label, style.HALLUCINATION, linestyle=line) for label, line in measures),
            style.line("training accuracy", linestyle="--"),
            style.line("excess loss (geometric mean)", style.COLOURS[-1]),
            *([style.fewer_entry()] if faint else []),
        ],
    )
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return for each world when the data are fitted and when recall and hallucinations appear, and what comes first.

    Steps are those of evaluations. Recall has appeared where it first exceeds half of its last value, hallucinations
    where they first exceed half of their greatest; their order is judged by the ratio of the two steps in each run.
    """
    panels = _panels(sweep, where)
    told = [_told(panel) for panel in panels]
    orders = {"hallucinations": "Hallucinations come first", "recall": "Recall comes first", "": "Cannot be told apart"}
    summary = [
        f"{what}: {listed([panel.name for panel, (_, first, _) in zip(panels, told, strict=True) if first == order])}."
        for order, what in orders.items()
        if any(first == order for _, first, _ in told)
    ]
    jumping = [panel.name for panel, (_, _, jumps) in zip(panels, told, strict=True) if jumps]
    summary.append(f"Recall jumps in {listed(jumping)}." if jumping else "Recall jumps in no world.")
    end = (
        f"Means and 95 % Student t intervals over seeds. A jump: recall below {LOW} at an accuracy above {FITTED}, and "
        f"above {HIGH} later."
    )
    return "\n".join([" ".join(summary), *(sentence for sentence, _, _ in told), end])


def _panels(sweep: Path | SweepFolder, where: Where | None) -> list[_Panel]:
    """Return the panels in the order of their worlds' names."""
    finished = load_finished(sweep, where)
    curves = load_curves(sweep, where=where)
    curves = curves[curves["run_id"].isin(finished["run_id"])]
    panels = []
    for world, part in split(curves, ["data.name"]):
        for values, runs in split(part, swept_keys(part)):
            name = ": ".join(filter(None, [world["data.name"], style.describe(values)]))
            wrong = next((metric for metric in WRONG if runs[metric].notna().any()), None)
            if wrong is not None and runs[RECALL].notna().any():
                panels.append(_Panel(name, runs, wrong))
    if not panels:
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has both recall and hallucinations: choose a world that has a truth "
            "and held-out n-grams, as data=kinships."
        )
    if len(panels) > MOST_PANELS:
        raise ConfigError(
            f"The runs of the sweep '{sweep.name}' have {len(panels)} worlds and configs, more than the {MOST_PANELS} "
            "panels of a figure: choose some with --where, as in --where data.name="
            f"{panels[0].curves['data.name'].iloc[0]}."
        )
    return panels


# ------------------------------------------------------------------------------------------------------------- drawing


def _draw_panel(upper: Axes, lower: Axes, panel: _Panel) -> bool:
    """Draw a panel and return whether some of its curves are faint somewhere."""
    means = over_seeds(panel.curves, ["step"], [RECALL, panel.wrong, ACCURACY]).dropna(subset="mean")
    by_metric = dict(iter(means.groupby("metric")))
    style.draw_band(upper, by_metric[ACCURACY], "step", colour=style.GREY, linestyle="--")
    style.draw_band(upper, by_metric[RECALL], "step", colour=style.GENERALIZATION)
    style.draw_band(upper, by_metric[panel.wrong], "step", colour=style.HALLUCINATION, linestyle=WRONG[panel.wrong][1])
    style.draw_band(lower, _excess(panel), "step", colour=style.COLOURS[-1])
    upper.set_title(panel.name)
    lower.set_yscale("log")
    lower.yaxis.set_major_locator(LogLocator(numticks=5))
    lower.yaxis.set_minor_locator(NullLocator())
    lower.set_xlabel("optimizer step")
    for axes in (upper, lower):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.xaxis.set_minor_locator(LogLocator(subs=range(2, 10)))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    upper.tick_params(axis="x", labelbottom=False)
    return any(style.fewer(rows).any() for rows in by_metric.values())


def _excess(panel: _Panel) -> pd.DataFrame:
    """Return the geometric mean of the excess loss by step and its interval: on a logarithm, the mean of logarithms."""
    logs = np.log(panel.curves[EXCESS].clip(lower=LEAST_EXCESS))
    means = over_seeds(panel.curves.assign(**{EXCESS: logs}), ["step"], [EXCESS])
    return means.assign(**{name: np.exp(means[name]) for name in ("mean", "low", "high")})


# ------------------------------------------------------------------------------------------------------------- judging


class _Milestones(NamedTuple):
    """The steps of one run's evaluations at which something first held; NaN where it never did."""

    fitted: float
    recall: float
    wrong: float
    jumps: bool


def _milestones(run: pd.DataFrame, wrong: str) -> _Milestones:
    """Return the milestones of a run whose evaluations are in order."""

    def first(holds: pd.Series[bool]) -> float:
        return float(run["step"][holds].min())

    fitted = run[ACCURACY] > FITTED
    unmoved = first(fitted & (run[RECALL] < LOW))
    return _Milestones(
        fitted=first(fitted),
        recall=first((run[RECALL] > run[RECALL].iloc[-1] / 2) & (run[RECALL].iloc[-1] >= LEAST_RECALL)),
        wrong=first(run[wrong] > run[wrong].max() / 2),
        jumps=bool(((run["step"] > unmoved) & (run[RECALL] > HIGH)).any()),
    )


def _told(panel: _Panel) -> tuple[str, str, int]:
    """Return what a panel shows in words, which of the two comes first ('' where that is open), and the runs that jump.

    Which comes first is "hallucinations" or "recall"; of the runs that jump it is the number.
    """
    runs = [run.sort_values("step") for _, run in panel.curves.groupby("run_id")]
    found = pd.DataFrame([_milestones(run, panel.wrong) for run in runs])
    last = _share([run[RECALL].iloc[-1] for run in runs])
    most = student_t([run[panel.wrong].max() for run in runs]).within(0, math.inf)
    best = _share([run[ACCURACY].max() for run in runs])
    first, order = _order(_interval_of_ratio(found["recall"] / found["wrong"]))
    jumps = int(found["jumps"].sum())
    told = [
        "training accuracy "
        + _when(found["fitted"], f"exceeds {FITTED}", f"never exceeds {FITTED} (its greatest is {best})"),
        "recall " + _when(found["recall"], f"exceeds half of its last value ({last})", f"ends below {LEAST_RECALL}"),
        f"{WRONG[panel.wrong][0]} " + _when(found["wrong"], f"exceed half of their greatest ({most})", "stay at 0"),
        order,
        f"recall jumps in {jumps} of {len(runs)} runs" if jumps else "no jump of recall",
    ]
    return f"{panel.name}: {'; '.join(told)}.", first, jumps


def _share(values: Sequence[float]) -> Interval:
    """Return the mean of shares and its interval, which ends at 0 and 1."""
    return student_t(values).within(0, 1)


def _when(steps: pd.Series[float], what: str, never: str) -> str:
    """Return at which step something happens, on average over the runs in which it does."""
    reached = student_t(steps)
    if not reached.seeds:
        return never
    some = f" in {reached.seeds} of {len(steps)} runs" if reached.seeds < len(steps) else ""
    return f"{what} at step {reached.within(0, math.inf)}{some}"


def _interval_of_ratio(ratios: pd.Series[float]) -> Interval:
    """Return the geometric mean of ratios and its interval: twice as late and twice as early cancel."""
    logs = student_t(np.log(ratios))
    mean, low, high = np.exp([logs.mean, logs.low, logs.high]).tolist()
    return Interval(mean, low, high, logs.seeds)


def _order(ratio: Interval) -> tuple[str, str]:
    """Return which comes first, and that in words; `ratio` is the step of recall over that of hallucinations."""
    if not ratio.seeds:
        return "", "which comes first is undefined"
    if ratio.mean == 1 and not ratio.low < 1 < ratio.high:
        return "", "both at the same evaluation"
    if ratio.above(1):
        return "hallucinations", f"hallucinations come first, recall takes {ratio} times as many steps"
    if ratio.below(1):
        inverse = Interval(1 / ratio.mean, 1 / ratio.high, 1 / ratio.low, ratio.seeds)
        return "recall", f"recall comes first, hallucinations take {inverse} times as many steps"
    why = " (one seed)" if ratio.seeds == 1 else ""
    return "", f"which comes first cannot be told, recall takes {ratio} times as many steps{why}"
