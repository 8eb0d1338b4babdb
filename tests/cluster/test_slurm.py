"""Sweeps on a real Slurm: the same runs and the same numbers as on one machine, whatever happens to its tasks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tc_sweeps.store import RunFolder, SweepFolder
from tc_sweeps.sweep.cluster import Submission, WorkerState
from tc_sweeps.sweep.executors import slurm as executor
from tests.cluster.conftest import Slurm, environment, numbers, processes, run, wait_until, working

pytestmark = pytest.mark.slow

QUICK = ["data.vocab_size=12", "data.num_sentences=30", "model.width=8", "tracking=none"]
SMALL = [*QUICK, "training.steps=20", "training.evaluations=2"]
ON_SLURM = ["hydra/launcher=slurm", "hydra.launcher.mem=900M"]


def test_submit_and_leave_then_look_and_wait(shell: Path, slurm: Slurm) -> None:
    axes = ["seed=range(0,4)", "model.init_scale=1,2"]
    left = run(
        "run", "-m", "sweep=there", *SMALL, *axes, *ON_SLURM, "hydra.launcher.workers=2", "hydra.launcher.wait=false"
    )
    assert left.returncode == 0, left.stderr
    [job] = re.findall(r"Slurm (\d+): workers: 2, runs: 8", left.stdout)
    assert "tc-sweeps cancel there" in left.stdout
    assert "To look again:" in left.stdout.splitlines()[-2], "and not the command that has just been typed"
    assert f"Slurm {job}:" in run("status", "there").stdout
    # The same command takes to what is at work, and finds nothing to do when it is done.
    same = run("run", "-m", "sweep=there", *SMALL, *axes, *ON_SLURM, "hydra.launcher.workers=2")
    assert same.returncode == 0
    assert f"Slurm {job}: submitted before" in same.stdout
    again = run("run", "-m", "sweep=there", *SMALL, *axes, *ON_SLURM, "hydra.launcher.workers=2")
    assert again.returncode == 0
    assert "8 runs, 0 to train" in again.stdout
    assert len(list(Path("outputs/there/.jobs").glob("slurm-*.json"))) == 1
    here = run("run", "-m", "sweep=here", *SMALL, *axes)
    assert here.returncode == 0
    pd.testing.assert_frame_equal(numbers("there"), numbers("here"))


def test_left_alone_workers_run_a_snapshot_and_remake_the_results(shell: Path, slurm: Slurm) -> None:
    """In a folder that has another package of this name: it comes with the first line of the worker's shell."""
    decoy = "mkdir -p tc_sweeps; echo raise SystemExit > tc_sweeps/__init__.py"
    launcher = [
        *ON_SLURM,
        "hydra.launcher.wait=false",
        "hydra.launcher.snapshot=true",
        f"hydra.launcher.setup=['{decoy}']",
    ]
    launcher += ["hydra.launcher.additional_parameters={comment: hello}", "hydra.launcher.workers=1"]
    left = run("run", "-m", "sweep=left", *SMALL, "seed=1,2", *launcher)
    assert left.returncode == 0, left.stderr
    [job] = re.findall(r"Slurm (\d+): workers: 1, runs: 2", left.stdout)
    assert "Comment=hello" in slurm.run("scontrol", "show", "job", job)
    table = Path("outputs/left/results.parquet")
    wait_until(lambda: pd.read_parquet(table)["state"].tolist() == ["finished"] * 2)
    assert Path("tc_sweeps/__init__.py").exists()


