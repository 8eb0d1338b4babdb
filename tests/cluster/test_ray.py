"""Sweeps on a real Ray cluster of two local nodes: the same runs and the same numbers as on one machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tests.cluster.conftest import numbers, run, wait_until, working

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow

QUICK = ["data.vocab_size=12", "data.num_sentences=30", "model.width=8", "tracking=none"]
SEEDS = "seed=range(0,40)"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Return the address of a Ray cluster of two nodes with two cores each, and one of something that is called big."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    node = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats", "--num-cpus=2"]
    node += ["--object-store-memory=100000000", '--resources={"big": 1}']
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false"]
    with pytest.MonkeyPatch.context() as patched, ExitStack() as nodes:
        patched.setenv("RAY_AUTH_MODE", "disabled")
        for arguments in (head, [f"--address={address}"]):
            process = subprocess.Popen([*node, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            nodes.callback(process.wait, 60)
            nodes.callback(process.terminate)
            wait_until(lambda: _listens(address))
        yield address


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as knocking:
        return knocking.connect_ex((host, int(port))) == 0


def actors_of(sweep: str) -> list[int]:
    """Return the processes of the actors whose workers train: the parents of those that hold leases."""
    workers = {json.loads(lease)["pid"] for lease in working(sweep)}
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in workers]
    return sorted({int(stat.rpartition(")")[2].split()[1]) for stat in stats})


def test_a_sweep_though_a_worker_is_killed(shell: Path, address: str) -> None:
    long = [*QUICK, "training.steps=2000", "training.evaluations=40", "training.checkpoint_seconds=0", SEEDS]
    launcher = ["hydra/launcher=ray", f"hydra.launcher.address={address}", "hydra.launcher.workers=2"]
    launcher += ["hydra.launcher.resources={big: 1}"]  # so that each node has one
    command = [sys.executable, "-m", "tc_sweeps", "-m", "sweep=there", *long, *launcher, "hydra.launcher.memory_mib=2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launch:
        wait_until(lambda: len(working("there")) == 2)
        actors = actors_of("there")
        assert len(actors) == 2
        os.kill(actors[0], signal.SIGKILL)
        out, _ = launch.communicate(timeout=240)
    assert launch.returncode == 0, out
    assert "1 ended" in out
    assert run("run", "-m", "sweep=here", *long).returncode == 0
    pd.testing.assert_frame_equal(numbers("there"), numbers("here"))
    attempts = [json.loads(path.read_text())["attempt"] for path in Path("outputs/there").glob("*/status.json")]
    assert len(attempts) == 40
    assert attempts.count(1) >= 10, "what was not in training was trained once"


def test_leave_and_cancel(shell: Path, address: str) -> None:
    launcher = [
        "hydra/launcher=ray",
        f"hydra.launcher.address={address}",
        "hydra.launcher.workers=1",
        "hydra.launcher.wait=false",
    ]
    left = run("run", "-m", "sweep=left", *QUICK, "training.steps=500000", "seed=1,2", *launcher)
    assert left.returncode == 0, left.stderr
    wait_until(lambda: "2 running" in run("status", "left").stdout)
    assert "1 alive" in run("status", "left").stdout
    wait_until(lambda: len(actors_of("left")) == 1)
    [actor] = actors_of("left")
    assert "is cancelled" in run("cancel", "left").stdout
    wait_until(lambda: not Path(f"/proc/{actor}").exists())
    wait_until(lambda: "2 interrupted" in run("status", "left").stdout)
    assert set(tc_sweeps.load_sweep("left")["state"]) == {"interrupted"}


def test_a_worker_that_has_no_room_yet_trains_later_though_its_launch_has_left(shell: Path, address: str) -> None:
    launcher = ["hydra/launcher=ray", f"hydra.launcher.address={address}", "hydra.launcher.wait=false"]
    whole = [*launcher, "hydra.launcher.num_cpus=2"]  # a node of the two
    endless = [*QUICK, "training.steps=500000", "seed=1,2", *whole, "hydra.launcher.workers=2"]
    assert run("run", "-m", "sweep=first", *endless).returncode == 0
    wait_until(lambda: "2 running" in run("status", "first").stdout)
    later = [*QUICK, "training.steps=20", "training.evaluations=2", "seed=1,2", *whole, "hydra.launcher.workers=1"]
    assert run("run", "-m", "sweep=later", *later).returncode == 0
    assert "2 queued" in run("status", "later").stdout
    assert "is cancelled" in run("cancel", "first").stdout
    wait_until(lambda: "2 finished" in run("status", "later").stdout)


PROBE = """
from dataclasses import dataclass
from pathlib import Path
from tc_sweeps.sweep.engine import Launch

@dataclass
class Probe:
    launch: Launch
    told: str

    def __call__(self) -> None:
        Path(self.told).write_text("{}")
        raise RuntimeError("as a worker that fails")
"""


def test_a_snapshot_comes_before_the_folder_of_the_launch_and_a_failing_worker_says_why(
    shell: Path, address: str
) -> None:
    """In a process of its own: Ray stays connected."""
    for place in ("here", "snapshot"):
        Path(place).mkdir()
        Path(place, "probe.py").write_text(PROBE.format(place))
    submit = f"""
import os, sys
from pathlib import Path
from tc_sweeps.sweep.engine import Launch
from tc_sweeps.sweep.executors import ray
os.chdir("here")
sys.path.insert(0, "")
from probe import Probe
settings = {{"address": "{address}", "num_cpus": 1, "code": r"{shell / "snapshot"}"}}
print(*ray.submit(Probe(Launch(), r"{shell / "told"}"), 1, settings, Path(r"{shell / "logs"}")))
"""
    done = subprocess.run([sys.executable, "-c", submit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    identity, at = done.stdout.split()
    assert at.rpartition(":")[2] == address.rpartition(":")[2], "of the host's other name"
    log = Path("logs", f"{identity}_0.out")
    wait_until(lambda: log.exists() and "as a worker that fails" in log.read_text())
    assert Path("told").read_text() == "snapshot"


def test_without_a_cluster_it_is_one_sentence(shell: Path) -> None:
    refused = run("run", "-m", *QUICK, "seed=1,2", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:1")
    assert refused.returncode == 1
    assert "no Ray cluster answers at hydra.launcher.address=127.0.0.1:1" in refused.stderr
    assert "Traceback" not in refused.stderr
