"""Claim (c): is the generalization error low where the test data hardly raise the effective rank of the training data?

The question, its unit, test and rule stand at the head of conf/experiment/claim_c.yaml. In short: D are the training
and T the held-out data; over data sets, Spearman's correlation of R(D + T) / R(D) with the test error, in all worlds
and in each; and whether the ratio is smaller with the true T than with its answers shuffled, or drawn at random. Data
sets of one data.seed share contexts and answers, so that intervals are over these seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import (
    FAILS,
    HOLDS,
    LEAST_SEEDS,
    OPEN,
    OPPOSITE,
    Finding,
    bootstrap,
    deciding_entries,
    draw_effects,
    find,
    once,
    told,
)
from tc_sweeps.report.frame import (
    config_keys,
    counted,
    find_sweep,
    fully_fitted,
    listed,
    load_finished,
    over_seeds,
    split,
    swept_keys,
)
from tc_sweeps.report.intervals import Interval
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Generalization error will be low when the effective rank of training and testing data is close to the effective "
    "rank of training data alone (Sections 3.3 and 4.3c)."
)

ALONE = "rank/effective"
EXTENDED = {  # what the held-out contexts are answered with
    "true": "rank/effective_with_test",
    "shuffled": "rank/effective_with_shuffled",
    "random": "rank/effective_with_random",
}
ERROR, RATIO, RISE = "error/test", "ratio/true", "rise/true"
LEAST = 0.3  # of Spearman's correlation
LEARNABLE = "learnable"  # whether a world has something to learn
OVERALL = "all worlds"
UNIT = "data.seed"
CORRELATION = "correlation"


class _Data(NamedTuple):
    """The data sets of a sweep, one row each, what was found, and sentences on those that were left out."""

    sets: pd.DataFrame
    findings: list[Finding]
    left_out: list[str]


def findings(sweep: Path | SweepFolder, where: Where | None = None) -> list[Finding]:
    """Return the correlation of rank ratio and test error, in all worlds and in each, and the two controls."""
    return _judged(sweep, where).findings


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the test error of every data set against its rank ratio, a panel per world, and ratios with other answers.

    Below stand the effects with their 95 % bootstrap intervals over the seeds of the data; ratios by answer are means
    with 95 % Student t intervals over them.
    """
    found = _judged(sweep, where)
    worlds = split(found.sets, ["data.name"])
    figure = style.new_figure(max(7.2, 1.0 + 3.1 * (len(worlds) + 1)), 4.6 + 0.3 * len(found.findings))
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.6, 1 + 0.3 * len(found.findings)])
    panels = parts[0, 0].subplots(1, len(worlds) + 1)
    for axes, (values, sets) in zip(panels, worlds, strict=False):
        _draw_world(axes, sets)
        axes.set_title(str(values["data.name"]))
        axes.set_ylim(-0.02, 1.02)
    panels[0].set_ylabel("test error: 1 - accuracy on held-out n-grams")
    _draw_answers(panels[-1], worlds)
    axes = parts[1, 0].subplots()
    draw_effects(axes, [(finding.part, finding, "black", not finding.decides) for finding in found.findings])
    axes.set_xlabel(
        "correlation, or difference of ratios; 95 % bootstrap interval over seeds of the data (their number)"
    )
    style.headline(figure, f"{len(found.sets)} data sets that their model fully fits", where)
    style.legend_below(figure, deciding_entries())
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether the claim holds, each finding, and how many data sets do not count."""
    sweep = find_sweep(sweep)
    found = _judged(sweep, where)
    return "\n".join([told(found.findings, conclusion(found.findings), sweep, where), *found.left_out])


def conclusion(found: Sequence[Finding]) -> str:
    """Return the verdict on the claim: it fails where the correlation over all worlds is not above 0.

    It holds where all its parts do, and else depends: on the world, on what is called close, on how strong it is.
    """
    deciding = [finding for finding in found if finding.decides]
    overall = deciding[0]
    if overall.verdict != OPEN and not overall.low > 0:
        return f"{FAILS.capitalize()}."
    if overall.verdict == OPEN or all(finding.verdict == HOLDS for finding in deciding):
        return f"{overall.verdict.capitalize()}."
    said = [finding for finding in deciding if finding.verdict != OPEN]
    above = [finding for finding in said if finding.unit == CORRELATION and finding.low > 0]
    not_above = [finding.part for finding in said if finding.unit == CORRELATION and finding not in above]
    no_closer = [finding.part for finding in said if finding.unit != CORRELATION and not finding.low > 0]
    weak = [finding.part for finding in above if finding.effect < LEAST]
    unsaid = [finding.part for finding in deciding if finding not in said]
    reasons = []
    if not_above:
        worlds = [finding.part for finding in above if finding is not overall] or ["none"]
        reasons.append(f"on the world (above 0 for {listed(worlds)}, not for {listed(not_above)})")
    if no_closer:
        reasons.append(f"on what is called close (no closer than {listed(no_closer)})")
    if weak:
        reasons.append(f"on how strong it must be (below {LEAST:g} for {listed(weak)})")
    if unsaid:
        reasons.append(f"{OPEN} for {listed(unsaid)}")
    return f"Depends: {'; '.join(reasons)}."


# ------------------------------------------------------------------------------------------------------------- judging


def spearman(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """Return Spearman's rank correlation along an axis; NaN where one side is constant. Pairs of NaN are left out."""
    x_ranks, y_ranks = (stats.rankdata(side, axis=axis, nan_policy="omit") for side in (x, y))
    x_ranks, y_ranks = (side - np.nanmean(side, axis=axis, keepdims=True) for side in (x_ranks, y_ranks))
    scale = np.sqrt(np.nansum(x_ranks**2, axis=axis) * np.nansum(y_ranks**2, axis=axis))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(x_ranks * y_ranks, axis=axis) / scale)


