"""The paper's Figure 3: artifacts of models of different sizes on one data set, at several thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import fully_fitted, load_finished, load_survival, over_seeds, split, swept_keys
from tc_sweeps.report.intervals import Interval, student_t, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "On one data set, models with fewer non-embedding parameters have more artifacts; even with many parameters there "
    "are more than 10 times as many as training triples (Section 2.1, Figure 3)."
)
BOUND = 10
FLAT = 0.1  # a change over all sizes by less than this share of the mean is none worth the name
TURN = 0.25  # a way back by less than this share of the way there is no turn worth the name
THRESHOLDS = [0.1, 0.3, 0.5, 0.7, 0.9]

SIZE = "model/non_embedding_parameters"


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return artifacts per distinct training triple against non-embedding parameters, a curve per threshold.

    One column per objective (and per data set, where there are several); below, how well the same runs fit their
    triples. Bars are 95 % Student t intervals over seeds; hollow points are sizes that a seed did not fully fit. The
    dashed line is the ceiling, for the thresholds of 1/2 and more, of a model that gives every training triple.
    """
    runs, survival = _load(sweep, where)
    shape, columns = _keys(runs)
    panels = split(runs, columns)
    figure = style.new_figure(max(6.4, 0.8 + 4.0 * len(panels)), 7.6)
    grid = figure.subplots(3, len(panels), sharex="col", sharey="row", squeeze=False, height_ratios=[3, 1, 1])
    colours = dict(zip(THRESHOLDS, style.shades(len(THRESHOLDS)), strict=True))
    counts, drawn, has_ceiling = [], [], False
    for place, (values, part) in enumerate(panels):
        top, middle, bottom = grid[:, place]
        here = survival[survival["run_id"].isin(part["run_id"])]
        style.log_x(bottom, part[SIZE].tolist())
        for threshold, colour in colours.items():
            at = here[np.isclose(here["threshold"], threshold)]
            if len(at):
                drawn.append(threshold)
                means = over_seeds(at, [*shape, SIZE, "fitted"], ["ratio"])
                counts += means["runs"].tolist()
                style.draw_means(top, means, SIZE, colour=colour, hollow=(~means["fitted"]).tolist())
        top.axhline(BOUND, color="black", linestyle=":", linewidth=1)
        if (part["artifacts.threshold"] >= 0.5).all():
            ceiling = part["corpus/ceiling_at_perfect_fit"].astype(float) / part["corpus/train_ngrams"].astype(float)
            style.draw_ceiling(
                top, over_seeds(part.assign(ceiling=ceiling), [SIZE], ["ceiling"]), SIZE, colour=style.GREY
            )
            has_ceiling = True
        for axes, metric in ((middle, "train/accuracy"), (bottom, "train/excess_loss")):
            means = over_seeds(part, [*shape, SIZE, "fitted"], [metric])
            style.draw_means(axes, means, SIZE, colour="black", hollow=(~means["fitted"]).tolist())
        middle.axhline(part["corpus/fully_fitted_accuracy"].mean(), color=style.GREY, linestyle="-.", linewidth=1)
        top.set_ylim(bottom=0)
        top.set_title(style.describe(values))
        bottom.set_xlabel("non-embedding parameters")
    # A loss at rounding error of its floor, or one that hardly changes, has no place on a logarithm.
    if 0 < 3 * runs["train/excess_loss"].min() < runs["train/excess_loss"].max():
        grid[2, 0].set_yscale("log")
    grid[0, 0].set_ylabel("artifacts per training triple")
    grid[1, 0].set_ylabel("accuracy on\ntraining triples")
    grid[2, 0].set_ylabel("excess loss\n(nats per sentence)")
    style.headline(figure, what_is_drawn(counts), where)
    entries = [style.line(f"P > {tau:g}", colour, marker="o") for tau, colour in colours.items() if tau in drawn]
    entries.append(style.line(f"{BOUND} per triple", "black", linestyle=":", linewidth=1))
    if has_ceiling:  # at lower thresholds a context can have several artifacts, and the ceiling is another
        least = runs["artifacts.threshold"].min()
        entries.append(style.ceiling_entry(f"ceiling at perfect fit, P > {least:g}"))
    entries.append(style.line("fully fitted from here up", linestyle="-.", linewidth=1))
    if not runs["fitted"].all():
        entries.append(style.under_fitted())
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return, per objective and threshold, the trend of the ratio with size and whether it stays above 10.

    Only sizes that every seed fully fitted count. A ratio falls or rises where its rank correlation with the size, one
    per seed, stands out from 0; one that falls and rises again does neither, and the claim does not hold of it.
    """
    runs, survival = _load(sweep, where)
    shape, columns = _keys(runs)
    sentences, answers = [], []
    for values, part in split(runs, columns):
        fitted = part[part["fitted"]]
        left_out = [_size_name(size, shape, part) for size in sorted(part.loc[~part["fitted"], SIZE].unique())]
        name = style.describe(values) or "all runs"
        without = f" Left out as not fully fitted: {', '.join(left_out)}." if left_out else ""
        if fitted[SIZE].nunique() < 2:
            sentences.append(f"{name}: fewer than two sizes are fully fitted, so there is no trend to tell.{without}")
            answers.append("unsure")
            continue
        told = []
        for threshold in THRESHOLDS:
            at = survival[np.isclose(survival["threshold"], threshold) & survival["run_id"].isin(fitted["run_id"])]
            if at.empty:
                continue
            trend, answer = _trend(at)
            above, stays = _stays_above(over_seeds(at, [*shape, SIZE], ["ratio"]))
            told.append(f"at P > {threshold:g} it {trend}, {above}")
            if answer in ("rises", "turns", "flat") or stays == "no":
                answers.append("fails")
            else:
                answers.append("holds" if (answer, stays) == ("falls", "yes") else "unsure")
        sizes = f"{fitted[SIZE].min():,} to {fitted[SIZE].max():,} parameters"
        sentences.append(f"{name}, {sizes}: {'; '.join(told)}.{without}")
    start = {
        frozenset(["holds"]): "Holds at every threshold.",
        frozenset(["fails"]): "Does not hold at any threshold.",
    }.get(frozenset(answers))
    if start is None:
        held, failed = answers.count("holds"), answers.count("fails")
        start = (
            f"Holds in {held} and does not hold in {failed} of {len(answers)} combinations of objective and threshold."
            if held or failed
            else "Cannot be said from these runs."
        )
    end = (
        "Trends are judged by the rank correlation of ratio and size within a seed; a curve turns where both of its "
        f"legs stand out from the noise and the shorter is at least {TURN:g} of the longer. 95 % Student t intervals "
        "over seeds."
    )
    return "\n".join([start, *sentences, end])


def _load(sweep: Path | SweepFolder, where: Where | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the finished runs and their survival curves; `fitted` says whether every seed of that size fits."""
    runs = load_finished(sweep, where).assign(run_fits=lambda frame: fully_fitted(frame))
    survival = load_survival(sweep, THRESHOLDS, where=where)
    if survival.empty:
        raise ConfigError(f"No run of the sweep '{sweep.name}' has a survival curve: Figure 3 cannot be drawn.")
    shape, columns = _keys(runs)
    runs["fitted"] = runs.groupby([*columns, *shape, SIZE], dropna=False)["run_fits"].transform("all")
    return runs, survival.merge(runs[["run_id", "fitted"]], on="run_id")


