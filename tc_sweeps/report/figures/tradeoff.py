"""What suppressing hallucinations does to generalization: recall kept against hallucinations removed, by method.

Both are measured on the judge's half of the contexts, on which no method has taught.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import load_finished, split
from tc_sweeps.report.intervals import Interval, half_width, student_t, what_is_drawn
from tc_sweeps.report.seeds import require_one_by_one
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Generalizations and hallucinations are both artifacts, so strategies that mitigate hallucinations might impact "
    "desirable generalizations as well (Section 3.5)."
)

RECALL, WRONG, SHARE = "judge/generalization/recall", "judge/hallucination/per_context", "judge/hallucination/share"
WORLD, METHOD, STRENGTH = "data.name", "method", "strength"
NONE = "none"
STRENGTHS = {
    "weight decay": "training.weight_decay",
    "label smoothing": "objective.label_smoothing",
    "replay": "objective.replay",
}
OUTSIDE_KEYS = ("method", "contexts", "share", "weight", "path")
OUTSIDE = {
    "unsupported": ("unsupported token", "objective.outside.share"),
    "unlikelihood": ("unlikelihood", "objective.outside.weight"),
    "hinge": ("hinge", "objective.outside.weight"),
}
KEYS = (*STRENGTHS.values(), "objective.replay_times", *(f"objective.outside.{part}" for part in OUTSIDE_KEYS))
EVEN, LESS, MORE = "not told from in proportion", "less than in proportion", "more than in proportion"
RISES, FLAT = "recall rises", "is not told from flat"
LEAST_REMOVED = 0.05  # a method that removes fewer hallucinations at every strength has no slope


@dataclass(frozen=True)
class Trade:
    """What one method does in one world, strength by strength, against the same seeds without it."""

    world: str
    method: str
    strengths: np.ndarray  # [K], increasing
    kept: np.ndarray  # [S, K], recall as a share of that without the method, by seed
    removed: np.ndarray  # [S, K], share of the hallucinations per context that are gone
    precision: np.ndarray  # [S, K], generalizations as a share of labelled artifacts
    precision_before: np.ndarray  # [S], that without the method


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return, for every world, recall kept and precision against hallucinations removed, one line per method.

    Points are strengths, means over seeds with 95 % Student t intervals in both directions. On the dashed diagonal
    generalizations go as hallucinations go, in proportion; the grey line is what no other point of any method beats.
    """
    trades = _trades(sweep, where)
    worlds, methods = _distinct([t.world for t in trades]), _distinct([t.method for t in trades])
    # Not the two that stand for generalization and hallucination everywhere.
    palette = [c for c in style.COLOURS if c not in (style.GENERALIZATION, style.HALLUCINATION)]
    colours = {method: palette[place % len(palette)] for place, method in enumerate(methods)}
    figure = style.new_figure(1.5 + 2.9 * len(worlds), 6.6)
    panels = figure.subplots(2, len(worlds), squeeze=False, sharex=True, sharey="row")
    for column, world in enumerate(worlds):
        upper, lower = panels[:, column]
        inside = [trade for trade in trades if trade.world == world]
        upper.plot([0, 1], [1, 0], color=style.GREY, linestyle="--", linewidth=1)
        _draw_frontier(upper, inside)
        for trade in inside:
            marker = style.MARKERS[methods.index(trade.method) % len(style.MARKERS)]
            draw_trade(upper, trade.removed, trade.kept, colours[trade.method], marker, start=1.0, most=np.inf)
            before = float(np.nanmean(trade.precision_before))
            draw_trade(lower, trade.removed, trade.precision, colours[trade.method], marker, start=before, most=1.0)
        lower.axhline(float(np.nanmean(inside[0].precision_before)), color=style.GREY, linestyle="--", linewidth=1)
        upper.set_title(world)
        lower.set_xlabel("share of hallucinations removed", color=style.HALLUCINATION)
    panels[0, 0].set_ylabel("share of recall kept", color=style.GENERALIZATION)
    panels[1, 0].set_ylabel("precision: generalizations\namong labelled artifacts")
    panels[0, 0].set_ylim(-0.05, 1.1 * max(1.1, *(float(trade.kept.mean(0).max()) for trade in trades)))
    panels[1, 0].set_ylim(0, 1.02)
    panels[0, 0].set_xlim(min(-0.1, *(float(trade.removed.mean(0).min()) - 0.03 for trade in trades)), 1.05)
    seeds = [len(trade.kept) for trade in trades]
    style.headline(figure, f"judge's half of the contexts; {what_is_drawn(seeds)}", where)
    handles = [
        style.line(method, colours[method], marker=style.MARKERS[place % len(style.MARKERS)])
        for place, method in enumerate(methods)
    ]
    handles.append(style.line("in proportion; as without any method", linestyle="--", linewidth=1))
    handles.append(style.line("best of all methods", colour=style.GREY, linewidth=4, alpha=0.35))
    style.legend_below(figure, handles)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return what each method costs in each world, and in how many of them this is in proportion.

    The slope is the share of recall lost per share of hallucinations removed, by least squares through the point
    without the method: 1 is in proportion, 0 costs nothing; an interval that holds 1 cannot be told from it.
    Hypervolume is the area that the points dominate, so that more strengths make more of it. Each is worked out seed by
    seed; means have 95 % Student t intervals over seeds, since a bootstrap of five seeds is too narrow.
    """
    sentences, answers, flat = [], [], []
    for trade in _trades(sweep, where):
        name = f"{trade.world}, {trade.method}"
        most = float(trade.removed.mean(0).max())
        if most < LEAST_REMOVED:
            answers.append("removes none")
            sentences.append(f"{name}: removes no hallucinations ({most:.0%} at most).")
            continue
        slope, tilt = student_t(slopes(trade.removed, 1 - trade.kept)), student_t(tilts(trade))
        volume = student_t(map(hypervolume, trade.removed, trade.kept))
        answers.append(_compared(slope))
        flat.append("rises" if tilt.above(0) else "falls" if tilt.below(0) else FLAT)
        sentences.append(
            f"{name}: up to {most:.0%} of the hallucinations removed; recall lost per hallucination removed {slope} "
            f"({answers[-1]}); precision {flat[-1]} ({tilt} for all removed); hypervolume {volume}."
        )
    told = (
        f"Of {len(answers)} pairs of world and method, recall falls by less than hallucinations in "
        f"{answers.count(LESS)}, by more in {answers.count(MORE)}, and rises in {answers.count(RISES)}; in "
        f"{answers.count(EVEN)} it cannot be told from in proportion, and {answers.count('removes none')} remove no "
        f"hallucinations. Precision rises in {flat.count('rises')}, falls in {flat.count('falls')} and cannot be told "
        f"from flat in {flat.count(FLAT)}."
    )
    return "\n".join([told, *sentences, "95 % Student t intervals over seeds."])


def _compared(slope: Interval) -> str:
    """Return how recall falls where hallucinations are removed; an interval that holds 1 is in proportion."""
    if slope.below(1):
        return RISES if slope.below(0) else LESS
    return MORE if slope.above(1) else EVEN


def hypervolume(removed: np.ndarray, kept: np.ndarray) -> float:
    """Return the area that points (removed, kept) and the point without a method, (0, 1), dominate in the unit square.

    Example: with (0.5, 0.8) it is 0.5 * 0.8 = 0.4 beside the start, whose own area is 0.
    """
    x, y = np.clip(removed, 0, 1), np.clip(kept, 0, 1)
    order = np.argsort(-x)
    best = np.maximum.accumulate(y[order])  # the most recall kept by any point that removes as much
    edges = np.append(x[order], 0.0)
    return float(((edges[:-1] - edges[1:]) * best).sum())


def _trades(sweep: Path | SweepFolder, where: Where | None) -> list[Trade]:
    """Return the trades of the finished runs of a sweep."""
    return trades_of(load_finished(sweep, where), sweep.name)


def trades_of(runs: pd.DataFrame, sweep: str) -> list[Trade]:
    """Return what every method does in every world, of the seeds that have a run at each of its strengths.

    `runs` are finished runs of the sweep of that name. Raises `ConfigError` where nothing can be compared.
    """
    if RECALL not in runs or not runs[RECALL].notna().any() or not runs[WRONG].notna().any():
        raise ConfigError(
            f"No run of the sweep '{sweep}' has held-out n-grams and labelled contexts: choose a world with both."
        )
    runs = _with_methods(runs)
    trades = []
    for values, world in split(runs, [WORLD]):
        require_one_by_one(world, [METHOD, STRENGTH, "seed"], KEYS)
        before = world[world[METHOD] == NONE].set_index("seed")
        before = before[(before[RECALL] > 0) & (before[WRONG] > 0)]
        for named, part in split(world[world[METHOD] != NONE], [METHOD]):
            recall, wrong, share = (
                part.pivot(index="seed", columns=STRENGTH, values=v) for v in (RECALL, WRONG, SHARE)
            )
            everywhere = recall.notna().all(axis=1) & wrong.notna().all(axis=1)
            seeds = before.index.intersection(recall.index[everywhere])
            if len(seeds) == 0:
                continue
            base = before.loc[seeds]
            trades.append(
                Trade(
                    world=str(values[WORLD]),
                    method=str(named[METHOD]),
                    strengths=recall.columns.to_numpy(float),
                    kept=recall.loc[seeds].div(base[RECALL], axis=0).to_numpy(float),
                    removed=1 - wrong.loc[seeds].div(base[WRONG], axis=0).to_numpy(float),
                    precision=1 - share.loc[seeds].to_numpy(float),
                    precision_before=1 - base[SHARE].to_numpy(float),
                )
            )
    if not trades:
        raise ConfigError(
            f"The sweep '{sweep}' has no method to compare with runs of the same seeds without any: sweep the "
            "strength of one, as experiment=tradeoff does."
        )
    return trades


def _with_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with the method of each and its strength; raises `ConfigError` for a run with several."""
    names, strengths = [], []
    for _, run in runs.iterrows():
        found = [(name, float(run[key])) for name, key in STRENGTHS.items() if run[key] > 0]
        outside = str(run["objective.outside.method"])
        if outside != NONE:
            name, key = OUTSIDE[outside]
            kind = str(run["objective.outside.contexts"])
            found.append((name if kind == "random" else f"{name}, {kind}", float(run[key])))
        if len(found) > 1:
            both = " and ".join(name for name, _ in found)
            raise ConfigError(f"Run {run['run_id']} has {both}: this figure compares methods one by one, use --where.")
        name, strength = found[0] if found else (NONE, 0.0)
        names.append(name)
        strengths.append(strength)
    named: dict[str, Any] = {METHOD: names, STRENGTH: strengths}
    return runs.assign(**named)


