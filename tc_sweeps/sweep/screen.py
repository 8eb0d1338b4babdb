"""What a launch draws: a bar for every stack in training, log lines above them.

One process draws, because two that write to a terminal tear each other's lines. Workers send it what they have to show
through a pipe each, and their log records with it, so that they also enter the launch's log file.
"""

from __future__ import annotations

import logging
import logging.handlers
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["Display", "Screen", "Sender", "listen"]

BAR = "{desc}: {percentage:3.0f}% |{bar}| {rate_fmt}, {remaining} left{postfix}"


class Display(Protocol):
    """Where the progress of stacks is shown; `slot` is the place of their worker."""

    def show(self, slot: int, title: str, made: int, left: int, note: str) -> None:
        """Show that a stack made steps since it was last shown, how many are left, and a note."""

    def clear(self, slot: int) -> None:
        """Show no stack any more."""


class Screen:
    """The terminal of this process, as a context; nothing is drawn where there is none."""

    def __init__(self) -> None:
        self._bars: dict[int, tqdm[Any]] = {}
        self._log: AbstractContextManager[None] = logging_redirect_tqdm()  # log lines do not run into bars

    def __enter__(self) -> Screen:
        self._log.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for slot in list(self._bars):
            self.clear(slot)
        self._log.__exit__(None, None, None)

    def show(self, slot: int, title: str, made: int, left: int, note: str) -> None:
        """Draw a stack's bar."""
        if slot not in self._bars:
            self._bars[slot] = tqdm(
                desc=title,
                total=made + left,
                unit=" steps",
                unit_scale=True,
                bar_format=BAR,
                dynamic_ncols=True,
                leave=False,
                disable=None,
            )
        bar = self._bars[slot]
        bar.total = bar.n + made + left
        bar.set_postfix_str(note, refresh=False)
        bar.update(made)
        if not bar.disable:
            _to_the_left(bar)

    def clear(self, slot: int) -> None:
        """Remove the bar of a worker."""
        if slot in self._bars:
            bar = self._bars.pop(slot)
            drawn = not bar.disable
            bar.close()
            if drawn:
                _to_the_left(bar)


def _to_the_left(bar: tqdm[Any]) -> None:
    """Put the cursor where the next line begins; tqdm leaves it behind a bar, and ^C would be shown there and wrap."""
    bar.fp.write("\r")
    bar.fp.flush()


class Sender(logging.handlers.QueueHandler):
    """The end of a worker: a display and a handler of log records that sends both to the process that draws."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(pipe)  # type: ignore[arg-type]  # our `enqueue` knows what it is
        self._pipe, self._lock = pipe, threading.Lock()

    def show(self, slot: int, title: str, made: int, left: int, note: str) -> None:
        """Have a stack's bar drawn."""
        self._send("show", slot, title, made, left, note)

    def clear(self, slot: int) -> None:
        """Have the bar of a worker removed."""
        self._send("clear", slot)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a log record."""
        self._send("log", record)

    def fail(self, error: BaseException) -> None:
        """Send what ends this worker."""
        self._send("fail", error)

    def _send(self, *message: object) -> None:
        with self._lock:
            self._pipe.send(message)


def listen(pipes: Sequence[Connection], screen: Screen) -> list[BaseException]:
    """Draw what workers send until all of them have ended; return the errors that ended some."""
    errors: list[BaseException] = []
    talking = list(pipes)
    while talking:
        for pipe in wait_for(talking):
            assert isinstance(pipe, Connection)
            try:
                verb, *arguments = pipe.recv()
            except EOFError:
                talking.remove(pipe)
                continue
            match verb:
                case "log":
                    logging.getLogger(arguments[0].name).handle(arguments[0])
                case "fail":
                    errors.append(arguments[0])
                case _:
                    getattr(screen, verb)(*arguments)
    return errors
