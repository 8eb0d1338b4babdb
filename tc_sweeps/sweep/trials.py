"""A study of Optuna whose trials are runs: asking for settings, and telling what the run folders say of them.

The folders are the truth. A study only repeats what they say, so whatever dies at whatever moment, a later look at the
folders completes it.
"""

from __future__ import annotations

import fcntl
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import optuna
import pandas as pd
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tc_sweeps.config import ConfigError
from tc_sweeps.store import RunFolder, is_alive
from tc_sweeps.store.files import locked, replace

__all__ = ["Search", "Space", "Trial"]

UNDEFINED = " is undefined"  # how the reason ends of a trial whose run has finished without a value
# What Optuna raises where a trial is in a final state; before it had a name it was this.
_ALREADY_TOLD: type[Exception] = getattr(optuna.exceptions, "UpdateFinishedTrialError", RuntimeError)
POLL_SECONDS = 0.5  # between looks at the folders of runs in training

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}

# ------------------------------------------------------------------------------------------------------------ the space


@dataclass(frozen=True)
class Space:
    """What is searched, and what every trial has in common."""

    axes: dict[str, BaseDistribution]
    fixed: dict[str, str]  # overrides by key

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> Space:
        """Return the space that overrides in Hydra's grammar mean; of a key given twice the last counts.

        Raises `ConfigError` where nothing is searched, or an axis cannot be.
        """
        axes: dict[str, BaseDistribution] = {}
        fixed: dict[str, str] = {}
        for override in overrides:
            key = override.get_key_element()
            axes.pop(key, None)
            fixed.pop(key, None)
            if override.is_sweep_override():
                if key in ("seed", "data.seed"):
                    raise ConfigError(
                        f"{override.input_line}: a search would choose the luckiest seed; leave it at one value, and "
                        "sweep seeds with the settings that came out best."
                    )
                if override.is_hydra_override() or key == "sweep":
                    raise ConfigError(f"{override.input_line}: '{key}' says how runs are made, it cannot be searched.")
                axes[key] = _distribution(override)
            else:
                fixed[key] = str(override.input_line)
        if not axes:
            raise ConfigError(
                "hydra.sweeper.params has no axis to search: name one, as in "
                "training.learning_rate='tag(log, interval(1e-3, 1e-1))' or model.width=8,16,32."
            )
        return cls(axes, fixed)

    def overrides(self, values: Mapping[str, Any], axes: Mapping[str, BaseDistribution] | None = None) -> list[str]:
        """Return the overrides of a job with these values of the axes (None: of the space)."""
        axes = self.axes if axes is None else axes
        chosen = {key: f"{key}={spell(value, axes[key])}" for key, value in values.items()}
        return list((self.fixed | chosen).values())

    def ends(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield for each axis and each of its values (of a range the ends) the overrides of two jobs that have it.

        The other axes have their first values in the one and their last in the other: a value that goes with only some
        of the others is still worth a search.
        """
        ends = {key: _ends(distribution) for key, distribution in self.axes.items()}
        first, last = ({key: values[place] for key, values in ends.items()} for place in (0, -1))
        for key, values in ends.items():
            for value in values:
                yield self.overrides(first | {key: value}), self.overrides(last | {key: value})


def spell(value: Any, distribution: BaseDistribution) -> str:
    """Return a value as Hydra reads it."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return f"{value:.12g}"  # 0.1 + 2 * 0.1 is meant as 0.3
    return repr(value)


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def _distribution(override: Override) -> BaseDistribution:
    line, sweep = override.input_line, override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if not tags <= {"log"}:
        raise ConfigError(f"{line}: the tag '{min(tags - {'log'})}' means nothing here; the only tag is log.")
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None
        assert high is not None
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(f"{line}: an interval goes from a number to a larger one.")
        if tags and low <= 0:
            raise ConfigError(f"{line}: on a logarithmic scale an interval starts above 0.")
        kind = IntDistribution if isinstance(low, int) else FloatDistribution
        return kind(low, high, log=bool(tags))  # type: ignore[arg-type]
    if isinstance(sweep, RangeSweep):
        numbers = sorted(sweep.range())
        if not numbers:
            raise ConfigError(f"{line}: this axis has no values.")
        if tags and (numbers[0] <= 0 or not all(isinstance(number, int) for number in numbers) or abs(sweep.step) != 1):
            raise ConfigError(f"{line}: on a logarithmic scale a range holds whole numbers above 0, in steps of 1.")
        low, high, step = numbers[0], float(f"{numbers[-1]:.12g}"), abs(sweep.step)
        if all(isinstance(number, int) for number in numbers):
            return IntDistribution(int(low), int(high), step=int(step), log=bool(tags))
        return FloatDistribution(low, high, step=step)
    if tags:
        raise ConfigError(
            f"{line}: the tag log goes with an interval or a range; the values of a choice have no scale."
        )
    plain = list(override.sweep_iterator())
    spelled = list(override.sweep_string_iterator())
    if not plain:
        raise ConfigError(f"{line}: this axis has no values.")
    choices = {
        text: value if value is None or isinstance(value, bool | int | float) else text
        for text, value in zip(spelled, plain, strict=True)
    }
    return CategoricalDistribution(tuple(choices.values()))


# ------------------------------------------------------------------------------------------------------------ the study


@dataclass
class Trial:
    """A trial that has been asked for and not been told; its run is known once it has been composed."""

    asked: optuna.Trial
    overrides: list[str]
    folder: RunFolder | None = None
    reported: int = 0  # the last step whose value the pruner knows


class Search:
    """A study in its storage, and the folder of the sweep that its runs belong to.

    The state of a sampler is not kept: before each batch a new one is made of the seed and the number of trials so far.
    A search that was interrupted therefore goes on as an undisturbed one would if it was interrupted between batches,
    and several processes do not ask for the same. In the middle of a batch others may have told more by then.
    """

    def __init__(
        self,
        path: Path,
        space: Space,
        objectives: Mapping[str, str],
        *,
        storage: str | None,
        sampler: str,
        seed: int,
        prune: str,
        first_step: int,
        last_step: int,
    ) -> None:
        """Open the study, or begin it. Steps are those of a run's evaluations.

        Raises `ConfigError` where it was begun for something else, and for a storage that does not serve.
        """
        self.path, self.space, self.objectives = path, space, dict(objectives)
        self._sampler, self._seed = sampler, seed
        self._where = storage or str(path / "study.journal")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
            "none": optuna.pruners.NopPruner,
            "median": optuna.pruners.MedianPruner,
            "hyperband": lambda: optuna.pruners.HyperbandPruner(first_step, last_step),
        }
        self._prunes = prune != "none"
        self._lock: TextIO | None = None
        opened = self._open(storage)
        begin = partial(
            optuna.create_study,
            study_name=path.name,
            storage=opened,
            directions=[optuna.study.StudyDirection[direction.upper()] for direction in self.objectives.values()],
            pruner=pruners[prune](),
            load_if_exists=True,
        )
        self.study = begin()
        others = self.study.user_attrs.get("objectives", self.objectives) != self.objectives
        if others and all(trial.state == TrialState.FAIL for trial in self.trials()):
            optuna.delete_study(study_name=path.name, storage=opened)  # it has no value that would be lost
            self.study = begin()
        self._require_alike()

    def close(self) -> None:
        """Let other processes have a storage that serves one."""
        if self._lock is not None:
            self._lock.close()

    def _open(self, storage: str | None) -> BaseStorage:
        if storage is None:
            self.path.mkdir(parents=True, exist_ok=True)
            _complete(Path(self._where))
            return JournalStorage(JournalFileBackend(self._where, _JournalLock(Path(self._where))))  # type: ignore[arg-type]
        import sqlalchemy as sql

        try:
            url = sql.engine.make_url(storage)
            if url.get_backend_name() == "sqlite" and url.database:
                self._lock = _alone(Path(f"{url.database}.lock"), storage)
            return RDBStorage(storage)
        except (sql.exc.SQLAlchemyError, ImportError) as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"hydra.sweeper.storage={storage} cannot be opened ({why}): give a URL such as sqlite:///study.db, or "
                f"null for a journal in {self.path}."
            ) from error

    def _require_alike(self) -> None:
        """Raise `ConfigError` where the study was begun with other objectives, or with axes that do not fit."""
        begun = self.study.user_attrs.get("objectives")
        if begun is None:
            self.study.set_user_attr("objectives", self.objectives)
            self.study.set_metric_names(list(self.objectives))
            begun = self.objectives
        directions = [direction.name.lower() for direction in self.study.directions]
        if begun != self.objectives or directions != list(self.objectives.values()):
            raise ConfigError(
                f"hydra.sweeper.objectives={self.objectives} are not those that the study '{self.path.name}' in "
                f"{self._where} was begun with, {begun}: give another `sweep` a study of its own."
            )
        known = {key: axis for trial in self.trials() for key, axis in trial.distributions.items()}
        for key, axis in self.space.axes.items():
            old = known.get(key, axis)
            choices = isinstance(axis, CategoricalDistribution) and old != axis
            if type(old) is not type(axis) or choices or getattr(old, "log", None) != getattr(axis, "log", None):
                raise ConfigError(
                    f"hydra.sweeper.params: '{key}' was {old} when the study '{self.path.name}' was begun, and is "
                    f"{axis} now; only the ends of a range may change: give another `sweep` a study of its own."
                )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials of the study, by number."""
        return self.study.get_trials(deepcopy=False)

    def missing(self, total: int) -> int:
        """Return how many trials are still to be asked for."""
        asked = sum(trial.state != TrialState.WAITING for trial in self.trials())  # those are asked for first
        return max(0, total - asked)

    def failed(self) -> list[FrozenTrial]:
        """Return the trials that have no run, or whose run failed."""
        return [
            trial
            for trial in self.trials()
            if trial.state == TrialState.FAIL and not trial.user_attrs.get("reason", "").endswith(UNDEFINED)
        ]

    def undefined(self) -> tuple[int, int, str]:
        """Return in how many runs an objective is undefined, how many trials have ended, and what is said of one."""
        ended = [trial for trial in self.trials() if trial.state.is_finished()]
        reasons = [trial.user_attrs.get("reason", "") for trial in ended]
        undefined = [reason for reason in reasons if reason.endswith(UNDEFINED)]
        return len(undefined), len(ended), undefined[0] if undefined else ""

    # -------------------------------------------------------------------------------------------------------------- ask

    def ask(self, at_once: int, total: int) -> list[Trial]:
        """Return the trials to be trained next: at most so many, and no more than `total` in the whole study.

        First come those whose process was killed in the middle. Where there is nothing left to ask for, those that
        others still train or were about to: whoever dies now, each of these ends.
        """
        with locked(self.path / ".search"):  # several processes must not go beyond the total together
            known = self.trials()
            running = [trial for trial in known if trial.state == TrialState.RUNNING]
            left = [self._taken_up(trial) for trial in running if self._is_left_behind(trial)][:at_once]
            number = min(at_once - len(left), self.missing(total))
            self.study.sampler = _sampler(self._sampler, self._seed, len(known))
            new = [self._suggested(self.study.ask()) for _ in range(number)]
        return left + new or [self._taken_up(trial) for trial in running[:at_once]]

    def _is_left_behind(self, trial: FrozenTrial) -> bool:
        if "run_id" not in trial.user_attrs:
            return False
        folder = RunFolder(self.path / trial.user_attrs["run_id"])
        begun = folder.status["state"] in ("running", "interrupted") and not is_alive(folder)
        # A run gives its lease back right after its last status, so the status is looked at once more.
        return begun or folder.done

    def _taken_up(self, trial: FrozenTrial) -> Trial:
        taken, overrides = optuna.Trial(self.study, trial._trial_id), trial.user_attrs.get("overrides")
        if overrides is None:  # its process was killed while it asked
            return self._suggested(taken)
        return Trial(taken, overrides, reported=max(trial.intermediate_values, default=0))

    def _suggested(self, asked: optuna.Trial) -> Trial:
        """Have the sampler choose what has not been chosen."""
        values = {key: _suggest(asked, key, axis) for key, axis in self.space.axes.items()}
        trial = Trial(asked, self.space.overrides(values))
        asked.set_user_attr("overrides", trial.overrides)
        return trial

    def is_run(self, trial: Trial, folder: RunFolder) -> None:
        """Take down which run a trial is."""
        trial.folder = folder
        with _unless_told():
            trial.asked.set_user_attr("run_id", folder.run_id)

    # ------------------------------------------------------------------------------------------------------------- tell

    def look(self, trials: Sequence[Trial]) -> list[Trial]:
        """Tell what the run folders say; return the trials that are not done."""
        open_trials = []
        for trial in trials:
            assert trial.folder is not None
            done = trial.folder.done
            with _unless_told():
                if self._prunes:
                    self._report(trial, trial.folder, done)
                if done:
                    self._tell_done(trial, trial.folder)
            if not done:
                open_trials.append(trial)
        return open_trials

    def _report(self, trial: Trial, folder: RunFolder, done: bool) -> None:
        """Report what was evaluated since the last look, and ask for the end of a run that compares badly."""
        [objective] = self.objectives
        for step, value in folder.read_curve(objective):
            if step > trial.reported and not math.isnan(value):
                trial.asked.report(value, step)
                trial.reported = step
                if not done and trial.asked.should_prune():
                    folder.request_prune()

    def _tell_done(self, trial: Trial, folder: RunFolder) -> None:
        if folder.finished:
            last = folder.read_last()
            undefined = [name for name in self.objectives if math.isnan(last[name])]
            if not undefined:
                self._tell(trial, TrialState.COMPLETE, [last[name] for name in self.objectives])
            else:
                self.fail(trial, f"{' and '.join(undefined)}{UNDEFINED}")
        elif folder.pruned:
            self._tell(trial, TrialState.PRUNED)
        else:
            self.fail(trial, str(folder.status["reason"]))

    def fail(self, trial: Trial, reason: str) -> None:
        """Tell that a trial has no value, and why."""
        with _unless_told():
            trial.asked.set_user_attr("reason", reason)
            self._tell(trial, TrialState.FAIL)

    def _tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        self.study.tell(trial.asked, values, state=state, skip_if_finished=True)

    @contextmanager
    def telling(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Tell what becomes of the runs while the body trains them, and once more when it has ended, come what may."""
        ended, left, errors = threading.Event(), list(trials), list[Exception]()

        def watch() -> None:
            nonlocal left
            try:
                while not ended.wait(POLL_SECONDS):
                    left = self.look(left)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=watch, name="search", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            left = self.look(left)
        if errors:
            raise errors[0]
        for trial in left:
            self.fail(trial, "it did not finish")

    # ---------------------------------------------------------------------------------------------------------- records

    def write_table(self, total: int) -> None:
        """Write trials.parquet: one row per trial of the `total`, see `tc_sweeps.report.load_trials`."""
        known = self.trials()
        keys = dict.fromkeys([*self.space.axes, *(key for trial in known for key in trial.params)])
        columns: dict[str, list[Any]] = {
            "number": [trial.number for trial in known],
            "state": [STATES[trial.state] for trial in known],
        }
        for place, name in enumerate(self.objectives):
            values = [trial.values if trial.state == TrialState.COMPLETE else None for trial in known]
            columns[name] = [math.nan if value is None else value[place] for value in values]
        columns |= {key: _column([trial.params.get(key) for trial in known]) for key in keys}
        columns["run_id"] = [trial.user_attrs.get("run_id") for trial in known]
        table = pd.DataFrame(columns)
        table.attrs |= {"objectives": self.objectives, "trials": total}
        replace(self.path / "trials.parquet", lambda path: table.to_parquet(path, index=False))


