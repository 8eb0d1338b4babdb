"""A search as a user sees it: killed at any moment and started again, shared by processes, drawn by its name."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from tests.behaviour.conftest import Launch, wait_until

Command = Callable[..., subprocess.Popen[str]]

SEARCH = [
    *("-m", "hydra/sweeper=optuna", "sweep=s", "tracking=none", "data.vocab_size=12", "data.num_sentences=30"),
    *("training.learning_rate=tag(log, interval(1e-3, 1e-1))", "model.width=8,16", "training.weight_decay=0,0.1,1"),
    "hydra.sweeper.objectives={train/loss: minimize}",
]
LONG = ["training.steps=1000", "training.evaluations=50", "training.checkpoint_seconds=0"]
KILLED = [*SEARCH, *LONG, "hydra.sweeper.trials=10", "hydra.sweeper.batch=5"]


def trials() -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend("outputs/s/study.journal"))
    return optuna.load_study(study_name="s", storage=storage).trials


def steps() -> list[int]:
    return [json.loads(path.read_text())["step"] for path in Path("outputs/s").glob("*/status.json")]


def assert_whole(total: int) -> None:
    """Exactly the total, each trial a run that was trained to its end, and each run in the plan and the tables."""
    found = trials()
    assert [trial.number for trial in found] == list(range(total))
    assert Counter(trial.state.name for trial in found) == {"COMPLETE": total}
    runs = [trial.user_attrs["run_id"] for trial in found]
    assert len(set(runs)) == total  # a rate is not suggested twice
    assert sorted(json.loads(Path("outputs/s/plan.json").read_text())["run_ids"]) == sorted(runs)
    assert sorted(path.parent.name for path in Path("outputs/s").glob("*/status.json")) == sorted(runs)
    results = pd.read_parquet("outputs/s/results.parquet").set_index("run_id")
    assert set(results["state"]) == {"finished"}
    assert [trial.value for trial in found] == results.loc[runs, "train/loss"].tolist()
    table = pd.read_parquet("outputs/s/trials.parquet")
    assert table["state"].tolist() == ["complete"] * total
    assert table["run_id"].tolist() == runs
    assert Path("outputs/s/figures/search.png").exists()


@pytest.mark.slow
def test_kill_9_half_way_then_the_same_command(shell: Path, command: Command) -> None:
    process = command(*KILLED)
    wait_until(lambda: len(steps()) > 5 and any(200 < step < 1000 for step in steps()), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {trial.number: trial.params for trial in trials()}
    assert any(trial.state.name == "RUNNING" for trial in trials())
    again = command(*KILLED)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert_whole(10)
    assert {number: trial.params for number, trial in enumerate(trials()) if number in before} == before


@pytest.mark.slow
def test_kill_9_at_random_moments(shell: Path, command: Command) -> None:
    moments = random.Random(0)
    for _ in range(12):
        process = command(*KILLED)
        time.sleep(moments.uniform(0.8, 6))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = command(*KILLED)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert_whole(10)


@pytest.mark.slow
def test_ctrl_c_leaves_what_the_same_command_goes_on_with(shell: Path, command: Command) -> None:
    process = command(*KILLED)
    wait_until(lambda: any(200 < step < 1000 for step in steps()), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    again = command(*KILLED)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert_whole(10)


@pytest.mark.slow
def test_processes_that_search_together_stop_at_the_total(shell: Path, command: Command) -> None:
    search = [
        *SEARCH,
        "training.steps=500",
        "training.evaluations=5",
        "hydra.sweeper.trials=14",
        "hydra.sweeper.batch=2",
    ]
    both = [command(*search) for _ in range(2)]
    trained = []
    for process in both:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        trained.append(out.count(" of 14 trials, "))
    assert min(trained) > 1  # each asked for trials of its own
    assert_whole(14)


def test_a_search_is_drawn_and_told_of_as_other_sweeps_are(launch: Launch) -> None:
    quick = ["training.steps=20", "training.evaluations=2", "hydra.sweeper.trials=4"]
    code, out, _ = launch("run", *SEARCH, *quick, "hydra.sweeper.batch=2")
    assert code == 0
    batches = [line for line in out.splitlines() if line.startswith("[")]
    assert [line.partition("] ")[2].partition(" in ")[0] for line in batches] == [
        "outputs/s: 2 of 4 trials, 2 runs",
        "outputs/s: 4 of 4 trials, 2 runs",
    ]
    Path("outputs/s/figures/search.png").unlink()
    code, out, _ = launch("figure", "s")
    assert code == 0
    assert "4 trials: 4 complete." in out
    assert Path("outputs/s/figures/search.png").exists()
    assert "To draw them:        tc-sweeps figure s\n" in launch("status", "s")[1]
