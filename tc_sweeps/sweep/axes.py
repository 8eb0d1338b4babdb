"""From axes to jobs: products, axes that go together, exclusions, and several such blocks one after the other.

Example: the axes `model.width=8,16 training.steps=200,100 seed=0,1` with `zip=[model.width, training.steps]` and
`exclude=[{model.width: 8, seed: 1}]` make three jobs: width 8, 200 steps, seed 0; width 16, 100 steps, seeds 0 and 1.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from hydra.core.override_parser.types import Override

from tc_sweeps.config import ConfigError

__all__ = ["Block", "expand", "require_axes_once"]

Parse = Callable[[list[str]], list[Override]]
Part = dict[str, str]  # of a job: its overrides by key


@dataclass
class Block:
    """Axes and what is said about them, as in `hydra.sweeper`."""

    kind: ClassVar[str] = "a block of hydra.sweeper.blocks"  # what `explain` calls this where a key is unknown
    params: dict[str, Any] = field(default_factory=dict)  # axes, as on the command line: "model.width": "16,32"
    zip: list[Any] = field(default_factory=list)  # names of axes that go together, or several such lists
    exclude: list[dict[str, Any]] = field(default_factory=list)  # jobs to leave out: those with all values of an item

    def within(self, outer: Block) -> Block:
        """Return this block with what another one says for all blocks; an axis of both has the values of this one."""
        together = [*_lists(outer.zip), *_lists(self.zip)]
        return Block({**outer.params, **self.params}, together, [*outer.exclude, *self.exclude])


def expand(blocks: Sequence[Block], arguments: Sequence[str], parse: Parse) -> list[list[str]]:
    """Return the overrides of every job, block by block: the product of the axes, the last one fastest.

    `arguments` override the axes of all blocks, each where it stood first. Axes that go together are one axis, where
    the first of them stood; one that has a single value is no axis and goes with every job. Raises `ConfigError` for an
    axis without values, for names of no axis, for axes of different length that shall go together, for an exclusion
    that no job has all values of, and where nothing is left.
    """
    given = parse(list(arguments))
    require_axes_once(given)
    replaced = {override.get_key_element() for override in given}
    value = cache(lambda text: _hashable(parse([text])[0].value()))
    jobs: list[Part] = []
    items: list[tuple[dict[str, Any], bool]] = []  # exclusions, and whether they are for something
    for block in blocks:
        axes = _axes([*parse([_override(key, values) for key, values in block.params.items()]), *given])
        product = [
            {key: text for part in parts for key, text in part.items()}
            for parts in itertools.product(*_joined(axes, _lists(block.zip)))
        ]
        keep = [True] * len(product)
        for item in block.exclude:
            unwanted = _unwanted(item, axes, parse, value)
            out = [all(value(job[key]) in values for key, values in unwanted.items()) for job in product]
            keep = [kept and not left_out for kept, left_out in zip(keep, out, strict=True)]
            # What an argument has replaced is no typo.
            items.append((item, any(out) or not replaced.isdisjoint(block.params.keys() & item.keys())))
        if not any(keep):
            raise ConfigError("hydra.sweeper.exclude leaves no job of the sweep: take an item out of it.")
        jobs += itertools.compress(product, keep)
    for item, _ in items:
        if (item, True) not in items:  # one of all blocks may be for some of them
            raise ConfigError(
                f"hydra.sweeper.exclude: {{{', '.join(f'{key}: {values}' for key, values in item.items())}}} leaves no "
                "job out, since none has all of these values."
            )
    return [list(job.values()) for job in jobs]


def require_axes_once(arguments: Sequence[Override]) -> None:
    """Raise `ConfigError` for an axis whose key is given once more: of two values the last counts, an axis is meant."""
    axes: dict[str, Override] = {}
    for override in arguments:
        key = override.get_key_element()
        if key in axes:
            raise ConfigError(
                f"{axes[key].input_line} and {override.input_line} give one axis twice, and the first would be "
                "lost: name its values together."
            )
        if override.is_sweep_override():
            axes[key] = override


def _unwanted(
    item: Mapping[str, Any], axes: Mapping[str, object], parse: Parse, value: Callable[[str], Any]
) -> dict[str, set[Any]]:
    """Return the values of each key whose jobs an item of `hydra.sweeper.exclude` leaves out."""
    unwanted = {}
    for key, values in item.items():
        _known(key, axes, "hydra.sweeper.exclude")
        several = values if isinstance(values, list) else [values]  # in a file, several values may be a list
        unwanted[key] = {value(text) for one in several for text in _axes(parse([_override(key, one)]))[key]}
    return unwanted


def _axes(overrides: Sequence[Override]) -> dict[str, list[str]]:
    """Return the overrides of every key, one for each of its values; a key given twice counts where it stood first."""
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(f"{override.input_line}: an axis needs its values one by one, as in {key}=1,2,3.")
        values = (
            override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
        )
        axes[key] = [f"{key}={value}" for value in values]
        if not axes[key]:
            raise ConfigError(f"{override.input_line}: this axis has no values.")
    return axes


def _joined(axes: Mapping[str, list[str]], together: Sequence[Sequence[str]]) -> list[list[Part]]:
    """Return the axes of the product, each as the parts of jobs that it offers."""
    first_of: dict[str, list[str]] = {}  # the axes that go with the first of them
    taken: set[str] = set()
    for names in together:
        for name in names:
            _known(name, axes, "hydra.sweeper.zip")
            if name in taken:
                raise ConfigError(f"hydra.sweeper.zip names {name} twice: an axis goes together with others only once.")
            taken.add(name)
        several = [key for key in axes if key in names and len(axes[key]) > 1]
        if len({len(axes[key]) for key in several}) > 1:
            lengths = ", ".join(f"{key} has {len(axes[key])} values" for key in several)
            raise ConfigError(f"hydra.sweeper.zip: {lengths}; axes that go together need as many.")
        first_of |= dict.fromkeys(several, several)
    product = []
    for key in axes:
        keys = first_of.get(key, [key])
        if key == keys[0]:
            product.append(
                [dict(zip(keys, texts, strict=True)) for texts in zip(*(axes[k] for k in keys), strict=True)]
            )
    return product


def _lists(names: Sequence[Any]) -> list[list[str]]:
    """Return the lists of names in `hydra.sweeper.zip`, which may be one list without a list around it."""
    if all(isinstance(name, str) for name in names):
        return [list(names)]
    if any(isinstance(name, str) for name in names):
        raise ConfigError(f"hydra.sweeper.zip={list(names)} mixes names and lists of names: make it a list of lists.")
    return [list(group) for group in names]


def _known(name: str, axes: Mapping[str, object], where: str) -> None:
    if name not in axes:
        near = difflib.get_close_matches(name, axes, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f": there are {', '.join(axes) or 'none'}."
        raise ConfigError(f"{where} names '{name}', which is no axis of this sweep{hint}")


def _override(key: str, values: Any) -> str:
    """Return what one would type: a file may give a bare number, truth or null, where the command line has text."""
    return f"{key}={values if isinstance(values, str) else json.dumps(values)}"


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)
