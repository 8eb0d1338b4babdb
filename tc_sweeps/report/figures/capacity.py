"""How many facts models of different sizes store, per parameter, and what becomes of their artifacts.

The question and the rule for its verdict stand in conf/experiment/capacity.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.claims import HOW, LEAST_SEEDS, bootstrap
from tc_sweeps.report.frame import fully_fitted, load_finished, split, swept_keys
from tc_sweeps.report.intervals import Interval, what_is_drawn
from tc_sweeps.report.seeds import by_seed, draw_along, greatest, seeded_by_data, slopes
from tc_sweeps.report.where import Where
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "A model stores so many facts, in proportion to its parameters, and no more (the companion, arXiv 2502.05076; 2 "
    "bits per parameter in Allen-Zhu and Li, 3.6 in Morris et al.); artifacts are what it completes the others with."
)
REFERENCES = {
    "2 bits per parameter (Allen-Zhu and Li, arXiv 2404.05405)": 2.0,
    "3.6 bits per parameter (Morris et al., arXiv 2505.24832)": 3.6,
}
REFERENCE_LINES = "-.", "--"
NEAR = 0.25  # bits within this part of a reference agree with it
PROPORTIONAL = 0.9, 1.1  # slopes within are called in proportion
FULL = 0.05  # growth of the bits from the last size but one to the last, at which a model is not full

TRIPLES, FACTS, RATE = "corpus/train_ngrams", "train/above_threshold", "artifacts/unseen_confident_rate"
BITS, FACT_BITS = "bits stored", "bits of the facts stored"
ALL, INNER = "model/parameters", "model/non_embedding_parameters"
GIVEN = "bits of data per parameter"
PER_PARAMETER = {"bits per parameter": BITS, "bits of facts per parameter": FACT_BITS}


class Size(NamedTuple):
    """What models of one size store at most: of each seed the most at any number of triples."""

    values: dict[str, Any]
    parameters: float
    inner: float
    bits: pd.Series[float]
    fact_bits: pd.Series[float]
    facts: pd.Series[float]
    most_artifacts: pd.Series[float]  # the number of triples at which a seed's share of unseen contexts is largest
    rate: pd.Series[float]  # that share
    full: bool

    @property
    def name(self) -> str:
        """The size in words."""
        counted = f"{self.parameters:,.0f} parameters"
        if self.inner:  # a CP tensor has nothing but embeddings
            counted += f", {self.inner:,.0f} without embeddings"
        return f"{style.describe(self.values)} ({counted})" if self.values else counted


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return facts stored against triples, bits stored and artifacts against bits of data, and capacity against size.

    A colour for each size. Points are means and bars 95 % Student t intervals over seeds; hollow ones are of runs that
    do not all fit their data. Bits stored are both those of the loss and those of the facts alone.
    """
    runs = _runs(sweep, where)
    figure = style.new_figure(9.2, 7.4)
    (facts, bits), (rate, capacity) = figure.subplots(2, 2)
    groups = split(runs, _sizes(runs))
    groups.sort(key=lambda group: float(group[1][ALL].iloc[0]))
    colours = style.shades(len(groups))
    entries, counts, hollow = [], [], False
    for place, (values, part) in enumerate(groups):
        marker = style.MARKERS[place % len(style.MARKERS)]
        look: dict[str, Any] = {"colour": colours[place], "marker": marker}
        counts += draw_along(facts, part, TRIPLES, FACTS, **look)
        draw_along(bits, part, GIVEN, "bits per parameter", **look)
        draw_along(bits, part, GIVEN, "bits of facts per parameter", linestyle=":", **look)
        draw_along(rate, part, GIVEN, RATE, **look)
        hollow |= not part["fitted"].all()
        entries.append(style.line(style.describe(values) or "trained models", colours[place], marker=marker))
    least, most = runs[TRIPLES].min(), runs[TRIPLES].max()
    facts.plot([least, most], [least, most], color="black", linewidth=0.8, linestyle="--")
    style.log_x(facts, runs[TRIPLES].tolist())
    style.log_y(facts)
    facts.set(xlabel="training triples N", ylabel="facts stored")
    per_fact = np.log2(runs["data.vocab_size"].iloc[0])
    for bound, linestyle in zip(REFERENCES.values(), REFERENCE_LINES, strict=True):
        bits.axhline(bound, color=style.GREY, linewidth=1, linestyle=linestyle)
    end = max(runs[GIVEN].max(), 1.0)
    bits.plot([0, min(end, 3.7)], [0, min(end, 3.7)], color="black", linewidth=0.8, linestyle="--")
    bits.set(xlabel=f"bits of data per parameter, N log2 V / parameters (log2 V = {per_fact:g})")
    bits.set(ylabel="bits stored per parameter", xlim=(0, None), ylim=(0, None))
    rate.set(xlabel="bits of data per parameter", ylabel="share of unseen contexts with an artifact")
    rate.set(xlim=(0, None), ylim=(0, 1.02))
    sizes = _capacities(runs)
    _draw_capacity(capacity, sizes)
    style.headline(figure, what_is_drawn(counts), where)
    entries += [
        style.line("bits stored, N (log2 V - loss / ln 2)", linestyle="-"),
        style.line("bits of the facts stored, facts * log2 V", linestyle=":"),
        style.line("all there is to store", "black", linestyle="--", linewidth=0.8),
        *(style.line(name, linestyle=line) for name, line in zip(REFERENCES, REFERENCE_LINES, strict=True)),
        style.line("capacity by all parameters", "black", marker="o"),
    ]
    if any(size.inner for size in sizes):
        without = "capacity by parameters without embeddings"
        entries.append(style.line(without, "black", marker="s", markerfacecolor="white"))
    style.legend_below(figure, [*entries, *([style.under_fitted()] if hollow else [])])
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return the bits that each size stores per parameter beside the references, and how capacity goes with size."""
    runs = _runs(sweep, where)
    sentences, starts = [], []
    others = [key for key in _sizes(runs) if not key.startswith("model.")]
    for values, part in split(runs, others):
        sizes = _capacities(part)
        full = [size for size in sizes if size.full]
        name = f"{style.describe(values)}: " if values else ""
        starts.append(name + _proportion(full))
        sentences += [name + _told(size) for size in sizes]
    end = (
        "Capacity is the most that a seed stores at any number of triples, at the last evaluation: bits stored are N "
        f"(log2 V - loss / ln 2), those of facts log2 V each. Means over seeds with a {HOW}; none is judged of fewer "
        f"than {LEAST_SEEDS} seeds."
    )
    return "\n".join([*starts, *sentences, end])


def _told(size: Size) -> str:
    """Return in words what one size stores."""
    if not size.full:
        return f"{size.name}: left out, since it still stores more with more triples."
    bits = bootstrap(size.bits / size.parameters)
    agrees = [name for name, bound in REFERENCES.items() if _agrees(bits, bound)]
    judged = f", which agrees with {' and '.join(agrees)}" if agrees else ""
    if bits.seeds < LEAST_SEEDS:
        judged = " (too few seeds to judge)"
    without = f"{bootstrap(size.bits / size.inner)} without embeddings, " if size.inner else ""
    return (
        f"{size.name}: {bits} bits per parameter{judged}; {without}"
        f"{bootstrap(size.fact_bits / size.parameters)} of whole facts. {bootstrap(size.facts)} facts, "
        f"{bootstrap(size.facts / size.parameters)} per parameter. Artifacts are most at "
        f"{bootstrap(size.most_artifacts)} triples, in {bootstrap(size.rate)} of the unseen contexts."
    )


def _proportion(sizes: Sequence[Size]) -> str:
    """Return in words how capacity goes with the number of parameters."""
    if len({size.parameters for size in sizes}) < 2:
        return "How capacity goes with size cannot be said: fewer than two sizes are full."
    told = []
    for what, kind in (("all parameters", ALL), ("parameters without embeddings", INNER)):
        parameters = [_parameters(size, kind) for size in sizes]
        if len(set(parameters)) < 2 or not all(parameters):
            continue
        # Sizes may have equally many parameters: each keeps a column of its own.
        table = pd.concat([size.bits for size in sizes], axis=1, join="inner").set_axis(parameters, axis=1)
        slope = bootstrap(slopes(table.map(np.log), np.log))
        told.append(f"{_grows(slope)} {what} (slope of the logarithms {slope})")
    return f"Capacity in bits grows {' and '.join(told)}."


def _grows(slope: Interval) -> str:
    if slope.seeds < LEAST_SEEDS:
        return "(too few seeds to judge) with"
    if slope.above(PROPORTIONAL[0]) and slope.below(PROPORTIONAL[1]):
        return "in proportion to"
    if slope.below(1):
        return "more slowly than"
    return "faster than" if slope.above(1) else "in a way not told from in proportion to"


def _agrees(bits: Interval, bound: float) -> bool:
    return bits.above((1 - NEAR) * bound) and bits.below((1 + NEAR) * bound)


def _parameters(size: Size, kind: str) -> float:
    return size.parameters if kind == ALL else size.inner


# ----------------------------------------------------------------------------------------------------------------- runs


def _runs(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return the finished runs with the bits that they store; raises `ConfigError` where these have no formula."""
    needed = ["objective.positions", TRIPLES, FACTS, ALL, INNER, "train/loss", RATE]
    runs = seeded_by_data(load_finished(sweep, where, needed))
    plain = (runs["data.name"] == "random") & (runs["objective.positions"] == "last")
    if "data.sampler" in runs:
        plain &= runs["data.sampler"] == "functional"
    if not plain.all():
        raise ConfigError(
            f"The sweep '{sweep.name}' has runs of other data than functional random n-grams with the loss on the last "
            "token alone, of which alone the bits stored are known: choose these with --where."
        )
    if runs["data.vocab_size"].nunique() > 1:
        raise ConfigError(
            f"The sweep '{sweep.name}' has several vocabularies, whose facts have other bits: choose one, as in "
            f"--where data.vocab_size={runs['data.vocab_size'].iloc[0]:g}."
        )
    # In one piece, lest pandas warn of the columns that are added.
    runs = runs.astype(dict.fromkeys([TRIPLES, FACTS, ALL, INNER, "train/loss"], float)).copy()
    per_fact = np.log2(runs["data.vocab_size"].astype(float))
    bits = runs[TRIPLES] * (per_fact - runs["train/loss"] / np.log(2))
    runs = runs.assign(fitted=fully_fitted(runs), **{BITS: bits, FACT_BITS: runs[FACTS] * per_fact})
    per_parameter = {name: runs[metric] / runs[ALL] for name, metric in PER_PARAMETER.items()}
    # Means of points that are the same number up to rounding.
    return runs.assign(**per_parameter, **{GIVEN: (runs[TRIPLES] * per_fact / runs[ALL]).round(9)})