@contextmanager
def _unless_told() -> Iterator[None]:
    """Tell what another process may have told at the same time, which is as good."""
    with suppress(_ALREADY_TOLD):
        yield


def _suggest(trial: optuna.Trial, key: str, axis: BaseDistribution) -> Any:
    """Return the trial's value, and have the sampler choose it where it has none."""
    if isinstance(axis, CategoricalDistribution):
        return trial.suggest_categorical(key, axis.choices)
    if isinstance(axis, IntDistribution):
        return trial.suggest_int(key, axis.low, axis.high, step=axis.step, log=axis.log)
    assert isinstance(axis, FloatDistribution)
    return trial.suggest_float(key, axis.low, axis.high, step=axis.step, log=axis.log)


def _sampler(name: str, seed: int, asked: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of the batch that begins with trial number `asked`."""
    batch_seed = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0])
    if name == "tpe":  # trials in training count as bad ones, so that a batch does not ask for the same again and again
        return optuna.samplers.TPESampler(seed=batch_seed, constant_liar=True)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=batch_seed)
    return optuna.samplers.NSGAIISampler(seed=batch_seed)


def _column(values: list[Any]) -> list[Any]:
    """Return values as Parquet takes them: of one type."""
    types = {type(value) for value in values if value is not None}
    return values if len(types) == 1 or types <= {int, float} else [None if v is None else str(v) for v in values]


class _JournalLock:
    """Holds the journal against other processes and threads, and lets go of it when its process ends, however it ends.

    Optuna's own locks are files that a killed process leaves behind.
    """

    def __init__(self, journal: Path) -> None:
        self._path = _lock_of(journal)
        self._held: AbstractContextManager[None] | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        held = locked(self._path)
        held.__enter__()
        self._held = held
        return True

    def release(self) -> None:
        """Give the lock back."""
        held, self._held = self._held, None
        assert held is not None
        held.__exit__(None, None, None)


def _lock_of(journal: Path) -> Path:
    return journal.with_name(f".{journal.name}.lock")


def _complete(journal: Path) -> None:
    """Cut off a last line that was not written to its end: with another one behind it the study could not be read."""
    if not journal.exists():
        return
    with locked(_lock_of(journal)), journal.open("r+b") as file:
        contents = file.read()
        file.truncate(contents.rfind(b"\n") + 1)


def _alone(path: Path, storage: str) -> TextIO:
    """Return a lock that this process holds until it closes it or ends; raises `ConfigError` where another has it."""
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise ConfigError(
            f"hydra.sweeper.storage={storage} is in use by another process, and SQLite serves one: leave it at null, "
            "the journal, where several processes search together."
        ) from error
    return handle
