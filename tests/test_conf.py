"""The Hydra groups: every choice composes to a config that can be run, and defaults live in the schema alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tc_sweeps import cli
from tc_sweeps.config import Config, resolve

CONF = Path(cli.__file__).parents[1] / "conf"
CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment")
NEEDED = {"triples": ["data.path=facts.tsv"], "text": ["data.path=book.txt"]}


def composed(*overrides: str) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(compose("config", overrides=list(overrides)))


def test_the_defaults_are_those_of_the_schema() -> None:
    assert asdict(composed()) == asdict(resolve({}))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    assert composed(f"{group}={choice}", *NEEDED.get(choice, []))


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_has_its_own_sweep_and_axes(experiment: str) -> None:
    config = composed(f"experiment={experiment}")
    assert config.sweep in (experiment, f"{experiment}_{config.data.name}")
    text = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    assert text.hydra.sweeper.params


def test_every_group_has_a_choice_by_default() -> None:
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    named = {name for entry in defaults if not isinstance(entry, str) for name in entry if " " not in name}
    assert named == {group for group, _ in CHOICES} | {"experiment"}
