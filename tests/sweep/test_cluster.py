"""What is submitted to schedulers, and how their words are read; tests/cluster/ has the schedulers themselves."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.store import Job, SweepFolder, code_version
from tc_sweeps.sweep import cluster
from tc_sweeps.sweep.cluster import Submission, Task, WorkerState, executor_of, standings
from tc_sweeps.sweep.engine import Launch, StopRequest, polling, train_sweeps
from tc_sweeps.sweep.executors import slurm

SMALL = {
    "data": {"vocab_size": 12, "num_sentences": 30},
    "model": {"width": 8},
    "training": {"steps": 20, "evaluations": 2},
    "tracking": {"mode": "none"},
}

# As Slurm 22.05 says it, shortened.
LINES = """\
JobId=13 ArrayJobId=12 ArrayTaskId=0 JobName=tc_sweeps there JobState=FAILED Reason=NonZeroExitCode ExitCode=9:0
JobId=14 ArrayJobId=12 ArrayTaskId=1 JobName=tc_sweeps there JobState=CANCELLED Reason=None ExitCode=0:15
JobId=15 ArrayJobId=12 ArrayTaskId=2 JobName=tc_sweeps there JobState=RUNNING Reason=None ExitCode=0:0
JobId=12 ArrayJobId=12 ArrayTaskId=3,5-7%4 JobName=tc_sweeps there JobState=PENDING Reason=Resources ExitCode=0:0
JobId=20 JobName=alone JobState=COMPLETED Reason=None ExitCode=0:0
"""


def submission(executor: str = "slurm") -> Submission:
    return Submission(executor, "12", 4, ["a", "b"], {}, "logs", "2026-01-01T00:00:00+00:00", "0.1.0", None)


def test_workers_are_told_in_slurms_words() -> None:
    told = [worker for line in LINES.splitlines() for worker in slurm._workers_of(line)]
    assert [(worker.name, worker.state, worker.reason, worker.ended) for worker in told] == [
        ("12_0", "FAILED", "NonZeroExitCode, exit code 9:0", True),
        ("12_1", "CANCELLED", "exit code 0:15", True),
        ("12_2", "RUNNING", "", False),
        *((f"12_{task}", "PENDING", "Resources", False) for task in (3, 5, 6, 7)),
        ("20", "COMPLETED", "", True),
    ]
    assert cluster._counted(told[:-1]) == (
        "1 failed (NonZeroExitCode, exit code 9:0), 1 cancelled (exit code 0:15), 1 running, 4 pending (Resources)"
    )


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [(60, 60), ("90", 90), ("10:30", 11), ("1:00:00", 60), ("2-12", 3600), ("1-02:30", 1590), ("1-00:00:01", 1441)],
)
def test_time_limits_are_slurms(limit: int | str, minutes: int) -> None:
    assert slurm.minutes(limit) == minutes
    with pytest.raises(ConfigError, match="no time limit"):
        slurm.minutes(f"{limit}h")


def test_a_task_trains_what_was_frozen(tmp_path: Path) -> None:
    """As another machine would: from the folder alone, in a process of its own that stands elsewhere."""
    jobs = [Job.of(resolve({**SMALL, "sweep": "frozen", "seed": seed}), tmp_path) for seed in (1, 2)]
    for job in jobs:
        job.folder.queue(job.config)
    launch = Launch(workers=1, crew="one", machines=2)
    task = Task(str(tmp_path / "frozen"), [job.folder.run_id for job in jobs], launch, str(tmp_path))
    (tmp_path / "task.pickle").write_bytes(pickle.dumps(task))
    work = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))()"
    done = subprocess.run(
        [sys.executable, "-c", work, tmp_path / "task.pickle"], cwd="/", capture_output=True, text=True, check=True
    )
    assert "2 runs, 2 to train" in done.stderr
    assert [job.folder.status["state"] for job in jobs] == ["finished"] * 2


def test_a_snapshot_is_the_package_with_its_version(tmp_path: Path) -> None:
    place = cluster._snapshot(SweepFolder(tmp_path / "sweep"), "now")
    where = "import tc_sweeps.store as store; print(store.__file__, store.code_version())"
    told = subprocess.run(
        [sys.executable, "-P", "-c", where], env={"PYTHONPATH": str(place)}, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [str(place / "tc_sweeps/store/__init__.py"), code_version()]


def test_where_no_scheduler_answers_status_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    folder = SweepFolder(tmp_path / "sweep")
    folder.add_submission(vars(submission()))
    assert json.loads((folder.jobs / "slurm-12.json").read_text())["workers"] == 4
    assert standings(folder) == (["Slurm 12: its scheduler does not answer here"], False)
    folder.add_submission(vars(replace(submission(), id="13", done=True)))
    assert len(standings(folder)[0]) == 1, "nobody is asked about what is known to be done"
    with pytest.raises(ConfigError, match="there is no sbatch here"):
        slurm.require({})


def test_what_can_be_cancelled_is_though_another_scheduler_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here:
        cancelled: ClassVar[list[str]] = []

        def workers(self, submission: Submission) -> list[WorkerState] | None:
            return None if submission.executor == "ray" else [WorkerState("12_0", "RUNNING", "", ended=False)]

        def cancel(self, submission: Submission) -> None:
            self.cancelled.append(submission.id)

    monkeypatch.setattr(cluster, "executor_of", lambda name: Here())
    folder = SweepFolder(tmp_path / "sweep")
    folder.add_submission(vars(submission("ray")))
    folder.add_submission(vars(submission()))
    assert cluster.cancel(folder) == (["Slurm 12"], ["Ray 12"])
    assert Here.cancelled == ["12"]


def test_a_worker_has_the_time_for_its_next_evaluation_that_the_scheduler_gives_it() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    try:
        warned = StopRequest(100)
        warned.ask(signal.SIGUSR2, None)
        assert 90 < signal.alarm(0) <= 100
        ended = StopRequest(100)
        ended.ask(signal.SIGTERM, None)
        assert signal.alarm(0) == 0, "the scheduler ends it when it sees fit"
        assert warned.asked()
        assert ended.asked()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)


def test_launches_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"hydra.launcher.executor=cloud must be one of local, slurm, ray"):
        Launch(executor="cloud")
    with pytest.raises(ConfigError, match=r"hydra.launcher.wait=false is for work on a cluster"):
        train_sweeps([], Launch(wait=False))


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tc_sweeps.sweep.executors.slurm")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"needs the package submitit: .* pip install -e '\.\[slurm\]'"):
        executor_of("slurm")


def test_the_words_of_a_scheduler_are_handed_on() -> None:
    launch = Launch.of(
        {"_target_": "x", "workers": 3, "executor": "slurm", "wait": False, "partition": "main", "mem": "1G"}
    )
    assert (launch.workers, launch.executor, launch.wait) == (3, "slurm", False)
    assert launch.scheduler == {"partition": "main", "mem": "1G"}
    assert Launch.of({"workers": 3, "n_jobs": 2}).scheduler == {}, "another launcher's"


def test_looks_take_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    assert polling(100.0) == 0.5
    assert polling(99.9) == pytest.approx(2.0)
    assert polling(0.0) == 60.0
