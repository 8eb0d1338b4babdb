"""A real two-node Slurm on this host, brought up for the tests that need one, and what a user does with a cluster."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tests.behaviour.conftest import own_environment, shell

__all__ = ["Slurm", "environment", "numbers", "processes", "run", "shell", "slurm", "wait_until", "working"]

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "scontrol")
CONF = {
    "ClusterName": "tests",
    "SlurmctldHost": "{host}(127.0.0.1)",
    "SlurmctldPort": "{port}",
    "SlurmUser": "root",
    "SlurmdUser": "root",
    "AuthType": "auth/munge",
    "CredType": "cred/munge",
    # A job that is requeued waits as long as its credential is good.
    "AuthInfo": "socket={folder}/munge.sock,cred_expire=10",
    "StateSaveLocation": "{folder}/state",
    "SlurmdSpoolDir": "{folder}/spool-%n",
    "SlurmctldPidFile": "{folder}/slurmctld.pid",
    "SlurmdPidFile": "{folder}/slurmd-%n.pid",
    "SlurmctldLogFile": "{folder}/log/slurmctld.log",
    "SlurmdLogFile": "{folder}/log/slurmd-%n.log",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core",
    "SchedulerParameters": "sched_interval=2,bf_interval=2",
    "MpiDefault": "none",
    "ReturnToService": "2",
    "JobAcctGatherType": "jobacct_gather/none",
    "AccountingStorageType": "accounting_storage/none",
    "KillWait": "3",
    "MinJobAge": "1800",  # the controller remembers for as long as a busy machine takes over a sweep
    "JobRequeue": "0",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
}
MACHINES = [
    "NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs={cpus} RealMemory=2000 State=UNKNOWN",
    "NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs={cpus} RealMemory=2000 State=UNKNOWN",
    "PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF",
    "PartitionName=scavenge Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=15",
]
ACCOUNTED = {
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageHost": "127.0.0.1",
    "AccountingStoragePort": "{port3}",
    "AccountingStoragePass": "{folder}/munge.sock",
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "task=1",
    "SelectTypeParameters": "CR_Core_Memory",
    "JobAcctGatherParams": "OverMemoryKill",
    "MinJobAge": "2",
}
SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port3}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port4}
StorageUser=slurm
StoragePass=slurm
"""
MUNGE = {
    "socket": "munge.sock",
    "key-file": "munge.key",
    "pid-file": "munged.pid",
    "log-file": "log/munged.log",
    "seed-file": "munge.seed",
}


@dataclass(frozen=True)
class Slurm:
    """A cluster that is up; its commands find it by the environment."""

    folder: Path

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands and return what it says."""
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def tasks(self, job: str) -> dict[str, dict[str, str]]:
        """Return what `scontrol show job` says of the tasks of an array that it knows one by one, by their number."""
        lines = self.run("scontrol", "-o", "show", "job", job).splitlines()
        told = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]
        return {fields.get("ArrayTaskId", "0"): fields for fields in told}


@pytest.fixture(scope="session")
def _slurm() -> Iterator[Slurm]:
    with _cluster(CONF) as cluster:
        yield cluster


@pytest.fixture
def accounted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Return a Slurm of its own with accounting, which kills what takes more memory than it asked for."""
    with _cluster(CONF | ACCOUNTED, _accounts) as cluster:
        monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "slurm.conf"))
        yield cluster


