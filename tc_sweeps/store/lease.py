"""Who trains a run: leases, so that several launches share a sweep and each run is trained once.

A lease is a file in the run's folder that names its worker; a worker is a process that holds leases and shows that it
lives by touching its heartbeat file, `outputs/<sweep>/.workers/<token>`. A lease whose worker is dead is taken over: at
once where the worker's process could be seen from here and is gone, and after a minute without a heartbeat where it ran
on another host or in another container.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tc_sweeps.store.files import locked
from tc_sweeps.store.folder import RunFolder, is_pruned

__all__ = ["Worker", "forget_dead", "is_alive", "standing", "was_held_by"]

HEARTBEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0
FORGOTTEN_SECONDS = 3600.0


class Worker:
    """Claims runs of a sweep for this process, as a context: its leases are given back at the end, come what may."""

    def __init__(self, sweep: Path, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self.sweep = sweep
        self.token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._identity = json.dumps({"token": self.token, **_this_process()})
        self._heartbeat = sweep / ".workers" / self.token
        self._seconds = heartbeat_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._held: set[Path] = set()

    def __enter__(self) -> Worker:
        self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
        for other in self._heartbeat.parent.iterdir():  # of workers that were killed
            if _expired(other, FORGOTTEN_SECONDS):
                other.unlink(missing_ok=True)
        self._heartbeat.touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for lease in list(self._held):
            self._give_back(lease)
        self._heartbeat.unlink(missing_ok=True)

    def claim(self, folders: Sequence[RunFolder], wanted: Callable[[RunFolder], bool]) -> list[RunFolder]:
        """Take the leases of those folders that nobody alive holds and that are `wanted`, looked at under the lease."""
        claimed = []
        # Before the lock, which others wait for, and before a lease is taken: of a sweep that is nearly done most runs
        # are not wanted.
        folders = [folder for folder in folders if wanted(folder)]
        if not folders:
            return []
        with locked(self.sweep / ".leases"):  # one process of a host at a time; O_EXCL keeps hosts apart
            for folder in folders:
                if self._take(_lease(folder)):
                    if wanted(folder):
                        claimed.append(folder)
                    else:
                        self.release(folder)
        return claimed

    def keep_watch(self, crew: str) -> bool:
        """Whether this worker, of those that go by the name `crew`, is the one that waits for what others train.

        If one of them dies it takes over. The watch is a lease too: it passes on if its worker is dead.
        """
        watch = self.sweep / f".watch-{crew}"
        with locked(self.sweep / ".leases"):
            return watch in self._held or self._take(watch)

    def holds(self, folder: RunFolder) -> bool:
        """Whether the run is still this worker's; to be asked before anything is published."""
        return self._is_mine(_lease(folder))

    def release(self, folder: RunFolder) -> None:
        """Give a run back."""
        self._give_back(_lease(folder))

    def _is_mine(self, lease: Path) -> bool:
        return _read(lease).get("token") == self.token

    def _give_back(self, lease: Path) -> None:
        self._held.remove(lease)
        if self._is_mine(lease):
            lease.unlink(missing_ok=True)

    def _take(self, lease: Path) -> bool:
        lease.parent.mkdir(parents=True, exist_ok=True)
        try:
            with lease.open("x", encoding="utf-8") as file:
                file.write(self._identity)
        except FileExistsError:
            if _is_held(lease, self._heartbeat.parent):
                return False
            # Two hosts that take over the same lease at once both write here: the later one holds it, and the other
            # sees that before it publishes.
            lease.write_text(self._identity, encoding="utf-8")
        self._held.add(lease)
        return True

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                self._heartbeat.touch()
            except OSError:  # a full disk or a lost mount: others will take over if it lasts
                continue


def is_alive(folder: RunFolder) -> bool:
    """Whether a worker that lives holds the run."""
    return _is_held(_lease(folder), folder.path.parent / ".workers")


def forget_dead(folders: Iterable[RunFolder]) -> None:
    """Remove the leases of those runs that are done and whose worker was killed before it could give them back."""
    for folder in folders:
        lease = _lease(folder)
        if lease.exists() and folder.done and not is_alive(folder):
            lease.unlink(missing_ok=True)


def was_held_by(folder: RunFolder, pids: Collection[int]) -> bool:
    """Whether the run's lease is that of one of these processes, which can be seen from here, alive or dead."""
    owner = _read(_lease(folder))
    return bool(owner) and owner["place"] == _place() and owner["pid"] in pids


def standing(folder: RunFolder) -> dict[str, Any]:
    """Return the status of a run as it is seen from outside.

    A run whose worker was killed is interrupted, which it had no chance to write itself, and one that a search has
    ended is pruned.
    """
    status = folder.status
    if status["state"] == "running" and not is_alive(folder):
        status = folder.status  # a run gives its lease back right after its last status
        if status["state"] == "running":
            status |= {"state": "interrupted", "reason": "its process is gone; the same command continues it"}
    return status | {"state": "pruned"} if is_pruned(status) else status


def _lease(folder: RunFolder) -> Path:
    return folder.path / ".lease"


def _is_held(lease: Path, heartbeats: Path) -> bool:
    owner = _read(lease)
    if not owner:
        # Nobody, or somebody who is writing the lease at this moment, or whose disk was full: alive while it is new.
        return not _expired(lease, 5.0)
    if owner["place"] == _place():
        return bool(_started(owner["pid"]) == owner["started"])
    return not _expired(heartbeats / owner["token"], EXPIRY_SECONDS)


def _read(lease: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(lease.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):  # ValueError: it is being written
        return {}


def _expired(file: Path, seconds: float) -> bool:
    """Whether a file has not been touched for so long; the clocks of hosts that share a disk agree within seconds."""
    try:
        return time.time() - file.stat().st_mtime > seconds
    except FileNotFoundError:
        return True


def _this_process() -> dict[str, Any]:
    return {"place": _place(), "pid": os.getpid(), "started": _started(os.getpid())}


def _place() -> list[str]:
    """Return what names the processes that can be seen from here: a host since its start, or a container.

    Host names alone do not: containers may share one.
    """
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    on_linux = [boot.read_text().strip(), str(namespace.readlink())] if boot.exists() and namespace.exists() else []
    return [socket.gethostname(), *on_linux]


def _started(pid: int) -> int | None:
    """Return when a process of this host was started (numbers of processes are used again), None where it is gone."""
    try:
        if not Path("/proc/self/stat").exists():  # not Linux: whether it runs is all there is to know
            os.kill(pid, 0)
            return 0
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:  # somebody else's, and alive
        return 0
    return None if fields[0] == "Z" else int(fields[19])
