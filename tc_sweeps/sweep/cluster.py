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

    def stop(self) -> None:
        """Have what is in training saved and given back; returns when it is."""
        if self._local is not None:
            self._local.stop()

    def _stop(self, *_: object) -> None:
        self.stop()
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
    runs: int
    logs: str  # the folder of the workers' output
    submitted: str  # when, UTC
    code_version: str
    command: str | None
    address: str | None = None  # of a Ray cluster
    done: bool = False  # the launch that submitted it has seen all its runs done

    def __str__(self) -> str:
        return f"{self.executor.capitalize()} {self.id}"


@dataclass(frozen=True)
class WorkerState:
    """What a scheduler says of a worker."""

    name: str  # as the scheduler names it
    state: str  # in its own words, such as RUNNING
    reason: str  # why it waits or how it ended, as far as is known
    ended: bool


class Executor(Protocol):
    """A way to have tasks run elsewhere: the modules `slurm` and `ray` of `tc_sweeps.sweep.executors`."""

    def submit(self, task: Task, workers: int, settings: Mapping[str, Any], logs: Path) -> str:
        """Submit so many workers; return what names them. Raises ConfigError where the scheduler refuses."""
        ...

    def workers(self, submission: Submission) -> list[WorkerState] | None:
        """Return what the scheduler says of the workers; None where it does not answer."""
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
            f"hydra/launcher={name} needs the package {error.name}: install tc_sweeps with the extra [{name}]."
        ) from error


def train_elsewhere(path: Path, jobs: Sequence[Job], launch: Launch) -> None:
    """Submit workers for the runs of a sweep that are missing, and wait for them unless the launch does not."""
    missing = [job for job in jobs if not job.folder.done]
    log.info("%s: %d runs, %d to train", path, len(jobs), len(missing))
    if not missing:
        return
    submission = _submit(path, missing, launch)
    log.info(
        "%s: %d workers for %d runs, logs in %s\n  tc-sweeps status %s  says where it stands\n"
        "  tc-sweeps cancel %s  ends it; the same command then goes on",
        *(submission, submission.workers, submission.runs, submission.logs),
        *(path.name, path.name),
    )
    if launch.wait and _wait(submission, missing):
        SweepFolder(path).add_submission(asdict(replace(submission, done=True)))


def _submit(path: Path, missing: Sequence[Job], launch: Launch) -> Submission:
    folder, executor = SweepFolder(path), executor_of(launch.executor)
    settings = dict(launch.scheduler)
    workers = min(launch.workers or 1, len(missing))
    if settings.pop("snapshot", False):
        settings["code"] = str(_snapshot(folder).absolute())
    processes = None if settings.get("gpus_per_node") or settings.get("num_gpus") else _processes(settings)
    task = Task(
        str(path.absolute()),
        [job.folder.run_id for job in missing],
        Launch(
            workers=processes,
            memory_mib=launch.memory_mib,
            machines=workers,
            crew=secrets.token_hex(4),
            experiment=launch.experiment,
        ),
        str(Path.cwd()),
    )
    logs = (folder.jobs / "logs").absolute()
    submission = Submission(
        executor=launch.executor,
        id=executor.submit(task, workers, settings, logs),
        workers=workers,
        runs=len(missing),
        logs=str(logs),
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        command=launch.command,
        address=settings.get("address"),
    )
    folder.add_submission(asdict(submission))
    return submission


def _processes(settings: Mapping[str, Any]) -> int:
    """Return how many processes train in a worker without a GPU: one for each of its cores."""
    return int(settings.get("cpus_per_task") or settings.get("num_cpus") or 1)


def _snapshot(folder: SweepFolder) -> Path:
    """Copy the package as it is now, so that work in the queue does not see later edits; return where it lies."""
    place = folder.jobs / "code" / datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    for package in (PACKAGE, PACKAGE.parent / "hydra_plugins"):
        shutil.copytree(package, place / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / ".code_version").write_text(code_version(), encoding="utf-8")
    return place


def _wait(submission: Submission, jobs: Sequence[Job]) -> bool:
    """Wait until the runs are done, or until no worker is left to train them; return whether they are done.

    Why a run was left stands in its status then.
    """
    executor, left, told = executor_of(submission.executor), list(jobs), ""
    with (
        logging_redirect_tqdm(),
        tqdm(total=len(jobs), unit=" runs", dynamic_ncols=True, leave=False, disable=None) as bar,
    ):
        while left:
            began = time.monotonic()
            workers = executor.workers(submission)  # before the runs: a worker ends after its last one
            left = [job for job in left if not job.folder.done]
            bar.update(len(jobs) - len(left) - bar.n)
            if left and workers is not None and all(worker.ended for worker in workers):
                break
            if workers is not None and (text := _counted(workers)) != told:
                log.info("%s: %s", submission, told := text)
            if left:
                time.sleep(polling(began))
    if left:
        _leave(submission, left, executor.workers(submission) or [])
    return not left


def _leave(submission: Submission, left: Sequence[Job], workers: Sequence[WorkerState]) -> None:
    """Record why runs are left that no worker trains any more."""
    ends = ", ".join(f"{worker.name} {worker.state} {worker.reason}".strip() for worker in workers if worker.ended)
    reason = f"all workers of {submission.executor} {submission.id} ended{f' ({ends})' if ends else ''}"
    for job in left:
        if not is_alive(job.folder):
            state = "queued" if job.folder.status["state"] == "queued" else "interrupted"
            job.folder.set_state(state, reason=f"{reason}; the same command continues it")


def _counted(workers: Sequence[WorkerState]) -> str:
    """Return how many workers are in which state, with the reasons of those that wait or have ended."""
    counts: dict[str, int] = {}
    for worker in workers:
        told = f"{worker.state.lower()}{f' ({worker.reason})' if worker.reason else ''}"
        counts[told] = counts.get(told, 0) + 1
    return ", ".join(f"{count} {told}" for told, count in counts.items()) or "no worker is known"


def standings(folder: SweepFolder) -> list[str]:
    """Return one line for each submission of a sweep whose workers have not all ended, as its scheduler sees it."""
    return [
        f"{submission}: {'its scheduler does not answer here.' if workers is None else _counted(workers)}"
        for submission, workers in _unended([one for one in _submissions(folder) if not one.done])
    ]


def cancel(folder: SweepFolder) -> list[str]:
    """End all submissions of a sweep; return a line for each that had not ended."""
    lines = []
    for submission, _ in _unended(_submissions(folder)):
        executor_of(submission.executor).cancel(submission)
        lines.append(f"{submission} is cancelled.")
    return lines


def _submissions(folder: SweepFolder) -> list[Submission]:
    return [Submission(**record) for record in folder.submissions()]


def _unended(submissions: Sequence[Submission]) -> Iterator[tuple[Submission, list[WorkerState] | None]]:
    """Yield those whose workers have not all ended, with what the scheduler says, None if it does not."""
    for submission in submissions:
        try:
            workers = executor_of(submission.executor).workers(submission)
        except ConfigError:  # its library is not installed where somebody looks
            workers = None
        if workers is None or not all(worker.ended for worker in workers):
            yield submission, workers
