"""The paper's Figure 2: how many artifacts a toy model has, against the number of triples it was trained on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tc_sweeps.report import style
from tc_sweeps.report.frame import fully_fitted, load_finished, over_seeds, split, swept_keys
from tc_sweeps.report.intervals import Interval, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "Toy models trained on random triples have very many artifacts, anywhere from 5 to 20 times the number of training "
    "triples (Section 2.1, Figure 2)."
)
LOW, HIGH = 5, 20
BAND = "#F4EACB"

RATIO, CEILING = "artifacts/per_ngram", "ceiling per triple"


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return artifacts per distinct training triple against the number of triples, one panel per objective.

    Bars are 95 % Student t intervals over seeds. Dashed lines are the ceiling of a model that gives every training
    triple; hollow points are sizes that at least one seed did not fully fit.
    """
    runs = _runs(sweep, where)
    lines = _lines(runs)
    groups = [values for values, _ in split(runs, lines)]
    panels = sorted(runs["objective.positions"].unique())
    figure = style.new_figure(max(6.4, 0.8 + 4.2 * len(panels)), 4.4)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    counts, hollow, has_ceiling = [], False, False
    for axes, positions in zip(all_axes, panels, strict=True):
        here = runs[runs["objective.positions"] == positions]
        axes.axhspan(LOW, HIGH, color=BAND, zorder=0)
        style.log_x(axes, here["triples"].tolist())
        style.log_y(axes)
        for values, part in split(here, lines):
            colour = style.COLOURS[groups.index(values) % len(style.COLOURS)]
            marker = style.MARKERS[groups.index(values) % len(style.MARKERS)]
            means = over_seeds(part, ["triples"], [RATIO, CEILING]).merge(_fitted(part), on="triples")
            ceiling, ratio = means[means["metric"] == CEILING], means[means["metric"] == RATIO]
            # Sizes as large as the table of contexts leave no room for artifacts: nothing to show on a logarithm.
            ceiling = ceiling[ceiling["mean"] > 0].sort_values("triples")
            style.draw_ceiling(axes, ceiling, "triples", colour=colour)
            ratio = ratio[ratio["mean"] > 0]
            counts += ratio["runs"].tolist()
            hollow |= not ratio["fitted"].all()
            has_ceiling |= len(ceiling) > 0
            style.draw_means(axes, ratio, "triples", colour=colour, hollow=(~ratio["fitted"]).tolist(), marker=marker)
        axes.set_title(style.describe({"objective.positions": positions}))
        axes.set_xlabel("training triples")
    thresholds = ", ".join(f"{value:g}" for value in sorted(runs["artifacts.threshold"].unique()))
    all_axes[0].set_ylabel(f"artifacts per training triple (P > {thresholds})")
    style.headline(figure, what_is_drawn(counts), where)
    entries = [
        style.line(
            style.describe(values) or "trained models",
            style.COLOURS[place % len(style.COLOURS)],
            marker=style.MARKERS[place % len(style.MARKERS)],
        )
        for place, values in enumerate(groups)
    ]
    if has_ceiling:
        entries.append(style.ceiling_entry("ceiling at perfect fit"))
    if hollow:
        entries.append(style.under_fitted())
    style.legend_below(figure, [*entries, Patch(facecolor=BAND, label=f"the paper's band, {LOW} to {HIGH}")])
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return at which sizes fully fitted models lie within the paper's band, with their ratios and intervals."""
    runs = _runs(sweep, where)
    lines = ["objective.positions", *_lines(runs)]
    sentences, inside_anywhere, fitted_anywhere, inside_everywhere, undecided = [], False, False, True, False
    for values, part in split(runs, lines):
        table = over_seeds(part, ["triples"], [RATIO]).merge(_fitted(part), on="triples")
        within, outside, unsure, left_out = [], [], [], []
        for row in table.sort_values("triples").to_dict("records"):
            ratio = Interval(row["mean"], row["low"], row["high"], row["runs"])
            text = f"{row['triples']:,.0f} ({ratio})"
            if not row["fitted"]:
                left_out.append(f"{row['triples']:,.0f}")
            elif ratio.seeds < 2:
                unsure.append(text)
            elif ratio.low >= LOW and ratio.high <= HIGH:
                within.append(text)
            elif ratio.below(LOW) or ratio.above(HIGH):
                outside.append(text)
            else:
                unsure.append(text)
        inside_anywhere |= bool(within)
        undecided |= bool(unsure)
        inside_everywhere &= not (outside or unsure)
        fitted_anywhere |= bool(within or outside or unsure)
        known = [
            (within, f"within {LOW} to {HIGH} at "),
            (outside, "outside at "),
            (unsure, "not decided (interval across an edge, or one seed only) at "),
            (left_out, "left out as not fully fitted: "),
        ]
        told = [start + ", ".join(sizes) for sizes, start in known if sizes]
        sentences.append(f"{style.describe(values)}: " + "; ".join(told) + ".")
    if inside_anywhere:
        start = f"Holds at {'all fully fitted' if inside_everywhere else 'some'} sizes."
    elif not fitted_anywhere:
        start = "Cannot be said from these runs: no size is fully fitted."
    elif undecided:
        start = "Cannot be said from these runs: no interval lies whole within the band."
    else:
        start = "Does not hold: no fully fitted size lies within the band."
    end = (
        "Artifacts per training triple, 95 % Student t intervals over seeds. The paper's exact sizes are lost: the "
        "sizes here were chosen to reach its band."
    )
    return "\n".join([start, *sentences, *_share_of_ceiling(runs, lines), end])


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    runs = load_finished(sweep, where)
    ngrams = runs["corpus/train_ngrams"].astype(float)
    # A corpus from a file has no number of its own: it is trained on whole.
    size = runs["data.num_sentences"].astype(float) if "data.num_sentences" in runs else ngrams
    return runs.assign(
        triples=size.fillna(ngrams),
        fitted=fully_fitted(runs),
        **{CEILING: runs["corpus/ceiling_at_perfect_fit"].astype(float) / ngrams},
    )


def _share_of_ceiling(runs: pd.DataFrame, lines: list[str]) -> list[str]:
    """Return a sentence on how near fully fitted models come to the ceiling: where near, the ratio only repeats it."""
    shares = runs.assign(share=runs[RATIO] / runs[CEILING].where(runs[CEILING] > 0))
    groups = shares.groupby([*lines, "triples"], dropna=False)
    means = groups["share"].mean()[groups["fitted"].all()].dropna()
    if means.empty:
        return []
    ends = " to ".join(dict.fromkeys([f"{means.min():.0%}", f"{means.max():.0%}"]))
    return [
        f"Fully fitted sizes reach {ends} of the ceiling at perfect fit, which falls as the number of triples grows."
    ]


def _lines(runs: pd.DataFrame) -> list[str]:
    return [key for key in swept_keys(runs) if key not in ("data.num_sentences", "objective.positions")]


def _fitted(part: pd.DataFrame) -> pd.DataFrame:
    return part.groupby("triples")["fitted"].all().reset_index()
