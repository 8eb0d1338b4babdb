"""Uploading with real parts: runs as the mirror leaves them, the real `wandb sync`, and a server on this machine."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import wandb

from tc_sweeps.config import Config, ConfigError, resolve
from tc_sweeps.store import RunFolder, SweepFolder, Worker, open_mirror, sync, tracking
from tc_sweeps.store.sync import Synced, sync_sweep
from tests.wandb_server import Server, logged_in


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(sync, "PAUSE_SECONDS", 0.1)
    with logged_in(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "outputs" / "demo")


def a_config(seed: int, mode: str = "offline") -> Config:
    return resolve({"sweep": "demo", "seed": seed, "tracking": {"mode": mode, "project": "toys"}})


def train(
    sweep: SweepFolder, seed: int, *, evaluations: int = 2, state: str = "finished", mode: str = "offline"
) -> str:
    """Write what training leaves on disk of a run, return its id; `state=killed`: the process dies before it ends."""
    config = a_config(seed, mode)
    folder = RunFolder.of(config, sweep.path.parent)
    sweep.add_runs([folder.run_id], experiment=None, launch=None)
    folder.begin(config, ["train/loss", "artifacts/count", "test/loss"])
    mirror = open_mirror(config, folder, job_type="run")
    mirror.summarize({"model/parameters": 4224 + seed})
    for i in range(1, evaluations + 1):
        row = {"train/loss": 1 / (i + seed), "artifacts/count": 7 * i + seed, "test/loss": None if i == 1 else 0.25}
        mirror.log_survival(50 * i, np.array([0.5, 0.9]), np.array([9, seed]))
        mirror.log(50 * i, row)
        folder.add_row(50 * i, row)
    mirror.finish(state)
    folder.set_state(state)
    return folder.run_id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A sweep of five runs, made once: a process of W&B takes a second or two to start."""
    made = SweepFolder(tmp_path_factory.mktemp("made") / "demo")
    for seed in range(5):
        train(made, seed)
    tracking.drain()
    return made


Trained = Callable[..., list[str]]


@pytest.fixture
def trained(sweep: SweepFolder, made: SweepFolder) -> Trained:
    """Return a function that puts finished runs of these seeds (0 to 4) into the sweep, and returns their ids."""

    def copy(*seeds: int) -> list[str]:
        ids = [str(made.plan["run_ids"][seed]) for seed in seeds]
        for run_id in ids:
            shutil.copytree(made.path / run_id, sweep.path / run_id)
        sweep.add_runs(ids, experiment=None, launch=None)
        return ids

    return copy


def wandb_file(sweep: SweepFolder, run_id: str) -> Path:
    [file] = (sweep.path / run_id).glob("wandb/*/*.wandb")
    return file


def table(sweep: SweepFolder, run_id: str) -> list[dict[str, float]]:
    """metrics.csv as rows, without what is undefined."""
    rows = RunFolder(sweep.path / run_id).read_metrics().to_dict("records")
    return [{str(name): value for name, value in row.items() if value == value} for row in rows]


def arrived(server: Server, run_id: str) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "survival"} for row in server.rows(f"demo-{run_id}")]


# ------------------------------------------------------------------------------------------------------- what arrives


def test_what_arrives_is_what_lies_in_the_folder_and_it_does_so_once(
    sweep: SweepFolder, trained: Trained, server: Server
) -> None:
    ids = trained(0, 1)
    assert str(sync_sweep(sweep)) == "2 runs uploaded"
    for seed, run_id in enumerate(ids):
        name = f"demo-{run_id}"
        assert arrived(server, run_id) == table(sweep, run_id)
        assert server.config(name) == {"run_id": run_id, **asdict(a_config(seed))}
        assert server.runs[name]["groupName"] == "demo"
        assert server.runs[name]["project"] == "toys"
        assert server.summary[name]["model/parameters"] == 4224 + seed
        assert server.summary[name]["artifacts/count"] == 14 + seed
        curves = [path for path in server.files[name] if path.startswith("media/table/survival")]
        assert len(curves) == 2
        assert server.exit_codes[name] == 0

    requests = server.requests
    assert str(sync_sweep(sweep)) == "0 runs uploaded, 2 were there already"
    assert server.requests == requests  # nothing at all was asked

    [new] = trained(2)
    assert str(sync_sweep(sweep)) == "1 run uploaded, 2 were there already"
    assert server.completed == dict.fromkeys([*(f"demo-{run_id}" for run_id in ids), f"demo-{new}"], 1)


