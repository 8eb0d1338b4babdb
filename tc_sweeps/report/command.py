"""The command line that trains a run again, from its config alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from tc_sweeps.config import MODELS, WORLDS, Config, ConfigError, TransformerConfig, leaves, resolve
from tc_sweeps.store.sweep_folder import flat

# What Hydra's grammar takes for a string as it stands; null, true, false, inf and nan are none.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_/][A-Za-z0-9_./-]*", re.IGNORECASE)


class _Choice(NamedTuple):
    """Which keys a config has."""

    world: str
    model: str


def run_command(config: Mapping[str, Any]) -> str:
    """Return what one types to train the run of a resolved config (nested, as in config.yaml) again.

    `python -m tc_sweeps sweep=NAME data=WORLD key=value ...`, quoted for a shell, with the keys alone whose values are
    neither defaults nor the choices that the other keys lead to (`data.seed` that of `seed`). Where the model is no
    transformer, `model=NAME` comes after the world.
    """
    values = flat(dict(config))
    groups = {"sweep": values.pop("sweep"), "data": values.pop("data.name")}
    choice = _Choice(groups["data"], values.pop("model.name", TransformerConfig.name))
    if choice.model != TransformerConfig.name:
        groups["model"] = choice.model
    asked = _asked(choice, values)
    overrides = groups | {key: values[key] for key in values if key in asked}
    return shlex.join(["python", "-m", "tc_sweeps", *(f"{key}={spell_override(overrides[key])}" for key in overrides)])


def spell_override(value: Any) -> str:
    """Return a config value in Hydra's grammar, which reads it back as it is.

    Strings that would be read as something else are quoted: `"1"`, `"a b"`; lists are `[0,"b c"]`.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spell_override, value))}]"
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return str(value)
    from hydra.core.override_parser.types import Quote, QuotedString

    return str(QuotedString(value.replace("${", "\\${"), Quote.double).with_quotes())


def _asked(choice: _Choice, values: Mapping[str, Any]) -> set[str]:
    """Return the fewest keys that must be named for a config to have these values."""
    defaults = _defaults(choice)
    asked = {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}
    for key in [key for key in asked if defaults.get(key, key) is None]:  # null may stand for this very choice
        fewer = {other: value for other, value in asked.items() if other != key}
        if _resolved(choice, fewer).get(key) == values[key]:
            asked = fewer
    return set(asked)


@cache
def _defaults(choice: _Choice) -> dict[str, Any]:
    return {key: value for key, value, _ in leaves(Config(data=WORLDS[choice.world](), model=MODELS[choice.model]()))}


def _resolved(choice: _Choice, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what these keys resolve to, or nothing where that cannot be run: a file of data must be named."""
    tree: dict[str, Any] = {"data": {"name": choice.world}, "model": {"name": choice.model}}
    for key, value in asked.items():
        *groups, last = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = value
    try:
        return {key: value for key, value, _ in leaves(resolve(tree))}
    except ConfigError:
        return {}