def _sizes(runs: pd.DataFrame) -> list[str]:
    """Return the swept keys that models and their training differ in."""
    return [key for key in swept_keys(runs) if key != "data.num_sentences"]


def _capacities(runs: pd.DataFrame) -> list[Size]:
    """Return what each size stores, by its parameters."""
    found = []
    for values, part in split(runs, _sizes(runs)):
        bits, facts, rate = (by_seed(part, TRIPLES, metric) for metric in (BITS, FACTS, RATE))
        if not len(bits):
            continue
        means = bits.mean().to_numpy()
        found.append(
            Size(
                values=values,
                parameters=float(part[ALL].iloc[0]),
                inner=float(part[INNER].iloc[0]),
                bits=bits.max(axis=1),
                fact_bits=by_seed(part, TRIPLES, FACT_BITS).max(axis=1),
                facts=facts.max(axis=1),
                most_artifacts=pd.Series(greatest(rate), index=rate.index),
                rate=rate.max(axis=1),
                full=len(means) > 1 and bool(means[-1] < (1 + FULL) * means[-2]),
            )
        )
    return sorted(found, key=lambda size: size.parameters)


# -------------------------------------------------------------------------------------------------------------- drawing


def _draw_capacity(axes: Axes, sizes: Sequence[Size]) -> None:
    """Draw capacity in bits against both numbers of parameters, with the references of bits per parameter."""
    full = [size for size in sizes if size.full]
    axes.set(xlabel="parameters", ylabel="capacity (bits)")
    if not full:
        return
    for kind, marker, hollow in ((ALL, "o", False), (INNER, "s", True)):
        rows = [
            {"x": _parameters(size, kind), "metric": BITS, "mean": told.mean, "low": told.low, "high": told.high}
            for size in full
            for told in [bootstrap(size.bits)]
            if _parameters(size, kind)
        ]
        if not rows:
            continue
        style.draw_means(axes, pd.DataFrame(rows), "x", colour="black", hollow=[hollow] * len(rows), marker=marker)
    counts = [value for size in full for value in (size.parameters, size.inner) if value]
    places = np.array([min(counts), max(counts)])
    for bound, linestyle in zip(REFERENCES.values(), REFERENCE_LINES, strict=True):
        axes.plot(places, bound * places, color=style.GREY, linewidth=1, linestyle=linestyle)
    style.log_x(axes, counts)
    style.log_y(axes)
