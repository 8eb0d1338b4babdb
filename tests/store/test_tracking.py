"""The mirror at W&B with real parts: real runs, their files read back, real dead servers, real kills."""

from __future__ import annotations

import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tc_sweeps.config import Config, resolve
from tc_sweeps.store import RunFolder, open_mirror, tracking
from tests import wandb_files
from tests.wandb_files import WandbRun, find_runs
from tests.wandb_server import API_KEY, Server

THRESHOLDS = np.array([0.5, 0.7, 0.9])
OFFLINE = "W&B goes on offline"


def a_run(outputs: Path, *, mode: str = "offline", sweep: str = "demo", seed: int = 0) -> tuple[Config, RunFolder]:
    config = resolve({"sweep": sweep, "seed": seed, "tracking": {"mode": mode, "project": "toys"}})
    folder = RunFolder.of(config, outputs)
    folder.begin(config, ["train/loss", "artifacts/count", "test/loss"])
    return config, folder


def rows(seed: int) -> list[dict[str, float | int | None]]:
    """Three evaluations; the second has an undefined metric."""
    return [
        {
            "train/loss": 1 / (3 + seed + step),
            "artifacts/count": 7 * step + seed,
            "test/loss": None if step == 1 else 0.1,
        }
        for step in range(3)
    ]


def shown(seed: int) -> list[dict[str, float | int]]:
    """What a mirror of `rows` shows: the steps, and no undefined metric."""
    return [
        {"step": 50 * (i + 1), **{name: value for name, value in row.items() if value is not None}}
        for i, row in enumerate(rows(seed))
    ]


def show(mirror: tracking.Mirror, seed: int, *, evaluations: int = 3) -> None:
    for i, row in enumerate(rows(seed)[:evaluations]):
        if i == 2:
            mirror.log_survival(50 * (i + 1), THRESHOLDS, np.array([9, 4, 1]))
        mirror.log(50 * (i + 1), row)


def read_run(path: Path) -> WandbRun:
    """Read a run of this process back once it is written."""
    tracking.drain()
    return wandb_files.read_run(path)


def wait_for_runs(path: Path, count: int) -> None:
    """Wait for what a process shows that ended without waiting for it."""
    deadline = time.monotonic() + 30
    while len(find_runs(path)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def without_table(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "survival"} for row in history]


# ------------------------------------------------------------------------------------------------------------- offline


def test_an_offline_run_holds_everything_of_the_run(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="figure2")
    mirror.summarize({"model/parameters": 4224, "corpus/held_out": None})
    show(mirror, 0)
    mirror.finish("finished")

    run = read_run(folder.path)
    assert (run.id, run.name) == (f"demo-{folder.run_id}", folder.run_id)
    assert (run.group, run.job_type, run.project) == ("demo", "figure2", "toys")
    assert set(run.tags) == {"random", "all"}
    assert run.config == {"run_id": folder.run_id, **asdict(config)}
    assert without_table(run.history) == shown(0)
    assert run.summary["model/parameters"] == 4224
    assert "corpus/held_out" not in run.summary
    assert run.summary["artifacts/count"] == rows(0)[-1]["artifacts/count"]
    assert run.axes == {"step": None, "*": "step"}
    assert run.exit_code == 0


def test_the_survival_curve_shares_the_row_of_its_step(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="run")
    show(mirror, 0)
    mirror.finish("finished")
    run = read_run(folder.path)
    assert ["survival" in row for row in run.history] == [False, False, True]
    assert run.table("survival") == [[0.5, 9], [0.7, 4], [0.9, 1]]


def test_a_survival_curve_without_metrics_is_kept_at_its_step(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="run")
    mirror.log(50, {"train/loss": 1.0})
    mirror.log_survival(50, THRESHOLDS, np.array([9, 4, 1]))
    mirror.finish("finished")
    run = read_run(folder.path)
    assert [row["step"] for row in run.history] == [50, 50]
    assert len(run.table("survival")) == 3


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_a_run_that_did_not_finish_shows_as_failed(tmp_path: Path, state: str) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="run")
    mirror.finish(state)
    mirror.finish(state)  # closing twice does no harm
    mirror.log(50, {"train/loss": 1.0})
    run = read_run(folder.path)
    assert run.exit_code == 1
    assert run.history == []


