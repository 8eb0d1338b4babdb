"""Artifacts against the size of the vocabulary, at the same number of triples per context."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tc_sweeps.report import style
from tc_sweeps.report.frame import fully_fitted, load_finished, over_seeds, split, swept_keys
from tc_sweeps.report.intervals import Interval, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Toy models trained on random triples have very many artifacts, anywhere from 5 to 20 times the number of training "
    "triples (Section 2.1): does the ratio say something about models, or only about V^2 / N?"
)
RATIO, CEILING, SIZE = "artifacts/per_ngram", "ceiling per triple", "data.vocab_size"
NEAR = 0.05  # ratios that differ by less, relatively, are called the same


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return artifacts per distinct training triple against the vocabulary, a line for each width.

    Bars are 95 % Student t intervals over seeds. Dashed lines are the ceiling of a model that gives every training
    triple; hollow points are sizes that at least one seed did not fully fit.
    """
    runs = _runs(sweep, where)
    figure = style.new_figure(6.4, 4.4)
    axes = figure.subplots()
    style.log_x(axes, runs[SIZE].tolist())
    entries, counts, hollow = [], [], False
    for place, (values, part) in enumerate(split(runs, _lines(runs))):
        colour, marker = style.COLOURS[place % len(style.COLOURS)], style.MARKERS[place % len(style.MARKERS)]
        fitted = part.groupby(SIZE)["fitted"].all().reset_index()
        means = over_seeds(part, [SIZE], [RATIO, CEILING]).merge(fitted, on=SIZE).sort_values(SIZE)
        ratio = means[means["metric"] == RATIO]
        style.draw_ceiling(axes, means[means["metric"] == CEILING], SIZE, colour=colour)
        style.draw_means(axes, ratio, SIZE, colour=colour, hollow=(~ratio["fitted"]).tolist(), marker=marker)
        entries.append(style.line(style.describe(values) or "trained models", colour, marker=marker))
        counts += ratio["runs"].tolist()
        hollow |= not ratio["fitted"].all()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("vocabulary size V")
    thresholds = ", ".join(f"{value:g}" for value in sorted(runs["artifacts.threshold"].unique()))
    axes.set_ylabel(f"artifacts per training triple (P > {thresholds})")
    style.headline(figure, what_is_drawn(counts), where)
    entries += [style.ceiling_entry("ceiling at perfect fit"), *([style.under_fitted()] if hollow else [])]
    style.legend_below(figure, entries)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return the ratio at every size that is fully fitted, and whether it depends on the size."""
    runs = _runs(sweep, where)
    sentences, means = [], []
    for values, part in split(runs[runs["fitted"]], _lines(runs)):
        table = over_seeds(part, [SIZE], [RATIO]).sort_values(SIZE).to_dict("records")
        told = [f"{Interval(row['mean'], row['low'], row['high'], row['runs'])} at V = {row[SIZE]:g}" for row in table]
        sentences.append(f"{style.describe(values) or 'artifacts per triple'}: {', '.join(told)}.")
        means += [row["mean"] for row in table]
    sizes = runs.loc[runs["fitted"], SIZE].nunique()
    if sizes < 2:
        return "\n".join(["Cannot be said from these runs: fewer than two sizes are fully fitted.", *sentences])
    apart = max(means) / min(means) - 1
    share = (runs[SIZE].astype(float) ** 2 / runs["corpus/train_ngrams"].astype(float)).round(1)
    same = f"at V^2 / N = {share.iloc[0]:g}" if share.nunique() == 1 else "at different V^2 / N"
    start = "It is that of the data" if apart <= NEAR and share.nunique() == 1 else "It depends on more than V^2 / N"
    if share.nunique() > 1:
        start = "Cannot be said from these runs, whose V^2 / N differ"
    left_out = "" if runs["fitted"].all() else " Runs that do not fit their data are left out."
    return "\n".join(
        [f"{start}: {same} the ratios of {sizes} sizes differ by {apart:.1%} at most.{left_out}", *sentences]
    )


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    runs = load_finished(sweep, where)
    ngrams = runs["corpus/train_ngrams"].astype(float)
    ceiling = runs["corpus/ceiling_at_perfect_fit"].astype(float) / ngrams
    return runs.assign(fitted=fully_fitted(runs), **{CEILING: ceiling})


def _lines(runs: pd.DataFrame) -> list[str]:
    """Return the keys that lines differ in; numbers of triples that go with the sizes are none."""
    together = runs.groupby(SIZE)["data.num_sentences"].nunique().max() == 1
    return [key for key in swept_keys(runs) if key != SIZE and not (together and key == "data.num_sentences")]