def test_a_run_that_was_interrupted_is_uploaded_and_once_more_when_it_is_made_anew(
    sweep: SweepFolder, server: Server
) -> None:
    run_id = train(sweep, 0, evaluations=1, state="interrupted")
    tracking.drain()
    assert str(sync_sweep(sweep)) == "1 run uploaded"
    assert server.exit_codes[f"demo-{run_id}"] == 1
    assert train(sweep, 0) == run_id
    tracking.drain()
    assert str(sync_sweep(sweep)) == "1 run uploaded"
    assert list(server.runs) == [f"demo-{run_id}"]
    assert arrived(server, run_id) == table(sweep, run_id)
    assert len(table(sweep, run_id)) == 2
    assert server.exit_codes[f"demo-{run_id}"] == 0


def test_a_copy_of_a_growing_run_is_uploaded_as_far_as_it_goes_and_again_when_it_has_grown(
    sweep: SweepFolder, trained: Trained, server: Server
) -> None:
    [run_id] = trained(0)
    file = wandb_file(sweep, run_id)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # in the middle of a record
    os.utime(file, (0, 0))
    assert str(sync_sweep(sweep)) == "1 run uploaded"
    assert str(sync_sweep(sweep)) == "0 runs uploaded, 1 was there already"
    file.write_bytes(whole)
    os.utime(file, (0, 0))  # a copy may keep a time from before the first upload
    assert str(sync_sweep(sweep)) == "1 run uploaded"
    assert server.exit_codes[f"demo-{run_id}"] == 0
    assert arrived(server, run_id) == table(sweep, run_id)


@pytest.mark.slow
def test_the_latest_attempt_counts_where_a_copy_holds_several(
    sweep: SweepFolder, trained: Trained, server: Server
) -> None:
    [run_id] = trained(0)
    attempt = wandb_file(sweep, run_id).parent
    earlier = attempt.with_name(f"run-20200101_000000-demo-{run_id}")
    shutil.copytree(attempt, earlier)
    (earlier / f"run-demo-{run_id}.wandb").write_bytes(b"no log of W&B")
    assert str(sync_sweep(sweep)) == "1 run uploaded"


def test_a_run_in_training_is_left_out_until_it_ends(sweep: SweepFolder, trained: Trained, server: Server) -> None:
    run_id, _ = trained(0, 1)
    folder = RunFolder(sweep.path / run_id)
    folder.set_state("running")
    with Worker(sweep.path) as worker:
        worker.claim([folder], lambda _: True)
        assert str(sync_sweep(sweep)) == "1 run uploaded, 1 still trains"
    folder.set_state("failed")
    assert str(sync_sweep(sweep)) == "1 run uploaded, 1 was there already"


def test_runs_without_a_mirror_have_nothing_to_upload(sweep: SweepFolder, trained: Trained, server: Server) -> None:
    train(sweep, 0, mode="none")
    [killed] = trained(1)
    wandb_file(sweep, killed).write_bytes(b":W&B\xe5\xbe\x00")  # before its first row was written
    assert str(sync_sweep(sweep)) == "0 runs uploaded, 2 have nothing to upload"
    assert server.requests == 0


def test_runs_of_earlier_plans_are_uploaded_when_asked_for(
    sweep: SweepFolder, trained: Trained, server: Server
) -> None:
    trained(0)
    sweep.add_runs([], experiment=None, launch="2026-01-01")
    assert str(sync_sweep(sweep, dry_run=True)) == "0 runs uploaded"
    assert str(sync_sweep(SweepFolder(sweep.path, every=True), dry_run=True)) == "1 run to upload"
    assert server.requests == 0


