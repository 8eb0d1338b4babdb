"""Claim (a): do models have fewer artifacts the more they overfit? Four ways to, each with all else equal.

The question, its unit, test and rule stand at the head of conf/experiment/claim_a.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import Finding, bootstrap, concluded, draw_effects, find, once, told
from tc_sweeps.report.frame import find_sweep, load_curves, load_finished, load_survival, over_seeds
from tc_sweeps.report.intervals import what_is_drawn
from tc_sweeps.report.overfitting import EXCESS, Way, draw_way, matched_ways, told_left_out, ways
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = "Overfitting leads to fewer artifacts (Sections 3.2 and 4.3a)."

THRESHOLDS = (0.5, 0.9)
MATCHED = 0.1  # nats per sentence of excess loss
LEAST = -0.02  # of log(artifacts) per doubling: a fall by 2 %
RATE = "artifacts/unseen_confident_rate"
_LEAST_COUNT = 0.5  # no artifact is half of one: its logarithm is finite


class _Step(NamedTuple):
    """One finding: the way it is of, by what name, the colour of its threshold (None: of no threshold)."""

    way: Way
    name: str
    colour: Any
    matched: bool  # at matched fit
    finding: Finding


class _Judged(NamedTuple):
    """What a sweep came to: its findings, and sentences on what does not count."""

    steps: list[_Step]
    left_out: list[str]


def findings(sweep: Path | SweepFolder, where: Where | None = None) -> list[Finding]:
    """Return how the number of artifacts changes along each way to overfit, at both thresholds.

    The last evaluations of fully fitted runs decide (over time, all since they are); artifacts at matched fit and the
    share of confident unseen contexts stand beside them.
    """
    return [step.finding for step in _judged(sweep, where).steps]


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return artifacts, confident unseen contexts and excess loss along each way to overfit, and the effects below.

    Points and bands are means over the seeds that count with 95 % Student t intervals; the effects are slopes of the
    logarithm of the number of artifacts, with 95 % bootstrap intervals.
    """
    steps = _judged(sweep, where).steps
    along = {step.name: step.way for step in steps if not step.matched}
    at_fit = {step.name: step.way for step in steps if step.matched}
    figure = style.new_figure(max(6.4, 1.2 + 2.5 * len(along)), 10.4)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.1, 1])
    grid = parts[0, 0].subplots(3, len(along), squeeze=False, sharey="row", sharex="col", height_ratios=[2, 1, 1])
    counts = []
    for column, (name, way) in enumerate(along.items()):
        top, middle, bottom = grid[:, column]
        for threshold, colour in _colours().items():
            counts += draw_way(top, way, _ratio(threshold), colour)
            if name in at_fit:
                draw_way(top, at_fit[name], _ratio(threshold), colour, hollow=True)
        draw_way(middle, way, RATE, style.COLOURS[2])
        draw_way(bottom, way, EXCESS, "black")
        top.set_title(name)
        for axes in (top, middle):
            axes.set_xlabel("")
        ceiling = way.counted.assign(
            ceiling=lambda rows: (
                rows["corpus/ceiling_at_perfect_fit"].astype(float) / rows["corpus/train_ngrams"].astype(float)
            )
        )
        style.draw_ceiling(top, over_seeds(ceiling, ["level"], ["ceiling"]), "level", colour=style.GREY)
    for axes in (*grid[0], *grid[2]):
        style.log_y(axes)
    grid[0, 0].set_ylabel("artifacts per training n-gram")
    grid[1, 0].set_ylabel("confident share of\nunseen contexts")
    grid[2, 0].set_ylabel("excess loss\n(nats per sentence)")
    shown = [
        (f"{step.name}{', matched fit' if step.matched else ''}", step.finding, step.colour, step.matched)
        for step in steps
        if step.colour is not None
    ]
    axes = parts[1, 0].subplots()
    draw_effects(axes, shown, least=LEAST)
    axes.set_xlabel("slope of log(artifacts) per doubling (decay: halving), mean and 95 % bootstrap interval")
    style.headline(figure, f"fully fitted runs; {what_is_drawn(counts)}", where)
    entries = [style.line(f"P > {tau:g}", colour, marker="o") for tau, colour in _colours().items()]
    entries.append(style.line(f"at an excess loss of {MATCHED:g}", marker="o", markerfacecolor="white", linestyle=":"))
    entries.append(style.ceiling_entry("ceiling at perfect fit"))
    entries.append(style.line("a change by less than 2 % per doubling", linewidth=6, alpha=0.3))
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether the claim holds, each finding, and what does not count."""
    sweep = find_sweep(sweep)
    every = findings(sweep, where)
    return "\n".join([told(every, concluded(every), sweep, where), *_judged(sweep, where).left_out])


@once
def _judged(folder: SweepFolder, where: Where | None) -> _Judged:
    evaluations = _evaluations(folder, where)
    at_excess = matched_ways(evaluations, MATCHED, [_log(tau) for tau in THRESHOLDS])
    matched = {(way.world, way.name): way for way in at_excess}
    for way in matched.values():
        for tau in THRESHOLDS:
            way.rows[_ratio(tau)] = np.exp(way.rows[_log(tau)])

    def slope(way: Way, column: str, part: str, question: str, *, of: str = "artifacts", decides: bool) -> Finding:
        return find(
            part,
            bootstrap(way.slopes(column)),
            question=question,
            test=f"slope of log({of}) per {way.knob.per} by least squares, seed by seed",
            unit=f"log per {way.knob.step}",
            least=LEAST,
            decides=decides,
        )

    steps: list[_Step] = []
    along = ways(evaluations)
    several = evaluations["data.name"].nunique() > 1
    for way in along:
        name = f"{way.world}, {way.name}" if several else way.name
        for tau, colour in _colours().items():
            question = f"Do fully fitted models have fewer artifacts with P > {tau:g}, {way.knob.more}?"
            finding = slope(way, _log(tau), f"{name}, P > {tau:g}", question, decides=True)
            steps.append(_Step(way, name, colour, False, finding))
        part, of = f"{name}, confident share", "confident share"
        question = f"Is a smaller share of the unseen contexts confident (P > .5), {way.knob.more}?"
        finding = slope(way, "log/rate", part, question, of=of, decides=False)
        steps.append(_Step(way, name, None, False, finding))
        if (way.world, way.name) not in matched:
            continue
        at_fit = matched[way.world, way.name]
        for tau, colour in _colours().items():
            part = f"{name}, P > {tau:g}, matched fit"
            question = f"And with P > {tau:g} where the excess loss first is {MATCHED:g} nats per sentence?"
            finding = slope(at_fit, _log(tau), part, question, decides=False)
            steps.append(_Step(at_fit, name, colour, True, finding))
    if not steps:
        raise ConfigError(f"The sweep '{folder.path.name}' turns no knob of claim (a): see experiment=claim_a.")
    return _Judged(steps, told_left_out(along, evaluations))


def _evaluations(sweep: SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return the evaluations of the finished runs with artifacts per n-gram at each threshold, and logarithms."""
    finished = load_finished(sweep, where, ["corpus/contexts", "corpus/train_ngrams", RATE, EXCESS])
    survival = load_survival(sweep, THRESHOLDS, where=where, over_training=True)
    if survival.empty:
        raise ConfigError(f"No run of the sweep '{sweep.name}' has a survival curve: claim (a) cannot be judged.")
    curves = load_curves(sweep, where=where)
    curves = curves[curves["run_id"].isin(finished["run_id"])]
    ngrams = curves["corpus/train_ngrams"].astype(float)
    for tau in THRESHOLDS:
        at = survival[np.isclose(survival["threshold"], tau)][["run_id", "step", "count"]]
        counts = curves[["run_id", "step"]].merge(at, on=["run_id", "step"], how="left")["count"].to_numpy(float)
        curves = curves.assign(
            **{_ratio(tau): counts / ngrams, _log(tau): np.log(np.maximum(counts, _LEAST_COUNT) / ngrams)}
        )
    unseen = curves["corpus/contexts"].astype(float) - ngrams  # of functional data; only a floor under the logarithm
    return curves.assign(**{"log/rate": np.log(np.maximum(curves[RATE], _LEAST_COUNT / unseen))})


def _ratio(threshold: float) -> str:
    return f"ratio/{threshold:g}"


def _log(threshold: float) -> str:
    return f"log/{threshold:g}"


def _colours() -> dict[float, Any]:
    return dict(zip(THRESHOLDS, style.shades(len(THRESHOLDS)), strict=True))
