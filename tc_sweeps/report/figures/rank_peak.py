"""Artifacts and right completions against the rank of a CP tensor and the width of a transformer.

The question and the rule for its verdict stand in conf/experiment/rank_peak.yaml.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import HOW, LEAST_SEEDS, bootstrap
from tc_sweeps.report.frame import fully_fitted, load_finished, split, swept_keys
from tc_sweeps.report.intervals import Interval, sum_up, what_is_drawn
from tc_sweeps.report.seeds import by_seed, draw_along, greatest, seeded_by_data
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Artifacts tend to emerge when the rank of a completion is reduced (Section 2.1); the effective rank of data is "
    "the least that a consistent tensor has (Section 3.3): do artifacts peak there?"
)
MODEL, RANK, WIDTH = "model.name", "model.rank", "model.width"
AXES = {"cp": (RANK, "rank of the CP tensor"), "transformer": (WIDTH, "width of the transformer")}
RATE, RIGHT = "artifacts/unseen_confident_rate", "right completions"
NAMES = {RATE: "unseen contexts with an artifact", RIGHT: "unseen contexts answered right (generalizations)"}
EFFECTIVE = "rank/effective"
FACTOR = 1.5  # a peak within this factor of the effective rank is at it
LEAST_FALL = 0.02  # of a share, from its peak to an end of the axis


class Peak(NamedTuple):
    """Where a share is largest along an axis, [S] seeds, and how far its mean falls to both ends from there."""

    places: pd.Series[float]
    at: float  # of the mean
    most: float
    falls: tuple[Interval, Interval]

    @property
    def there(self) -> bool:
        """Whether it is a peak: lower at both ends."""
        return all(fall.above(0) and fall.mean >= LEAST_FALL for fall in self.falls)


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return both shares against CP rank (above) and model width (below), a column for each data set size and world.

    Points are means and bars 95 % Student t intervals over seeds; hollow ones are of runs that do not all fit their
    data. The dashed line above is the mean effective rank, the band reaches from its least to its largest over seeds.
    """
    runs = _runs(sweep, where)
    panels = split(runs, _settings(runs))
    kinds = [kind for kind in AXES if (runs[MODEL] == kind).any()]
    figure = style.new_figure(max(5.6, 1.2 + 2.9 * len(panels)), 1.4 + 2.9 * len(kinds))
    grid = figure.subplots(len(kinds), len(panels), squeeze=False, sharey=True, sharex="row")
    counts, hollow, marked = [], False, False
    for column, (values, part) in enumerate(panels):
        for row, kind in enumerate(kinds):
            axes, (x, label) = grid[row, column], AXES[kind]
            of_kind = part[part[MODEL] == kind]
            ranks = _effective(of_kind).dropna()
            if kind == "cp" and len(ranks):  # a width is no rank of the tensor
                axes.axvline(ranks.mean(), color=style.GREY, linestyle="--", linewidth=1)
                axes.axvspan(ranks.min(), ranks.max(), color=style.GREY, alpha=0.15, linewidth=0)
                marked = True
            for metric, colour in ((RATE, "black"), (RIGHT, style.GENERALIZATION)):
                told = of_kind[of_kind[metric].notna()]
                if len(told):
                    counts += draw_along(axes, told, x, metric, colour=colour, marker=_marker(metric))
            hollow |= not of_kind["fitted"].all()
            axes.set_xlabel(label)
        grid[0, column].set_title(style.describe(values) or "all runs")
    for row, kind in enumerate(kinds):
        style.log_x(grid[row, 0], runs.loc[runs[MODEL] == kind, AXES[kind][0]].tolist())
        grid[row, 0].set_ylabel("share of unseen contexts")
    grid[0, 0].set_ylim(0, 1.02)
    style.headline(figure, what_is_drawn(counts), where)
    entries: list[Any] = [style.line(NAMES[RATE], "black", marker=_marker(RATE))]
    if runs[RIGHT].notna().any():
        entries.append(style.line(NAMES[RIGHT], style.GENERALIZATION, marker=_marker(RIGHT)))
    if marked:
        entries.append(style.line("effective rank: mean, and band of all seeds", linestyle="--", linewidth=1))
    style.legend_below(figure, [*entries, *([style.under_fitted()] if hollow else [])])
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether artifacts, and right completions, peak at the effective rank, setting by setting."""
    runs = _runs(sweep, where)
    answers: dict[str, list[str]] = {RATE: [], RIGHT: []}
    sentences = []
    for values, part in split(runs, _settings(runs)):
        name = style.describe(values) or "all runs"
        for metric in (RATE, RIGHT):
            for kind, (x, label) in AXES.items():
                of_kind = part[part[MODEL] == kind]
                table = by_seed(of_kind, x, metric) if len(of_kind) else pd.DataFrame()
                if table.empty or table.shape[1] < 3:
                    continue
                peak = _peak(table)
                told, answer = _compared(peak, _effective(part)) if kind == "cp" else (f", {_place(peak)}", None)
                if answer:
                    answers[metric].append(answer)
                sentences.append(
                    f"{name}, {NAMES[metric]}: most at the {label} {peak.at:g} ({peak.most:.3f}){_falls(peak)}{told}."
                )
    if not answers[RATE]:
        raise ConfigError(
            f"No seed of the sweep '{sweep.name}' has CP tensors of three ranks or more: sweep model.rank with "
            "model=cp, as experiment=rank_peak does."
        )
    lines = [sum_up(answers[RATE], f"Artifacts peak at the effective rank, within a factor of {FACTOR:g}")]
    if answers[RIGHT]:
        lines.append(sum_up(answers[RIGHT], "Right completions peak there too"))
    end = (
        f"A seed's peak over the effective rank of its data: geometric mean over seeds with a {HOW}; none is judged of "
        f"fewer than {LEAST_SEEDS} seeds. Widths are told and decide nothing."
    )
    return "\n".join([*lines, *sentences, end])


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return the finished runs with the effective rank of their data, and the share that they answer right.

    Of one data set a single run need have worked out the rank. Right answers to seen contexts are no artifacts, so that
    all generalizations are answers to unseen ones, of which functional data leave as many as contexts less triples.
    """
    needed = ["corpus/contexts", "corpus/train_ngrams", "generalization/count", RATE]
    runs = seeded_by_data(load_finished(sweep, where, needed))
    unseen = runs["corpus/contexts"].astype(float) - runs["corpus/train_ngrams"].astype(float)
    runs = runs.assign(
        fitted=fully_fitted(runs),
        **{
            MODEL: runs.get(MODEL, "transformer"),
            RIGHT: runs["generalization/count"].astype(float) / unseen,
            EFFECTIVE: runs[EFFECTIVE].astype(float) if EFFECTIVE in runs else np.nan,
        },
    )
    data = {*(key for key in swept_keys(runs) if key.startswith("data.")), "data.seed"}
    runs[EFFECTIVE] = runs.groupby(list(data), dropna=False)[EFFECTIVE].transform("max")
    return runs


