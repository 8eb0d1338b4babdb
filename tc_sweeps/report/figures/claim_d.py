"""Claim (d): does an 'unsupported' token, taught on some contexts outside the data, mitigate hallucinations elsewhere?

All is measured in the judge's half of the contexts, on which nothing is taught. The question, its unit, test and rule
stand at the head of conf/experiment/claim_d.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import (
    Finding,
    bootstrap,
    concluded,
    deciding_entries,
    draw_effects,
    find,
    judged,
    once,
    told,
)
from tc_sweeps.report.figures.tradeoff import RECALL, SHARE, WRONG, Trade, draw_trade, slopes, tilts, trades_of
from tc_sweeps.report.frame import find_sweep, fully_fitted, load_finished, over_seeds, split
from tc_sweeps.report.intervals import Interval, what_is_drawn
from tc_sweeps.report.overfitting import Knob, Way, counts, told_left_out
from tc_sweeps.report.seeds import require_one_by_one
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Augmenting training data with 'unsupported' tokens on sentences outside the training data can help to mitigate "
    "hallucinations (Sections 3.4 and 4.3d)."
)

METHOD, TAUGHT = "objective.outside.method", "objective.outside.share"
DOSES = (0.1, 1.0)  # the shares at which mitigation is judged
LEAST_REMOVED = 0.05  # of the hallucinations
LEAST_SPARED = 0.1  # recall lost per hallucination removed, below in proportion
LEAST_PRECISION = 0.02  # for all hallucinations removed
PRECISION = "judge/precision"
TOKEN = Knob("unsupported token", TAUGHT, "the share taught", 1, "the more contexts are taught")


class _World(NamedTuple):
    """One world: its runs that count, and what the token does there."""

    runs: pd.DataFrame
    trade: Trade


class _Judged(NamedTuple):
    """What a sweep came to: the worlds with runs that count, findings, and sentences on what does not count."""

    worlds: list[_World]
    findings: list[Finding]
    left_out: list[str]


def findings(sweep: Path | SweepFolder, where: Where | None = None) -> list[Finding]:
    """Return, world by world, the share of hallucinations removed, and what it costs in recall and precision."""
    return _judged(sweep, where).findings


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return hallucinations, recall and precision against the share taught, recall kept against hallucinations removed.

    A column of panels per world, and the effects below. Points are means over the seeds that count with 95 % Student t
    intervals; the effects have 95 % bootstrap intervals.
    """
    worlds, every, _ = _judged(sweep, where)
    figure = style.new_figure(max(6.4, 1.4 + 3.0 * len(worlds)), 9.4 + 0.25 * len(every))
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[8, 1 + 0.25 * len(every)])
    grid = parts[0, 0].subplots(3, len(worlds), squeeze=False, sharey="row")
    counted: list[int] = []
    for column, world in enumerate(worlds):
        top, middle, bottom = grid[:, column]
        for metric, colour in ((WRONG, style.HALLUCINATION), (RECALL, style.GENERALIZATION)):
            counted += _draw_taught(top, world.runs, metric, colour)
        _draw_taught(middle, world.runs, PRECISION, "black")
        bottom.plot([0, 1], [1, 0], color=style.GREY, linestyle="--", linewidth=1)
        draw_trade(bottom, world.trade.removed, world.trade.kept, "black", "o", start=1.0, most=np.inf)
        bottom.set_xlabel("share of hallucinations removed", color=style.HALLUCINATION)
        top.set_title(world.trade.world)
    grid[0, 0].set_ylabel("share of held-out n-grams,\nnumber per labelled unseen context")
    grid[1, 0].set_ylabel("precision: generalizations\namong labelled artifacts")
    grid[2, 0].set_ylabel("share of recall kept", color=style.GENERALIZATION)
    for axes in grid[:2, 0]:
        axes.set_ylim(0, 1.02)
    axes = parts[1, 0].subplots()
    draw_effects(axes, [(finding.part, finding, "black", not finding.decides) for finding in every])
    axes.set_xlabel("effect, mean and 95 % bootstrap interval; what each is stands in the verdict")
    style.headline(figure, f"fully fitted runs, judge's half of the contexts; {what_is_drawn(counted)}", where)
    style.legend_below(
        figure,
        [
            style.line("hallucinations per labelled unseen context", style.HALLUCINATION, marker="o"),
            style.line("recall of held-out n-grams", style.GENERALIZATION, marker="o"),
            style.line("in proportion", linestyle="--", linewidth=1),
            *deciding_entries(),
        ],
    )
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether the claim holds, each finding, and what does not count."""
    sweep = find_sweep(sweep)
    _, every, left_out = _judged(sweep, where)
    return "\n".join([told(every, concluded(every), sweep, where), *left_out])


@once
def _judged(folder: SweepFolder, where: Where | None) -> _Judged:
    finished = load_finished(folder, where, [METHOD, TAUGHT, SHARE])
    level = finished[TAUGHT].astype(float).where(finished[METHOD] == "unsupported", 0.0)
    finished = finished.assign(level=level, fits=fully_fitted(finished), **{PRECISION: 1 - finished[SHARE]})
    ways = []
    for values, part in split(finished[finished[METHOD].isin(["none", "unsupported"])], ["data.name"]):
        require_one_by_one(part, ["level", "seed"], [METHOD, TAUGHT])
        ways.append(Way(str(values["data.name"]), TOKEN.name, TOKEN, part.assign(counted=counts(part))))
    runs = pd.concat([way.counted for way in ways]) if ways else finished.iloc[:0]
    if runs.empty:
        raise ConfigError(
            f"The sweep '{folder.name}' has no seeds fully fitted with and without the unsupported token: see "
            "experiment=claim_d."
        )
    trades = {trade.world: trade for trade in trades_of(runs, folder.name)}
    found = []
    for way in ways:
        trade = trades.get(way.world)
        removed = dict(zip(trade.strengths, trade.removed.T, strict=True)) if trade else {}
        # A share that was tried and does not count, in some world, is an open part of the claim.
        tried = [share for share in DOSES if (way.rows["level"] == share).any()]
        found += [_mitigated(way.world, share, bootstrap(removed.get(share, []))) for share in tried]
        found += _selective(trade) if trade else []
    worlds = [_World(runs[runs["data.name"] == world], trade) for world, trade in trades.items()]
    return _Judged(worlds, found, told_left_out(ways, finished))


def _mitigated(world: str, share: float, removed: Interval) -> Finding:
    return find(
        f"{world}, share {share:g}",
        removed,
        question=f"Are there fewer hallucinations where {share:g} of the contexts outside the data are taught?",
        test="share of the hallucinations that the same seed has without the token, which are gone",
        unit="removed",
        least=LEAST_REMOVED,
    )


def _selective(trade: Trade) -> list[Finding]:
    cost, tilt = bootstrap(slopes(trade.removed, 1 - trade.kept)), bootstrap(tilts(trade))
    spared = Interval(1 - cost.mean, 1 - cost.high, 1 - cost.low, cost.seeds)
    return [
        find(
            f"{trade.world}, recall lost",
            cost,
            question="Is it selective: is less recall lost than in proportion to the hallucinations removed?",
            test="share of recall lost per share of hallucinations removed, least squares line through none; against 1",
            unit="lost per removed",
            least=LEAST_SPARED,
            verdict=judged(spared, LEAST_SPARED),
            decides=False,
        ),
        find(
            f"{trade.world}, precision",
            tilt,
            question="Is it selective: do the artifacts that are left have a higher precision?",
            test="change of precision per share of hallucinations removed, least squares line through none",
            unit="per all removed",
            least=LEAST_PRECISION,
            decides=False,
        ),
    ]


def _draw_taught(axes: Axes, runs: pd.DataFrame, metric: str, colour: str) -> list[int]:
    """Draw a metric's means against the share taught, no token at the left; return the runs behind each point."""
    shares = sorted(set(runs["level"]) - {0.0})
    none = shares[0] / 3
    means = over_seeds(runs.assign(place=runs["level"].where(runs["level"] > 0, none)), ["place"], [metric])
    style.draw_means(axes, means, "place", colour=colour)
    axes.set_xscale("log")
    axes.set_xticks([none, *shares], ["none", *(f"{share:g}" for share in shares)])
    axes.minorticks_off()
    axes.set_xlabel("share of contexts taught as unsupported")
    return [int(count) for count in means["runs"]]