def test_mirrors_that_are_open_at_once_stay_apart(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, seed=seed) for seed in (0, 1)]
    mirrors = [open_mirror(config, folder, job_type="run") for config, folder in runs]
    for i in range(3):
        for seed, mirror in enumerate(mirrors):
            mirror.log(50 * (i + 1), rows(seed)[i])
    for mirror in mirrors:
        mirror.finish("finished")
    for seed, (config, folder) in enumerate(runs):
        run = read_run(folder.path)
        assert run.id == f"demo-{folder.run_id}"
        assert run.config["seed"] == config.seed == seed
        assert run.history == shown(seed)


def test_a_stack_of_thirty_is_opened_shown_and_closed_at_once(tmp_path: Path) -> None:
    runs = [a_run(tmp_path, seed=seed) for seed in range(30)]
    began = time.monotonic()
    mirrors = [open_mirror(config, folder, job_type="run") for config, folder in runs]
    for seed, mirror in enumerate(mirrors):
        mirror.summarize({"model/parameters": 4224 + seed})
    for i in range(3):
        for seed, mirror in enumerate(mirrors):
            if i == 2:
                mirror.log_survival(150, THRESHOLDS, np.array([9, 4, seed]))
            mirror.log(50 * (i + 1), rows(seed)[i])
    for mirror in mirrors:
        mirror.finish("finished")
    assert time.monotonic() - began < 30 * 0.03  # what training waits for; W&B itself takes about 1 s for the thirty
    for seed, (config, folder) in enumerate(runs):
        run = read_run(folder.path)
        assert run.id == f"demo-{folder.run_id}"
        assert run.config == {"run_id": folder.run_id, **asdict(config)}
        assert without_table(run.history) == shown(seed)
        assert run.table("survival") == [[0.5, 9], [0.7, 4], [0.9, seed]]
        assert run.summary["model/parameters"] == 4224 + seed
        assert run.summary["artifacts/count"] == rows(seed)[-1]["artifacts/count"]
        assert run.exit_code == 0


def test_rows_are_shown_while_the_run_trains(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="run")
    show(mirror, 0)
    deadline = time.monotonic() + 30
    while not find_runs(folder.path) or not wandb_files.read_run(folder.path, ended=False).history:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    mirror.finish("finished")
    assert without_table(read_run(folder.path).history) == shown(0)