def correlated(effect: Interval) -> str:
    """Return what a correlation says: it holds from .3 on with an interval above 0, and fails otherwise."""
    if effect.seeds < LEAST_SEEDS or not np.isfinite(effect.low):
        return OPEN
    if effect.above(0) and effect.mean >= LEAST:
        return HOLDS
    return OPPOSITE if effect.below(0) else FAILS


def closer(effect: Interval) -> str:
    """Return what a difference to the true ratio says: it holds where the interval lies above 0."""
    if effect.seeds < LEAST_SEEDS or not np.isfinite(effect.low):
        return OPEN
    return HOLDS if effect.above(0) else OPPOSITE if effect.below(0) else FAILS


@once
def _judged(folder: SweepFolder, where: Where | None) -> _Data:
    sets, left_out = _sets(folder, where)
    found = []
    test = "Spearman's rank correlation of R(D + T) / R(D) with the test error, over data sets"
    for name, part in [(OVERALL, sets), *((str(v["data.name"]), part) for v, part in split(sets, ["data.name"]))]:
        effect = bootstrap(part[RATIO], part[ERROR], statistic=spearman, units_of=part[UNIT])
        found.append(
            find(
                name,
                effect,
                question=f"Is the test error the lower, the closer R(D + T) is to R(D) ({name})?",
                test=test,
                unit=CORRELATION,
                least=LEAST,
                verdict=correlated(effect),
                over="data seed",
            )
        )
    learnable = sets[sets[LEARNABLE]]
    for answers in ("shuffled", "random"):
        effect = bootstrap(learnable[f"ratio/{answers}"] - learnable[RATIO], units_of=learnable[UNIT])
        found.append(
            find(
                f"{answers} answers",
                effect,
                question=f"Is R(D + T) / R(D) greater with {answers} answers to the held-out contexts?",
                test="difference to the ratio with the true answers, paired, where there is something to learn; mean",
                unit="above the true ratio",
                least=0.0,
                verdict=closer(effect),
                over="data seed",
            )
        )
    effect = bootstrap(sets[RISE], sets[ERROR], statistic=spearman, units_of=sets[UNIT])
    found.append(
        find(
            f"{OVERALL}, by difference",
            effect,
            question="The same of the difference R(D + T) - R(D), in all worlds?",
            test=test.replace("R(D + T) / R(D)", "R(D + T) - R(D)"),
            unit=CORRELATION,
            least=LEAST,
            verdict=correlated(effect),
            over="data seed",
            decides=False,
        )
    )
    return _Data(sets, found, left_out)


