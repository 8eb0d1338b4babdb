"""A curve in a word: means over runs as a line of blocks, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BLOCKS = "▁▂▃▄▅▆▇█"


def average(values: Sequence[float]) -> float:
    """Return the mean of what is defined (finite) among the values; NaN where nothing is."""
    defined = [value for value in values if math.isfinite(value)]
    return sum(defined) / len(defined) if defined else math.nan


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a curve as `width` characters at most, from its least value (▁) to its greatest (█).

    Where there are more values, each character is the mean of some; an undefined one is a space. `0 1 3` is ▁▃█.
    """
    parts = np.array_split(np.asarray(values, dtype=float), min(width, len(values))) if values else []
    means = [average(part.tolist()) for part in parts]
    defined = [mean for mean in means if mean == mean]
    low, high = min(defined, default=0.0), max(defined, default=0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return "".join(" " if mean != mean else BLOCKS[3] for mean in means)
    top = len(BLOCKS) - 1
    return "".join(" " if mean != mean else BLOCKS[round(top * (mean - low) / (high - low))] for mean in means)
