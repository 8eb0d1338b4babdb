"""Claim (b): does the generalization error rise with overfitting, and is it the lack of artifacts that makes it rise?

Where every unseen context is held out and has one right answer, a held-out context at P > .5 has the right artifact, a
wrong one, or none: error = 1 - recall = silent + wrong. The question, its unit, test and rule stand at the head of
conf/experiment/claim_b.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import (
    FAILS,
    HOLDS,
    OPEN,
    OPPOSITE,
    Finding,
    bootstrap,
    concluded,
    draw_effects,
    find,
    judged,
    once,
    quotient_of_means,
    told,
)
from tc_sweeps.report.frame import find_sweep, load_curves, load_finished
from tc_sweeps.report.intervals import Interval, spell, what_is_drawn
from tc_sweeps.report.overfitting import Way, draw_way, told_left_out, ways
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = "Generalization error increases when overfitting, due to the lack of artifacts (Sections 3.3 and 4.3b)."

LEAST = 0.01  # of the error, a share of the held-out contexts, per doubling
RECALL, WRONG = "generalization/recall", "hallucination/per_context"
ERROR, SILENT = "error/all", "error/silent"
PARTS = {ERROR: ("error", "black"), SILENT: ("silent", style.GREY), WRONG: ("wrong", style.HALLUCINATION)}


class _Effect(NamedTuple):
    """What one way in one world came to."""

    way: Way
    findings: dict[str, Finding]  # by the part of the error; the verdict on the claim stands with the whole


class _Judged(NamedTuple):
    """What a sweep came to, way by way, and sentences on what does not count."""

    effects: list[_Effect]
    left_out: list[str]


def findings(sweep: Path | SweepFolder, where: Where | None = None) -> list[Finding]:
    """Return along each way to overfit how the error changes, and how its two parts do.

    The verdict on the claim stands with the whole error: whether it rises, and mostly by silence.
    """
    return [finding for one in _judged(sweep, where).effects for finding in one.findings.values()]


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the error and its two parts along each way to overfit, a row of panels per world, and their slopes below.

    Points and bands are means over the seeds that count with 95 % Student t intervals; the slopes have 95 % bootstrap
    intervals.
    """
    found = _judged(sweep, where).effects
    worlds = list(dict.fromkeys(one.way.world for one in found))
    columns = max(sum(one.way.world == world for one in found) for world in worlds)
    figure = style.new_figure(max(6.4, 1.2 + 2.6 * columns), 2.2 + 2.6 * len(worlds) + 0.62 * len(found))
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.6 * len(worlds), 0.6 + 0.62 * len(found)])
    grid = parts[0, 0].subplots(len(worlds), columns, squeeze=False, sharey=True)
    counts: list[int] = []
    for row, world in enumerate(worlds):
        inside = [one for one in found if one.way.world == world]
        for axes in grid[row, len(inside) :]:
            axes.set_axis_off()
        for axes, one in zip(grid[row], inside, strict=False):
            for column, (_, colour) in PARTS.items():
                counts += draw_way(axes, one.way, column, colour)
            axes.set_title(f"{world}: {one.way.name}")
        grid[row, 0].set_ylabel("share of held-out contexts")
    grid[0, 0].set_ylim(0, 1.02)
    rows = [
        (f"{one.way.world}, {one.way.name}: {PARTS[column][0]}", finding, PARTS[column][1], False)
        for one in found
        for column, finding in one.findings.items()
    ]
    axes = parts[1, 0].subplots()
    draw_effects(axes, rows, least=LEAST)
    axes.set_xlabel("slope per doubling (decay: halving), mean and 95 % bootstrap interval")
    style.headline(figure, f"fully fitted runs, P > .5; {what_is_drawn(counts)}", where)
    names = {ERROR: "error: 1 - recall", SILENT: "silent: no artifact", WRONG: "wrong: a hallucination"}
    entries = [style.line(names[column], colour, marker="o") for column, (_, colour) in PARTS.items()]
    entries.append(style.line("an error that rises by less than 1 point", linewidth=6, alpha=0.3))
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether the claim holds, each finding, and what does not count."""
    sweep = find_sweep(sweep)
    every = findings(sweep, where)
    return "\n".join([told(every, concluded(every), sweep, where), *_judged(sweep, where).left_out])


@once
def _judged(folder: SweepFolder, where: Where | None) -> _Judged:
    evaluations, found = _evaluations(folder, where), []
    for way in ways(evaluations):
        slopes = {column: way.slopes(column) for column in PARTS}
        effects = {column: bootstrap(values) for column, values in slopes.items()}
        more_silent = bootstrap(slopes[SILENT] - slopes[WRONG])
        rises = judged(effects[ERROR], LEAST)
        name, unit = f"{way.world}, {way.name}", f"per {way.knob.step}"
        explained = ""
        if rises == HOLDS:
            share = bootstrap(slopes[SILENT], slopes[ERROR], statistic=quotient_of_means)
            explained = f", {spell(100 * share.mean, 100 * share.low, 100 * share.high)} % of it silent"
        test = f"slope of the share of held-out contexts per {way.knob.per} by least squares, seed by seed"
        about = {
            ERROR: f"Does the error 1 - recall rise, {way.knob.more}, and more by silence than by wrong artifacts?",
            SILENT: "Its first part: does the share of held-out contexts without any artifact rise?",
            WRONG: "Its second part: does the share of held-out contexts with a wrong artifact rise?",
        }
        answers = {}
        for column, (part, _) in PARTS.items():
            whole = column == ERROR
            answers[column] = find(
                name if whole else f"{name}: {part}",
                effects[column],
                question=about[column],
                test=f"{test}; then the silent slope less the wrong one" if whole else test,
                unit=f"{unit}{explained}" if whole else unit,
                least=LEAST,
                verdict=because_of_silence(rises, more_silent) if whole else None,
                decides=whole,
            )
        found.append(_Effect(way, answers))
    if not found:
        raise ConfigError(f"The sweep '{folder.name}' turns no knob of claim (b): see experiment=claim_b.")
    return _Judged(found, told_left_out([one.way for one in found], evaluations))


def because_of_silence(rises: str, more_silent: Interval) -> str:
    """Return the verdict on a rise of the error: whether it is there and mostly silence.

    `more_silent` is the silent slope less the wrong one.
    """
    if rises in (FAILS, OPPOSITE):
        return FAILS
    if rises == HOLDS and more_silent.above(0):
        return HOLDS
    return FAILS if rises == HOLDS and more_silent.below(0) else OPEN


def _evaluations(sweep: SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return the evaluations of the finished runs with the error and its silent part.

    Raises `ConfigError` where these are no decomposition: a context outside the data that is not held out, or a
    threshold below 1/2.
    """
    needed = ["corpus/contexts", "corpus/train_ngrams", "corpus/held_out_ngrams", RECALL, WRONG]
    finished = load_finished(sweep, where, needed)
    curves = load_curves(sweep, where=where)
    curves = curves[curves["run_id"].isin(finished["run_id"])]
    unseen = curves["corpus/contexts"].astype(float) - curves["corpus/train_ngrams"].astype(float)
    exact = (curves["corpus/held_out_ngrams"].astype(float) == unseen) & (curves["artifacts.threshold"] >= 0.5)
    if not exact.all():
        raise ConfigError(
            f"Not every context outside the data is held out in the sweep '{sweep.name}' (or its threshold is below "
            "1/2), so that its error has more parts than silence and hallucination: see experiment=claim_b."
        )
    error = 1 - curves[RECALL]
    return curves.assign(**{ERROR: error, SILENT: error - curves[WRONG]})
