"""Generalization and hallucination on the kinship data: what training on a part of the facts makes of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import (
    last_evaluations,
    load_curves,
    load_finished,
    over_seeds,
    split,
    swept_keys,
    to_the_end,
    under_fitted,
)
from tc_sweeps.report.intervals import Interval, judge, student_t, sum_up, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Generalizations and hallucinations are both artifacts of the completion, which the model cannot tell apart: they "
    "appear together, and what changes the one may change the other (Sections 3 and 3.5)."
)

RECALL, SHARE, PER_CONTEXT = "generalization/recall", "hallucination/share", "hallucination/per_context"
NUMBER = "hallucination/count"
WRONG = {PER_CONTEXT: "hallucinations per context", NUMBER: "the number of hallucinations"}
ATTAINABLE = "generalization/attainable_recall"
FRACTION = "training fraction"


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return recall and hallucination over training, and one against the other.

    Colours are training fractions, so that only the names of the axes have those of generalization and hallucination.
    Where training ends the marker is hollow if a seed has not fitted its data fully. Line styles are the other swept
    keys (widths); lines are means and bands 95 % Student t intervals over seeds, of runs as in `to_the_end`; they are
    faint where some of these have no value. Thin horizontal lines are the recall that can be attained, where that is
    below 1.
    """
    curves = _curves(sweep, where)
    others = _others(curves)
    curves = to_the_end(curves, [FRACTION, *others])
    fractions = sorted(curves[FRACTION].unique())
    colours = dict(zip(fractions, style.shades(len(fractions)), strict=True))
    kinds = [values for values, _ in split(curves, others)]
    wrong = PER_CONTEXT if curves[PER_CONTEXT].notna().any() else SHARE
    figure = style.new_figure(12.5, 4.6)
    left, middle, right = figure.subplots(1, 3)
    counts, faint, unfit = [], False, False
    for values, part in split(curves, others):
        linestyle = style.LINES[kinds.index(values) % len(style.LINES)]
        marker = style.MARKERS[kinds.index(values) % len(style.MARKERS)]
        for fraction, runs in part.groupby(FRACTION):
            colour = colours[fraction]
            means = over_seeds(runs, ["step"], list(dict.fromkeys([RECALL, SHARE, wrong])))
            by_metric = {metric: rows.reset_index(drop=True) for metric, rows in means.groupby("metric")}
            counts += [rows["runs"].max() for rows in by_metric.values()]
            faint |= any(style.fewer(rows).any() for rows in by_metric.values())
            style.draw_band(left, by_metric[RECALL], "step", colour=colour, linestyle=linestyle)
            style.draw_band(middle, by_metric[SHARE], "step", colour=colour, linestyle=linestyle)
            x, y = by_metric[RECALL], by_metric[wrong]
            whole = ~(style.fewer(x) | style.fewer(y))
            path: Any = {"color": colour, "linestyle": linestyle, "marker": ".", "markersize": 3}
            style.draw_curve(right, x["mean"], y["mean"], whole, **path)
            hollow = bool(under_fitted(last_evaluations(runs)).any())
            unfit |= hollow
            right.plot(
                x["mean"].iloc[-1:],
                y["mean"].iloc[-1:],
                color=colour,
                marker=marker,
                markersize=7,
                markerfacecolor="white" if hollow else colour,
            )
    for fraction, runs in curves.groupby(FRACTION):
        attainable = runs[ATTAINABLE].mean()
        if attainable < 1:
            left.axhline(attainable, color=colours[fraction], linestyle=(0, (1, 3)), linewidth=1)
    per_context = "hallucinations per labelled unseen context"
    shares = "hallucinations as a share of labelled artifacts"
    left.set(xlabel="optimizer step", ylabel="recall of held-out facts", ylim=(0, 1), title="recall over training")
    middle.set(xlabel="optimizer step", ylabel=shares, ylim=(0, 1), title="hallucination share over training")
    right.set(
        xlabel="recall of held-out facts",
        ylabel=per_context if wrong == PER_CONTEXT else shares,
        xlim=(0, 1),
        ylim=(0, 1 if curves[wrong].max() <= 1 else None),
        title=f"hallucination {'rate per context' if wrong == PER_CONTEXT else 'share'} against recall",
    )
    for label in (left.yaxis.label, right.xaxis.label):
        label.set_color(style.GENERALIZATION)
    for label in (middle.yaxis.label, right.yaxis.label):
        label.set_color(style.HALLUCINATION)
    style.headline(
        figure, f"{what_is_drawn(counts, 'curve')}; on the right means alone, with a marker where training ends", where
    )
    handles = [style.line(f"trained on {fraction:.0%} of the contexts", colours[fraction]) for fraction in fractions]
    if others:
        handles += style.dashed_lines(style.describe(values) for values in kinds)
    if (curves[ATTAINABLE] < 1).any():
        handles.append(style.line("attainable recall", linestyle=(0, (1, 3)), linewidth=1))
    if faint:
        handles.append(style.fewer_entry())
    if unfit:
        handles.append(style.under_fitted())
    style.legend_below(figure, handles)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return recall and hallucination at the last evaluation per training fraction, and whether both grew together.

    Growing together is measured in each run as the correlation, over its evaluations, of recall with hallucinations per
    labelled unseen context (their number, where that is undefined in all runs). Not with their share of the labelled
    artifacts, which falls where recall grows.
    """
    curves = _curves(sweep, where)
    others = _others(curves)
    wrong = PER_CONTEXT if curves[PER_CONTEXT].notna().any() else NUMBER
    sentences, both, together = [], [], []
    for values, part in split(curves, [FRACTION, *others]):
        fraction = values.pop(FRACTION)
        last = last_evaluations(part)
        at_end = {metric: student_t(last[metric]) for metric in (RECALL, SHARE)}
        growth = _mean_correlation([_correlation(run, wrong) for _, run in part.groupby("run_id")])
        name = ", ".join(filter(None, [f"trained on {fraction:.0%}", style.describe(values)]))
        unfit = int(under_fitted(last).sum())
        of_runs = f" ({unfit} of {len(last)} runs under-fitted)" if unfit else ""
        sentences.append(
            f"{name}{of_runs}: recall {_told(at_end[RECALL])}, hallucination share {_told(at_end[SHARE])}, "
            f"correlation of recall with {WRONG[wrong]} over training {_told(growth)}."
        )
        both.append(judge([at_end[RECALL], at_end[SHARE]]))
        together.append(judge([growth]))
    end = (
        "At the last evaluation; 95 % Student t intervals over seeds. The hallucination share is of the artifacts in "
        "all contexts: where a run is under-fitted, those in seen ones (artifacts/seen) are among them."
    )
    return "\n".join(
        [
            sum_up(both, "Both generalizations and hallucinations are there at the end"),
            sum_up(together, "They grow together over training"),
            *sentences,
            end,
        ]
    )


def _curves(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    finished = load_finished(sweep, where)
    curves = load_curves(sweep, where=where)
    curves = curves[curves["run_id"].isin(finished["run_id"])]
    if "data.held_out_fraction" not in curves or not curves[RECALL].notna().any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has held-out facts: set data.held_out_fraction to more than 0."
        )
    held = curves[curves["data.held_out_fraction"] > 0]
    return held.assign(**{FRACTION: (1 - held["data.held_out_fraction"].astype(float)).round(6)})


def _others(curves: pd.DataFrame) -> list[str]:
    return [key for key in swept_keys(curves) if key not in ("data.held_out_fraction", "data.num_sentences")]


def _correlation(run: pd.DataFrame, wrong: str) -> float:
    pairs = run[[RECALL, wrong]].dropna().to_numpy(float)
    if len(pairs) < 3 or (pairs.std(axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(pairs.T)[0, 1])


def _mean_correlation(correlations: Sequence[float]) -> Interval:
    """Return the mean correlation and its interval, both by way of Fisher's z, so that they lie within -1 and 1."""
    nearly_one = 1 - 1e-12
    z = student_t(np.arctanh(np.clip(correlations, -nearly_one, nearly_one)))
    mean, low, high = np.tanh([z.mean, z.low, z.high]).tolist()
    return Interval(mean, low, high, z.seeds)


def _told(value: Interval) -> str:
    if value.seeds == 0:
        return "undefined"
    return str(value) if value.seeds > 1 else f"{value} (one seed)"
