"""The default sweeper, `hydra/sweeper=grid`: Hydra's product of axes, validated whole before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tc_sweeps.config import ConfigError, explain
from tc_sweeps.sweep.compose import Composer

__all__ = ["GridSweeper", "SweepFailed"]


class SweepFailed(RuntimeError):
    """Some jobs of a sweep failed; the others were run."""


@dataclass
class GridSweeperConf:
    """The keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.tc_sweeps.GridSweeper"
    params: dict[str, str] | None = None  # axes, as on the command line: "model.width": "16,32"
    max_batch_size: int | None = None  # jobs handed to the launcher at once; null: all, so that stacks are full


class GridSweeper(BasicSweeper):  # type: ignore[misc]
    """Hydra's basic sweeper, but composed once per combination of group choices, and no failure stops the other jobs.

    A task function with a `check(config)` has every job checked before the first starts.
    """

    __module__ = "hydra_plugins.tc_sweeps"  # Hydra makes no plugin, registered or not, of any other module

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs; Hydra calls this."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._check = getattr(task_function, "check", lambda config: None)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Validate and launch all jobs; raises `SweepFailed` at the end where some failed."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        for batch in batches:
            self.validate_batch_is_legal(batch)
        returns: list[Sequence[JobReturn]] = []
        for batch in batches:
            returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
        _raise_failures([job for batch in returns for job in batch])
        return returns

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raise `ConfigError` for the first job that cannot be composed or run, with its overrides."""
        composer = Composer(self.hydra_context.config_loader, self.config)
        before = HydraConfig.instance().cfg
        try:
            for number, overrides in enumerate(batch):
                try:
                    composed = composer.compose(overrides, number)
                    HydraConfig.instance().set_config(composed)
                    self._check(composed)
                except (ConfigError, HydraException) as error:
                    raise ConfigError(f"{' '.join(overrides)}: {explain(error)}") from error
        finally:
            HydraConfig.instance().cfg = before


def _raise_failures(jobs: Sequence[JobReturn]) -> None:
    failed = [job for job in jobs if job.status == JobStatus.FAILED]
    if not failed:
        return
    for job in failed:
        print(f"{' '.join(job.overrides or [])}: {explain(job._return_value)}", file=sys.stderr)
    raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed.") from failed[0]._return_value


Plugins.instance().register(GridSweeper)
ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="tc_sweeps")
