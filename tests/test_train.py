"""What `train` promises of a stack: its members alone fail, lose their leases or stop; no other does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tc_sweeps.train
from tc_sweeps.config import Config, resolve
from tc_sweeps.store import RunFolder, Worker
from tc_sweeps.sweep.engine import Launch, RunFailed, train_sweeps
from tc_sweeps.train import train

QUICK = {"steps": 40, "evaluations": 4}


def config(seed: int, **training: object) -> Config:
    return resolve(
        {
            "sweep": "s",
            "seed": seed,
            "data": {"vocab_size": 12, "num_sentences": 30},
            "model": {"width": 8},
            "training": {**QUICK, **training},
            "tracking": {"mode": "none"},
        }
    )


def test_runs_of_other_shapes_make_no_stack(tmp_path: Path) -> None:
    other = config(1)
    other.training.steps = 80
    with pytest.raises(ValueError, match="no stack holds them"):
        train([config(0), other], outputs=tmp_path)


def test_a_member_whose_lease_is_lost_is_left_to_its_new_owner(tmp_path: Path) -> None:
    runs = [config(0), config(1)]
    folders = [RunFolder.of(run, tmp_path) for run in runs]
    seen = []

    def lose(member_steps: int, running: int) -> None:
        seen.append((member_steps, running))
        if len(seen) == 1:  # another host takes the first run over
            lease = folders[0].path / ".lease"
            lease.write_text(json.dumps(json.loads(lease.read_text()) | {"token": "other"}))

    with Worker(tmp_path / "s") as worker:
        worker.claim(folders, lambda folder: True)
        train(runs, outputs=tmp_path, worker=worker, progress=lose)
    assert [folder.status["state"] for folder in folders] == ["running", "finished"]
    assert folders[0].read_metrics()["step"].tolist() == [10]
    assert folders[1].read_metrics()["step"].tolist() == [10, 20, 30, 40]
    # Half of the stack is gone, so the other half goes on in one of its own.
    assert seen == [(20, 2), (20, 1), (10, 1), (10, 0)]


def test_a_stack_that_memory_does_not_hold_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, tried = tc_sweeps.train._fit, []

    def small(members, *arguments):  # type: ignore[no-untyped-def]
        tried.append(len(members))
        if len(members) > 2:
            raise torch.OutOfMemoryError
        return fit(members, *arguments)

    monkeypatch.setattr(tc_sweeps.train, "_fit", small)
    outcomes = train_sweeps([config(seed) for seed in range(5)], Launch(workers=1), outputs=tmp_path)
    assert tried == [5, 3, 2, 1, 2]
    assert not any(isinstance(outcome, RunFailed) for outcome in outcomes)


def test_one_run_that_memory_does_not_hold_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(tc_sweeps.train, "_fit", never)
    [outcome] = train_sweeps([config(0)], Launch(workers=1), outputs=tmp_path)
    assert isinstance(outcome, RunFailed)
    assert "out of memory" in str(outcome)


def test_a_bug_fails_its_stack_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fit = tc_sweeps.train._fit

    def wrong(members, *arguments):  # type: ignore[no-untyped-def]
        if members[0].config.training.steps == 40:
            raise ZeroDivisionError("by accident")
        return fit(members, *arguments)

    monkeypatch.setattr(tc_sweeps.train, "_fit", wrong)
    runs = [config(0), config(1), config(0, steps=20)]
    outcomes = train_sweeps(runs, Launch(workers=1), outputs=tmp_path)
    assert ["ZeroDivisionError: by accident" in str(outcome) for outcome in outcomes] == [True, True, False]
    assert "by accident" in caplog.text  # with its traceback


def test_a_finished_sweep_returns_what_it_recorded(tmp_path: Path) -> None:
    runs = [config(seed) for seed in range(2)]
    first = train_sweeps(runs, Launch(workers=1), outputs=tmp_path)
    again = train_sweeps([*reversed(runs), runs[0]], Launch(workers=1), outputs=tmp_path)
    for outcome, recorded in zip(again, [first[1], first[0], first[0]], strict=True):
        assert isinstance(outcome, dict)
        assert isinstance(recorded, dict)
        assert outcome["artifacts/count"] == recorded["artifacts/count"]
        assert outcome["train/loss"] == recorded["train/loss"]
