"""The launcher, `hydra/launcher=stacked|slurm|ray`: hands all jobs of a multirun to the task function's `many` form."""

from __future__ import annotations

import copy
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    env_override,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tc_sweeps.sweep.compose import Composer, current

__all__ = ["StackedLauncher"]

log = logging.getLogger(__name__)


@dataclass
class StackedLauncherConf:
    """The keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.tc_sweeps.StackedLauncher"
    workers: int | None = None  # processes that train; null: one per CUDA device, without one as many as pay
    # What the tensors of all stacks in training may take, at most: null is half of what is free. On a CPU a stack takes
    # no more than pays. The libraries of a process and artifacts.memory_mib come on top.
    memory_mib: int | None = None
    retry_failed: bool = False  # train runs again that failed; others are never trained twice
    executor: str = "local"  # where workers run: the presets hydra/launcher=slurm and ray choose
    wait: bool = True  # for the results; false, on a cluster: submit and return (a search waits all the same)


@dataclass
class SlurmLauncherConf(StackedLauncherConf):
    """The keys of `hydra.launcher` for `hydra/launcher=slurm`: those of sbatch are named and meant as there."""

    executor: str = "slurm"
    workers: int | None = 4  # tasks of the job array, each of which trains until all runs are done
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: Any = 60  # of a task, which is requeued at its end while runs are left: minutes, or 1-12:00:00
    mem: str | None = None
    cpus_per_task: int = 1  # without a GPU: as many processes train in a task
    gpus_per_node: Any = None
    gres: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    signal_delay_s: int = 90  # before the time limit: when a task is told to save and be requeued
    setup: list[str] = field(default_factory=list)  # lines of shell before a worker starts, such as module load
    python: str = shlex.quote(sys.executable)  # as a line of shell on the nodes: apptainer exec IMAGE python, for one
    snapshot: bool = False  # copy the package into the sweep's folder and have the workers run that
    additional_parameters: Any = None  # any other option of sbatch: {comment: hello, exclusive: true}


@dataclass
class RayLauncherConf(StackedLauncherConf):
    """The keys of `hydra.launcher` for `hydra/launcher=ray`: those of `ray.remote` are named and meant as there."""

    executor: str = "ray"
    workers: int | None = 4  # actors, each of which trains until all runs are done
    address: str = "auto"  # of the cluster: auto, or HOST:PORT
    num_cpus: int = 1  # of a worker; without a GPU: as many processes train in it
    num_gpus: float = 0
    memory: int | None = None  # bytes
    resources: Any = None  # of a worker, by the cluster's names: {big_disk: 1}
    snapshot: bool = False  # copy the package into the sweep's folder and have the workers run that


class StackedLauncher(Launcher):
    """Trains the jobs of a multirun together.

    A task function says how by its attribute `many(configs, settings)`: an iterator over the composed configs, with
    `hydra`, and the keys of `hydra.launcher`; it returns per job what the task function would return, or the exception
    it would raise. With `require(settings)` it refuses, by an exception, settings that nothing can be launched with
    from here. Such jobs have no folder of Hydra's own: their overrides stand in `multirun.yaml`. A task function
    without `many` is run job by job, as Hydra's basic launcher does.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in settings.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a launch needs; Hydra calls this."""
        self._context, self._task, self._config = hydra_context, task_function, config
        if hasattr(task_function, "require"):  # now: nothing is queued yet
            task_function.require(self._settings)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return how each ended, in their order."""
        setup_globals()
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        composer = Composer(self._context.config_loader, self._config)
        composed = (composer.compose(o, initial_job_idx + place) for place, o in enumerate(job_overrides))
        many = getattr(self._task, "many", None)
        if many is None:
            return [self._run(config) for config in composed]
        self._log_as_a_job()
        with env_override(self._config.hydra.job.env_set):
            outcomes = many(self._started(composed), self._settings)
            return [
                self._ended(composer, overrides, initial_job_idx + place, outcome)
                for place, (overrides, outcome) in enumerate(zip(job_overrides, outcomes, strict=True))
            ]

    def _run(self, config: DictConfig) -> JobReturn:
        log.info("\t#%s : %s", config.hydra.job.num, " ".join(filter_overrides(config.hydra.overrides.task)))
        returned = run_job(
            hydra_context=self._context,
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        return returned

    def _started(self, composed: Iterator[DictConfig]) -> Iterator[DictConfig]:
        """Pass the configs on one by one, each while it is Hydra's current one (its resolvers look there)."""
        for config in composed:
            with self._current(config):
                self._context.callbacks.on_job_start(config=config, task_function=self._task)
                yield config

    @contextmanager
    def _current(self, config: DictConfig) -> Iterator[None]:
        """Have this config be Hydra's current one, with the output folder that Hydra would give the job."""
        with current(config):
            sweep = config.hydra.sweep
            with read_write(config), open_dict(config):
                config.hydra.runtime.output_dir = str(Path(str(sweep.dir), str(sweep.subdir)).absolute())
            yield

    def _log_as_a_job(self) -> None:
        """Log as jobs do, all of them into one file beside `multirun.yaml`."""
        config = copy.deepcopy(self._config)
        with read_write(config), open_dict(config):
            config.hydra.runtime.output_dir = str(Path(str(config.hydra.sweep.dir)).absolute())
        configure_log(config.hydra.job_logging, config.hydra.verbose)

    def _ended(self, composer: Composer, overrides: Sequence[str], number: int, outcome: Any) -> JobReturn:
        returned = JobReturn(  # without the configs: 200 kB a job, and the callbacks get them
            overrides=filter_overrides(overrides),
            working_dir=str(Path.cwd()),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if isinstance(outcome, Exception) else JobStatus.COMPLETED,
        )
        returned.return_value = outcome
        if self._context.callbacks.callbacks:
            config = composer.compose(overrides, number)
            with self._current(config):
                self._context.callbacks.on_job_end(config=config, job_return=returned)
        return returned


for name, node in (("stacked", StackedLauncherConf), ("slurm", SlurmLauncherConf), ("ray", RayLauncherConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="tc_sweeps")
