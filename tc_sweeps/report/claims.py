"""What the paper's four claims (its section 4.3) are judged by: effects with bootstrap intervals, and verdicts.

A claim is tested by one experiment, whose file states the question before any data. Its figure's module has
`findings(sweep, where)`: one `Finding` per part of the question.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike
from scipy import stats

from tc_sweeps.report import style
from tc_sweeps.report.frame import counted, find_sweep, listed, unfinished
from tc_sweeps.report.intervals import LEVEL, Interval, spell
from tc_sweeps.report.where import Where, spell_where
from tc_sweeps.store.sweep_folder import SweepFolder

HOLDS, FAILS, OPPOSITE, OPEN = "holds", "does not hold", "the opposite holds", "cannot be said"
LEAST_SEEDS = 10  # units; a bootstrap of fewer has intervals that are too narrow
RESAMPLES = 9_999
HOW = "95 % bootstrap interval (BCa)"


@dataclass(frozen=True)
class Finding:
    """What one part of a claim's question came to; `decides`: whether the verdict on the claim rests on it."""

    part: str
    question: str
    test: str
    effect: float
    low: float
    high: float
    unit: str
    seeds: int  # units behind the effect: seeds, or data seeds
    verdict: str
    decides: bool = True
    over: str = "seed"  # what a unit is called

    @property
    def interval(self) -> str:
        """The effect and its interval, as one reads them."""
        return spell(self.effect, self.low, self.high) or "-"

    @property
    def units(self) -> str:
        """What is behind the effect: `1 seed`, `20 seeds`."""
        return counted(self.seeds, self.over)

    def __str__(self) -> str:
        return f"{self.part}: {self.verdict}, {self.interval} {self.unit} ({self.units})"


def find(
    part: str,
    effect: Interval,
    *,
    question: str,
    test: str,
    unit: str,
    least: float,
    decides: bool = True,
    verdict: str | None = None,
    over: str = "seed",
) -> Finding:
    """Return the finding of a part: `verdict`, or that of `judged(effect, least)`."""
    return Finding(
        part=part,
        question=question,
        test=f"{test}; {HOW}",
        effect=effect.mean,
        low=effect.low,
        high=effect.high,
        unit=unit,
        seeds=effect.seeds,
        verdict=verdict or judged(effect, least),
        decides=decides,
        over=over,
    )


Answer = TypeVar("Answer")


def once(
    judge: Callable[[SweepFolder, Where | None], Answer],
) -> Callable[[Path | SweepFolder, Where | None], Answer]:
    """Return a function of a sweep and a filter that judges each `SweepFolder` at hand once.

    What is drawn, said and written of a sweep in one command are then of the same runs, read once.
    """
    answers: WeakKeyDictionary[SweepFolder, dict[str, Answer]] = WeakKeyDictionary()

    @wraps(judge)
    def judged_once(sweep: Path | SweepFolder, where: Where | None) -> Answer:
        folder = find_sweep(sweep)
        known = answers.setdefault(folder, {})
        if (chosen := spell_where(where)) not in known:
            known[chosen] = judge(folder, where)
        return known[chosen]

    return judged_once