def test_another_server_has_nothing_yet(
    sweep: SweepFolder, trained: Trained, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(0)
    sync_sweep(sweep)
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert str(sync_sweep(sweep, dry_run=True)) == "1 run to upload"


@pytest.mark.slow
def test_many_runs_go_in_several_processes(
    sweep: SweepFolder, trained: Trained, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "RUNS_A_PROCESS", 2)
    ids = trained(*range(5))
    assert str(sync_sweep(sweep)) == "5 runs uploaded"
    assert server.completed == {f"demo-{run_id}": 1 for run_id in ids}


def test_what_keeps_training_off_the_network_does_not_keep_uploads(
    sweep: SweepFolder, trained: Trained, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(0)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert str(sync_sweep(sweep)) == "1 run uploaded"


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_server_that_is_down_costs_a_bounded_time_and_the_next_call_completes(
    sweep: SweepFolder, trained: Trained, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    trained(0)
    sync_sweep(sweep)
    ids = trained(1, 2)
    server.die()
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        synced = sync_sweep(sweep, timeout=1, retries=2)
    assert time.monotonic() - began < 3 * 1 + 15  # a slow machine takes seconds to start W&B
    assert str(synced) == "0 runs uploaded, 1 was there already"
    assert synced.complaint == (
        f"2 runs were not uploaded: {ids[0]} and {ids[1]} (http://127.0.0.1:{server.server_port} took no run for 1 s). "
        "The same command tries again."
    )
    said = [record for record in caplog.records if record.name == "tc_sweeps.store.sync"]
    assert [record.args[2:] for record in said if record.args] == [(1, 2, 0.1), (2, 2, 0.2)]  # which, of, after seconds
    again = Server(server.server_port)
    try:
        assert str(sync_sweep(sweep)) == "2 runs uploaded, 1 was there already"
        assert set(again.completed) == {f"demo-{run_id}" for run_id in ids}
    finally:
        again.die()


@pytest.mark.slow
def test_the_runs_that_arrived_before_the_server_stalled_are_there(
    sweep: SweepFolder, trained: Trained, server: Server
) -> None:
    ids = trained(0, 1, 2)
    server.held = {f"demo-{ids[1]}"}
    synced = sync_sweep(sweep, timeout=5, retries=0)
    assert str(synced) == "2 runs uploaded"
    assert [path.name for path in synced.failed] == [ids[1]]
    server.held = set()
    server.let_go.set()
    assert str(sync_sweep(sweep)) == "1 run uploaded, 2 were there already"


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [("file_stream", 401, "401"), pytest.param("storage", 403, "403", marks=pytest.mark.slow)],
)
def test_what_the_server_refused_is_not_taken_for_uploaded_though_wandb_marks_it_so(
    sweep: SweepFolder, trained: Trained, server: Server, part: str, status: int, said: str
) -> None:
    [run_id] = trained(0)
    server.refused = {part: status}
    synced = sync_sweep(sweep, retries=0)
    assert str(synced) == "0 runs uploaded"
    assert synced.complaint is not None
    assert run_id in synced.complaint
    assert said in synced.complaint
    assert not list((sweep.path / run_id).glob("wandb/*/*.synced"))
    server.refused = {}
    assert str(sync_sweep(sweep)) == "1 run uploaded"


def test_a_key_that_the_server_refuses_is_said(sweep: SweepFolder, trained: Trained, server: Server) -> None:
    trained(*range(5))
    server.refused = {"graphql": 401}
    complaint = sync_sweep(sweep, retries=0).complaint
    assert complaint is not None
    assert "5 runs were not uploaded: " in complaint
    assert "and 2 more (" in complaint
    assert "401" in complaint


@pytest.mark.slow
def test_a_hiccup_of_the_server_is_no_failure(sweep: SweepFolder, trained: Trained, server: Server) -> None:
    trained(0)
    server.refused = {"file_stream": 500}
    recovery = threading.Timer(2.0, server.refused.clear)
    recovery.start()
    synced = sync_sweep(sweep, timeout=30, retries=0)
    recovery.join()
    assert str(synced) == "1 run uploaded", synced.complaint
    assert server.refusals


def test_a_file_that_cannot_be_read_stops_no_other(sweep: SweepFolder, trained: Trained, server: Server) -> None:
    ids = trained(0, 1, 2, 3)
    for broken in (ids[0], ids[2]):
        wandb_file(sweep, broken).write_bytes(b"no log of W&B at all")
    synced = sync_sweep(sweep, retries=0)
    assert str(synced) == "2 runs uploaded"
    assert {path.name for path in synced.failed} == {ids[0], ids[2]}
    assert all("Failed to read" in why for why in synced.failed.values())


@pytest.mark.parametrize(("key", "said"), [(None, "W&B has no API key for http"), ("short", "API key must have")])
def test_without_a_key_nothing_starts(
    sweep: SweepFolder, trained: Trained, server: Server, monkeypatch: pytest.MonkeyPatch, key: str | None, said: str
) -> None:
    trained(0)
    if key is None:
        monkeypatch.delenv("WANDB_API_KEY")
    else:
        monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(ConfigError, match=f"{said}.*`wandb login` stores one"):
        sync_sweep(sweep)
    assert server.requests == 0
    assert str(sync_sweep(sweep, dry_run=True)) == "1 run to upload"  # this needs none


def test_numbers_that_make_no_sense_are_refused(sweep: SweepFolder) -> None:
    with pytest.raises(ConfigError, match="--timeout 0 must be above 0 seconds"):
        sync_sweep(sweep, timeout=0)
    with pytest.raises(ConfigError, match="--retries -1 at least 0"):
        sync_sweep(sweep, retries=-1)


def test_ctrl_c_keeps_what_has_arrived_and_the_next_call_uploads_the_rest(
    sweep: SweepFolder, trained: Trained, server: Server, tmp_path: Path
) -> None:
    ids = trained(0, 1)
    server.held = {f"demo-{ids[1]}"}
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from tc_sweeps.cli import main; main()", "sync", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 30
        while not list(sweep.path.glob("*/wandb/*/*.synced")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "1 run uploaded.\n"), err
    assert err.endswith("Interrupted. The same command uploads what is missing.\n")
    assert not wandb_is_left(sweep)
    server.held = set()
    server.let_go.set()
    assert str(sync_sweep(sweep)) == "1 run uploaded, 1 was there already"
    assert arrived(server, ids[1]) == table(sweep, ids[1])


def wandb_is_left(sweep: SweepFolder) -> bool:
    """Whether a process of `wandb sync` for this sweep still runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"sync" in line and str(sweep.path).encode() in line:
            return True
    return False


# --------------------------------------------------------------------------------------------------------- online runs


def test_a_run_that_was_online_to_its_end_is_there(sweep: SweepFolder, server: Server) -> None:
    train(sweep, 0, mode="online")
    tracking.drain()
    assert len(server.completed) == 1
    assert str(sync_sweep(sweep)) == "0 runs uploaded, 1 was there already"


@pytest.mark.slow
def test_a_run_whose_server_died_is_uploaded_when_it_is_back(
    sweep: SweepFolder, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 2.0)
    config = a_config(0, "online")
    folder = RunFolder.of(config, sweep.path.parent)
    sweep.add_runs([folder.run_id], experiment=None, launch=None)
    folder.begin(config, ["train/loss"])
    mirror = open_mirror(config, folder, job_type="run")
    mirror.summarize({"model/parameters": 4224})
    while not server.runs:
        time.sleep(0.05)
    server.die()
    mirror.log(50, {"train/loss": 0.5})
    folder.add_row(50, {"train/loss": 0.5})
    mirror.finish("finished")
    folder.set_state("finished")
    tracking.drain()
    again = Server(server.server_port)
    try:
        assert str(sync_sweep(sweep)) == "1 run uploaded"
        assert arrived(again, folder.run_id) == table(sweep, folder.run_id)
    finally:
        again.die()


# ------------------------------------------------------------------------------------------------------- what is said


def test_the_sentence_names_every_number_that_is_not_zero() -> None:
    runs = [RunFolder(Path(f"outputs/demo/{i:016x}")) for i in range(9)]
    synced = Synced(uploaded=runs[:2], there=runs[2:3], training=runs[3:6], without=runs[6:7])
    assert str(synced) == "2 runs uploaded, 1 was there already, 3 still train, 1 has nothing to upload"
    assert synced.complaint is None
    synced = Synced(failed={run.path: "why" if i else "why not" for i, run in enumerate(runs)})
    assert synced.complaint == (
        "9 runs were not uploaded: 0000000000000000 (why not); 0000000000000001, 0000000000000002, 0000000000000003 "
        "and 5 more (why). The same command tries again."
    )
