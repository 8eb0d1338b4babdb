"""Leases: a run has one worker; a dead one's runs are taken over."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tc_sweeps.store import RunFolder, Worker, forget_dead, is_alive, lease


def always(_: RunFolder) -> bool:
    return True


@pytest.fixture
def folders(tmp_path: Path) -> list[RunFolder]:
    return [RunFolder(tmp_path / "s" / name) for name in ("a", "b", "c")]


def leave_lease(folder: RunFolder, **changes: object) -> None:
    """Write the lease of a worker of this process that was not given back."""
    folder.path.mkdir(parents=True, exist_ok=True)
    owner = {"token": "other", **lease._this_process(), **changes}
    (folder.path / ".lease").write_text(json.dumps(owner))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_has_one_worker(folders: list[RunFolder]) -> None:
    with Worker(folders[0].path.parent) as first, Worker(folders[0].path.parent) as second:
        assert first.claim(folders[:2], always) == folders[:2]
        assert second.claim(folders, always) == folders[2:]
        assert [first.holds(folder) for folder in folders] == [True, True, False]
        first.release(folders[0])
        assert second.claim(folders, always) == [folders[0]]
    assert not any(is_alive(folder) for folder in folders)
    assert not list(folders[0].path.parent.glob("*/.lease"))
    assert not list(folders[0].path.parent.glob(".workers/*"))


def test_what_is_not_wanted_is_not_kept(folders: list[RunFolder]) -> None:
    with Worker(folders[0].path.parent) as worker:
        assert worker.claim(folders, lambda folder: folder.run_id != "b") == [folders[0], folders[2]]
        assert not is_alive(folders[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": None},  # the process is gone
        {"started": 1},  # its number belongs to another process now
        {"place": ["elsewhere"]},  # without a heartbeat
    ],
)
def test_a_dead_worker_is_taken_over(folders: list[RunFolder], changes: dict[str, object]) -> None:
    leave_lease(folders[0], **(changes if changes != {"pid": None} else {"pid": dead_pid()}))
    assert not is_alive(folders[0])
    with Worker(folders[0].path.parent) as worker:
        assert worker.claim(folders[:1], always) == folders[:1]


@pytest.mark.parametrize("part", [0, 1, 2], ids=["host", "boot", "container"])
@pytest.mark.parametrize(("age", "alive"), [(50, True), (70, False)])
def test_another_place_is_believed_for_a_minute(folders: list[RunFolder], age: float, alive: bool, part: int) -> None:
    place = lease._place()
    place[part] += "-other"
    leave_lease(folders[0], place=place, pid=dead_pid())
    heartbeat = folders[0].path.parent / ".workers" / "other"
    heartbeat.parent.mkdir()
    heartbeat.touch()
    os.utime(heartbeat, (time.time() - age,) * 2)
    assert is_alive(folders[0]) == alive


def test_a_container_with_the_same_host_name_is_not_taken_for_dead(folders: list[RunFolder]) -> None:
    work = """
import sys, time
from pathlib import Path
from tc_sweeps.store import RunFolder, Worker
folder = RunFolder(Path(sys.argv[1]))
with Worker(folder.path.parent) as worker:
    worker.claim([folder], lambda _: True)
    print("claimed", flush=True)
    time.sleep(60)
"""
    container = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", work]
    if shutil.which(container[0]) is None:
        pytest.skip("there is no unshare here")
    with subprocess.Popen(
        [*container, folders[0].path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if "claimed" not in process.stdout.readline():
            pytest.skip(f"no process namespace is to be had here: {process.stderr.read().strip()}")
        assert is_alive(folders[0])
        process.kill()
    heartbeat = next(folders[0].path.parent.glob(".workers/*"))
    os.utime(heartbeat, (time.time() - 61,) * 2)
    assert not is_alive(folders[0])


def test_a_living_worker_beats(folders: list[RunFolder]) -> None:
    with Worker(folders[0].path.parent, heartbeat_seconds=0.05):
        [heartbeat] = folders[0].path.parent.glob(".workers/*")
        os.utime(heartbeat, (0, 0))
        deadline = time.monotonic() + 10
        while heartbeat.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_worker_that_lost_its_lease_knows_and_leaves_it_alone(folders: list[RunFolder]) -> None:
    with Worker(folders[0].path.parent) as slow:
        slow.claim(folders[:1], always)
        leave_lease(folders[0])  # another host took it for dead
        assert not slow.holds(folders[0])
        slow.release(folders[0])
        assert is_alive(folders[0])


def test_of_a_run_that_is_done_a_dead_workers_lease_is_forgotten(folders: list[RunFolder]) -> None:
    done, held, begun = folders
    for folder, owner in ((done, {"pid": dead_pid()}), (held, {}), (begun, {"pid": dead_pid()})):
        leave_lease(folder, **owner)
        folder.set_state("running" if folder is begun else "failed", reason="x")
    forget_dead(folders)
    assert [(folder.path / ".lease").exists() for folder in folders] == [False, True, True]


def test_one_of_a_crew_keeps_watch(folders: list[RunFolder]) -> None:
    sweep = folders[0].path.parent
    with Worker(sweep) as second:
        with Worker(sweep) as first:
            assert [first.keep_watch("crew"), second.keep_watch("crew")] == [True, False]
            assert first.keep_watch("crew"), "it still does"
            assert second.keep_watch("other"), "each crew has its own"
        assert second.keep_watch("crew")
    (sweep / ".watch-crew").write_text(json.dumps({"token": "dead", **lease._this_process(), "pid": dead_pid()}))
    with Worker(sweep) as third:
        assert third.keep_watch("crew")
    assert not list(sweep.glob(".watch-*"))


def test_whose_lease_it_was_is_known_when_its_worker_is_dead(folders: list[RunFolder]) -> None:
    pid = dead_pid()
    leave_lease(folders[0], pid=pid)
    leave_lease(folders[1], pid=pid, place=["elsewhere"])
    assert [lease.was_held_by(folder, [pid]) for folder in folders] == [True, False, False]
    assert not lease.was_held_by(folders[0], [pid + 1])


def test_a_file_system_without_locks_is_used_without(
    folders: list[RunFolder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with Worker(folders[0].path.parent) as first, Worker(folders[0].path.parent) as second:
        assert first.claim(folders[:2], always) == folders[:2]
        assert second.claim(folders, always) == folders[2:]
    assert caplog.text.count("has no locks") == 1


def claim_all(sweep: Path, results: multiprocessing.Queue[list[str]]) -> None:
    with Worker(sweep) as worker:
        claimed = worker.claim([RunFolder(sweep / f"{i:02}") for i in range(50)], always)
        results.put([folder.run_id for folder in claimed])
        time.sleep(2)  # a worker that ends gives its runs back


def test_processes_that_claim_at_once_share_the_runs(tmp_path: Path) -> None:
    for i in range(50):
        leave_lease(RunFolder(tmp_path / "s" / f"{i:02}"), started=1)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=claim_all, args=(tmp_path / "s", results)) for _ in range(3)]
    for process in processes:
        process.start()
    claimed = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert sorted(name for names in claimed for name in names) == [f"{i:02}" for i in range(50)]