def test_workers_that_cannot_start_leave_a_launch_that_says_so_and_where_to_look(shell: Path, slurm: Slurm) -> None:
    ended = run("run", "-m", "sweep=dead", *SMALL, "seed=1,2", *ON_SLURM, "hydra.launcher.python=/nowhere/python")
    assert ended.returncode == 1
    assert re.search(
        r"2 queued: all workers of Slurm \d+ ended \(.*FAILED.*\), with their last words in .*logs", ended.stdout
    )
    assert "/nowhere/python: No such file" in "".join(
        path.read_text() for path in Path("outputs/dead/.jobs/logs").glob("*.out")
    )


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["-m", "hydra.launcher.partition=nowhere"], "(?i)invalid partition"),
        (["-m", "+hydra.launcher.nice=5"], "other options of sbatch go into hydra.launcher.additional_parameters"),
        (["-m", "hydra.launcher.time=null"], "hydra.launcher.time=None is no time limit"),
        ([], "hydra/launcher=slurm is for sweeps: add -m"),
    ],
)
def test_what_slurm_cannot_do_is_one_sentence(shell: Path, slurm: Slurm, overrides: list[str], sentence: str) -> None:
    refused = run("run", *SMALL, *ON_SLURM, *overrides)
    assert refused.returncode == 1
    assert re.search(sentence, refused.stderr)
    assert "Traceback" not in refused.stderr


