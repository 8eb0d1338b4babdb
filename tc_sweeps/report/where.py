"""Which runs of a sweep: a filter over config keys, given as a dict or typed as overrides are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import ConfigError

Where = Mapping[str, Any]
"""Config key -> the value it must have, or several values of which it must have one; None is null."""

LONGEST_NAME = 120  # characters that a filter may add to a file's name, of the 255 that file systems take


def parse_where(texts: Sequence[str]) -> dict[str, Any]:
    """Return the filter that `KEY=VALUE[,VALUE...]` says, one text for each key; all of them hold together.

    Values are read as in an override: `training.learning_rate=1e-2`, `seed=range(0,3)`, `data.num_sentences=null,500`.
    Raises `ConfigError` for a text that cannot be read and for a key that is named twice.
    """
    where: dict[str, Any] = {}
    for text in texts:
        key, value = _parse(text)
        if key in where:
            raise ConfigError(f"--where names {key} twice: give its values together, as in --where {key}=8,16.")
        where[key] = value
    return where


def _parse(text: str) -> tuple[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType, Transformer
    from hydra.errors import HydraException

    refused = ConfigError(
        f"--where '{text}' cannot be read: write KEY=VALUE[,VALUE...], as in --where model.width=8,16."
    )
    try:
        override = OverridesParser.create().parse_override(text)
        if override.type is not OverrideType.CHANGE or override.package or not override.key_or_group:
            raise refused
        if override.is_sweep_override():
            return override.key_or_group, [_unquoted(item) for item in override.sweep_iterator(Transformer.identity)]
        return override.key_or_group, _unquoted(override.value())
    except HydraException:
        raise refused from None


def _unquoted(value: Any) -> Any:
    """Return a value of Hydra's grammar as it stands in a frame: a quoted string bare, a list as a tuple."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, list):
        return tuple(map(_unquoted, value))
    return value.text if isinstance(value, QuotedString) else value


def matching(values: pd.Series[Any], wanted: Any) -> pd.Series[bool]:
    """Return, row by row, whether a value is the one wanted, or one of them where several are given.

    A number that no run has stands for the one that tables (four digits) or legends (six) show in this way.
    """
    options = _options(wanted)
    if isinstance(wanted, tuple):  # one value that is a list, or several values
        options += map(as_plain, wanted)
    there = in_order(values)
    shown = [one for option in options for one in _shown_as(option, there)]
    return values.map(lambda value: any(_same(as_plain(value), option) for option in options + shown)).astype(bool)


def _shown_as(option: Any, there: Sequence[Any]) -> list[Any]:
    """Return the one value that is shown as a number that is not there itself, if it is one."""
    if not isinstance(option, float) or option in there:
        return []
    floats = [value for value in there if isinstance(value, float)]
    alike = [value for value in floats if option in (float(f"{value:.4g}"), float(f"{value:.6g}"))]
    return alike if len(alike) == 1 else []


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return the different values in order: null, numbers, and words and lists as they are spelled."""
    different = list(dict.fromkeys(map(as_plain, values)))
    numbers = [value for value in different if isinstance(value, int | float)]
    others = [value for value in different if not isinstance(value, int | float | None)]
    return [None] * (None in different) + sorted(numbers) + sorted(others, key=spell_value)


def spell_where(where: Where | None) -> str:
    """Return `model.width=8,16 and seed=0`, as one would type it; nothing for no filter."""
    return " and ".join(
        f"{key}={','.join(map(spell_value, _options(wanted)))}" for key, wanted in (where or {}).items()
    )


def spell_value(value: Any) -> str:
    """Return a config value as one would type it in an override."""
    value = as_plain(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{','.join(map(spell_value, value))}]"
    # A column that also holds nulls keeps its whole numbers as floats.
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def name_where(where: Where | None, *, every: bool = False) -> str:
    """Return what a choice of runs adds to a file's name: what is made of other runs must not replace it.

    `every`: the runs of earlier plans are among them.
    """
    if every:
        return f"_all{name_where(where)}"
    if not where:
        return ""
    text = spell_where(where)
    name = re.sub(r"[^A-Za-z0-9.,=+-]+", "_", text)
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"_where_{name}"


def _options(wanted: Any) -> list[Any]:
    several = pd.api.types.is_list_like(wanted) and not isinstance(wanted, tuple)
    return [as_plain(value) for value in wanted] if several else [as_plain(wanted)]


def as_plain(value: Any) -> Any:
    """Return a value of a frame as Python has it: NaN as None, lists as tuples, NumPy's numbers as plain ones."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list):
        return tuple(value)
    return None if isinstance(value, float) and value != value else value


def _same(value: Any, wanted: Any) -> bool:
    """Whether two values are equal; unlike in Python, true is not 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
