"""Reading a run back: its numbers, its corpus and its trained model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import StackModel, build_model
from tc_sweeps.store import RunFolder, run_id

__all__ = ["Run", "load_run"]


class Run:
    """A run read from its folder; corpus and model are built when they are asked for."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.config: DictConfig = OmegaConf.create(folder.read_config())

    def __repr__(self) -> str:
        return f"<Run {self.folder.path}: {self.status['state']}>"

    @property
    def status(self) -> dict[str, Any]:
        """The dict of status.json: state, reason, step, attempt."""
        return self.folder.status

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per evaluation: `step` and every metric, NaN where it is undefined."""
        return self.folder.read_metrics()

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus that the run was trained on, built again from its config; raises ConfigError where it changed."""
        config = resolve(self.config)
        if run_id(config) != self.folder.run_id:
            raise ConfigError(
                f"{self.folder.path} was made with other data or by another version: its config has the identity "
                f"{run_id(config)} now, so its corpus cannot be built again."
            )
        return build_corpus(config.data)

    @cached_property
    def model(self) -> StackModel:
        """The trained model, a stack of one; `model.probabilities([C, m])` returns [C, V]."""
        path = self.folder.path / "model.safetensors"
        if not path.exists():
            raise ConfigError(f"{self.folder.path} has no trained model: its state is {self.status['state']}.")
        config, weights = resolve(self.config), load_file(path)
        assert config.data.order is not None
        model = build_model(
            config.model,
            vocab_size=int(self.folder.read_facts()["corpus/vocab_size"] or 0),
            unsupported="unsupported" in weights,
            max_length=config.data.order - 1,
            seeds=[config.seed],
        )
        model.load_state_dict({name: value[None] for name, value in weights.items()})
        return model.requires_grad_(False)


def load_run(path: str | Path) -> Run:
    """Return the run in a folder, as in `load_run("outputs/figure2/ab12cd34ab12cd34")`.

    Raises `ConfigError` where there is none.
    """
    folder = RunFolder(Path(path))
    if not (folder.path / "config.yaml").exists():
        raise ConfigError(f"{path} is not the folder of a run: it has no config.yaml.")
    return Run(folder)
