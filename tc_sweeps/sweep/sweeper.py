"""The default sweeper, `hydra/sweeper=grid`: products of axes and more, validated whole before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tc_sweeps.config import ConfigError, RunFailed, SweepFailed, explain
from tc_sweeps.sweep.axes import Block, expand
from tc_sweeps.sweep.compose import Composer, current

__all__ = ["GridSweeper"]


@dataclass
class GridSweeperConf(Block):
    """The keys of `hydra.sweeper`; see `axes.Block` for those of every block."""

    kind: ClassVar[str] = "hydra/sweeper=grid"
    _target_: str = "hydra_plugins.tc_sweeps.GridSweeper"
    # One after the other, each with the axes above in front; an axis of the command line replaces that of every block.
    blocks: list[Block] = field(default_factory=list)
    max_batch_size: int | None = None  # jobs handed to the launcher at once; null: all, so that stacks are full


class GridSweeper(Sweeper):
    """Launches products of axes, as Hydra's basic sweeper does, but no failure stops the other jobs.

    Axes can go together (`zip`), jobs be left out (`exclude`), and several products follow each other (`blocks`). Jobs
    are composed once per combination of group choices. A task function with a `check(config)` has every job checked
    before the first starts; with one that says `dry_run`, none does.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        zip: Sequence[Any] = (),
        exclude: Sequence[dict[str, Any]] = (),
        blocks: Sequence[Mapping[str, Any]] = (),
        max_batch_size: int | None = None,
    ) -> None:
        self._common = Block(_plain(params or {}), _plain(zip), _plain(exclude))
        self._blocks = [Block(**block) for block in _plain(blocks)]
        self.max_batch_size = max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs; Hydra calls this."""
        self._context, self._config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._check = getattr(task_function, "check", _accept)
        self._dry_run = getattr(task_function, "dry_run", False)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Validate and launch all jobs; raises `SweepFailed` at the end where some failed."""
        if self.max_batch_size is not None and self.max_batch_size < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size={self.max_batch_size} must be at least 1.")
        jobs = self.jobs(arguments)
        self.validate_batch_is_legal(jobs)
        if self._dry_run:
            return []
        size = self.max_batch_size or len(jobs)
        with current(self._config):  # `hydra.sweep.dir` names the sweep, and that may name a job: here, none
            folder = Path(self._config.hydra.sweep.dir)
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self._config, folder / "multirun.yaml")
            returns = [
                self._launcher.launch(jobs[begin : begin + size], initial_job_idx=begin)
                for begin in range(0, len(jobs), size)
            ]
        _raise_failures([job for batch in returns for job in batch])
        return returns

    def jobs(self, arguments: Sequence[str]) -> list[list[str]]:
        """Return the overrides of every job; `arguments` are those of the command line, and override every block."""
        parse = OverridesParser.create(config_loader=self._context.config_loader).parse_overrides
        blocks = [block.within(self._common) for block in self._blocks] or [self._common]
        return expand(blocks, arguments, parse)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raise `ConfigError` for the first job that cannot be composed or run, with its overrides."""
        composer = Composer(self._context.config_loader, self._config)
        for number, overrides in enumerate(batch):
            composer.check(overrides, number, self._check)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _accept(_: DictConfig) -> None:
    """Check nothing: for a task function that says nothing of what it can run."""


def _raise_failures(jobs: Sequence[JobReturn]) -> None:
    failed = [job for job in jobs if job.status == JobStatus.FAILED]
    if not failed:
        return
    reasons: dict[str, list[str]] = {}
    for job in failed:
        if not isinstance(job._return_value, RunFailed):  # those are on record, and said by whoever launched the sweep
            reasons.setdefault(explain(job._return_value), []).append(" ".join(job.overrides or []))
    for reason, named in reasons.items():
        more = f" and {len(named) - 1} more" if len(named) > 1 else ""
        sys.stderr.write(f"{named[0]}{more}: {reason}\n")
    raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed.") from failed[0]._return_value


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="tc_sweeps")
