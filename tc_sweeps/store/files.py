"""Files that are never half-written."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import safetensors.numpy

log = logging.getLogger(__name__)

TEMPORARY_SECONDS = 3600.0  # no file takes so long to write: what is older was left behind by a killed process


def replace(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` fill a new file beside `path`, then put it in the place of `path` at once.

    Whoever reads `path` sees the old contents or the new, also after a crash or on a full disk (then the error is
    raised and the old file stands). The temporary name belongs to this thread of this process on this host, so that two
    writers cannot mix. `durable=False` does not wait for the disk, for files that grow: their last rows may be lost
    when the machine loses power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace the contents of `path` by `text` at once."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), durable=durable)


def replace_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Replace `path` by a safetensors file.

    Its bytes are made in memory: what safetensors raises where it cannot write is no OSError, and a full disk is one.
    """
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    replace(path, lambda temporary: temporary.write_bytes(safetensors.numpy.save(contiguous, metadata)))


def remove_left_behind(folder: Path) -> None:
    """Remove the unfinished files of processes that were killed while they wrote in this folder."""
    for file in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # another process was faster, or its writer ready
            if _is_gone(file) or time.time() - file.stat().st_mtime > TEMPORARY_SECONDS:
                file.unlink()


def _is_gone(temporary: Path) -> bool:
    """Whether the process of this host that wrote a file with a temporary name runs no more."""
    named, pid, _ = temporary.name.rsplit("-", 2)
    if not named.endswith(f".{socket.gethostname()}"):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        return False
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path` (made if missing) against the other processes of this host.

    A file system that has no locks, as a Lustre that is mounted without them, is used without.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            _warn_of_no_locks()
        yield


@cache
def _warn_of_no_locks() -> None:
    log.warning("This file system has no locks: start one launch of a sweep at a time.")