def _settings(runs: pd.DataFrame) -> list[str]:
    """Return the swept keys that need a column of panels: all but those of the axes, and of what is worked out."""
    return [key for key in swept_keys(runs) if key not in (MODEL, RANK, WIDTH) and not key.startswith("rank.")]


def _effective(part: pd.DataFrame) -> pd.Series[float]:
    """Return the effective rank of each seed's data."""
    ranks: pd.Series[float] = part.groupby("seed")[EFFECTIVE].max()
    return ranks


def _peak(table: pd.DataFrame) -> Peak:
    """Return the peak of a table of `by_seed`."""
    values = table.to_numpy(float)
    place = int(values.mean(0).argmax())
    low, high = (bootstrap(values[:, place] - values[:, end]) for end in (0, -1))
    places = pd.Series(greatest(table), index=table.index)
    return Peak(places, float(table.columns[place]), float(values[:, place].mean()), (low, high))


def _compared(peak: Peak, effective: pd.Series[float]) -> tuple[str, str]:
    """Return in words where a peak is beside the effective rank, and whether it is there: yes, no or unsure."""
    ratio = _geometric(peak.places / effective.reindex(peak.places.index))
    if not ratio.seeds:
        return ", of unknown effective rank", "unsure"
    told = f", {_place(peak)}: {ratio} times the effective rank, {bootstrap(effective.dropna().to_numpy())}"
    if ratio.seeds < LEAST_SEEDS:
        return f"{told} (too few seeds to judge)", "unsure"
    if not peak.there:
        return told, "no"
    if ratio.above(1 / FACTOR) and ratio.below(FACTOR):
        return told, "yes"
    return told, "no" if ratio.below(1 / FACTOR) or ratio.above(FACTOR) else "unsure"


def _place(peak: Peak) -> str:
    return f"a seed's own peak at {_geometric(peak.places)}"


def _falls(peak: Peak) -> str:
    low, high = peak.falls
    word = "a peak" if peak.there else "no peak"
    if any(np.isnan(fall.low) for fall in peak.falls):
        word = "not told from no peak"
    return f", {word}: {low} more than at the least and {high} more than at the largest"


def _geometric(values: pd.Series[float]) -> Interval:
    """Return the geometric mean of positive values, one per seed, with its bootstrap interval."""
    logs = bootstrap(np.log(values.to_numpy(float)))
    mean, low, high = np.exp([logs.mean, logs.low, logs.high]).tolist()
    return Interval(mean, low, high, logs.seeds)


def _marker(metric: str) -> str:
    return "o" if metric == RATE else "s"