def _sets(sweep: SweepFolder, where: Where | None) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per data set, means over its runs, and sentences on the data sets that are left out."""
    runs = load_finished(sweep, where)
    needed = [ALONE, *EXTENDED.values(), "test/accuracy"]
    known = runs[needed].notna().all(axis=1) if set(needed) <= set(runs) else pd.Series(False, index=runs.index)
    if not known.any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has effective ranks and held-out n-grams: set rank.effective=true in "
            "a world that has a truth, as experiment=claim_c does."
        )
    keys = [name for name in config_keys(runs) if name.startswith("data.")]
    every = len(runs.drop_duplicates(keys))
    runs = runs[known].assign(fits=fully_fitted(runs[known]))
    runs[LEARNABLE] = ~_is_random_function(runs)
    runs[ERROR] = 1 - runs["test/accuracy"]
    for answers, column in EXTENDED.items():
        runs[f"ratio/{answers}"] = runs[column].astype(float) / runs[ALONE].astype(float)
    runs[RISE] = runs[EXTENDED["true"]].astype(float) - runs[ALONE].astype(float)
    values = [ERROR, RISE, *(f"ratio/{answers}" for answers in EXTENDED)]
    groups: Any = runs[runs["fits"]].groupby([*keys, LEARNABLE], dropna=False)
    sets = groups[values].mean().reset_index()
    of_known = len(runs.drop_duplicates(keys))
    left_out = [
        f"Left out {why}: {counted(count, 'data set')}."
        for why, count in (
            ("as not fully fitted", of_known - len(sets)),
            ("without effective ranks or a test accuracy", every - of_known),
        )
        if count
    ]
    if sets.empty:
        raise ConfigError(f"No model of the sweep '{sweep.name}' fully fits its data: raise training.steps.")
    return sets, left_out


def _is_random_function(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return whether each token is a hidden class of its own, so that training says nothing of other contexts."""
    if "data.classes" not in runs:
        return pd.Series(False, index=runs.index)
    classes = runs["data.classes"].astype(float)
    return (runs["data.name"] == "latent") & (classes == runs["data.vocab_size"].astype(float))


# ------------------------------------------------------------------------------------------------------------- drawing


def _draw_world(axes: Axes, sets: pd.DataFrame) -> None:
    """Draw the data sets of one world, in shades of what they were made with."""
    keys = [key for key in swept_keys(sets.assign(seed=0)) if key not in ("data.seed", "data.num_sentences")]
    groups = split(sets, keys)
    for (values, part), colour in zip(groups, style.shades(len(groups)), strict=True):
        label = style.describe({key: value for key, value in values.items() if value or key != "data.noise"})
        axes.plot(part[RATIO], part[ERROR], "o", color=colour, alpha=0.5, markersize=3.5, label=label or None)
    axes.set_xlabel("R(D + T) / R(D)")
    if keys:
        axes.legend(fontsize=7, loc="best")


def _draw_answers(axes: Axes, worlds: Sequence[tuple[dict[str, Any], pd.DataFrame]]) -> None:
    """Draw the mean ratio by what the held-out contexts are answered with, a line per world."""
    for (values, sets), colour in zip(worlds, style.COLOURS, strict=False):
        learnable = sets[sets[LEARNABLE]]
        if learnable.empty:
            continue
        columns = [f"ratio/{answers}" for answers in EXTENDED]
        by_seed = learnable.groupby(UNIT)[columns].mean()
        means = over_seeds(by_seed, [], columns).assign(place=range(len(columns)))
        style.draw_means(axes, means, "place", colour=colour)
        axes.plot([], [], "o-", color=colour, label=str(values["data.name"]))
    axes.set_xticks(range(len(EXTENDED)), list(EXTENDED))
    axes.set_xlabel("answers of T")
    axes.set_ylabel("R(D + T) / R(D), mean")
    axes.set_title("where there is something to learn")
    axes.legend(fontsize=7, loc="best")
