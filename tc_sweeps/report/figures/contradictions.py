"""What contradicting data do: how many hallucinations they remove, and what that costs in licensed inferences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import load_finished, over_seeds, split, swept_keys
from tc_sweeps.report.intervals import Interval, judge, student_t, sum_up, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "The only way in which artifacts can be precluded is that the data hold sentences which contradict them, and no "
    "corpus holds all of these (Section 3)."
)

CONTRADICTIONS, COUNT = "data.contradictions", "artifacts/count"
RECALL, PER_CONTEXT, SHARE = "generalization/recall", "hallucination/per_context", "hallucination/share"
NAMES = {
    RECALL: "recall of licensed inferences",
    PER_CONTEXT: "hallucinations per labelled unseen context",
    SHARE: "hallucinations as a share of labelled artifacts",
}
NARROW = 0.05  # below, a share cannot be told from 0 on a linear axis


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return recall and hallucinations at the last evaluation against the share of contradictions, and artifacts left.

    Points are means and bars 95 % Student t intervals over seeds; lines and markers are the other swept keys.
    """
    runs, wrong = _runs(sweep, where)
    others = _others(runs)
    kinds = split(runs, others)
    figure = style.new_figure(9.2, 4.4)
    left, right = figure.subplots(1, 2)
    counts: list[int] = []
    for place, (_, part) in enumerate(kinds):
        linestyle = style.LINES[place % len(style.LINES)]
        marker = style.MARKERS[place % len(style.MARKERS)]
        for axes, metric, colour in (
            (left, RECALL, style.GENERALIZATION),
            (left, wrong, style.HALLUCINATION),
            (right, COUNT, style.COLOURS[-1]),
        ):
            means = over_seeds(part, [CONTRADICTIONS], [metric]).dropna(subset="mean")
            counts += means["runs"].tolist()
            style.draw_means(axes, means, CONTRADICTIONS, colour=colour, linestyle=linestyle, marker=marker)
    for axes in (left, right):
        _share_axis(axes, sorted(runs[CONTRADICTIONS].unique()))
    left.set_ylim(0, max(1.02, left.get_ylim()[1]))
    left.set_ylabel("share, or number per context" if wrong == PER_CONTEXT else "share")
    right.set_ylim(0, None)
    right.set_ylabel("artifacts left")
    style.headline(figure, what_is_drawn(counts), where)
    entries = [
        style.line(NAMES[RECALL], style.GENERALIZATION),
        style.line(NAMES[wrong], style.HALLUCINATION),
        style.line("artifacts", style.COLOURS[-1]),
    ]
    if others:
        entries += style.dashed_lines(style.describe(values) for values, _ in kinds)
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return what part of the hallucinations each share of contradictions removes, and of the recall.

    Both are taken within a seed, against its run without contradictions, so that what seeds differ in cancels.
    """
    runs, wrong = _runs(sweep, where)
    if not (runs[CONTRADICTIONS] == 0).any():
        raise ConfigError(
            f"The sweep '{sweep.name}' has no finished run with {CONTRADICTIONS}=0, against which to tell what others "
            "remove: add it."
        )
    removes, costs, sentences = [], [], []
    for values, part in split(runs, _others(runs)):
        told = []
        for share in sorted(part[CONTRADICTIONS].unique()):
            if share == 0:
                continue
            removed, cost = _lost(part, wrong, share), _lost(part, RECALL, share)
            left = student_t(part.loc[part[CONTRADICTIONS] == share, COUNT])
            told.append(
                f"{100 * share:g}% of the contradictions remove {_percent(removed)} of the {NAMES[wrong]} and "
                f"{_percent(cost)} of the {NAMES[RECALL]}; {left} artifacts are left"
            )
            removes.append(judge([removed]))
            costs.append(judge([cost]))
        start = f"{style.describe(values)}: " if values else ""
        none = student_t(part.loc[part[CONTRADICTIONS] == 0, COUNT])
        sentences += [f"{start}{sentence}." for sentence in told]
        sentences.append(f"{start}without contradictions there are {none} artifacts.")
    return "\n".join(
        [
            sum_up(removes, "Contradictions remove hallucinations"),
            sum_up(costs, "They cost recall"),
            *sentences,
            "At the last evaluation; 95 % Student t intervals over seeds, each against its own run without them.",
        ]
    )


def _runs(sweep: Path | SweepFolder, where: Where | None) -> tuple[pd.DataFrame, str]:
    """Return the finished runs that have a share of contradictions, and the metric of their hallucinations."""
    runs = load_finished(sweep, where)
    if CONTRADICTIONS not in runs or not runs[CONTRADICTIONS].notna().any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has {CONTRADICTIONS}: choose a world that can contradict itself."
        )
    runs = runs[runs[CONTRADICTIONS].notna()]
    wrong = next((metric for metric in (PER_CONTEXT, SHARE) if runs[metric].notna().any()), None)
    if wrong is None or not runs[RECALL].notna().any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has both recall and hallucinations: its world must have a truth and "
            "inferences that are held out."
        )
    return runs.astype({CONTRADICTIONS: float}), wrong


def _others(runs: pd.DataFrame) -> list[str]:
    return [key for key in swept_keys(runs) if key != CONTRADICTIONS]


def _lost(part: pd.DataFrame, metric: str, share: float) -> Interval:
    """Return the part of a metric that is lost at a share of contradictions, 1 - value / value without, over seeds."""
    by_seed = part.groupby([CONTRADICTIONS, "seed"])[metric].mean()
    without = by_seed[0.0]
    return student_t(1 - by_seed[share] / without.where(without > 0))


def _percent(value: Interval) -> str:
    if not value.seeds:
        return "an undefined part"
    hundredfold = Interval(100 * value.mean, 100 * value.low, 100 * value.high, value.seeds)
    return f"{hundredfold} %" + (" (one seed)" if value.seeds == 1 else "")


def _share_axis(axes: Axes, shares: list[float]) -> None:
    """Set up the axis of shares: linear, or logarithmic beside 0 where shares lie too near to 0 to be told from it."""
    axes.set_xlabel("share of the contradictions that is in the data")
    least = min((share for share in shares if share > 0), default=1.0)
    if least < NARROW:
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        axes.xaxis.set_major_locator(FixedLocator(shares))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
