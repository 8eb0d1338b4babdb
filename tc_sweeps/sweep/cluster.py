"""Sweeps on machines of a cluster: what is submitted to a scheduler, what its workers do, and how a launch waits.

A scheduler is given workers, not runs. A worker goes through the stacks of the sweep, trains what nobody else does, and
ends when nothing is left to begin, one of them when all runs are done: one array of a few tasks serves any number of
runs, and what a dead worker held is taken over by the others. What became of the runs stands in the store; the
scheduler is only asked who works.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.store import Job, RunFolder, SweepFolder, code_version, is_alive
from tc_sweeps.sweep.engine import Launch, LocalSweep, polling

__all__ = ["Submission", "Task", "WorkerState", "cancel", "executor_of", "standings", "train_elsewhere"]

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
STOP_MARGIN_SECONDS = 15  # before a time limit, for what comes after the last evaluation
WAIT_FOR_THE_END_SECONDS = 600.0  # that a scheduler may take to end a worker which it has told to stop


@dataclass
class Task:
    """What one worker does, on whatever machine: it trains the runs of a sweep with the configs frozen there."""

    sweep: str  # the absolute path of its folder
    run_ids: list[str]
    launch: Launch
    cwd: str  # where the user stood: files of data are named from there
    _local: LocalSweep | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Work until nothing is left to do, or until the scheduler asks to stop; it then ends this process itself."""
        logging.getLogger("submitit").propagate = False  # it writes its own lines
        logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S", force=True)
        os.chdir(self.cwd)
        self._local = LocalSweep(Path(self.sweep), self.launch)
        signal.signal(signal.SIGTERM, self._stop)
        folders = [RunFolder(Path(self.sweep, run_id)) for run_id in self.run_ids]
        self._local.train([Job(resolve(folder.read_config()), folder) for folder in folders])
        if all(folder.done for folder in folders):
            SweepFolder(Path(self.sweep)).remake_results()  # for a launch that has left

    def stop(self, number: int = signal.SIGUSR2) -> None:
        """Have what is in training saved and given back; returns when it is. `number`: see `LocalSweep.stop`."""
        if self._local is not None:
            self._local.stop(number)

    def _stop(self, number: int, _: object) -> None:
        self.stop(number)
        log.info("Stopped by the scheduler: what was in training is saved.")
        # A job that is preempted is put back into the queue only if it does not end by itself.
        time.sleep(WAIT_FOR_THE_END_SECONDS)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what runs here: the task may be sent again."""
        return self.__dict__ | {"_local": None}


@dataclass(frozen=True)
class Submission:
    """What was submitted to a scheduler for a sweep, as it stands in `outputs/<sweep>/.jobs/`."""

    executor: str  # slurm or ray
    id: str  # as the scheduler names it
    workers: int
    run_ids: list[str]
    settings: dict[str, Any]  # what the scheduler was told
    logs: str  # the folder of the workers' output
    submitted: str  # when, UTC
    code_version: str
    command: str | None
    address: str | None = None  # of a Ray cluster
    done: bool = False  # the launch that submitted it has seen all its runs done

    def __str__(self) -> str:
        at = f" at {self.address}" if self.address else ""
        return f"{self.executor.capitalize()} {self.id}{at}"


@dataclass(frozen=True)
class WorkerState:
    """What a scheduler says of a worker."""

    name: str  # as the scheduler names it
    state: str  # in its own words, such as RUNNING
    reason: str  # why it waits or how it ended, as far as is known
    ended: bool


class Executor(Protocol):
    """A way to have tasks run elsewhere: the modules `slurm` and `ray` of `tc_sweeps.sweep.executors`."""

    def require(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError where nothing can be submitted from here."""
        ...

    def submit(self, task: Task, workers: int, settings: Mapping[str, Any], logs: Path) -> tuple[str, str | None]:
        """Submit so many workers; return what names them, and the cluster's address where it has one.

        Raises ConfigError where the scheduler refuses.
        """
        ...

    def workers(self, submission: Submission) -> list[WorkerState] | None:
        """Return what the scheduler says of the workers; None where theirs does not answer."""
        ...

    def cancel(self, submission: Submission) -> None:
        """End what runs and forget what waits."""
        ...


