"""What `train` promises of a stack: its members alone fail, lose their leases or stop; no other does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import tc_sweeps.train
from tc_sweeps.config import Config, ConfigError, RunFailed, resolve
from tc_sweeps.model import StackModule
from tc_sweeps.store import Job, Worker
from tc_sweeps.sweep.engine import Launch, LocalSweep, train_sweeps
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


def files(outputs: Path) -> dict[tuple[str, str], bytes]:
    names = ("model.safetensors", "metrics.csv", "artifacts.parquet")
    return {(path.parent.name, path.name): path.read_bytes() for name in names for path in outputs.glob(f"s/*/{name}")}


@pytest.mark.parametrize("batch_size", [None, 10])
def test_contexts_that_are_mined_belong_to_the_run(tmp_path: Path, batch_size: int | None) -> None:
    """The same are found alone, in a stack and after an interrupt; and they are where the model was surest."""
    outside = {"method": "unsupported", "contexts": "mined", "share": 0.5}
    configs = [config(seed, batch_size=batch_size, checkpoint_seconds=0) for seed in (0, 1, 2)]
    configs = [resolve(asdict(made) | {"objective": {"outside": outside}}) for made in configs]
    for made in configs:
        train([Job.of(made, tmp_path / "alone")])
    train([Job.of(made, tmp_path / "stacked") for made in configs])
    jobs, calls = [Job.of(made, tmp_path / "resumed") for made in configs], []

    def interrupt(*_: int) -> None:
        calls.append(1)
        if len(calls) == 4:  # behind the checkpoint of the second of four evaluations
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(jobs, progress=interrupt)
    assert [job.folder.status["state"] for job in jobs] == ["interrupted"] * 3
    train(jobs)
    alone = files(tmp_path / "alone")
    assert len(alone) == 9
    assert files(tmp_path / "stacked") == alone
    assert files(tmp_path / "resumed") == alone


def test_runs_of_other_shapes_make_no_stack(tmp_path: Path) -> None:
    other = config(1)
    other.training.steps = 80
    with pytest.raises(ValueError, match="no stack holds them"):
        train([Job.of(run, tmp_path) for run in (config(0), other)])


def test_what_is_to_be_said_of_the_data_is_said_once_for_a_stack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = tmp_path / "facts.tsv"
    facts.write_text("a\tb\tc\nd\te\tf\na\tb\tc\n", encoding="utf-8")
    runs = [config(0), config(1)]
    for run in runs:
        run.data = resolve({"data": {"name": "triples", "path": str(facts), "seed": 0}}).data
    train([Job.of(run, tmp_path) for run in runs])
    assert [record.message for record in caplog.records if "repeat another line" in record.message] == [
        f"{facts}: 1 of 3 lines repeat another line; each is counted as often as it occurs."
    ]


def test_a_member_whose_lease_is_lost_is_left_to_its_new_owner(tmp_path: Path) -> None:
    jobs = [Job.of(config(seed), tmp_path) for seed in (0, 1)]
    folders = [job.folder for job in jobs]
    seen = []

    def lose(made: int, left: int, running: int) -> None:
        seen.append((made, left, running))
        if len(seen) == 2:  # another host takes the first run over
            lease = folders[0].path / ".lease"
            lease.write_text(json.dumps(json.loads(lease.read_text()) | {"token": "other"}))

    with Worker(tmp_path / "s") as worker:
        worker.claim(folders, lambda folder: True)
        train(jobs, worker=worker, progress=lose)
    assert [folder.status["state"] for folder in folders] == ["running", "finished"]
    assert folders[0].read_metrics()["step"].tolist() == [10]
    assert folders[1].read_metrics()["step"].tolist() == [10, 20, 30, 40]
    # Half of the stack is gone, so the other half goes on in one of its own.
    assert seen == [(0, 80, 2), (20, 60, 2), (20, 20, 1), (10, 10, 1), (10, 0, 0)]


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


def test_a_stack_that_runs_out_of_memory_on_its_way_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run has reached its target, the others go on from their checkpoints, in two stacks."""
    step, stacks = StackModule.training_step, []

    def small(self: StackModule, batch: object) -> None:
        if self.current_epoch == 0:
            stacks.append((len(self.configs), self.evaluations_made))
        if len(self.configs) > 2 and self.current_epoch == 2:
            raise torch.OutOfMemoryError
        step(self, batch)

    monkeypatch.setattr(StackModule, "training_step", small)
    often = {"checkpoint_seconds": 0.0}
    runs = [config(0, **often, target_excess_loss=100.0), *(config(seed, **often) for seed in range(1, 6))]
    outcomes = train_sweeps(runs, Launch(workers=1), outputs=tmp_path)
    assert stacks == [(6, 0), (3, 2), (2, 2)]  # members, evaluations made before
    folders = [Job.of(run, tmp_path).folder for run in runs]
    assert not any(isinstance(outcome, RunFailed) for outcome in outcomes)
    assert folders[0].status["attempt"] == 1
    assert folders[0].read_metrics()["step"].tolist() == [10]
    for folder in folders[1:]:
        assert folder.read_metrics()["step"].tolist() == [10, 20, 30, 40]


def test_a_file_of_data_that_is_changed_while_others_train_fails_its_run(tmp_path: Path) -> None:
    file = tmp_path / "facts.tsv"
    file.write_text("a\tb\tc\nb\tc\ta\n")
    changed = resolve({"sweep": "s", "data": {"name": "triples", "path": str(file)}, "tracking": {"mode": "none"}})
    jobs = [Job.of(changed, tmp_path)]
    file.write_text("a\tb\tc\nb\tc\tb\n")
    [result] = train(jobs)
    assert result.state == "failed"
    assert "changed after the launch" in str(result.reason)


def test_a_bug_in_a_worker_is_no_want_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(LocalSweep, "work", wrong)
    runs = [config(seed) for seed in range(2)]
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by accident"):
        train_sweeps(runs, Launch(workers=2), outputs=tmp_path)
    assert [Job.of(run, tmp_path).folder.status["state"] for run in runs] == ["queued", "queued"]


@pytest.mark.slow
def test_workers_that_do_not_fork_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with CUDA, and outside of Linux."""
    runs = [config(0), config(1), config(0, steps=20), config(1, steps=20)]
    forked = train_sweeps(runs, Launch(workers=2), outputs=tmp_path / "forked")
    monkeypatch.setattr("tc_sweeps.sweep.engine._start_method", lambda: "spawn")
    spawned = train_sweeps(runs, Launch(workers=2), outputs=tmp_path / "spawned")
    assert not any(isinstance(outcome, RunFailed) for outcome in spawned)
    assert str(spawned) == str(forked)  # as text, in which NaN equals NaN


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": -1}, {"memory_mib": 0}])
def test_launches_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\..* must be at least 1"):
        Launch(**settings)  # type: ignore[arg-type]
