"""The mirror of one run at Weights & Biases; the local files of the run are the truth.

W&B writes into the run's folder, `outputs/<sweep>/<run_id>/wandb/`, and needs neither account nor network for it. No
state of W&B can stop a run: an online mirror falls back to offline, a broken one goes dark, and either is said once.

Training does not wait for W&B either: a mirror hands its rows to a process that shows them (`wandb_process`), and only
the end of the whole process waits until everything is shown.
"""

from __future__ import annotations

import atexit
import fcntl
import io
import itertools
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import cast

import numpy as np

from tc_sweeps.config import Config
from tc_sweeps.store import wandb_process
from tc_sweeps.store.folder import RunFolder

__all__ = ["Mirror", "drain", "open_mirror"]

log = logging.getLogger(__name__)

# A server that can be reached answers within 2 s; more than this an unreachable one shall not cost, once per process.
INIT_SECONDS = 10.0
# The rows of a run are uploaded while it trains; what is left takes 1 s. What a dead server leaves behind lies on disk.
FINISH_SECONDS = 30.0
PIPE_BYTES = 1 << 20  # holds the first rows of a stack while W&B starts; the most that Linux gives to every user

Value = float | int | None


class Mirror:
    """What a run shows outside of its folder; this one shows nothing (`tracking.mode=none`)."""

    def log(self, step: int, metrics: Mapping[str, Value]) -> None:
        """Show the metrics of one evaluation; undefined ones are left out."""

    def log_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        """Show the number of artifacts above each threshold.

        Call it before `log` for the same step: the curve waits for the metrics and enters the history in their row, so
        that every evaluation has one row and no step comes twice. Where no metrics follow it gets a row at `step`.
        """

    def summarize(self, facts: Mapping[str, Value | str]) -> None:
        """Show facts about the run as a whole, such as the sizes of corpus and model; undefined ones are left out."""

    def finish(self, state: str) -> None:
        """Close the mirror; a run in any state but `finished` shows as failed. Returns at once, see `drain`."""


def open_mirror(
    config: Config, folder: RunFolder, *, job_type: str, rows: Iterable[tuple[int, Mapping[str, Value]]] = ()
) -> Mirror:
    """Return the mirror of a run, as `tracking.mode` asks; it shows `rows` first.

    What an earlier attempt left in the run's `wandb/` is removed. A run that goes on where an earlier attempt stopped
    passes the `(step, metrics)` that it kept, so that the history has no gap and shows no step twice.
    """
    if config.tracking.mode == "none":
        shutil.rmtree(folder.path / "wandb", ignore_errors=True)
        return Mirror()
    mirror = _WandbMirror(config, folder, job_type)
    for step, metrics in rows:
        mirror.log(step, metrics)
    return mirror


def drain() -> None:
    """Wait until W&B has everything that was logged; a mirror that is open still shows as failed.

    The end of the process calls it, however it ends. Only a process that is killed, or that was forked by
    multiprocessing, leaves without: then the runs that are finished are shown all the same, but nobody waits for it.
    """
    global _writer
    writer, _writer = _writer, None
    if writer is not None:
        writer.end()


class _WandbMirror(Mirror):
    """Shows a run at W&B, until W&B fails."""

    _keys = itertools.count()

    def __init__(self, config: Config, folder: RunFolder, job_type: str) -> None:
        self._key = next(self._keys)
        self._writer: _Writer | None = None
        try:
            self._writer = _get_writer()
        except OSError as error:
            log.warning("%s is not mirrored at W&B (%s); its local files are complete.", folder.path, error)
        settings = {
            "id": f"{folder.sweep}-{folder.run_id}",
            "name": folder.run_id,
            "group": folder.sweep,
            "job_type": job_type,
            "tags": [config.data.name, config.objective.positions],
            "project": config.tracking.project,
            "entity": config.tracking.entity,
            "config": {"run_id": folder.run_id, **asdict(config)},
        }
        self._send("open", str(folder.path), str(folder.path.resolve()), config.tracking.mode, settings)

    def log(self, step: int, metrics: Mapping[str, Value]) -> None:
        self._send("log", {"step": step, **_defined(metrics)})

    def log_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        rows = [[float(threshold), int(count)] for threshold, count in zip(thresholds, counts, strict=True)]
        self._send("log_survival", step, rows)

    def summarize(self, facts: Mapping[str, Value | str]) -> None:
        self._send("summarize", _defined(facts))

    def finish(self, state: str) -> None:
        self._send("finish", 0 if state == "finished" else 1)
        self._writer = None

    def _send(self, verb: str, *arguments: object) -> None:
        if self._writer is not None:
            self._writer.send(self._key, verb, arguments)


class _Writer:
    """The process that writes what the mirrors of this process show."""

    def __init__(self) -> None:
        # It finds what this process finds, and a W&B service of its own: the one of another process ends with that.
        environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, wandb_process.NOT_FOR_US)  # until it can say so itself
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", wandb_process.__file__, str(INIT_SECONDS), str(FINISH_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=environment,
                start_new_session=True,  # Ctrl-C ends the training, not what is left to show of it
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        # A message lies in the buffer before it is sent: what a signal interrupts is completed by the next one.
        self._messages = io.BufferedWriter(cast(io.FileIO, self._process.stdin), PIPE_BYTES)
        self._voice = cast(io.FileIO, self._process.stdout)
        self._heard = b""
        os.set_blocking(self._voice.fileno(), False)
        with suppress(AttributeError, OSError):
            fcntl.fcntl(self._messages, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def alive(self) -> bool:
        return not self._messages.closed and self._process.poll() is None

    def send(self, key: int, verb: str, arguments: tuple[object, ...]) -> None:
        """Hand over a message; a process that died says nothing more, which is said once."""
        if self._messages.closed:
            return
        try:
            self._messages.write(pickle.dumps((key, verb, arguments)))
            self._messages.flush()
            self._hear()
        except BrokenPipeError:
            self.end()

    def end(self) -> None:
        """Wait until everything is shown."""
        if self._messages.closed:
            return
        try:
            self._messages.write(pickle.dumps((0, "end", ())))
            self._messages.close()
        except BrokenPipeError:
            self._messages.raw.close()
        os.set_blocking(self._voice.fileno(), True)
        self._hear()
        self._voice.close()
        code = self._process.wait()
        if code != 0:
            log.warning(
                "The runs of this process are no longer mirrored at W&B (the process that wrote the mirrors ended "
                "with code %d); their local files are complete.",
                code,
            )

    def abandon(self) -> None:
        """Let go of what belongs to the process that this one was forked from."""
        self._messages.raw.close()
        self._voice.close()

    def _hear(self) -> None:
        """Pass on what W&B's process has to say."""
        with suppress(BlockingIOError):
            while part := os.read(self._voice.fileno(), 65536):
                self._heard += part
        *sentences, self._heard = self._heard.split(b"\n")
        for sentence in sentences:
            log.warning("%s", sentence.decode())


_writer: _Writer | None = None


def _get_writer() -> _Writer:
    """Return the process that writes for this one, started where none is."""
    global _writer
    if _writer is None or not _writer.alive:
        drain()
        _writer = _Writer()
    return _writer


def _start_alone() -> None:
    """In a forked process: start a writer of its own with the first mirror of its own."""
    global _writer
    if _writer is not None:
        _writer.abandon()
    _writer = None


atexit.register(drain)
os.register_at_fork(after_in_child=_start_alone)


def _defined(values: Mapping[str, Value | str]) -> dict[str, float | int | str]:
    return {name: value for name, value in values.items() if value is not None}