def executor_of(name: str) -> Executor:
    """Return the executor of a name; raises ConfigError where its library is missing."""
    try:
        return cast(Executor, import_module(f"tc_sweeps.sweep.executors.{name}"))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"hydra/launcher={name} needs the package {error.name}: install the extra with pip install -e '.[{name}]'."
        ) from error


def train_elsewhere(path: Path, jobs: Sequence[Job], launch: Launch) -> None:
    """Submit workers for the runs of a sweep that are missing, and wait for them unless the launch does not.

    Runs that workers of an earlier launch with the same settings are at are left to those.
    """
    missing = [job for job in jobs if not job.folder.done]
    log.info("%s: %d runs, %d to train", path, len(jobs), len(missing))
    if not missing:
        return
    folder, ids = SweepFolder(path), {job.folder.run_id for job in missing}
    settings = dict(launch.scheduler) | {"workers": launch.workers}
    live = [one for one, workers in _unended(_submissions(folder)) if workers and one.settings == settings]
    at_work = [one for one in live if ids & set(one.run_ids)]
    for submission in at_work:
        log.info("%s: submitted before, and not done; this launch leaves its runs to it", submission)
    left = [job for job in missing if not any(job.folder.run_id in one.run_ids for one in at_work)]
    if left:
        submission = _submit(folder, left, launch, settings)
        log.info("%s: workers: %d, runs: %d, logs: %s", submission, submission.workers, len(left), submission.logs)
        at_work.append(submission)
    log.info(
        "  tc-sweeps status %s  says where it stands\n  tc-sweeps cancel %s  ends it; the same command then goes on",
        *(path.name, path.name),
    )
    if launch.wait:
        try:
            _wait(at_work, missing)
        except KeyboardInterrupt:
            log.info("What was submitted goes on, and the same command waits for it again.")
            raise
        for submission in at_work:
            if all(RunFolder(path / run_id).done for run_id in submission.run_ids):
                folder.add_submission(asdict(replace(submission, done=True)))


def _submit(folder: SweepFolder, missing: Sequence[Job], launch: Launch, settings: dict[str, Any]) -> Submission:
    executor, crew = executor_of(launch.executor), secrets.token_hex(4)
    told = {name: value for name, value in settings.items() if name not in ("workers", "snapshot")}
    workers = min(launch.workers or 1, len(missing))
    if settings.get("snapshot"):
        told["code"] = str(_snapshot(folder, crew).absolute())
    task = Task(
        str(folder.path.absolute()),
        [job.folder.run_id for job in missing],
        Launch(
            memory_mib=launch.memory_mib,
            machines=workers,
            crew=crew,
            cores=told.get("cpus_per_task") or told.get("num_cpus") or 1,
            stop_seconds=max(1, told.get("signal_delay_s", 0) - STOP_MARGIN_SECONDS),
            experiment=launch.experiment,
        ),
        str(Path.cwd()),
    )
    logs = (folder.jobs / "logs").absolute()
    identity, address = executor.submit(task, workers, told, logs)
    submission = Submission(
        executor=launch.executor,
        id=identity,
        workers=workers,
        run_ids=task.run_ids,
        settings=settings,
        logs=str(logs),
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        command=launch.command,
        address=address,
    )
    folder.add_submission(asdict(submission))
    return submission


def _snapshot(folder: SweepFolder, name: str) -> Path:
    """Copy the package as it is now, so that work in the queue does not see later edits; return where it lies."""
    place = folder.jobs / "code" / name
    for package in (PACKAGE, PACKAGE.parent / "hydra_plugins"):
        shutil.copytree(package, place / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / ".code_version").write_text(code_version(), encoding="utf-8")
    return place


