"""Which runs of two sweeps are counterparts of each other, and by how much their metrics differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tc_sweeps.report.frame import swept_keys
from tc_sweeps.report.intervals import student_t, welch
from tc_sweeps.report.where import in_order, spell_value

# Of a seed, data with less of it are a part of those with more: these keys may differ within a pair.
_SAME_DRAW = {"data.num_sentences", "data.held_out_fraction", "data.noise", "data.contradictions"}


@dataclass(frozen=True)
class Matching:
    """How the runs of two sides are matched: those that agree in `keys` and the seed.

    `differing` are all keys whose values are not the same on both sides. `averaged` are those of them that vary within
    a side and cannot be matched: a side's runs of one seed are averaged over them. `apart` are those of them with which
    a seed draws other data on each side: nothing is paired by seed then.
    """

    keys: list[str]
    differing: list[str]
    averaged: list[str]
    apart: list[str]


def matching_of(a: pd.DataFrame, b: pd.DataFrame) -> Matching:
    """Return how the runs of two frames of `load_sweep` are matched.

    A key with the same values on both sides is matched, and one with other values on each side is what differs. One
    with some values in common is matched only where runs could not be told apart without it.
    """
    keys = swept_keys(pd.concat([a, b], ignore_index=True))
    values = {key: (values_of(a, key), values_of(b, key)) for key in keys}
    differing = [key for key in keys if set(values[key][0]) != set(values[key][1])]
    matched = [key for key in keys if key not in differing]
    for key in differing:
        if set(values[key][0]) & set(values[key][1]) and any(_alike(side, matched) for side in (a, b)):
            matched.append(key)
    several = [key for key in differing if key not in matched and max(map(len, values[key])) > 1]
    apart = [key for key in differing if key not in matched and key.startswith("data.") and key not in _SAME_DRAW]
    return Matching([key for key in keys if key in matched], differing, several, apart)


def differences(a: pd.DataFrame, b: pd.DataFrame, how: Matching, metrics: Sequence[str]) -> pd.DataFrame:
    """Return how much a metric differs: one row per metric and group of runs that agree in the matched keys.

    The columns are the matched keys, `metric`, the means `a` and `b`, `difference` (b - a) with the bounds `low` and
    `high` of its 95 % interval, `paired`, and `seeds_a` and `seeds_b`, the values behind the means. Where at least two
    seeds are on both sides, and draw the same data there, the difference is the mean over them, seed by seed, with
    Student's t; else that of the two means, with Welch's interval where each has two values. Undefined values are left
    out, and so is a group that one side does not have.
    """
    groups_a, groups_b = grouped(a, how.keys), grouped(b, how.keys)
    rows = []
    for metric in metrics:
        for values in ordered(pd.concat([a, b]), how.keys, set(groups_a) & set(groups_b)):
            sides = [side[values].groupby("seed")[metric].mean().dropna() for side in (groups_a, groups_b)]
            if all(map(len, sides)):
                row = dict(zip(how.keys, values, strict=True)) | {"metric": metric}
                rows.append(row | _difference(*sides, pair=not how.apart))
    columns = ["metric", "a", "b", "difference", "low", "high", "paired", "seeds_a", "seeds_b"]
    return pd.DataFrame(rows, columns=[*how.keys, *columns])


def _difference(a: pd.Series[float], b: pd.Series[float], *, pair: bool) -> dict[str, Any]:
    """Return a row of `differences`, given one value for each seed and side; `pair`: seeds mean the same on both."""
    common = a.index.intersection(b.index if pair else [])
    paired = len(common) > 1 or (len(common) == 1 and min(len(a), len(b)) == 1)
    if paired:
        a, b = a[common], b[common]
    found = student_t((b - a).tolist()) if paired else welch(a.tolist(), b.tolist())
    row = {"a": a.mean(), "b": b.mean(), "difference": found.mean, "low": found.low, "high": found.high}
    return row | {"paired": paired, "seeds_a": len(a), "seeds_b": len(b)}


def values_of(side: pd.DataFrame, key: str) -> list[str]:
    """Return a key's different values on a side, as one would type them; none where its world has no such key."""
    return list(map(spell_value, in_order(side[key]))) if key in side else []


def spelled(side: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each run's values of some keys; a key that its world does not have is null."""
    cells = [[spell_value(value) for value in side[key]] if key in side else ["null"] * len(side) for key in keys]
    return list(zip(*cells, strict=True)) if cells else [()] * len(side)


def _alike(side: pd.DataFrame, keys: Sequence[str]) -> bool:
    """Whether runs agree in the keys and the seed."""
    runs = spelled(side, [*keys, "seed"])
    return len(set(runs)) < len(runs)


def grouped(side: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """Return the runs by their values of some keys, as `spelled`."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for place, values in enumerate(spelled(side, keys)):
        rows.setdefault(values, []).append(place)
    return {values: side.iloc[places] for values, places in rows.items()}


def ordered(both: pd.DataFrame, keys: Sequence[str], groups: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return groups in the order of their values, key by key."""
    places = [{value: place for place, value in enumerate(values_of(both, key))} for key in keys]
    return sorted(groups, key=lambda values: [order[value] for order, value in zip(places, values, strict=True)])