def test_workers_that_all_end_leave_a_launch_that_says_why(shell: Path, slurm: Slurm) -> None:
    command = [
        sys.executable,
        "-m",
        "tc_sweeps",
        "-m",
        "sweep=gone",
        *QUICK,
        "training.steps=200000",
        "seed=1,2",
        *ON_SLURM,
    ]
    with subprocess.Popen(
        [*command, "hydra.launcher.workers=1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as launch:
        wait_until(lambda: "2 running" in run("status", "gone").stdout)
        # Another cluster that shares these folders counts its jobs from 1, too.
        [record] = SweepFolder(Path("outputs/gone")).submissions()
        elsewhere = SweepFolder(Path("outputs/elsewhere"))
        elsewhere.add_runs([], experiment=None, launch=None)
        elsewhere.add_submission({**record, "logs": "/elsewhere"})
        assert "No scheduler answers here" in run("cancel", "outputs/elsewhere").stderr
        cancelled = run("cancel", "gone")
        assert "is cancelled" in cancelled.stdout
        out, err = launch.communicate(timeout=120)
    assert launch.returncode == 1
    assert "CANCELLED" in out + err
    frame = tc_sweeps.load_sweep("gone")
    assert set(frame["state"]) == {"interrupted"}
    assert (frame["reason"].str.contains("CANCELLED|signal")).all()
    assert "No scheduler has anything left" in run("cancel", "gone").stdout


def test_with_accounting_the_end_of_a_task_out_of_memory_is_told_for_good(shell: Path, accounted: Slurm) -> None:
    little = ["hydra/launcher=slurm", "hydra.launcher.mem=50M", "hydra.launcher.workers=1"]
    ended = run("run", "-m", "sweep=gone", *QUICK, "training.steps=200000", "seed=1,2", *little)
    assert ended.returncode == 1
    # Without cgroups Slurm has no state of its own for it: the exit code is that of a kill, and the output says why.
    assert "FAILED NonZeroExitCode, exit code 137:0), with their last words in " in ended.stdout
    [log] = Path("outputs/gone/.jobs/logs").glob("*.out")
    assert "exceeded memory limit" in log.read_text()
    [record] = SweepFolder(Path("outputs/gone")).submissions()
    shown = ["scontrol", "show", "job", record["id"]]
    wait_until(lambda: "Invalid job id" in subprocess.run(shown, capture_output=True, text=True, check=False).stderr)
    [worker] = executor.workers(Submission(**record)) or []
    assert worker == WorkerState(record["id"], "FAILED", "exit code 9:0", ended=True)  # as sacct counts
    assert "No scheduler has anything left" in run("cancel", "gone").stdout


def test_one_idle_worker_stays_and_takes_over_from_a_dead_one(shell: Path, slurm: Slurm) -> None:
    long = [*QUICK, "training.steps=10,11,6000", "training.evaluations=10", "training.checkpoint_seconds=0"]
    command = [sys.executable, "-m", "tc_sweeps", "-m", "sweep=there", *long, *ON_SLURM, "hydra.launcher.workers=3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launch:
        wait_until(lambda: "2 finished" in run("status", "there").stdout)
        [job] = [path.stem.removeprefix("slurm-") for path in Path("outputs/there/.jobs").glob("slurm-*.json")]
        wait_until(lambda: [task["JobState"] for task in slurm.tasks(job).values()].count("COMPLETED") == 1)
        wait_until(lambda: working("there"))
        [owner] = working("there")
        [busy] = [task for task in "012" if json.loads(owner)["pid"] in _processes(job, task)]
        for pid in _processes(job, busy):
            os.kill(pid, signal.SIGKILL)
        out, _ = launch.communicate(timeout=240)
    assert launch.returncode == 0, out
    ends = ["COMPLETED", "COMPLETED", "FAILED"]
    wait_until(lambda: sorted(task["JobState"] for task in slurm.tasks(job).values()) == ends)
    assert json.loads(Path("outputs/there/.jobs", f"slurm-{job}.json").read_text())["done"]


def test_a_search_waits_for_its_trials_though_told_not_to(shell: Path, slurm: Slurm) -> None:
    search = [*SMALL, "hydra/sweeper=optuna", "training.learning_rate=tag(log, interval(1e-3, 1e-1))"]
    search += [
        "hydra.sweeper.objectives={train/excess_loss: minimize}",
        "hydra.sweeper.trials=6",
        "hydra.sweeper.batch=3",
    ]
    ended = run(
        "run", "-m", "sweep=search", *search, *ON_SLURM, "hydra.launcher.workers=2", "hydra.launcher.wait=false"
    )
    assert ended.returncode == 0, ended.stderr
    assert len(list(Path("outputs/search/.jobs").glob("slurm-*.json"))) == 2, "two batches"
    trials = pd.read_parquet("outputs/search/trials.parquet")
    assert trials["state"].tolist() == ["complete"] * 6
    assert trials["train/excess_loss"].notna().all()


def test_two_hundred_runs_though_tasks_are_killed_cancelled_preempted_and_out_of_time(
    shell: Path, slurm: Slurm
) -> None:
    long = [
        *QUICK,
        "training.steps=600",
        "training.evaluations=20",
        "training.checkpoint_seconds=0",
        "seed=range(0,200)",
    ]
    launcher = ["hydra.launcher.workers=4", "hydra.launcher.partition=scavenge", "hydra.launcher.time=2"]
    launcher += ["hydra.launcher.signal_delay_s=60", "hydra.launcher.memory_mib=1"]
    command = [sys.executable, "-m", "tc_sweeps", "-m", "sweep=there", *long, *ON_SLURM, *launcher]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launch:
        wait_until(lambda: len(working("there")) == 4)
        [job] = [path.stem.removeprefix("slurm-") for path in Path("outputs/there/.jobs").glob("slurm-*.json")]
        for pid in _processes(job, "0"):
            os.kill(pid, signal.SIGKILL)
        slurm.run("scancel", f"{job}_1")
        node = slurm.tasks(job)["2"]["NodeList"]
        slurm.run(
            "sbatch", "--partition=main", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"
        )
        out, _ = launch.communicate(timeout=400)
    assert launch.returncode == 0, out
    tasks = slurm.tasks(job)
    assert tasks["0"]["JobState"] == "FAILED"
    assert tasks["1"]["JobState"] == "CANCELLED"
    assert int(tasks["2"]["Restarts"]) + int(tasks["3"]["Restarts"]) >= 2, "one was preempted, one ran out of time"
    wait_until(lambda: not _processes(job))  # no orphan is left

    here = run("run", "-m", "sweep=here", *long)
    assert here.returncode == 0
    pd.testing.assert_frame_equal(numbers("there"), numbers("here"))
    runs = [RunFolder(path.parent) for path in Path("outputs/there").glob("*/config.yaml")]
    assert len(runs) == 200
    assert sum(folder.status["attempt"] == 1 for folder in runs) >= 60, "what was not in training was trained once"
    for folder in runs:
        assert folder.read_metrics()["step"].tolist() == list(range(30, 601, 30))


def _processes(job: str, task: str = r"\d+") -> list[int]:
    """Return the Python processes of an array's tasks."""
    wanted = re.compile(rf"SLURM_ARRAY_JOB_ID={job}\0|SLURM_ARRAY_TASK_ID={task}\0")
    return [pid for pid in processes("python") if len(set(wanted.findall(environment(pid)))) == 2]