def _wait(submissions: Sequence[Submission], jobs: Sequence[Job]) -> None:
    """Wait until the runs are done, or until no worker is left to train them.

    Why a run was left stands in its status then.
    """
    left, told = list(jobs), ""
    with (
        logging_redirect_tqdm(),
        tqdm(total=len(jobs), unit=" runs", dynamic_ncols=True, leave=False, disable=None) as bar,
    ):
        while left:
            began = time.monotonic()
            asked = {
                str(one): _workers(one) for one in submissions
            }  # before the runs: a worker ends after its last one
            left = [job for job in left if not job.folder.done]
            bar.update(len(jobs) - len(left) - bar.n)
            if (text := "; ".join(f"{name}: {_counted(workers)}" for name, workers in asked.items())) != told:
                log.info("%s", told := text)
            if left and all(_have_ended(workers) for workers in asked.values()):
                _leave(left, asked, Path(submissions[-1].logs))
                return
            if left:
                time.sleep(polling(began))


def _leave(left: Sequence[Job], asked: Mapping[str, list[WorkerState] | None], logs: Path) -> None:
    """Record why runs are left that no worker trains any more."""
    ends = [f"{one.name} {one.state} {one.reason}".strip() for workers in asked.values() for one in workers or []]
    told = f" ({', '.join(ends)})" if ends else ""
    reason = f"all workers of {' and '.join(asked)} ended{told}, with their last words in {logs}"
    for job in left:
        if not is_alive(job.folder):
            state = "queued" if job.folder.status["state"] == "queued" else "interrupted"
            job.folder.set_state(state, reason=f"{reason}; the same command continues it")


def _counted(workers: Sequence[WorkerState] | None) -> str:
    """Return how many workers are in which state, with the reasons of those that wait or have ended."""
    if workers is None:
        return "its scheduler does not answer here"
    counts = Counter(f"{one.state.lower()}{f' ({one.reason})' if one.reason else ''}" for one in workers)
    return ", ".join(f"{count} {told}" for told, count in counts.items()) or "no worker is known"


def standings(folder: SweepFolder) -> tuple[list[str], bool]:
    """Return how a sweep's schedulers see its workers, and whether some have not ended.

    There is a line for each submission whose workers have not all ended, as far as is known.
    """
    unended = list(_unended(_submissions(folder)))
    lines = [f"{submission}: {_counted(workers)}" for submission, workers in unended]
    return lines, any(workers is not None for _, workers in unended)


def cancel(folder: SweepFolder) -> tuple[list[str], list[str]]:
    """End all submissions of a sweep; return those that had not ended, and those whose scheduler does not answer."""
    cancelled, unanswered = [], []
    for submission, workers in _unended(_submissions(folder)):
        if workers is None:
            unanswered.append(str(submission))
        else:
            executor_of(submission.executor).cancel(submission)
            cancelled.append(str(submission))
    return cancelled, unanswered


def _submissions(folder: SweepFolder) -> list[Submission]:
    """Return what was submitted for a sweep and is not done, as far as is known."""
    return [one for record in folder.submissions() if not (one := Submission(**record)).done]


def _unended(submissions: Sequence[Submission]) -> Iterator[tuple[Submission, list[WorkerState] | None]]:
    """Yield those whose workers have not all ended, with what the scheduler says, None if it does not."""
    for submission in submissions:
        workers = _workers(submission)
        if not _have_ended(workers):
            yield submission, workers


def _workers(submission: Submission) -> list[WorkerState] | None:
    try:
        return executor_of(submission.executor).workers(submission)
    except ConfigError:  # its library is not installed where somebody looks
        return None


def _have_ended(workers: Sequence[WorkerState] | None) -> bool:
    return workers is not None and all(worker.ended for worker in workers)
