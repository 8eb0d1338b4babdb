"""The process that talks to W&B: a script that `tc_sweeps.store.tracking` starts beside a process that trains.

W&B takes 20 to 30 ms of Python for a short run, which would all be waited for: also in a thread of its own, because it
holds the interpreter's lock. Here it costs the training nothing, and what W&B does to a process (threads, a service of
its own, environment variables, hooks at exit) does not meet the forks and signals of the one that trains.

Messages come in at stdin as pickles of `(key of the mirror, verb, arguments)`; sentences for the log go out at stdout,
one a line. Nothing but W&B and the standard library is imported, so that the start takes no longer than W&B's own.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TextIO

if TYPE_CHECKING:
    import wandb

# What was logged is shown this often, all rows of a run together; a shorter run is opened, shown and closed at once.
SHOW_SECONDS = 0.5
# W&B's own 15 s would lose everything of a short run that is killed.
FLUSH_SECONDS = 0.5
# The end of the messages ends this process; a signal that ends the training must not end its last words, and Slurm
# sends its signals to all processes of a task.
NOT_FOR_US = (signal.SIGTERM, signal.SIGUSR2)
BACKLOG = 20_000  # messages of 1 to 2 KB; only then does W&B hold the training up

# Settings of W&B. A sweep opens thousands of runs: nothing is gathered that every run of it shares, nothing is printed.
QUIET: dict[str, Any] = {
    "console": "off",
    "quiet": True,
    "silent": True,
    "disable_code": True,
    "disable_git": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_viewer": True,  # a question of its own to the server, with 5 s of its own
    "x_save_requirements": False,
    "symlink": False,
}

_Message = tuple[int, str, tuple[Any, ...]]


class _Opening(NamedTuple):
    """What it takes to open a run: where it lies, and what W&B shall know of it from the start."""

    named: str  # the run's folder as the user calls it
    folder: str  # the same in full: W&B's service may stand elsewhere
    mode: Literal["online", "offline"]
    settings: dict[str, Any]  # arguments of `wandb.init`


class _Run:
    """One run at W&B: opened with the first thing to show, and left alone when W&B fails."""

    def __init__(self, opening: _Opening, desk: _Desk) -> None:
        self._opening, self._desk = opening, desk
        self._run: wandb.Run | None = None
        self._waiting: list[Callable[[wandb.Run], object]] = []
        self._dark = False

    def log(self, row: dict[str, float | int]) -> None:
        self._waiting.append(lambda run: run.log(row))

    def log_survival(self, step: int, rows: list[Iterable[float]]) -> None:
        def show(run: wandb.Run) -> None:
            import wandb

            # Without the types W&B derives them anew from every row, in half of the time that the whole curve takes.
            table = wandb.Table(columns=["threshold", "count"], data=rows, dtype=[float, int], optional=False)
            # A table that is bound already is uploaded as a file of its run. W&B would else make an artifact of it,
            # and ask the server for leave meanwhile: 19 s where the server is gone.
            table.bind_to_run(run, "survival", step)  # type: ignore[no-untyped-call]
            run.log({"step": step, "survival": table}, commit=False)

        self._waiting.append(show)

    def summarize(self, facts: dict[str, float | int]) -> None:
        # The config holds what was chosen, the summary what came of it.
        self._waiting.append(lambda run: run.summary.update(facts))

    def finish(self, exit_code: int) -> None:
        self._waiting.append(lambda run: self._desk.close(run, self._opening, exit_code))
        self.show()

    def show(self) -> None:
        """Let W&B have what waits; when it fails, say so and leave it alone from then on."""
        waiting, self._waiting = self._waiting, []
        if self._dark or not waiting:
            return
        try:
            if self._run is None:
                self._run = self._desk.open(self._opening)
            for action in waiting:
                action(self._run)
        # Whatever the error, the other runs go on; W&B's own have no base class in common.
        except Exception as error:
            self._dark = True
            named = f"{type(error).__name__}: {_first_line(error)}"
            self._desk.say(
                f"{self._opening.named} is no longer mirrored at W&B ({named}); its local files are complete."
            )


class _Desk:
    """Opens and closes the runs of a process, and knows whether the server can be reached."""

    def __init__(self, voice: TextIO, init_seconds: float, finish_seconds: float) -> None:
        self._voice, self._init_seconds, self._finish_seconds = voice, init_seconds, finish_seconds
        self._stays_offline = False  # set by the first failure to reach the server; holds from then on
        self._prepared = ""

    def say(self, sentence: str) -> None:
        with suppress(BrokenPipeError):  # whoever listened is gone
            print(sentence, file=self._voice, flush=True)

    def open(self, opening: _Opening) -> wandb.Run:
        """Return the W&B run that is asked for: an offline one also where the server cannot be reached."""
        import wandb

        _forget(opening)
        if opening.mode == "online" and not self._stays_offline:
            try:
                self._prepare("online")
                if wandb.login(prompt=False, verify=False):
                    return self._init(opening, "online")
                self._stay_offline("no API key is configured, and `wandb login` would store one")
            except (wandb.errors.CommError, TimeoutError) as error:
                self._stay_offline(_first_line(error))
                wandb.teardown(exit_code=1)  # its service would hold the id of the run that could not be opened
                self._prepared = ""
                _forget(opening)
        self._prepare("offline")
        return self._init(opening, "offline")

    def close(self, run: wandb.Run, opening: _Opening, exit_code: int) -> None:
        if self._stays_offline and not run.offline:
            return  # the server is gone: the members of a stack wait for it together, when the process ends
        try:
            run.finish(exit_code=exit_code)
            if not run.offline:  # W&B's own mark of a run that is uploaded; it sets it only where that came later
                for file in Path(opening.folder).glob("wandb/run-*/run-*.wandb"):
                    file.with_name(f"{file.name}.synced").touch()
        except TimeoutError:
            self._stay_offline(f"the last rows of {opening.named} were not taken within {self._finish_seconds:.0f} s")

    def _stay_offline(self, reason: str) -> None:
        """Stay offline from now on and say why, once."""
        if not self._stays_offline:
            self.say(f"W&B goes on offline for the rest of this process: {reason}.")
        self._stays_offline = True

    def _prepare(self, mode: Literal["online", "offline"]) -> None:
        """Set what holds for all W&B runs of the process; it goes before the surroundings (such as `WANDB_MODE`)."""
        import wandb

        if self._prepared == mode:
            return
        # W&B reports on its own use, also offline: a run without a network shall not look for one.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb.setup(
            wandb.Settings(
                mode=mode,
                init_timeout=self._init_seconds,
                finish_timeout=self._finish_seconds,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
                **QUIET,
            )
        )
        self._prepared = mode

    def _init(self, opening: _Opening, mode: Literal["online", "offline"]) -> wandb.Run:
        import wandb

        run = wandb.init(
            reinit="create_new",  # the members of a stack are open at once
            dir=opening.folder,
            mode=mode,
            **opening.settings,
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")  # W&B counts rows; the axis of every figure is the optimizer's step
        return run


def _forget(opening: _Opening) -> None:
    """Remove what W&B wrote about an earlier attempt at the run."""
    shutil.rmtree(Path(opening.folder) / "wandb", ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".:")


# -------------------------------------------------------------------------------------------------------- the messages


def main() -> None:
    """Do what the messages say until they end."""
    for number in NOT_FOR_US:  # held back until here
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_US)
    messages, voice = _take_streams()
    incoming: queue.Queue[_Message | None] = queue.Queue(BACKLOG)
    sender_is_gone = threading.Event()
    threading.Thread(target=_receive, args=(messages, incoming, sender_is_gone), daemon=True).start()
    _allow_many_files()
    desk = _Desk(voice, *map(float, sys.argv[1:]))
    if not _serve(incoming, sender_is_gone, desk):
        # The sender was killed in the middle of a run: W&B is not told how it ended, and calls it a crash.
        os._exit(1)
    if "wandb" in sys.modules:
        import wandb

        with suppress(Exception):  # its service died: the runs that lost it have said so
            wandb.teardown()  # waits for the last row


def _serve(incoming: queue.Queue[_Message | None], sender_is_gone: threading.Event, desk: _Desk) -> bool:
    """Do what the messages say; return whether every run had its end when they ended.

    Once the sender is gone only runs that it finished are shown: the others may have begun anew in another process.
    """
    runs: dict[int, _Run] = {}
    due: float | None = None  # when the rows that wait are shown
    while True:
        try:
            message = incoming.get(timeout=None if due is None else max(0.01, due - time.monotonic()))
        except queue.Empty:
            message = (0, "show", ())
        if message is None:
            return not runs
        key, verb, arguments = message
        match verb:
            case "open":
                runs[key] = _Run(_Opening(*arguments), desk)
            case "finish":
                runs.pop(key).finish(*arguments)
            case "end":  # of the process, whatever is open still
                for run in runs.values():
                    run.finish(1)
                runs.clear()
            case "show":
                pass
            case _:
                getattr(runs[key], verb)(*arguments)
                due = due or time.monotonic() + SHOW_SECONDS
        if due is not None and time.monotonic() >= due and not sender_is_gone.is_set():
            for run in runs.values():
                run.show()
            due = None


def _take_streams() -> tuple[BinaryIO, TextIO]:
    """Return stdin and stdout, which nobody else has from now on: W&B's service would hold them open, and print."""
    sys.stdout.flush()
    messages, voice = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return messages, voice


def _receive(messages: BinaryIO, incoming: queue.Queue[_Message | None], sender_is_gone: threading.Event) -> None:
    """Take every message as soon as it comes, so that the sender never waits for W&B."""
    with suppress(EOFError, pickle.UnpicklingError):  # the end, perhaps in the middle of a message
        while True:
            incoming.put(pickle.load(messages))
    sender_is_gone.set()
    incoming.put(None)


def _allow_many_files() -> None:
    """Let a stack of a thousand runs be open at once; each needs a log file of W&B's."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