# ----------------------------------------------------------------------------------------------------------- statistics


def tilts(trade: Trade) -> np.ndarray:
    """Return each seed's change of precision per share of hallucinations removed, [S].

    At strengths that leave no artifact there is no precision, and they say nothing.
    """
    change = trade.precision - trade.precision_before[:, None]
    told = ~np.isnan(change)
    return slopes(np.where(told, trade.removed, 0.0), np.where(told, change, 0.0))


def slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the slope of each row's least squares line through the origin."""
    return np.asarray((x * y).sum(1) / (x * x).sum(1))


# -------------------------------------------------------------------------------------------------------------- drawing


def draw_trade(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str, *, start: float, most: float
) -> None:
    """Draw the means of a trade from its start, with bars in both directions.

    Bars end where no value lies beyond: not more than all hallucinations can be removed, and y is from 0 to `most`.
    """
    told = ~np.isnan(y).any(0)
    x, y = x[:, told], y[:, told]
    bars = [_bars(x, -np.inf, 1.0), _bars(y, 0.0, most)] if len(x) > 1 else [None, None]
    axes.plot([0, *x.mean(0)], [start, *y.mean(0)], color=colour, linewidth=1)
    axes.errorbar(
        x.mean(0), y.mean(0), xerr=bars[0], yerr=bars[1], fmt=marker, color=colour, markersize=4, elinewidth=0.7
    )


def _bars(values: np.ndarray, least: float, most: float) -> np.ndarray:
    """Return how far the intervals of means reach below and above them, [2, K]."""
    means = values.mean(0)
    half = half_width(values.std(0, ddof=1), np.full(values.shape[1], len(values)))
    # A mean may lie beyond its bound by rounding.
    low, high = np.maximum(means - half, least), np.minimum(means + half, most)
    return np.stack([means - low, high - means]).clip(min=0)


def _draw_frontier(axes: Axes, trades: list[Trade]) -> None:
    """Draw the points of all methods that no other point beats in both directions."""
    points = [(0.0, 1.0)]
    points += [point for trade in trades for point in zip(trade.removed.mean(0), trade.kept.mean(0), strict=True)]
    front = [p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)]
    x, y = zip(*sorted(front), strict=True)
    axes.plot(x, y, color=style.GREY, linewidth=4, alpha=0.35, zorder=0)


def _distinct(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