def _keys(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the swept keys that shape the model, and those that need a column of panels of their own."""
    swept = swept_keys(runs)
    shape = [key for key in swept if key.startswith("model.")]
    others = [key for key in swept if key not in shape and key != "objective.positions"]
    # A key that goes along with the size (a learning rate chosen per width) is no second axis.
    groups = runs.groupby([SIZE, *shape], dropna=False)
    columns = [key for key in others if (groups[key].nunique(dropna=False) > 1).any()]
    return shape, ["objective.positions", *columns]


def _size_name(size: float, shape: list[str], part: pd.DataFrame) -> str:
    here = part[part[SIZE] == size]
    known = style.describe({key: here[key].iloc[0] for key in shape})
    unfit = f"{int((~here['run_fits']).sum())} of {len(here)} runs"
    return f"{known or f'{size:,.0f} parameters'} ({unfit})"


def _trend(at: pd.DataFrame) -> tuple[str, str]:
    """Return the trend in words, and whether it `falls`, `rises`, `turns`, is `flat` or is `unsure`."""
    means = at.groupby(SIZE)["ratio"].mean()
    # A seed that lacks a size would have a trend of other sizes than the rest.
    whole = at.pivot_table(index="seed", columns=SIZE, values="ratio").dropna()
    first, last = means.index[0], means.index[-1]
    steps = np.diff(means)
    crooked = "" if (steps <= 0).all() or (steps >= 0).all() else ", not at every step"
    ends = f"from {means[first]:.3g} to {means[last]:.3g}"
    if len(whole) < 2:
        direction = "falls" if means[last] < means[first] else "rises"
        return f"{direction} {ends}{crooked} (too few seeds for an interval)", "unsure"
    if turn := _turn(whole):
        return turn, "turns"
    correlation = student_t(_rank_correlation(seed) for _, seed in whole.iterrows()).within(-1, 1)
    told = f"(rank correlation {correlation}{crooked})"
    if correlation.below(0) or correlation.above(0):
        word = "falls" if correlation.below(0) else "rises"
        return f"{word} {ends} {told}", word
    change = student_t(whole[last] - whole[first])
    if max(-change.low, change.high) < FLAT * means.mean():
        return f"is flat, {ends} {told}", "flat"
    return f"has no trend that stands out from the noise, {ends} {told}", "unsure"


def _rank_correlation(ratios: pd.Series[float]) -> float:
    """Return Spearman's rank correlation of one seed's ratios with its sizes; 0 where all ratios are equal."""
    ranks = ratios.rank().to_numpy()
    return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) if ranks.std() else 0.0


def _turn(ratios: pd.DataFrame) -> str:
    """Return in words where curves that fall and rise again, or the other way round, turn; nothing where they do not.

    `ratios` has a row per seed and a column per size. Both legs must stand out from the noise, seed by seed.
    """
    values, means = ratios.to_numpy(), ratios.to_numpy().mean(0)
    for place, sign, words in (
        (int(means.argmin()), 1, ("U-shaped", "falls", "rises")),
        (int(means.argmax()), -1, ("an inverted U", "rises", "falls")),
    ):
        shorter, longer = sorted(student_t(sign * (values[:, end] - values[:, place])) for end in (0, -1))
        if shorter.above(0) and longer.above(0) and shorter.mean >= TURN * longer.mean:
            shape, there, back = words
            return (
                f"is {shape}: {there} from {means[0]:.3g} to {means[place]:.3g} at {ratios.columns[place]:,} "
                f"parameters and {back} to {means[-1]:.3g}"
            )
    return ""


def _stays_above(means: pd.DataFrame) -> tuple[str, str]:
    """Return in words whether every mean is above 10, and `yes`, `no` or `unsure`."""
    rows = [Interval(row["mean"], row["low"], row["high"], row["runs"]) for row in means.to_dict("records")]
    least = min(rows)
    if any(row.below(BOUND) for row in rows):
        return (
            f"and is below {BOUND} at {sum(row.below(BOUND) for row in rows)} of {len(rows)} sizes (least {least})",
            "no",
        )
    if all(row.above(BOUND) for row in rows):
        return f"always above {BOUND} (least {least})", "yes"
    return f"and whether it stays above {BOUND} cannot be said (least {least})", "unsure"
