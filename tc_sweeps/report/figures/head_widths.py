"""Facts stored against how a head's parameters are shared between query-key and value-output width.

The question and the rule for its verdict stand in conf/experiment/head_widths.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import HOW, LEAST_SEEDS, bootstrap, quotient_of_means
from tc_sweeps.report.frame import fully_fitted, listed, load_finished, split, swept_keys
from tc_sweeps.report.intervals import Interval, sum_up, what_is_drawn
from tc_sweeps.report.seeds import by_seed, draw_along, greatest, seeded_by_data, slopes
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "At an equal number of parameters, larger value-output and smaller query-key heads store more facts; the width of "
    "queries and keys plays the lesser role (the companion, arXiv 2502.05076)."
)
QK, VO, SHARE = "model.qk_width", "model.vo_width", "value-output share"
FACTS, RATIO, RATE = "train/above_threshold", "artifacts/per_ngram", "artifacts/unseen_confident_rate"
PARAMETERS = "model/non_embedding_parameters"
SHARE_STEP = 0.1  # of the share, per which its slope is told


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return facts stored and artifacts against the value-output share at equal parameters, and facts one at a time.

    A colour for each data set size (or other swept key). Points are means and bars 95 % Student t intervals over seeds;
    hollow ones are of runs that do not all fit their data. In the last panel one width varies and the other is held.
    """
    runs = _runs(sweep, where)
    figure = style.new_figure(8.4, 6.8)
    (facts, one), (ratio, rate) = figure.subplots(2, 2)
    entries, counts, hollow = [], [], False
    for place, (values, part) in enumerate(split(runs, _others(runs))):
        colour = style.COLOURS[place % len(style.COLOURS)]
        equal = _equal(part)
        for axes, metric in ((facts, FACTS), (ratio, RATIO), (rate, RATE)):
            if len(equal):
                counts += draw_along(axes, equal, SHARE, metric, colour=colour)
        for varied, held, marker, linestyle in ((QK, VO, "o", "--"), (VO, QK, "s", "-")):
            alone = _alone(part, varied, held)
            if len(alone):
                look: dict[str, Any] = {"marker": marker, "linestyle": linestyle}
                counts += draw_along(one, alone, varied, FACTS, colour=colour, **look)
        hollow |= not part["fitted"].all()
        entries.append(style.line(style.describe(values) or "trained models", colour))
    facts.set_ylabel("facts stored")
    one.set_ylabel("facts stored")
    ratio.set_ylabel("artifacts per training triple")
    rate.set_ylabel("share of unseen contexts\nwith an artifact")
    for axes in (facts, ratio, rate):
        axes.set_xlabel("value-output share of a head's width, vo / (qk + vo)")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
    rate.set_ylim(0, 1.02)
    facts.set_title("at equal parameters")
    one.set_title("one width at a time")
    one.set_ylim(bottom=0)
    one.set_xlabel("width of a head that varies")
    if one.lines:
        style.log_x(one, sorted({*one.lines[0].get_xdata(), *one.lines[-1].get_xdata()}))
        entries += [
            style.line(f"value-output width varies, {_held(runs, VO, QK)}", marker="s"),
            style.line(f"query-key width varies, {_held(runs, QK, VO)}", marker="o", linestyle="--"),
        ]
    thresholds = ", ".join(f"{value:g}" for value in sorted(runs["artifacts.threshold"].unique()))
    above = f"facts and artifacts: P > {thresholds}"
    style.headline(figure, "; ".join(filter(None, [what_is_drawn(counts), above])), where)
    style.legend_below(figure, [*entries, *([style.under_fitted()] if hollow else [])])
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return how facts stored go with the value-output share at equal parameters, and with each width alone."""
    runs = _runs(sweep, where)
    shares, turns, roles, sentences = [], [], [], []
    for values, part in split(runs, _others(runs)):
        name = style.describe(values) or "all runs"
        equal = by_seed(_equal(part), SHARE, FACTS)
        if equal.shape[1] > 1 and len(equal):
            slope, most = bootstrap(SHARE_STEP * slopes(equal)), bootstrap(greatest(equal))
            shares.append(_answer(slope))
            turn = ""
            if shares[-1] == "yes" and most.below(float(equal.columns[-1])):
                end = f"up to a share of {most} only"
                turn = f"; {end}, the mean of the shares beyond which a seed stores no more"
                turns.append(f"{end} for {name}" if values else end)
            sentences.append(f"{name}, {_parameters(part)} parameters: {_told(equal, slope)}{turn}.")
        both = [by_seed(_alone(part, *keys), keys[0], FACTS) for keys in ((QK, VO), (VO, QK))]
        seeds = both[0].index.intersection(both[1].index)
        if len(seeds) and min(table.shape[1] for table in both) > 1:
            qk, vo = (slopes(table.loc[seeds], np.log2) for table in both)
            more, of_qk = bootstrap(vo - qk), bootstrap(qk)
            roles.append(_answer(more))
            # As a part of what cannot be told from nothing a growth says nothing.
            ratio = f", {bootstrap(vo, qk, statistic=quotient_of_means)} times as much" if of_qk.above(0) else ""
            sentences.append(
                f"{name}, one width at a time: facts stored grow by {of_qk} per doubling of the query-key "
                f"width ({_held(part, QK, VO)}) and by {bootstrap(vo)} per doubling of the value-output width "
                f"({_held(part, VO, QK)}){ratio}; the difference is {more}."
            )
    lines = []
    if shares:
        line = sum_up(shares, "More facts are stored with a larger value-output share at equal parameters")
        if turns:
            line = f"{line.removesuffix('.')}{',' * (len(shares) > 1)} {listed(turns)}."
        lines.append(line)
    if roles:
        lines.append(sum_up(roles, "The query-key width plays the lesser role"))
    if not lines:
        raise ConfigError(
            f"No two runs of a seed of the sweep '{sweep.name}' share their parameters otherwise between "
            f"{QK} and {VO}: sweep both so that their sum is the same, as experiment=head_widths does."
        )
    end = (
        f"At the last evaluation; means over seeds with a {HOW}, and none is judged of fewer than {LEAST_SEEDS} seeds."
    )
    return "\n".join([*lines, *sentences, end])


def _told(equal: pd.DataFrame, slope: Interval) -> str:
    """Return in words how facts go with the share."""
    means, places = equal.to_numpy(float).mean(0), equal.columns.to_numpy(float)
    told = [f"{mean:.0f} at {place:g}" for mean, place in zip(means, places, strict=True)]
    return (
        f"facts stored change by {slope} per {SHARE_STEP:g} of the share, from {told[0]} to {told[-1]}, most are "
        f"{told[means.argmax()]}"
    )


def _answer(effect: Interval) -> str:
    if effect.seeds < LEAST_SEEDS:
        return "unsure"
    return "yes" if effect.above(0) else "no"


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    runs = seeded_by_data(load_finished(sweep, where, [QK, VO, FACTS, PARAMETERS, RATIO, RATE]))
    # In one piece, lest pandas warn of the columns that are added.
    runs = runs.astype({QK: float, VO: float, FACTS: float, PARAMETERS: float}).copy()
    return runs.assign(fitted=fully_fitted(runs), **{SHARE: (runs[VO] / (runs[QK] + runs[VO])).round(6)})


def _others(runs: pd.DataFrame) -> list[str]:
    return [key for key in swept_keys(runs) if key not in (QK, VO)]


def _equal(part: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of that number of parameters which is shared in most ways; none where each is in one way only."""
    return _most(part, PARAMETERS, SHARE)


def _alone(part: pd.DataFrame, varied: str, held: str) -> pd.DataFrame:
    """Return the runs with that value of `held` at which `varied` has most values; none where each has one only."""
    return _most(part, held, varied)


def _most(part: pd.DataFrame, same: str, varied: str) -> pd.DataFrame:
    ways = part.groupby(same)[varied].nunique()
    return part[part[same] == ways.idxmax()] if ways.max() > 1 else part.iloc[:0]


def _parameters(part: pd.DataFrame) -> str:
    return f"{_equal(part)[PARAMETERS].iloc[0]:,.0f}"


def _held(part: pd.DataFrame, varied: str, held: str) -> str:
    rows = _alone(part, varied, held)
    return f"the other is {rows[held].iloc[0]:g}" if len(rows) else ""
