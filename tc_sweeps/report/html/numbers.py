"""Numbers and values as the page's JSON has them: finite, short, null where there is none."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from tc_sweeps.report.where import as_plain, spell_value

DIGITS = 5
_EXACT = 2**53  # beyond it a browser rounds whole numbers


def number(value: float) -> float | int | None:
    """Return a number with five significant digits, whole ones as they are; None where it is not finite."""
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < _EXACT:
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def numbers(values: np.ndarray) -> list[float | int | None]:
    """Return `number` of each of a row of values."""
    return [number(value) for value in values.tolist()]


def plain(value: Any) -> Any:
    """Return a config value or fact: numbers unrounded, lists as one would type them, null for none."""
    value = as_plain(value)
    if isinstance(value, tuple):
        return spell_value(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value):
        return None
    if value == int(value):  # a column that also holds nulls keeps its whole numbers as floats
        return int(value) if abs(value) < _EXACT else spell_value(value)
    return value


def dumps(content: Any) -> str:
    """Return JSON without a space, in ASCII; raises `ValueError` for a number that is not finite."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