@contextmanager
def _cluster(
    conf: Mapping[str, str], beside: Callable[[Path], AbstractContextManager[None]] = nullcontext
) -> Iterator[Slurm]:
    """Bring up two nodes with these settings; `beside` runs what the controller needs beside munge."""
    _require("slurm-wlm munge", NEEDED)
    folder = Path("/tmp", f"tc-slurm-{secrets.token_hex(4)}")  # short: a socket's path has at most 107 characters
    for part in ("state", "log"):
        (folder / part).mkdir(parents=True)
    folder.chmod(0o755)
    ports = dict(zip(("port", "port1", "port2", "port3", "port4"), _free_ports(5), strict=True))
    known = {"host": _host(), "folder": folder, "cpus": os.cpu_count(), **ports}
    lines = [f"{name}={value}" for name, value in conf.items()]
    (folder / "slurm.conf").write_text("\n".join([*lines, *MACHINES]).format(**known) + "\n")
    (folder / "ports.json").write_text(json.dumps(ports))
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, timeout=60)

    try:
        paths = [f"--{name}={folder}/{file}" for name, file in MUNGE.items()]
        start("munged", "--force", *paths)
        with beside(folder):
            start("slurmctld")
            start("slurmd", "-N", "n1")
            start("slurmd", "-N", "n2")
            deadline = time.monotonic() + 60
            while True:
                told = subprocess.run(
                    ["sinfo", "-h", "-p", "main", "-N", "-o", "%T"], env=environment, capture_output=True
                )
                if told.stdout.split() == [b"idle", b"idle"]:
                    break
                assert time.monotonic() < deadline, (folder / "log" / "slurmctld.log").read_text()
                time.sleep(0.2)
            yield Slurm(folder)
    finally:
        subprocess.run(["scancel", "--partition=main,scavenge", "--full"], env=environment, check=False)
        subprocess.run(["scontrol", "shutdown"], env=environment, check=False)
        for pid in folder.glob("munged.pid"):
            subprocess.run(["kill", pid.read_text().strip()], check=False)
        time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _accounts(folder: Path) -> Iterator[None]:
    """Keep a MariaDB and a slurmdbd in a cluster's folder."""
    _require("slurmdbd mariadb-server", ("slurmdbd", "mariadbd", "mariadb-install-db"))
    ports = json.loads((folder / "ports.json").read_text())
    (folder / "slurmdbd.conf").write_text(SLURMDBD.format(folder=folder, host=_host(), **ports))
    (folder / "slurmdbd.conf").chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = ["--no-defaults", f"--socket={folder}/mariadb.sock"]
    data = [f"--datadir={folder}/database", "--user=root"]
    with ExitStack() as daemons:

        def serve(port: str, *command: str) -> None:
            process = subprocess.Popen(command, **quiet)
            daemons.callback(process.wait, 60)
            daemons.callback(process.terminate)
            wait_until(lambda: _listens(ports[port]))

        made = ["--no-defaults", *data, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(["mariadb-install-db", *made], check=True, **quiet)
        serve("port4", "mariadbd", *own, *data, f"--port={ports['port4']}", "--bind-address=127.0.0.1")
        allowed = "create user slurm@localhost identified by 'slurm'; grant all on slurm_acct_db.* to slurm@localhost"
        subprocess.run(["mariadb", *own, "--user=root", f"--execute={allowed}"], check=True, **quiet)
        serve("port3", "slurmdbd", "-D")
        subprocess.run(["sacctmgr", "-i", "add", "cluster", CONF["ClusterName"]], check=True, **quiet)
        yield


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _require(packages: str, commands: Sequence[str]) -> None:
    missing = [name for name in commands if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no Slurm here ({', '.join(missing)}): apt-get install {packages}")
    if os.geteuid() != 0:
        pytest.skip("only root can bring up a Slurm")


def _listens(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def slurm(_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """Return a Slurm with two nodes and the partitions main and scavenge, whose jobs those of main preempt."""
    monkeypatch.setenv("SLURM_CONF", str(_slurm.folder / "slurm.conf"))
    yield _slurm
    subprocess.run(["scancel", "-u", "root"], check=False)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(*arguments: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `tc-sweeps ARGUMENTS` and return how it ended; no launch may wait for ever."""
    command = [sys.executable, "-c", "from tc_sweeps.cli import main; main()", *arguments]
    return subprocess.run(command, env=own_environment(), capture_output=True, text=True, timeout=seconds, check=False)


def numbers(sweep: str) -> pd.DataFrame:
    """Return the numbers of a sweep's runs, by their ids."""
    frame = tc_sweeps.load_sweep(sweep).set_index("run_id").sort_index()
    kept = [name for name in frame.columns if "/" in name and not name.startswith("corpus/")]
    return frame[[*kept, "state"]]


def wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def processes(name: str) -> list[int]:
    """Return the processes of this host whose command begins so."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name.startswith(name):
                found.append(int(path.parent.name))
    return found


def environment(pid: int) -> str:
    """Return the environment of a process, each variable ended by a null; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def working(sweep: str) -> set[str]:
    """Return the leases of the workers that have runs in training, beyond their first evaluation."""
    leases = set()
    for path in Path("outputs", sweep).glob("*/status.json"):
        with suppress(FileNotFoundError):  # it has just ended
            status = json.loads(path.read_text())
            if status["state"] == "running" and status["step"] > 0:
                leases.add(path.with_name(".lease").read_text())
    return leases
