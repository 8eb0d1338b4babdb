"""Student t intervals over seeds, and how a number and its interval are spelled."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LEVEL = 0.95

SHARES = [  # in [0, 1] by definition; hallucinations per context can be more than one at a threshold below 1/2
    *("train/accuracy", "test/accuracy", "artifacts/unseen_confident_rate", "artifacts/labelled_share"),
    *("generalization/recall", "generalization/attainable_recall", "hallucination/share", "abstention/rate"),
    *("judge/generalization/recall", "judge/hallucination/share", "judge/abstention/rate"),
    "right completions",  # of the unseen contexts, in the figure of rank_peak
]


class Interval(NamedTuple):
    """A mean over seeds with its 95 % Student t interval; `low` and `high` are NaN for fewer than two seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return spell(self.mean, self.low, self.high)

    def above(self, bound: float) -> bool:
        """Whether the whole interval lies above `bound`; never so without an interval."""
        return self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the whole interval lies below `bound`; never so without an interval."""
        return self.high < bound

    def within(self, least: float, most: float) -> Interval:
        """Return it with the interval ended at `least` and `most`, beyond which no value lies."""
        return self._replace(low=max(self.low, least), high=min(self.high, most))


def half_width(deviation: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return half the width of the 95 % Student t interval of a mean; NaN where there are fewer than two values.

    `deviation` is the sample standard deviation (n - 1 in the denominator) and `count` the number n of values:
    half width = t_{n-1, 0.975} * deviation / sqrt(n). For the values 1, 2, 3 it is 4.3027 * 1 / sqrt(3) = 2.484.
    """
    several = np.where(count >= 2, count, np.nan)
    return np.asarray(stdtrit(several - 1, (1 + LEVEL) / 2) * deviation / np.sqrt(several))


def student_t(values: Iterable[float]) -> Interval:
    """Return the mean of one value per seed with its 95 % Student t interval; undefined values (NaN) are left out."""
    numbers = np.asarray([value for value in values if not math.isnan(value)], dtype=float)
    if not len(numbers):
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(numbers.mean())
    with np.errstate(invalid="ignore"):  # infinite values have no deviation
        deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
    half = float(half_width(np.asarray(deviation), np.asarray(len(numbers))))
    return Interval(mean, mean - half, mean + half, len(numbers))


def welch(first: Iterable[float], second: Iterable[float]) -> Interval:
    """Return the difference of two means, second - first, of values that cannot be paired.

    The 95 % interval is Welch's, whose variances may differ; NaN where a side has fewer than two values, of which
    undefined ones are left out. `seeds` counts the values of both sides. Where both are constant the interval is the
    difference itself.
    """
    one, two = (np.asarray([value for value in side if not math.isnan(value)], dtype=float) for side in (first, second))
    if not len(one) or not len(two):
        return Interval(math.nan, math.nan, math.nan, 0)
    mean, seeds = float(two.mean() - one.mean()), len(one) + len(two)
    if len(one) < 2 or len(two) < 2:
        return Interval(mean, math.nan, math.nan, seeds)
    errors = [float(side.var(ddof=1)) / len(side) for side in (one, two)]
    if not sum(errors):
        return Interval(mean, mean, mean, seeds)
    shares = [error / sum(errors) for error in errors]  # quotients of the squares themselves may underflow
    freedom = 1 / (shares[0] ** 2 / (len(one) - 1) + shares[1] ** 2 / (len(two) - 1))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(sum(errors))
    return Interval(mean, mean - half, mean + half, seeds)


def judge(values: Iterable[Interval]) -> str:
    """Return whether all values are above 0 (yes), one is not (no), or the intervals leave it open (unsure)."""
    values = list(values)
    if all(value.above(0) or (value.seeds > 1 and value.low == value.mean > 0) for value in values):
        return "yes"
    return "no" if any(value.below(0) or value.mean == value.high == 0 for value in values) else "unsure"


def sum_up(answers: Sequence[str], what: str) -> str:
    """Return in how many of several settings something holds, given the answer of `judge` for each."""
    yes, no = answers.count("yes"), answers.count("no")
    if yes == len(answers):
        return f"{what}: holds in all {yes} settings." if yes > 1 else f"{what}: holds."
    if no == len(answers):
        return f"{what}: does not hold."
    if yes or no:
        return f"{what}: holds in {yes} of {len(answers)} settings and does not hold in {no}."
    return f"{what}: cannot be said from these runs."


def clipped(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `over_seeds` as it is drawn: no interval reaches beyond what the metric can be.

    Counts, ratios, losses and facts are not below 0, and shares lie within 0 and 1.
    """
    most = np.where(table["metric"].isin(SHARES), 1.0, np.inf)
    return table.assign(low=table["low"].clip(lower=0), high=table["high"].clip(upper=most))


def what_is_drawn(counts: Collection[int], where: str = "point") -> str:
    """Return what a point (or curve) of a figure is, given how many runs stand behind each; nothing for none."""
    few, many = min(counts, default=0), max(counts, default=0)
    if not many:
        return ""
    if many == 1:
        return f"1 run a {where}"
    runs = f"{many} runs" if few == many else f"{few} to {many} runs"
    return f"mean and 95 % Student t interval over seeds ({runs} a {where})"


def spell(mean: float, low: float, high: float) -> str:
    """Return `mean [low, high]`, or the mean alone where there is no interval.

    As many digits as two of the half width need, and at most four of the mean: 18.0234 +- 0.4111
    is 18.02 [17.61, 18.43].
    """
    if math.isnan(mean):
        return ""
    half = (high - low) / 2
    if math.isnan(half) or half <= 0:
        return plain(mean) if math.isnan(half) else f"{plain(mean)} [{plain(low)}, {plain(high)}]"
    if 0 < abs(mean) < 1e-3:
        return f"{mean:.1e} [{low:.1e}, {high:.1e}]"
    # More than four digits of the mean itself say nothing to a reader, however narrow the interval.
    most = 3 - math.floor(math.log10(abs(mean))) if mean else 4
    digits = max(0, min(1 - math.floor(math.log10(half)), most))
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def plain(value: float) -> str:
    """Return a number as a reader expects it: whole numbers whole, others with four significant digits."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else f"{value}"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"
