"""Search, `hydra/sweeper=optuna`: Optuna asks for settings, and every trial is a run like any other.

What Optuna needs is imported when a search starts: Hydra imports this module in every app of an environment.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from tc_sweeps.config import METRICS, ConfigError, SweepFailed, leaves
from tc_sweeps.store import Job, RunFolder, SweepFolder
from tc_sweeps.store.sweep_folder import flat
from tc_sweeps.sweep.axes import require_axes_once
from tc_sweeps.sweep.compose import Composer, current
from tc_sweeps.sweep.engine import COMMAND, LAUNCH, Launch, runs_at_once
from tc_sweeps.sweep.launcher import StackedLauncher

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tc_sweeps.sweep.trials import Search, Space, Trial

__all__ = ["SearchSweeper"]

DIRECTIONS = ("maximize", "minimize")
SAMPLERS = ("tpe", "random", "nsgaii")
PRUNERS = ("none", "median", "hyperband")
SURELY = 10  # trials without a value, one after the other: no other will have one; a first one may have fitted nothing
ROUNDS = 10  # that a sampler learns from, where it is left to this module how many trials are asked for at once


@dataclass
class SearchSweeperConf:
    """The keys of `hydra.sweeper`."""

    kind: ClassVar[str] = "a search, hydra/sweeper=optuna,"
    _target_: str = "hydra_plugins.tc_sweeps.SearchSweeper"
    # What is searched, in Hydra's grammar: "training.learning_rate": "tag(log, interval(1e-3, 1e-1))",
    # "model.layers": "range(1,4)", "model.width": "8,16,32"; plain values are fixed.
    params: dict[str, str] = field(default_factory=dict)
    # Metric: maximize or minimize; one or several. A typed dict would take keys with a + only, and a search needs one.
    objectives: Any = None
    trials: int = 100  # that the study shall have in the end, whatever became of them
    # Trials asked for at once; null: as many runs as train at once (one with Hydra's own launchers), and with a sampler
    # that learns at most a tenth of all trials, since all of a batch are asked for before any is told.
    batch: int | None = None
    sampler: str = "tpe"  # tpe, random, or nsgaii for several objectives and many hundred trials
    seed: int = 0  # of the sampler
    prune: str = "none"  # none, median or hyperband: ends runs early that compare badly; for one objective
    storage: str | None = None  # null: a journal in outputs/<sweep>; else a URL as Optuna takes it


class SearchSweeper(Sweeper):
    """Asks for trials in batches, launches their runs, and tells what became of each as soon as it is known.

    The study has the sweep's name. The same command again goes on to the same total: runs that were in training come
    first, and a suggestion whose run is done costs nothing. Needs a task function whose `check` returns the `Job` of a
    composed config.
    """

    def __init__(
        self,
        params: Mapping[str, str] | None,
        objectives: Any,
        trials: int,
        batch: int | None,
        sampler: str,
        seed: int,
        prune: str,
        storage: str | None,
    ) -> None:
        self.params, self.objectives = params or {}, objectives
        self.trials, self.batch, self.sampler, self.seed = trials, batch, sampler, seed
        self.prune, self.storage = prune, storage

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a search needs; Hydra calls this."""
        if "wait" in config.hydra.launcher:  # what to try next depends on the results
            with read_write(config):
                config.hydra.launcher.wait = True
        self._context, self._config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._check = getattr(task_function, "check", None)
        self._dry_run = getattr(task_function, "dry_run", False)
        self._composer = Composer(hydra_context.config_loader, config)

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Search until the study has its trials; raises `SweepFailed` at the end where runs failed."""
        if self._dry_run:
            raise ConfigError("hydra/sweeper=optuna cannot be planned: a search chooses its runs as it goes.")
        self._require_options()
        from tc_sweeps.sweep.trials import Search, Space

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        given = [f"{key}={values}" for key, values in self.params.items()]
        require_axes_once(parser.parse_overrides(arguments))
        space = Space.of(parser.parse_overrides([*given, *arguments]))
        first = self._require_that_values_run(space)
        training = first.config.training
        search = Search(
            first.folder.path.parent,
            space,
            self.objectives,
            storage=self.storage,
            sampler=self.sampler,
            seed=self.seed,
            prune=self.prune,
            first_step=max(1, training.steps // training.evaluations),
            last_step=training.steps,
        )
        with closing(search):
            self._require_that_settings_stand(search)
            with current(self._config):  # `hydra.sweep.dir` names the sweep
                folder = Path(self._config.hydra.sweep.dir)
                folder.mkdir(parents=True, exist_ok=True)
                OmegaConf.save(self._config, folder / "multirun.yaml")
                returns = self._search(search, first)
            self._end(search)
        return returns

    # ---------------------------------------------------------------------------------------------- before it starts

    def _require_options(self) -> None:
        """Raise `ConfigError` for keys of `hydra.sweeper` that make no search."""
        if not self.objectives or not isinstance(self.objectives, Mapping):
            raise ConfigError(
                f"hydra.sweeper.objectives={self.objectives} names no metric and direction, as in "
                "'hydra.sweeper.objectives={artifacts/per_ngram: minimize}'."
            )
        for name, direction in self.objectives.items():
            if name not in METRICS:
                from tc_sweeps.report.frame import hint

                known = f"there are {', '.join(METRICS)}"
                raise ConfigError(f"hydra.sweeper.objectives: '{name}' is no metric{hint(str(name), METRICS, known)}")
            _require_one_of(f"objectives: {name}", direction, DIRECTIONS)
        for name, value in (("trials", self.trials), ("batch", self.batch)):
            if value is not None and value < 1:
                raise ConfigError(f"hydra.sweeper.{name}={value} must be at least 1.")
        if self.seed < 0:
            raise ConfigError(f"hydra.sweeper.seed={self.seed} must be at least 0.")
        _require_one_of("sampler", self.sampler, SAMPLERS)
        _require_one_of("prune", self.prune, PRUNERS)
        if self.prune != "none" and len(self.objectives) > 1:
            raise ConfigError(
                f"hydra.sweeper.prune={self.prune} goes with one objective, not with {len(self.objectives)}: set "
                "hydra.sweeper.prune=none."
            )
        if self._check is None:
            raise ConfigError("hydra/sweeper=optuna searches runs of tc_sweeps; this app has none.")

    def _require_that_values_run(self, space: Space) -> Job:
        """Return the first job of a space; raises `ConfigError` for a value of an axis that no run can have."""
        jobs = []
        for alternatives in space.ends():
            try:
                jobs.append(self._compose(alternatives[0]))
            except ConfigError as error:
                try:
                    jobs.append(self._compose(alternatives[1]))
                except ConfigError:
                    _require_whole(space, error)
                    raise error from error.__cause__
        return jobs[0]

    def _compose(self, overrides: Sequence[str]) -> Job:
        """Return the run that overrides mean; raises `ConfigError` where they do not compose or cannot be run."""
        assert self._check is not None
        job: Job = self._composer.check(overrides, 0, self._check)
        return job

    def _require_that_settings_stand(self, search: Search) -> None:
        """Raise `ConfigError` where an earlier trial of the study would be another run now: values must compare."""
        for trial in search.trials():
            before = RunFolder(search.path / trial.user_attrs.get("run_id", "none"))
            if (before.path / "config.yaml").exists():
                job = self._compose(search.space.overrides(trial.params, trial.distributions))
                if job.folder.run_id != before.run_id:
                    raise ConfigError(
                        f"The study '{search.path.name}' was begun with {_difference(before, job)}: give another "
                        "`sweep` a study of its own, or set it back."
                    )
                return

    # ------------------------------------------------------------------------------------------------------ the search

    def _search(self, search: Search, first: Job) -> list[Sequence[JobReturn]]:
        returns: list[Sequence[JobReturn]] = []
        at_once = self.batch or (self._at_once(first) if search.missing(self.trials) else self.trials)
        launched = 0
        while batch := search.ask(at_once, self.trials):
            runs = self._composed(search, batch)
            missing = search.look(runs)  # the others are done already: a suggestion that repeats costs nothing
            if missing:
                self._plan(search)
                search.write_table(self.trials)  # a search that is killed in its first batch is known as one
                began = time.monotonic()
                with search.telling(missing), _quiet():
                    jobs = [trial.overrides for trial in missing]
                    returns.append(self._launcher.launch(jobs, initial_job_idx=launched))
                launched += len(missing)
                search.write_table(self.trials)
                done, took = self.trials - search.missing(self.trials), time.monotonic() - began
                log.info("%s: %d of %d trials, %d runs in %.1f s", search.path, done, self.trials, len(missing), took)
            _require_some_value(search, SURELY)  # before hours are spent on more of them
        self._plan(search)
        return returns

    def _at_once(self, job: Job) -> int:
        """Return how many trials to ask for at once."""
        if not isinstance(self._launcher, StackedLauncher):
            return 1
        fill = runs_at_once(job.config, Launch.of(self._config.hydra.launcher))
        return fill if self.sampler == "random" else min(fill, max(1, self.trials // ROUNDS))

    def _composed(self, search: Search, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials whose settings are a run; the others have failed."""
        runs = []
        for trial in trials:
            try:
                job = self._compose(trial.overrides)
                if job.folder.path.parent != search.path:
                    raise ConfigError(f"{' '.join(trial.overrides)}: `sweep` must be the same for all trials.")
            except ConfigError as error:
                search.fail(trial, str(error))
            else:
                search.is_run(trial, job.folder)
                runs.append(trial)
        return runs

    def _plan(self, search: Search) -> None:
        """Have plan.json list the runs of all trials: a launch begins the list anew, with its own runs only."""
        known = [trial.user_attrs.get("run_id") for trial in search.trials()]
        SweepFolder(search.path).add_runs(
            [run_id for run_id in known if run_id is not None],
            experiment=self._config.hydra.runtime.choices.get("experiment"),
            launch=os.environ.get(LAUNCH),
            command=os.environ.get(COMMAND),
        )

    def _end(self, search: Search) -> None:
        """Say what the search has come to, and draw it; raises `SweepFailed` where trials failed."""
        from tc_sweeps.report import best_text, draw_experiment, load_trials

        search.write_table(self.trials)
        _require_some_value(search, 1)
        trials = load_trials(search.path)
        sys.stdout.write(f"\nSearch '{search.path.name}': {best_text(trials)}\n")
        undefined, _, why = search.undefined()
        if undefined:
            sys.stdout.write(f"Of the failed ones {undefined} trained well, but {why}.\n")
        if (trials["state"] == "complete").any():
            written = draw_experiment(search.path, "search").paths[0]
            sys.stdout.write(f"Written: {search.path / 'trials.parquet'} {written}\n")
        failed = search.failed()
        for trial in failed:
            if "run_id" not in trial.user_attrs:  # the others are on record, and said by whoever launched them
                sys.stderr.write(f"{trial.user_attrs['reason']}\n")
        if failed:
            raise SweepFailed(f"{len(failed)} of {len(trials)} trials failed.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what every launch says of its stacks and runs: a search makes one for each batch of trials."""
    loggers = [logging.getLogger(name) for name in ("tc_sweeps.sweep.engine", "tc_sweeps.train")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _require_some_value(search: Search, surely: int) -> None:
    """Raise `ConfigError` where an objective is undefined in each of so many trials, or more."""
    undefined, ended, why = search.undefined()
    if ended == undefined >= surely:
        raise ConfigError(
            f"hydra.sweeper.objectives: {why} in all {ended} runs: choose another metric, which this sweep may have as "
            "long as no trial has a value."
        )


def _require_one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"hydra.sweeper.{key}={value} is not one of {', '.join(allowed)}.")


def _require_whole(space: Space, error: ConfigError) -> None:
    """Raise `ConfigError` where the error is that of an interval whose key takes whole numbers."""
    from optuna.distributions import FloatDistribution

    for key, axis in space.axes.items():
        if isinstance(axis, FloatDistribution) and re.search(rf" {re.escape(key)}: .* to Integer\.$", str(error)):
            raise ConfigError(
                f"{key} takes whole numbers, and an interval holds fractions: write int(...) around it, as in "
                "int(interval(8,12)), or a range, as in range(8,13)."
            ) from error


def _difference(before: RunFolder, job: Job) -> str:
    """Return how a run's settings differ from those of a job."""
    old = flat(before.read_config())
    for key, value, metadata in leaves(job.config):
        if metadata["identity"] and old.get(key) != value:
            return f"{key}={old.get(key)}, and now it is {value}"
    return "data of other contents"


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=SearchSweeperConf, provider="tc_sweeps")