# ----------------------------------------------------------------------------------------------------------- statistics


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return means along an axis; undefined values (NaN) are left out."""
    return np.asarray(np.nanmean(values, axis=axis))


def quotient_of_means(part: np.ndarray, whole: np.ndarray, axis: int) -> np.ndarray:
    """Return the quotient of two means along an axis."""
    return np.asarray(mean(part, axis) / mean(whole, axis))


def bootstrap(
    *samples: ArrayLike, statistic: Callable[..., np.ndarray] = mean, units_of: ArrayLike | None = None
) -> Interval:
    """Return a statistic of one value per unit (or several: paired samples) with its 95 % bootstrap interval.

    `statistic` takes the samples and their axis. Units are resampled 9,999 times, always alike; the interval is BCa
    (Efron 1987), or that of percentiles where BCa is undefined, as for equal values. There is none for fewer than two
    units; an undefined value (NaN) is left out. Where values belong together, `units_of` says which unit each is of: a
    unit is then drawn with all its values, and the statistic must pass over the NaN that short ones are filled up with.
    """
    values = [np.asarray(sample, dtype=float) for sample in samples]
    told = np.all([np.isfinite(value) for value in values], axis=0)
    values = [value[told] for value in values]
    if not told.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    effect = float(statistic(*values, axis=-1))
    tables = [value[:, None] for value in values]  # a row per unit
    if units_of is not None:
        owner = pd.Series(np.asarray(units_of)[told])
        places = pd.MultiIndex.from_arrays([owner, owner.groupby(owner).cumcount()])
        tables = [pd.Series(value, places).unstack().to_numpy() for value in values]
    units, most = tables[0].shape

    def of_units(chosen: np.ndarray, axis: int) -> np.ndarray:
        drawn = [table[chosen].reshape(*chosen.shape[:-1], -1) for table in tables]
        return statistic(*drawn, axis=axis)

    if units < 2:
        return Interval(effect, math.nan, math.nan, units)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of samples that are degenerate
        found = stats.bootstrap(
            (np.arange(units),),
            of_units,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // (units * most)),
            vectorized=True,
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = map(float, found.confidence_interval)
    if math.isnan(low) or math.isnan(high):
        return percentiles(effect, found.bootstrap_distribution, units)
    return Interval(effect, low, high, units)


def percentiles(effect: float, resampled: np.ndarray, units: int) -> Interval:
    """Return an effect with the middle 95 % of what it is when units are resampled."""
    low, high = np.nanpercentile(resampled, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]).tolist()
    return Interval(effect, low, high, units)


def judged(effect: Interval, least: float) -> str:
    """Return what an effect says of a claim; `least` is the smallest effect that counts, with the claim's sign.

    holds: the interval lies on the claim's side of 0 and the effect is `least` or more. does not hold: the interval
    excludes `least`; where it lies on the other side of 0, with an effect as large, the opposite holds. Cannot be said:
    otherwise, and of fewer than 10 units.
    """
    if effect.seeds < LEAST_SEEDS or math.isnan(effect.low):
        return OPEN
    if least < 0:
        effect, least = Interval(-effect.mean, -effect.high, -effect.low, effect.seeds), -least
    if effect.low > 0 and effect.mean >= least:
        return HOLDS
    if effect.high < 0 and effect.mean <= -least:
        return OPPOSITE
    return FAILS if effect.high < least else OPEN


def concluded(findings: Iterable[Finding]) -> str:
    """Return the verdict on a whole claim: what the parts that decide it agree in, or on what it depends."""
    by_verdict: dict[str, list[str]] = {}
    for finding in findings:
        if finding.decides:
            by_verdict.setdefault(finding.verdict, []).append(finding.part)
    told = {verdict: by_verdict[verdict] for verdict in (HOLDS, FAILS, OPPOSITE, OPEN) if verdict in by_verdict}
    if not told:
        return f"{OPEN.capitalize()}."
    if len(told) == 1:
        [verdict] = told
        return f"{verdict.capitalize()}."
    parts = "; ".join(f"{verdict} for {listed(parts)}" for verdict, parts in told.items())
    if HOLDS in told:
        return f"Depends: {parts}."
    return f"{'Does not hold' if FAILS in told or OPPOSITE in told else OPEN.capitalize()}: {parts}."


def told(findings: Sequence[Finding], conclusion: str, sweep: SweepFolder, where: Where | None) -> str:
    """Return the verdict on a claim, in the first line, and its findings, a line each.

    Where some of the sweep's runs may still finish it is the verdict so far.
    """
    if unfinished(sweep, where):
        conclusion = f"So far: {conclusion[0].lower()}{conclusion[1:]}"
    lines = [conclusion, *(f"{finding}." for finding in findings)]
    return "\n".join([*lines, f"Effects with their {HOW}; the rule stands in the experiment's file."])


# -------------------------------------------------------------------------------------------------------------- drawing


def deciding_entries() -> list[Line2D]:
    """Return the legend's entries for effects that decide a claim and those that stand beside it."""
    return [
        style.line("decides the claim", "black", marker="o"),
        style.line("stands beside it", "black", marker="o", markerfacecolor="white"),
    ]


def draw_effects(axes: Axes, rows: Sequence[tuple[str, Finding, Any, bool]], *, least: float | None = None) -> None:
    """Draw effects with their intervals as a column of points, from above: label, finding, colour, whether hollow.

    The band around 0 are effects smaller than `least`, which do not count.
    """
    axes.axvline(0, color="black", linewidth=0.8)
    if least is not None:
        axes.axvspan(-abs(least), abs(least), color=style.GREY, alpha=0.15, linewidth=0)
    for place, (_, finding, colour, hollow) in enumerate(rows):
        if math.isnan(finding.effect):
            continue
        if not math.isnan(finding.low):
            axes.plot([finding.low, finding.high], [place, place], color=colour, linewidth=1.2)
        face = "white" if hollow else colour
        axes.plot(finding.effect, place, marker="o", color=colour, markerfacecolor=face, linestyle="none")
    axes.set_yticks(range(len(rows)), [f"{label} ({finding.seeds})" for label, finding, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
