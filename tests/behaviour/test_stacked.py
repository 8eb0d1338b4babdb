"""The stacked launcher: a run is the same alone, in a stack, in another stack and after a kill; a sweep survives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from tests.behaviour.conftest import Launch, wait_until
from tests.wandb_files import read_run

Command = Callable[..., subprocess.Popen[str]]

SMALL = ["data.vocab_size=20", "model.width=16", "training.steps=60", "training.evaluations=6", "tracking=none"]
MIXED = ["data.num_sentences=44,48,90", "training.learning_rate=1e-2,3e-3", "training.weight_decay=0,0.1", "seed=0,1"]
LONG = ["data.vocab_size=20", "model.width=16", "training.steps=2000", "training.evaluations=100"]
# A sweep that a kill hits in the middle, with a checkpoint at every evaluation.
KILLED = [*LONG, "sweep=s", "data.num_sentences=48,90", "seed=0,1,2", "training.checkpoint_seconds=0"]

FILES = ("model.safetensors", "metrics.csv", "survival.parquet", "artifacts.parquet", "fibers.parquet")


def statuses(sweep: str) -> dict[str, dict[str, object]]:
    paths = [path for path in Path("outputs", sweep).glob("*/status.json") if path.stat().st_size]
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def contents(sweep: Path) -> dict[tuple[str, str], bytes]:
    return {(path.parent.name, path.name): path.read_bytes() for name in FILES for path in sweep.glob(f"*/{name}")}


# ------------------------------------------------------------------------------------------------------ independence


def test_a_run_is_the_same_alone_and_in_any_stack(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=all", *SMALL, *MIXED)[0] == 0
    together = contents(Path("outputs/all"))
    assert len(together) == 24 * len(FILES)
    # Other stacks: every third run is finished, so the others are packed anew.
    shutil.copytree("outputs/all", "outputs/rest")
    for number, name in enumerate(sorted(statuses("rest"))):
        if number % 3:
            shutil.rmtree(f"outputs/rest/{name}")
    assert launch("run", "-m", "sweep=rest", *SMALL, *MIXED, "hydra.launcher.memory_mib=1")[0] == 0
    assert contents(Path("outputs/rest")) == together
    solo = ["data.num_sentences=48", "training.learning_rate=3e-3", "training.weight_decay=0.1", "seed=1"]
    assert launch("run", "sweep=solo", *SMALL, *solo)[0] == 0
    alone = contents(Path("outputs/solo"))
    assert len(alone) == len(FILES)
    assert alone.items() <= together.items()


def test_members_that_stop_early_leave_the_others_as_they_are(launch: Launch) -> None:
    stopping = ["training.target_excess_loss=0.05,0.5,1,null", "data.num_sentences=48", "seed=0,1"]
    assert launch("run", "-m", "sweep=s", *SMALL, *stopping, "training.steps=300")[0] == 0
    steps = sorted(status["step"] for status in statuses("s").values())  # type: ignore[type-var]
    assert steps[0] < 300
    assert steps[-1] == 300
    assert launch("run", "sweep=solo", *SMALL, "data.num_sentences=48", "training.steps=300", "seed=1")[0] == 0
    assert contents(Path("outputs/solo")).items() <= contents(Path("outputs/s")).items()


# ----------------------------------------------------------------------------------------------------------- kill -9


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bytes]:
    """What every sweep that was killed has to come to."""
    shell = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "tc_sweeps", "-m", *KILLED, "tracking=none"]
    subprocess.run(command, cwd=shell, check=True, capture_output=True)
    return contents(shell / "outputs" / "s")


def holders(*names: str) -> set[int]:
    """The processes that hold the leases of runs, of all where none is named."""
    found = set()
    for path in [Path("outputs/s", name, ".lease") for name in names] or Path("outputs/s").glob("*/.lease"):
        with suppress(FileNotFoundError, ValueError):  # given back, or being written at this moment
            found.add(json.loads(path.read_text())["pid"])
    return found


def assert_whole(undisturbed: dict[tuple[str, str], bytes]) -> None:
    assert {status["state"] for status in statuses("s").values()} == {"finished"}
    assert contents(Path("outputs/s")) == undisturbed
    for name in statuses("s"):
        folder = Path("outputs/s", name)
        steps = pd.read_csv(folder / "metrics.csv")["step"].tolist()
        assert steps == list(range(20, 2001, 20))
        mirrored = read_run(folder)
        assert [row["step"] for row in mirrored.history if "train/loss" in row] == steps
        assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert len(pd.read_parquet("outputs/s/results.parquet")) == 6
    assert not list(Path("outputs/s/.checkpoints").glob("*"))
    assert not list(Path("outputs/s").glob("*/.lease"))


@pytest.mark.slow
def test_kill_9_then_the_same_command(undisturbed: dict[tuple[str, str], bytes], command: Command) -> None:
    process = command("-m", *KILLED)

    def some_are_finished_and_some_in_the_middle() -> bool:
        steps = [int(str(status["step"])) for status in statuses("s").values()]
        return max(steps, default=0) == 2000 and any(300 < step < 2000 for step in steps)

    wait_until(some_are_finished_and_some_in_the_middle, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = statuses("s")
    finished = [Path("outputs/s", n, "model.safetensors") for n, s in before.items() if s["state"] == "finished"]
    written = [path.stat().st_mtime_ns for path in finished]
    again = command("-m", *KILLED)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert [path.stat().st_mtime_ns for path in finished] == written
    for name, status in statuses("s").items():
        assert status["attempt"] == (2 if before[name]["state"] == "running" else 1)
    assert_whole(undisturbed)


@pytest.mark.slow
def test_kill_9_at_20_random_moments(undisturbed: dict[tuple[str, str], bytes], command: Command) -> None:
    moments = random.Random(0)
    for _ in range(20):
        process = command("-m", *KILLED)
        time.sleep(moments.uniform(0.5, 9))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = command("-m", *KILLED)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert_whole(undisturbed)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_a_continuation(
    undisturbed: dict[tuple[str, str], bytes], command: Command
) -> None:
    process = command("-m", *KILLED, "hydra.launcher.workers=2")
    children: list[int] = []

    def two_train() -> bool:
        tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        children[:] = [int(pid) for pid in tasks if b"tc_sweeps" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        workers = holders()
        steps = [int(str(status["step"])) for status in statuses("s").values()]
        return set(children) == workers and len(workers) == 2 and sum(200 < step < 2000 for step in steps) > 3

    wait_until(two_train, process)
    os.kill(children[0], signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "killed" in out
    assert {status["attempt"] for status in statuses("s").values()} == {1, 2}
    assert_whole(undisturbed)


def test_a_signal_to_the_launch_ends_its_workers_too(shell: Path, command: Command) -> None:
    process = command("-m", *KILLED, "hydra.launcher.workers=2")

    def two_train() -> bool:
        running = [name for name, status in statuses("s").items() if int(str(status["step"])) > 100]
        return bool(running) and len(holders(*running)) == 2  # of no names, they are those of all

    wait_until(two_train, process)
    workers = holders()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert "interrupted" in {status["state"] for status in statuses("s").values()}
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(Path("outputs/s").glob("*/.lease"))


# ------------------------------------------------------------------------------------------------------ two launches


@pytest.mark.slow
def test_two_launches_at_once_train_each_run_once(shell: Path, command: Command) -> None:
    both = [command("-m", *KILLED, "training.steps=1000", "training.evaluations=10") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    assert {(str(s["state"]), s["attempt"]) for s in statuses("s").values()} == {("finished", 1)}
    assert len(pd.read_parquet("outputs/s/results.parquet")) == 6
    for name in statuses("s"):
        assert len(list(Path("outputs/s", name, "wandb").glob("offline-run-*"))) == 1


# ---------------------------------------------------------------------------------------------------------- failures


def test_a_bad_corpus_fails_its_run_alone(launch: Launch) -> None:
    Path("good.tsv").write_text("".join(f"a{i}\tb{i}\tc{i}\n" for i in range(8)))
    Path("bad.tsv").write_text("a\tb\tc\nonly one column\n")
    quick = ["training.steps=20", "training.evaluations=2", "model.width=8", "tracking=none"]
    code, _, err = launch("run", "-m", "sweep=s", "data=triples", "data.path=good.tsv,bad.tsv", "seed=0,1", *quick)
    assert code == 1
    assert "Traceback" not in err
    results = pd.read_parquet("outputs/s/results.parquet")
    assert sorted(results["state"]) == ["failed", "failed", "finished", "finished"]
    assert results.loc[results["state"] == "failed", "reason"].str.contains("bad.tsv, line 2").all()


def test_nothing_to_teach_on_fails_its_run_alone(launch: Launch) -> None:
    taught = ["objective=unsupported", "objective.outside.share=1e-6,0.5"]
    code, out, err = launch("run", "-m", "sweep=s", *SMALL, "data.num_sentences=48", *taught)
    assert code == 1
    ended = {str(status["state"]): status["reason"] for status in statuses("s").values()}
    assert set(ended) == {"finished", "failed"}
    assert str(ended["failed"]).startswith("objective.outside.share=1e-06 of ")
    assert "Traceback" not in out + err


def test_failed_runs_are_tried_again_when_asked(launch: Launch) -> None:
    failing = ["-m", "sweep=s", *SMALL, "data.num_sentences=48", "training.learning_rate=1e-2,1e39"]
    assert launch("run", *failing)[0] == 1
    first = statuses("s")
    assert launch("run", *failing)[0] == 1  # what failed would fail again: it is told, not trained
    assert statuses("s") == first
    assert launch("run", *failing, "hydra.launcher.retry_failed=true")[0] == 1
    assert sorted(str(s["attempt"]) for s in statuses("s").values()) == ["1", "2"]


@pytest.mark.slow
def test_a_full_disk_stops_the_launch_and_loses_nothing_finished(shell: Path, command: Command) -> None:
    if os.geteuid() != 0:
        pytest.skip("Only root can mount a small disk.")
    Path("outputs").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", "outputs"]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"A small disk cannot be mounted here: {mounted.stderr.strip()}")
    sweep = ["-m", "sweep=s", *SMALL, "data.num_sentences=48", "hydra.launcher.memory_mib=1", "seed=range(0,12)"]
    try:
        process = command(*sweep)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "No space left on device" in err
        assert "Traceback" not in err
        finished = [Path("outputs/s", n) for n, status in statuses("s").items() if status["state"] == "finished"]
        assert 0 < len(finished) < 12
        subprocess.run(["mount", "-o", "remount,size=50m", "outputs"], check=True)
        before = [(path / "model.safetensors").stat().st_mtime_ns for path in finished]
        again = command(*sweep)
        _, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert [(path / "model.safetensors").stat().st_mtime_ns for path in finished] == before
        assert {status["state"] for status in statuses("s").values()} == {"finished"}
    finally:
        subprocess.run(["umount", "outputs"], check=True)
