"""Recommendation: what completions of low rank say users would like, right and wrong, against the rank."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import load_finished, over_seeds, split, swept_keys
from tc_sweeps.report.intervals import judge, student_t, sum_up, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "The point of completing a matrix of ratings at a low rank is to produce new artifacts, and recommendations are "
    "hallucinations in all but name: 'recommendation is hallucination' (Section 3.1)."
)

SIZE, MODEL = "rank or width", "model.name"
SIZES = {"cp": "rank", "transformer": "width"}
NAMES = {"cp": "CP tensor", "transformer": "transformer"}
RECALL, PRECISION = "generalization/recall", "precision"
RIGHT, WRONG = "right per user", "wrong per user"
FOUND, CHANCE = "likes in the data above the threshold", "precision by chance"
MARK: Any = {"linestyle": (0, (1, 3)), "linewidth": 1}


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the likes that are found, precision, and recommendations per user, against rank and width.

    Recommended are the artifacts: items above the threshold that are not among a user's likes in the data. Points are
    means and bars 95 % Student t intervals over seeds; lines and markers are the models and other swept keys. The
    precision of items drawn by chance, and the rank of the ratings where they have one, are dotted.
    """
    runs = _runs(sweep, where)
    kinds = split(runs, _others(runs))
    figure = style.new_figure(12.5, 4.6)
    left, middle, right = figure.subplots(1, 3, sharex=True)
    counts: list[int] = []
    for place, (_, part) in enumerate(kinds):
        linestyle, marker = style.LINES[place % len(style.LINES)], style.MARKERS[place % len(style.MARKERS)]
        for axes, metric, colour in (
            (left, FOUND, style.GREY),
            (left, RECALL, style.GENERALIZATION),
            (middle, PRECISION, style.COLOURS[-1]),
            (right, RIGHT, style.GENERALIZATION),
            (right, WRONG, style.HALLUCINATION),
        ):
            means = over_seeds(part, [SIZE], [metric]).dropna(subset="mean")
            if axes is not right:
                means = means.assign(high=means["high"].clip(upper=1))
            counts += means["runs"].tolist()
            style.draw_means(axes, means, SIZE, colour=colour, linestyle=linestyle, marker=marker)
    for axes in (left, middle, right):
        style.log_x(axes, runs[SIZE].tolist())
        axes.set_xlabel(" or ".join(f"{SIZES[name]} of the {NAMES[name]}" for name in sorted(runs[MODEL].unique())))
        if runs["data.rank"].nunique() == 1:
            axes.axvline(runs["data.rank"].iloc[0], color=style.GREY, **MARK)
    middle.axhline(runs[CHANCE].mean(), color=style.GREY, **MARK)
    left.set(ylim=(0, 1.02), ylabel="share above the threshold", title="likes that are found")
    middle.set(ylim=(0, 1.02), ylabel="precision", title="held-out likes among recommendations")
    right.set(ylabel="recommendations per user", title="right and wrong recommendations")
    right.set_ylim(bottom=0)
    style.headline(figure, what_is_drawn(counts), where)
    entries = [
        style.line("held-out likes: generalizations", style.GENERALIZATION),
        style.line("not liked: hallucinations", style.HALLUCINATION),
        style.line("likes in the data"),
        style.line("precision", style.COLOURS[-1]),
        style.line("rank of the ratings; precision by chance", **MARK),
    ]
    if len(kinds) > 1:
        entries += style.dashed_lines(_describe(values) for values, _ in kinds)
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether right recommendations come without wrong ones, and both where most held-out likes are found.

    Each model's largest size, which fits the data best, is set against the size that finds most, seed by seed.
    """
    runs = _runs(sweep, where)
    together, fewer, sentences = [], [], []
    for values, part in split(runs, _others(runs)):
        by_size = {size: part[part[SIZE] == size] for size in sorted(part[SIZE].unique())}
        recall = {size: student_t(group[RECALL]) for size, group in by_size.items()}
        together += [judge([student_t(by_size[size][WRONG])]) for size in recall if judge([recall[size]]) == "yes"]
        best, largest = max(recall, key=lambda size: recall[size].mean), max(recall)
        sentences += [_told(values, by_size[size], size) for size in dict.fromkeys([best, largest])]
        if best < largest:
            most, least = (_recommended(by_size[size]) for size in (best, largest))
            fewer.append(judge([student_t(most - least)]))
    lines = [
        sum_up(together, "Wherever held-out likes are recommended, so is what is not liked")
        if together
        else "Held-out likes are recommended: cannot be said from these runs, at any rank or width."
    ]
    if fewer:
        lines.append(sum_up(fewer, "The largest rank or width recommends less than the one that finds most"))
    chance = student_t(runs[CHANCE])
    return "\n".join(
        [*lines, *sentences, f"By chance precision is {chance.mean:.2g}. 95 % Student t intervals over seeds."]
    )


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return the finished runs on ratings with held-out likes, and what is drawn of them."""
    runs = load_finished(sweep, where)
    if "data.likes" not in runs or not (runs["data.likes"].notna() & runs[RECALL].notna()).any():
        raise ConfigError(
            f"No run of the sweep '{sweep.name}' has held-out likes: choose data=ratings and a "
            "data.held_out_fraction above 0."
        )
    runs = runs[runs["data.likes"].notna() & runs[RECALL].notna()].reset_index(drop=True)
    users, seen = runs["corpus/contexts"].astype(float), runs["corpus/train_ngrams"].astype(float)
    sizes = [
        runs[f"model.{size}"].where(runs[MODEL] == name) for name, size in SIZES.items() if f"model.{size}" in runs
    ]
    return runs.assign(
        **{
            SIZE: pd.concat(sizes, axis=1).astype(float).bfill(axis=1).iloc[:, 0],
            PRECISION: 1 - runs["hallucination/share"].astype(float),
            RIGHT: runs["generalization/count"] / users,
            WRONG: runs["hallucination/count"] / users,
            FOUND: runs["train/above_threshold"] / seen,
            CHANCE: runs["corpus/held_out_ngrams"].astype(float) / (users * runs["data.items"].astype(float) - seen),
        }
    )


def _others(runs: pd.DataFrame) -> list[str]:
    """Return the keys that lines differ in, the model first."""
    sizes = [f"model.{size}" for size in SIZES.values()]
    keys = [key for key in swept_keys(runs) if key not in (MODEL, *sizes)]
    return [MODEL, *keys]


def _describe(values: dict[str, Any]) -> str:
    others = {key: value for key, value in values.items() if key != MODEL}
    return ", ".join(filter(None, [NAMES[values[MODEL]], style.describe(others)]))


def _recommended(runs: pd.DataFrame) -> pd.Series[float]:
    """Return the recommendations per user, right and wrong, by seed."""
    return (runs[RIGHT] + runs[WRONG]).groupby(runs["seed"]).mean()


def _told(values: dict[str, Any], runs: pd.DataFrame, size: float) -> str:
    found, recall, precision = (student_t(runs[metric]).within(0, 1) for metric in (FOUND, RECALL, PRECISION))
    wrong = student_t(runs[WRONG]).within(0, math.inf)
    share = f"a precision of {precision}, {wrong} wrong recommendations per user" if precision.seeds else "none at all"
    return (
        f"{_describe(values)}, {SIZES[values[MODEL]]} {size:g}: {found} of the likes in the data and {recall} of those "
        f"held out are above the threshold; recommendations: {share}."
    )
