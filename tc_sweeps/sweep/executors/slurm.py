"""Workers as tasks of a Slurm job array, submitted through submitit."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from tc_sweeps.config import ConfigError
from tc_sweeps.sweep.cluster import Submission, Task, WorkerState

__all__ = ["cancel", "require", "submit", "workers"]

TIMEOUTS = 1_000_000  # after which submitit would not requeue any more: a worker goes on until all runs are done
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)


class SlurmTask(Task):
    """A task as submitit wants it: on Slurm's signal before a time limit or preemption it is saved and requeued."""

    def checkpoint(self) -> Any:
        """Save what is in training, and return what is to be run next time: the same."""
        self.stop()
        return submitit.helpers.DelayedSubmission(self)


def require(_: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where there is no sbatch; see `cluster.Executor`."""
    if shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm: there is no sbatch here; submit from a machine of the cluster.")


def submit(task: Task, workers: int, settings: Mapping[str, Any], logs: Path) -> tuple[str, None]:
    """Submit a job array; return its id. See `cluster.Executor`."""
    given = {key: value for key, value in settings.items() if value is not None}
    code, extra = given.pop("code", None), {"requeue": True, **given.pop("additional_parameters", {})}
    time = extra["time"] = given.pop("time", None)  # in Slurm's words; submitit wants minutes beside it
    python = given.pop("python")
    if code is not None:  # before the folder where the user stands, which may be a checkout
        path = f"PYTHONPATH={shlex.quote(code)}${{PYTHONPATH:+:$PYTHONPATH}}"
        python = f"env PYTHONSAFEPATH=1 {path} {python}"
    executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=TIMEOUTS, python=python)
    try:
        executor.update_parameters(
            job_name=f"tc_sweeps {Path(task.sweep).name}",
            time=minutes(time),
            setup=list(given.pop("setup", [])),
            array_parallelism=workers,
            stderr_to_stdout=True,
            additional_parameters=extra,
            **given,
        )
    except ValueError as error:  # a key of the user's own
        raise ConfigError(
            f"hydra/launcher=slurm: {str(error).splitlines()[0]}; other options of sbatch go into "
            "hydra.launcher.additional_parameters."
        ) from error
    tasks = [SlurmTask(task.sweep, task.run_ids, task.launch, task.cwd) for _ in range(workers)]
    try:
        # Of a refusal submitit also prints what the error says.
        with redirect_stderr(io.StringIO()), executor.batch():
            jobs = [executor.submit(one) for one in tasks]
        return str(jobs[0].job_id).split("_")[0], None
    except FailedJobError as error:
        raise ConfigError(f"Slurm refuses the job: {' '.join(str(error).split())}") from error


def workers(submission: Submission) -> list[WorkerState] | None:
    """Return what Slurm says of the tasks; see `cluster.Executor`.

    `scontrol` knows tasks for some minutes after their end (`MinJobAge`), with accounting or without; `sacct` knows
    them for good where there is accounting. Where neither knows the job, it has ended.
    """
    told = _run("scontrol", "-o", "show", "job", submission.id)
    if told is None:
        return None
    if told.returncode == 0:
        lines = [line for line in told.stdout.splitlines() if f"StdOut={submission.logs}/" in line]
        # A job of this number that writes elsewhere is another cluster's, whose folders are seen from here.
        return [worker for line in lines for worker in _workers_of(line)] or None
    if "Invalid job id" not in told.stderr:
        return None  # the controller is away
    accounts = _run("sacct", "-n", "-P", "-X", "-j", submission.id, "-o", "JobID,State,ExitCode")
    if accounts is None or accounts.returncode != 0:
        return []
    rows = [line.split("|") for line in accounts.stdout.splitlines() if line]
    return [WorkerState(name, state.split()[0], f"exit code {code}", ended=True) for name, state, code in rows]


def cancel(submission: Submission) -> None:
    """End the job's tasks; see `cluster.Executor`."""
    told = _run("scancel", submission.id)
    if told is None or told.returncode != 0:
        raise ConfigError(f"scancel {submission.id}: {told.stderr.strip() if told else 'no such command here'}")


def _workers_of(line: str) -> list[WorkerState]:
    """Return what a line of `scontrol -o show job` says: of one task, or of all that wait in the queue."""
    fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
    state, reason = fields["JobState"], fields.get("Reason", "None")
    job, tasks = fields.get("ArrayJobId"), _numbers(fields.get("ArrayTaskId", ""))
    names = [f"{job}_{task}" for task in tasks] or [fields["JobId"]]
    told = "" if reason == "None" else reason
    if state in ENDED and state != "COMPLETED":
        told = f"{told}, " * bool(told) + f"exit code {fields.get('ExitCode')}"
    return [WorkerState(name, state, told, ended=state in ENDED) for name in names]


def _numbers(tasks: str) -> list[int]:
    """Return the tasks that Slurm means: `1,4-6%2` are 1, 4, 5 and 6, of which two may run at once."""
    numbers: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", tasks.partition("%")[0]):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Run one of Slurm's commands; None where there is none or it does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None


def minutes(time: int | str | None) -> int:
    """Return Slurm's time limit in minutes, rounded up: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises `ConfigError` for anything else. Example: `1-02:30` is a day, two hours and thirty minutes, 1590.
    """
    days, dash, rest = str(time).rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise ConfigError(f"hydra.launcher.time={time} is no time limit as Slurm takes it, such as 60 or 1-12:00:00.")
    # With days the parts are H, H:M or H:M:S, without M, M:S or H:M:S.
    padded = [*parts, "0", "0"][:3] if dash or len(parts) == 3 else ["0", *parts, "0"][:3]
    hours, whole, seconds = map(int, padded)
    return (int(days or 0) * 24 + hours) * 60 + whole + (seconds > 0)
