"""A user's shell: a fresh folder to stand in, the command line in this process or in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tc_sweeps import cli

QUICK = ["training.steps=20", "training.evaluations=2", "data.vocab_size=12", "data.num_sentences=30", "model.width=8"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a fresh folder and return it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return tmp_path


Launch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def launch(shell: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Launch:
    """Return a function that runs `tc-sweeps ARGUMENTS` in this process: exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tc-sweeps", *arguments])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            cli.main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        if "joblib.externals.loky" in sys.modules:  # its workers stay, with the environment of this launch
            sys.modules["joblib.externals.loky"].get_reusable_executor().shutdown()
        out, err = capsys.readouterr()
        if isinstance(code, str):  # what Python prints on its way out
            code, err = 1, err + code
        return int(code or 0), out, err  # type: ignore[call-overload]

    return run


@pytest.fixture
def command(shell: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts `python -m tc_sweeps ARGUMENTS` as a process of its own."""
    started = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tc_sweeps", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has them ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env=own_environment(),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def own_environment() -> dict[str, str]:
    """Return this environment without what commands in this process have left there: none of it is a user's.

    WANDB_SERVICE would have another process use the service of this one.
    """
    return {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR" and not k.startswith("WANDB_")}


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for something that a command does while it runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tc-sweeps ARGUMENTS` in a process of its own, which fails where that has imported torch."""
    code = f"""
import sys
from tc_sweeps.cli import main
sys.argv = ["tc-sweeps", *{arguments!r}]
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
