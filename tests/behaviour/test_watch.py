"""A sweep that trains, watched in a terminal: it shows what is there, fits, and ends with the sweep or by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from tests.behaviour.conftest import QUICK, own_environment, wait_until
from tests.terminal import Terminal

WATCH = [sys.executable, "-c", "from tc_sweeps.cli import main; main()", "watch", "s", "--every", "0.2"]
SWEEP = ["-m", "sweep=s", *QUICK, "tracking=none", "training.evaluations=20", "hydra.launcher.workers=1"]

Command = Callable[..., Popen[str]]


def _hold(training: Popen[str], shell: Path, evaluations: int) -> None:
    """Stop a sweep, whose only process this is, while a run is in training that was evaluated so often at least.

    What is watched then stays as it is, however slow or fast the machine, until the process is sent SIGCONT.
    """

    def held() -> bool:
        training.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, training.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for path in shell.glob("outputs/s/*/status.json"):
            curve = path.with_name("metrics.csv")
            rows = len(curve.read_text().splitlines()) - 1 if curve.exists() else 0
            if json.loads(path.read_text())["state"] == "running" and rows >= evaluations:
                return True
        training.send_signal(signal.SIGCONT)
        return False

    wait_until(held, training)


def _shown(terminal: Terminal, pattern: str) -> bool:
    """Whether a line shows it; of a picture that is being drawn anew some lines are not there yet."""
    return any(re.search(pattern, line) for line in terminal.lines)


@pytest.mark.slow
def test_a_sweep_is_watched_until_it_is_done(shell: Path, command: Command) -> None:
    training = command(*SWEEP, "model.width=8,16", "seed=0,1", "training.steps=4000")
    _hold(training, shell, evaluations=3)
    with Terminal(WATCH, shell, size=(20, 120), env=own_environment()) as terminal:
        row, left = r"^ +(8|16) +0 +running +\d.*[▁-█]{3}", r"% of 16,000 steps done, about .* left"
        terminal.wait_until(lambda: all(_shown(terminal, part) for part in (row, left, "train/")))
        terminal.resize(12, 50)
        terminal.wait_until(lambda: _shown(terminal, "^In a wider terminal: ") and not _shown(terminal, "^ .*train/"))
        training.send_signal(signal.SIGCONT)
        assert terminal.end() == 0
    assert "s: 4 runs: 4 finished" in terminal.lines
    assert "100 % of 16,000 steps done" in terminal.lines
    assert [line.split()[:4] for line in terminal.lines if line.startswith("    ")][-4:] == [
        [width, seed, "finished", "4,000"] for width in ("8", "16") for seed in ("0", "1")
    ]
    assert training.wait() == 0


@pytest.mark.slow
def test_who_looks_away_ends_no_training(shell: Path, command: Command) -> None:
    training = command(*SWEEP, "training.steps=4000")
    _hold(training, shell, evaluations=1)
    with Terminal(WATCH, shell, env=own_environment()) as terminal:
        terminal.wait_until(lambda: _shown(terminal, "1 running"))
        terminal.interrupt()
        assert terminal.end() == 130
    assert b"Traceback" not in terminal.written
    assert b"\x1b[?1049l" in terminal.written  # the screen of before is given back
    assert any("running" in line for line in terminal.lines)  # and what was seen last stays on it
    training.send_signal(signal.SIGCONT)
    assert training.wait() == 0
