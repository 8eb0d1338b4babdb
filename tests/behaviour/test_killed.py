"""A run that is killed: never read as finished, and started anew by the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.wandb_files import read_run

SMALL = ["data.vocab_size=20", "data.num_sentences=50"]


@pytest.mark.slow
def test_kill_9_in_the_middle_then_the_same_command(shell: Path, command: Callable[..., subprocess.Popen[str]]) -> None:
    arguments = ["training.steps=3000", "training.evaluations=300", *SMALL]
    process = command(*arguments)
    deadline = time.monotonic() + 120
    while not (found := [p for p in Path("outputs/scratch").glob("*/metrics.csv") if p.read_text().count("\n") > 5]):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    folder = found[0].parent
    status = json.loads((folder / "status.json").read_text())
    assert status["state"] == "running"
    assert status["attempt"] == 1
    assert not (folder / "model.safetensors").exists()
    assert len(pd.read_csv(folder / "metrics.csv")) >= 5

    assert command(*arguments).wait(timeout=240) == 0
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("finished", 2)
    steps = pd.read_csv(folder / "metrics.csv")["step"].tolist()
    assert steps == list(range(10, 3001, 10))
    mirrored = read_run(folder)
    assert [row["step"] for row in mirrored.history if "train/loss" in row] == steps
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_recorded_and_does_not_look_like_success(
    shell: Path, command: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = command("training.steps=100000", "training.evaluations=1000", *SMALL, "tracking=none")
    deadline = time.monotonic() + 120
    while not [p for p in Path("outputs/scratch").glob("*/metrics.csv") if p.read_text().count("\n") > 2]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    [status] = [json.loads(path.read_text()) for path in Path("outputs/scratch").glob("*/status.json")]
    assert status["state"] == "interrupted"


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on(shell: Path, command: Callable[..., subprocess.Popen[str]]) -> None:
    arguments = ["-m", "sweep=s", "seed=0,1", "training.steps=100000", "training.evaluations=1000", *SMALL]
    process = command(*arguments, "tracking.mode=none")
    deadline = time.monotonic() + 120
    while not [p for p in Path("outputs/s").glob("*/metrics.csv") if p.read_text().count("\n") > 2]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert "s: 2 runs: 2 interrupted\n" in out
    assert f"To train the 2 runs missing:  python -m tc_sweeps {' '.join(arguments)} tracking.mode=none\n" in out
