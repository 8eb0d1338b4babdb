"""Which configs are one run, and which are two."""

from __future__ import annotations

import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tc_sweeps.config import WORLDS, Config, ConfigError, RandomData, data_file, key, leaves, resolve
from tc_sweeps.store import run_id
from tc_sweeps.store.identity import identity

# What a user may name for each world to get a config that can be run.
SPOKEN: dict[str, dict[str, Any]] = {
    "triples": {"path": data_file("kinships.tsv")},
    "text": {"path": data_file("kinships.tsv")},
}


def a_config(world: str = "random", **groups: Any) -> Config:
    data = {"name": world, **SPOKEN.get(world, {}), **groups.pop("data", {})}
    return resolve({"data": data, **groups})


def with_value(config: Config, dotted: str, value: Any) -> Config:
    """Return a copy of a config in which one key has another value, whether or not it could be run."""
    changed = copy.deepcopy(config)
    *path, last = dotted.split(".")
    owner: Any = changed
    for name in path:
        owner = getattr(owner, name)
    setattr(owner, last, value)
    return changed


def another(value: Any) -> Any:
    """Return a value of the same kind that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "-other"
    return [*value, "other"] if isinstance(value, list) else 12345


def keys(enters: bool) -> list[tuple[str, str]]:
    """Every key of every world that enters the identity, or that does not."""
    return [
        (world, dotted)
        for world in WORLDS
        for dotted, _, metadata in leaves(Config(data=WORLDS[world]()))
        if metadata["identity"] == enters and dotted != "data.path"
    ]


def test_the_default_run_keeps_its_id() -> None:
    # Whoever changes this id gives every run that anyone has made a new one, and their sweeps train it all again. A new
    # key avoids that by naming the value that means 'as before': key(..., absent=...).
    assert run_id(resolve({})) == "3ac3d4deb72a923d"


@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"name": "kinships"}, "d7f14e25e14f80eb"),
        ({"name": "pykeen"}, "7b4432d6b1c314ab"),
        ({"name": "triples", "path": data_file("eats.tsv")}, "74c4e3aabddd2df9"),
        ({"name": "random", "num_sentences": 400}, "e425cd4c5ed8e358"),
    ],
)
def test_runs_made_before_there_was_noise_keep_their_ids(data: dict[str, Any], known: str) -> None:
    assert run_id(resolve({"data": data})) == known == run_id(resolve({"data": {**data, "noise": 0.0}}))
    assert run_id(resolve({"data": {**data, "noise": 0.1}})) != known


def test_runs_made_before_there_was_another_model_keep_their_ids() -> None:
    # Those of `model=attention` and `model=mlp` as they were before a model had a name.
    assert run_id(resolve({"model": {"name": "transformer"}})) == "3ac3d4deb72a923d"
    assert run_id(resolve({"model": {"mlp_width": 64}})) == "0addc94bbed03ffb"
    assert run_id(resolve({"model": {"name": "cp"}})) not in ("3ac3d4deb72a923d", "0addc94bbed03ffb")


@pytest.mark.parametrize("key", ["rank", "init_scale"])
def test_every_key_of_a_cp_tensor_enters(key: str) -> None:
    config = resolve({"model": {"name": "cp"}})
    assert run_id(with_value(config, f"model.{key}", getattr(config.model, key) + 1)) != run_id(config)


def test_an_id_is_16_hex_digits_and_the_same_each_time() -> None:
    first, second = run_id(a_config("kinships")), run_id(a_config("kinships"))
    assert first == second
    assert len(first) == 16
    assert set(first) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "explicit",
    [
        {"data": {"seed": 0}},
        {"data": {"order": 3}},
        {"model": {"qk_width": 8, "vo_width": 8}},
        {"artifacts": {"order": 3}},
        {"artifacts": {"contexts": "all"}},
    ],
)
def test_null_and_the_choice_that_it_stands_for_are_one_run(explicit: dict[str, Any]) -> None:
    assert run_id(resolve(explicit)) == run_id(resolve({}))


def test_the_seed_of_the_data_follows_the_seed() -> None:
    assert run_id(resolve({"seed": 3})) == run_id(resolve({"seed": 3, "data": {"seed": 3}}))
    assert run_id(resolve({"seed": 3})) != run_id(resolve({"seed": 3, "data": {"seed": 0}}))


@pytest.mark.parametrize(("world", "dotted"), keys(enters=True))
def test_every_key_that_can_change_a_result_enters(world: str, dotted: str) -> None:
    config = a_config(world)
    value, metadata = {name: (value, metadata) for name, value, metadata in leaves(config)}[dotted]
    other = __file__ if metadata["file"] else another(value)
    assert run_id(with_value(config, dotted, other)) != run_id(config)


@pytest.mark.parametrize(("world", "dotted"), keys(enters=False))
def test_where_and_how_fast_a_run_happens_does_not_enter(world: str, dotted: str) -> None:
    config = a_config(world)
    value = {name: value for name, value, _ in leaves(config)}[dotted]
    assert run_id(with_value(config, dotted, another(value))) == run_id(config)


def test_the_keys_that_do_not_enter_are_these() -> None:
    assert {dotted for _, dotted in keys(enters=False)} == {
        "sweep",
        "training.accelerator",
        "training.checkpoint_seconds",
        "artifacts.memory_mib",
        "tracking.mode",
        "tracking.project",
        "tracking.entity",
    }


# ------------------------------------------------------------------------------------------------ when the schema grows


@dataclass
class LaterData(RandomData):
    """The random world after a key was added; the value at which it changes nothing is documented as absent."""

    shuffled: bool = key(False, absent=False)


@dataclass
class EditedData(RandomData):
    """The random world after a default was edited."""

    vocab_size: int = key(90)


def as_world(world: type[RandomData]) -> Config:
    config = a_config()
    now = {item.name: getattr(config.data, item.name) for item in fields(config.data)}
    defaults = {item.name: item.default for item in fields(world) if item.default is not MISSING}
    unchosen = {"seed", "order"}  # the choices that resolving a config makes
    config.data = world(**{**defaults, **{name: now[name] for name in unchosen}})
    return config


def test_a_later_key_at_its_absent_value_does_not_enter() -> None:
    later = as_world(LaterData)
    assert run_id(later) == run_id(a_config())
    assert "data.shuffled" not in identity(later)
    assert run_id(with_value(later, "data.shuffled", True)) != run_id(a_config())


def test_an_edited_default_makes_another_run() -> None:
    assert run_id(as_world(RandomData)) == run_id(a_config())
    assert run_id(as_world(EditedData)) != run_id(a_config())


def test_the_version_of_a_generator_enters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(a_config())
    monkeypatch.setattr(RandomData, "generator", RandomData.generator + 1)
    assert run_id(a_config()) != before


def test_every_leaf_of_the_schema_says_whether_it_enters() -> None:
    for world in WORLDS.values():
        for dotted, value, metadata in leaves(Config(data=world())):
            assert dotted == "sweep" or not is_dataclass(value)
            assert set(metadata) == {"identity", "absent", "per_member", "file"}, f"{dotted} is no key()"


# ------------------------------------------------------------------------------------------------------ files of tokens


def triples(path: Path) -> Config:
    return resolve({"data": {"name": "triples", "path": str(path)}})


def test_a_file_counts_by_its_contents(tmp_path: Path) -> None:
    here, there = tmp_path / "here.tsv", tmp_path / "there.tsv"
    here.write_text("a\tb\tc\n", encoding="utf-8")
    before = run_id(triples(here))
    here.rename(there)
    assert run_id(triples(there)) == before
    there.write_text("a\tb\td\n", encoding="utf-8")
    assert run_id(triples(there)) != before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.path=.*missing\.tsv cannot be read: No such file or directory\.$"):
        run_id(triples(tmp_path / "missing.tsv"))
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory\.$"):
        run_id(triples(tmp_path))


def test_a_text_counts_by_its_contents(tmp_path: Path) -> None:
    def text(path: Path) -> Config:
        return resolve({"data": {"name": "text", "path": str(path)}})

    here, there = tmp_path / "here.txt", tmp_path / "there.txt"
    here.write_text("once upon a time", encoding="utf-8")
    there.write_text("once upon a time", encoding="utf-8")
    assert run_id(text(here)) == run_id(text(there))
    there.write_text("once upon a tide", encoding="utf-8")
    assert run_id(text(here)) != run_id(text(there))


@pytest.mark.parametrize(("name", "delimiter"), [("facts.tsv", "\t"), ("facts.csv", ",")])
def test_the_delimiter_that_a_file_name_stands_for_is_the_same_run(tmp_path: Path, name: str, delimiter: str) -> None:
    path = tmp_path / name
    path.write_text(delimiter.join("abc") + "\n", encoding="utf-8")
    explicit = resolve({"data": {"name": "triples", "path": str(path), "delimiter": delimiter}})
    assert run_id(explicit) == run_id(triples(path))