def test_a_run_that_goes_on_shows_the_rows_it_kept_first(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    killed = open_mirror(config, folder, job_type="run")
    show(killed, 0, evaluations=3)
    tracking.drain()
    assert len(read_run(folder.path).history) == 3
    kept = [(50 * (i + 1), row) for i, row in enumerate(rows(0)[:2])]  # the checkpoint is older than the last row
    mirror = open_mirror(config, folder, job_type="run", rows=kept)
    mirror.summarize({"model/parameters": 4224})
    mirror.log(150, rows(0)[2])
    mirror.finish("finished")
    run = read_run(folder.path)
    assert run.history == shown(0)
    assert run.summary["model/parameters"] == 4224
    assert run.exit_code == 0


def test_a_run_that_starts_anew_shows_no_step_twice(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    first = open_mirror(config, folder, job_type="run")
    show(first, 0, evaluations=2)
    first.finish("interrupted")
    second = open_mirror(config, folder, job_type="run")
    show(second, 0)
    second.finish("finished")
    tracking.drain()
    assert len(list((folder.path / "wandb").glob("offline-run-*"))) == 1
    assert [row["step"] for row in read_run(folder.path).history] == [50, 100, 150]


def test_everything_lies_in_the_folder_of_the_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    made = run_script("open_show_finish('offline', 0)", tmp_path, HOME=str(home), XDG_DATA_HOME=str(home / "data"))
    assert made.returncode == 0, made.stderr
    assert made.stdout == made.stderr == ""
    assert not (home / "data").exists()
    written = {path.name for path in (tmp_path / "demo").glob("*/wandb/offline-run-*/files/*")}
    assert written == {"media"}  # nothing about the machine, its packages or the code


# --------------------------------------------------------------------------------------- runs in their own processes

PRELUDE = """
import logging, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from test_tracking import a_run, open_mirror, rows, show, tracking

def open_show_finish(mode, seed):
    config, folder = a_run(Path({outputs!r}), mode=mode, seed=seed)
    mirror = open_mirror(config, folder, job_type="run")
    mirror.summarize({{"model/parameters": 4224}})
    show(mirror, seed)
    mirror.finish("finished")

"""


def script(body: str, outputs: Path) -> list[str]:
    prelude = PRELUDE.format(path=[str(Path(__file__).parent), *sys.path], outputs=str(outputs))
    return [sys.executable, "-c", prelude + textwrap.dedent(body)]


def surroundings(tmp_path: Path, **variables: str) -> dict[str, str]:
    """An environment without any account at W&B."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    return kept | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")} | variables


def run_script(body: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(tmp_path, **variables)
    return subprocess.run(
        script(body, tmp_path), env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@contextmanager
def started(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test; what still runs when the test ends, or fails, is killed."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_mode_none_makes_no_files_and_imports_no_wandb(tmp_path: Path) -> None:
    body = """
    from tc_sweeps.config import resolve
    from tc_sweeps.store import RunFolder, open_mirror
    import numpy as np
    config = resolve({"tracking": {"mode": "none"}})
    mirror = open_mirror(config, RunFolder.of(config, Path("%s")), job_type="run")
    mirror.summarize({"model/parameters": 4224})
    mirror.log_survival(50, np.ones(3), np.ones(3))
    mirror.log(50, {"train/loss": 1.0})
    mirror.finish("finished")
    assert "wandb" not in sys.modules
    """
    alone = "import sys\nfrom pathlib import Path\n" + textwrap.dedent(body) % (tmp_path / "outputs")
    variables = surroundings(tmp_path, PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, "-c", alone], env=variables, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_keeps_what_it_logged(tmp_path: Path) -> None:
    body = """
    config, folder = a_run(Path(sys.argv[1]))
    mirror = open_mirror(config, folder, job_type="run")
    mirror.summarize({"model/parameters": 4224})
    show(mirror, 0)
    print("logged", flush=True)
    time.sleep(60)
    """
    command = [*script(body, tmp_path), str(tmp_path)]
    with started(command, env=surroundings(tmp_path), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        wait_for_runs(tmp_path / "demo", 1)
        time.sleep(2)
        process.send_signal(signal.SIGKILL)
    run = wandb_files.read_run(tmp_path / "demo", ended=False)
    assert run.exit_code is None
    assert without_table(run.history) == shown(0)
    assert len(run.table("survival")) == 3
    assert run.summary["model/parameters"] == 4224


@pytest.mark.parametrize(
    "end",
    ["raise ValueError", "raise SystemExit(3)", "raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGTERM)", ""],
    ids=["exception", "exit", "interrupt", "signal", "end"],
)
def test_however_a_process_ends_everything_it_logged_is_shown(tmp_path: Path, end: str) -> None:
    body = f"""
    import os, signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Lightning does
    mirrors = []
    for seed in range(3):
        mirrors.append(open_mirror(*a_run(Path(sys.argv[1]), seed=seed), job_type="run"))
        show(mirrors[-1], seed)
    mirrors[0].finish("finished")
    {end}
    """
    command = [*script(body, tmp_path), str(tmp_path)]
    subprocess.run(command, env=surroundings(tmp_path), capture_output=True, timeout=60, check=False)
    for path in (tmp_path / "demo").iterdir():
        run = wandb_files.read_run(path)
        assert without_table(run.history) == shown(run.config["seed"])
        assert run.exit_code == (0 if run.config["seed"] == 0 else 1)
    assert len(find_runs(tmp_path / "demo")) == 3


def test_ctrl_c_and_a_scheduler_s_signal_do_not_cut_the_mirror_short(tmp_path: Path) -> None:
    body = """
    mirror = open_mirror(*a_run(Path(sys.argv[1])), job_type="run")
    show(mirror, 0)
    print("logged", flush=True)
    time.sleep(60)
    """
    command = [*script(body, tmp_path), str(tmp_path)]
    with started(
        command,
        env=surroundings(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        for child in children:  # as Slurm does, which knows of no sessions
            os.kill(int(child), signal.SIGUSR2)
            os.kill(int(child), signal.SIGTERM)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=60)
    run = wandb_files.read_run(tmp_path / "demo")
    assert without_table(run.history) == shown(0)
    assert run.exit_code == 1


def test_a_run_that_finished_is_shown_though_its_process_is_killed(tmp_path: Path) -> None:
    body = """
    import os
    open_show_finish("offline", 0)
    open_mirror(*a_run(Path(sys.argv[1]), seed=1), job_type="run").log(50, {"train/loss": 1.0})
    os._exit(0)  # nothing waits for W&B: a fork of multiprocessing ends so, too
    """
    command = [*script(body, tmp_path), str(tmp_path)]
    subprocess.run(command, env=surroundings(tmp_path), timeout=60, check=True)
    _, finished = a_run(tmp_path / "other", seed=0)
    _, killed = a_run(tmp_path / "other", seed=1)
    wait_for_runs(tmp_path / "demo" / finished.run_id, 1)
    run = wandb_files.read_run(tmp_path / "demo" / finished.run_id)
    assert without_table(run.history) == shown(0)
    assert run.exit_code == 0
    assert all(
        wandb_files.read_run(path.parent, ended=False).exit_code is None
        for path in find_runs(tmp_path / "demo" / killed.run_id)
    )


# --------------------------------------------------------------------------------------------------------------- forks


@pytest.mark.parametrize(("when", "ends"), [("early", "os._exit(0)"), ("late", "sys.exit(0)")])
def test_forks_have_mirrors_of_their_own_and_leave_the_others_alone(tmp_path: Path, when: str, ends: str) -> None:
    body = f"""
    import os
    outputs = Path(sys.argv[1])
    before = open_mirror(*a_run(outputs, seed=0), job_type="run")
    show(before, 0, evaluations=1)
    if sys.argv[2] == "late":  # the parent's W&B is at work when it forks
        while not list(outputs.glob("demo/*/wandb/*/*.wandb")):
            time.sleep(0.1)
    if (fork := os.fork()) == 0:
        before.log(9999, {{"train/loss": 1.0}})  # belongs to the parent: shows nothing
        open_show_finish("offline", 1)
        if (grandchild := os.fork()) == 0:
            open_show_finish("offline", 2)
            {ends}
        assert os.waitpid(grandchild, 0)[1] == 0
        {ends}
    assert os.waitpid(fork, 0)[1] == 0
    for i in (1, 2):
        before.log(50 * (i + 1), rows(0)[i])
    before.finish("finished")
    """
    command = [*script(body, tmp_path), str(tmp_path), when]
    variables = surroundings(tmp_path, WANDB_SERVICE="3-1-unix-/nowhere")  # of a process that is gone
    made = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    wait_for_runs(tmp_path / "demo", 3)
    runs = [wandb_files.read_run(path.parent) for path in find_runs(tmp_path / "demo")]
    assert sorted(run.config["seed"] for run in runs) == [0, 1, 2]
    assert all(without_table(run.history) == shown(run.config["seed"]) and run.exit_code == 0 for run in runs)


def test_processes_of_multiprocessing_show_their_runs(tmp_path: Path) -> None:
    body = """
    import multiprocessing
    open_show_finish("offline", 0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(open_show_finish, [("offline", seed) for seed in range(1, 5)])
        pool.close()
        pool.join()
    """
    made = run_script(body, tmp_path)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    wait_for_runs(tmp_path / "demo", 5)
    for path in find_runs(tmp_path / "demo"):
        run = wandb_files.read_run(path.parent)
        assert without_table(run.history) == shown(run.config["seed"])
        assert run.exit_code == 0


# -------------------------------------------------------------------------------------------------------------- online


def test_online_without_a_key_goes_on_offline_and_asks_nobody(tmp_path: Path) -> None:
    keyboard, terminal = pty.openpty()  # where a person sits, W&B would ask for a key
    command = script("for seed in range(2): open_show_finish('online', seed)", tmp_path)
    with started(command, env=surroundings(tmp_path), stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        assert process.wait(timeout=60) == 0
    said = read_all(keyboard)
    assert said.count("\n") == said.count(OFFLINE) == 1
    assert "wandb login" in said
    assert_two_offline_runs(tmp_path)


def read_all(terminal: int) -> str:
    text = b""
    try:
        while part := os.read(terminal, 65536):
            text += part
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    os.close(terminal)
    return text.decode()


def assert_two_offline_runs(outputs: Path) -> None:
    found = find_runs(outputs)
    assert len(found) == 2
    assert all(path.parent.name.startswith("offline-run-") for path in found)
    for path in found:
        run = read_run(path.parent)
        assert without_table(run.history) == shown(run.config["seed"])
        assert run.exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "never answers"])
def test_an_unreachable_server_costs_a_bounded_time_once(tmp_path: Path, answers: bool) -> None:
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen(50)
        body = """
        tracking.INIT_SECONDS = 2.0
        began = time.monotonic()
        for seed in range(2):
            open_show_finish("online", seed)
        print(time.monotonic() - began)
        tracking.drain()
        print(time.monotonic() - began)
        """
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        made = run_script(body, tmp_path, WANDB_BASE_URL=url, WANDB_API_KEY=API_KEY)
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("\n") == made.stderr.count(OFFLINE) == 1, made.stderr
    logged, drained = map(float, made.stdout.split())
    assert logged < 1
    assert drained < 2 + 8  # once for both runs; a slow machine takes seconds to import and start W&B
    assert_two_offline_runs(tmp_path)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.die()


def test_an_online_run_arrives_at_the_server(tmp_path: Path, server: Server) -> None:
    made = run_script("open_show_finish('online', 0)", tmp_path, **server.environment)
    assert made.returncode == 0, made.stderr
    assert made.stdout == made.stderr == ""
    config, folder = a_run(tmp_path / "other", mode="online")
    name = f"demo-{folder.run_id}"
    assert list(server.runs) == [name]
    assert server.runs[name]["groupName"] == "demo"
    assert server.runs[name]["jobType"] == "run"
    assert server.config(name) == {"run_id": folder.run_id, **asdict(config)}
    assert without_table(server.rows(name)) == shown(0)
    assert "survival" in server.rows(name)[-1]
    assert server.exit_codes[name] == 0


@pytest.mark.slow
def test_a_server_that_dies_holds_nobody_up(tmp_path: Path, server: Server) -> None:
    body = """
    tracking.FINISH_SECONDS = 3.0
    stack = []
    for seed in range(4):
        config, folder = a_run(Path(sys.argv[1]), mode="online", seed=seed)
        stack.append(open_mirror(config, folder, job_type="run"))
        stack[-1].summarize({"model/parameters": 4224})
    sys.stdin.readline()
    began = time.monotonic()
    for seed, mirror in enumerate(stack):
        show(mirror, seed)
    for mirror in stack:
        mirror.finish("finished")
    open_show_finish("online", 4)
    print(time.monotonic() - began, flush=True)
    tracking.drain()
    print(time.monotonic() - began, flush=True)
    """
    began = time.monotonic()
    with started(
        [*script(body, tmp_path), str(tmp_path)],
        env=surroundings(tmp_path, **server.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        while len(server.runs) < 4:
            assert process.poll() is None
            assert time.monotonic() - began < 30
            time.sleep(0.05)
        server.die()
        out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    logged, drained = map(float, out.split())
    assert logged < 1
    assert drained < 2 * 3 + 4  # the four of them together, and once more when W&B's process ends
    assert time.monotonic() - began < 2 * 3 + 10  # a slow machine takes seconds to start W&B
    assert err.count("\n") == err.count(OFFLINE) == 1, err
    found = find_runs(tmp_path / "demo")  # the rows of the stack wait on disk for a server
    assert sorted(path.parent.name.partition("-")[0] for path in found) == ["offline", "run", "run", "run", "run"]
    for path in found:
        run = read_run(path.parent)
        assert without_table(run.history) == shown(run.config["seed"])


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_name_that_wandb_refuses_darkens_the_mirror_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = resolve({})
    config.sweep = "a:b"  # no config that is resolved has such a name
    folder = RunFolder.of(config, tmp_path)
    folder.begin(config, ["train/loss"])
    with caplog.at_level(logging.WARNING):
        mirror = open_mirror(config, folder, job_type="run")
        show(mirror, 0)
        mirror.finish("finished")
        tracking.drain()
    [record] = caplog.records
    assert "UsageError: Run ID cannot contain" in record.getMessage()
    assert str(folder.path) in record.getMessage()


KILLING = """
import os, signal

def children(of):
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [int(stat.split()[0]) for stat in stats if int(stat.rpartition(")")[2].split()[1]) == of]

config, folder = a_run(Path(sys.argv[1]))
mirror = open_mirror(config, folder, job_type="run")
mirror.log(50, {"train/loss": 1.0})
while not list(folder.path.glob("wandb/*/*.wandb")):
    time.sleep(0.1)
[writer] = children(os.getpid())
[service] = children(writer)
"""


def test_a_service_that_dies_darkens_each_mirror_once(tmp_path: Path) -> None:
    body = """
    os.kill(service, signal.SIGKILL)
    time.sleep(0.5)
    mirror.log(100, {"train/loss": 1.0})
    mirror.log(150, {"train/loss": 1.0})
    mirror.finish("finished")
    open_mirror(config, folder, job_type="run").finish("finished")
    print("trained")
    """
    command = [*script(KILLING + textwrap.dedent(body), tmp_path), str(tmp_path)]
    made = subprocess.run(command, env=surroundings(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0
    assert made.stdout == "trained\n", made.stderr
    lines = made.stderr.splitlines()
    assert len(lines) == 2, made.stderr  # one for each mirror
    assert all("is no longer mirrored at W&B" in line for line in lines)
    assert re.search(
        "ConnectionResetError|MailboxClosedError|HandleAbandonedError", lines[0]
    )  # whichever W&B notices first


def test_a_writer_that_dies_is_said_once_and_the_next_run_has_a_new_one(tmp_path: Path) -> None:
    body = """
    others = [open_mirror(*a_run(Path(sys.argv[1]), seed=seed), job_type="run") for seed in (1, 2)]
    os.kill(writer, signal.SIGKILL)
    time.sleep(0.5)
    for mirror in [mirror, *others]:
        mirror.log(100, {"train/loss": 1.0})
        mirror.finish("finished")
    open_show_finish("offline", 3)
    print("trained")
    """
    command = [*script(KILLING + textwrap.dedent(body), tmp_path), str(tmp_path)]
    made = subprocess.run(command, env=surroundings(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert (made.returncode, made.stdout) == (0, "trained\n"), made.stderr
    assert made.stderr.count("\n") == made.stderr.count("no longer mirrored at W&B") == 1, made.stderr
    _, folder = a_run(tmp_path / "other", seed=3)
    assert without_table(read_run(tmp_path / "demo" / folder.run_id).history) == shown(3)


def test_an_error_that_is_not_of_wandb_is_raised(tmp_path: Path) -> None:
    config, folder = a_run(tmp_path)
    mirror = open_mirror(config, folder, job_type="run")
    with pytest.raises(TypeError):
        mirror.log_survival(50, THRESHOLDS, np.array([None, None, None]))
    mirror.finish("failed")
