"""A terminal that a command runs in: what stands on its screen, another size, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyte

# Whoever has loaded readline, as pytest has, leaves these to its children, such as the workers of pytest-xdist: a
# command would take them for the size of its terminal, whatever that is and becomes.
_SIZE = {"COLUMNS", "LINES"}


class Terminal:
    """A command in a terminal of its own, as a context; `written` is all that it has written so far."""

    def __init__(
        self, command: Sequence[str], folder: Path, *, size: tuple[int, int] = (40, 100), env: Mapping[str, str]
    ) -> None:
        self._ours, theirs = pty.openpty()
        self.screen = pyte.Screen(size[1], size[0])
        self._stream, self.written = pyte.ByteStream(self.screen), b""
        self._tell_size(*size)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**{name: env[name] for name in env.keys() - _SIZE}, "TERM": "xterm-256color"},
            # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without its empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Read what the command writes until something stands on the screen."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.lines)
            assert self._read(), "\n".join(self.lines)

    def end(self, seconds: float = 120) -> int:
        """Read what the command writes until it ends; return its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, "\n".join(self.lines)
        return self._process.wait()

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, with nothing on it."""
        self.screen.resize(rows, columns)
        self.screen.reset()
        self._tell_size(rows, columns)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def _tell_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> bool:
        """Read what there is; return whether the command may write more."""
        try:
            part = os.read(self._ours, 65536)
        except BlockingIOError:
            time.sleep(0.02)
            return True
        except OSError:  # Linux' way to say that nobody writes any more
            return False
        self._stream.feed(part)
        self.written += part
        return bool(part)
