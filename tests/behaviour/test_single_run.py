"""One run: what it writes, and that its numbers are those of the model it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

import tc_sweeps
from tc_sweeps.artifacts import METRICS, count_artifacts
from tests.artifacts.brute_force import brute_force
from tests.behaviour.conftest import QUICK, Launch
from tests.wandb_files import read_run


def only_run(sweep: str = "scratch") -> Path:
    [status] = Path("outputs", sweep).glob("*/status.json")
    return status.parent


def test_a_run_leaves_every_file_of_the_contract(launch: Launch) -> None:
    assert launch("run", "seed=1", *QUICK)[0] == 0
    folder = only_run()
    assert len(folder.name) == 16
    for name in ("config.yaml", "status.json", "metrics.csv", "survival.parquet", "artifacts.parquet"):
        assert (folder / name).exists(), name
    assert (folder / "fibers.parquet").exists()
    assert (folder / "model.safetensors").exists()
    metrics = pd.read_csv(folder / "metrics.csv")
    assert list(metrics.columns) == ["step", *METRICS]
    assert metrics["step"].tolist() == [10, 20]
    assert metrics["generalization/recall"].isna().all()  # random n-grams have no truth: empty, never 0
    status = json.loads((folder / "status.json").read_text())
    assert {"state": "finished", "reason": None, "step": 20, "attempt": 1}.items() <= status.items()
    results = pd.read_parquet("outputs/scratch/results.parquet")
    assert results.loc[0, "run_id"] == folder.name
    assert results.loc[0, "model.width"] == 8
    assert json.loads(Path("outputs/scratch/plan.json").read_text())["run_ids"] == [folder.name]
    artifacts = pd.read_parquet(folder / "artifacts.parquet")
    assert list(artifacts.columns) == ["tokens", "probability", "label", "seen", "right"]
    fibers = pd.read_parquet(folder / "fibers.parquet")
    assert list(fibers.columns) == ["context_tokens", "token", "data_count", "probability"]


@pytest.mark.parametrize(
    ("order", "world"),
    [
        (2, ["data.order=2", "data.num_sentences=6"]),
        (3, ["data.num_sentences=40"]),
        (4, ["data.order=4", "data.num_sentences=80", "model.layers=2"]),
    ],
)
@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_logged_count_equals_a_float64_brute_force(
    launch: Launch, order: int, world: list[str], contexts: str, threshold: float
) -> None:
    """What an outside reader computes from the saved model is the last row of metrics.csv."""
    settings = ["data.vocab_size=10", "model.width=8", "training.steps=150", "training.evaluations=2"]
    chosen = [f"artifacts.threshold={threshold}", f"artifacts.contexts={contexts}", "tracking.mode=none"]
    assert launch("run", *settings, *world, *chosen)[0] == 0
    run = tc_sweeps.load_run(only_run())
    assert run.config.artifacts.contexts == contexts
    expected = brute_force(run.model, 0, run.corpus, threshold=threshold, order=order, contexts=contexts)
    last = run.metrics.iloc[-1]
    # Few contexts of an order-2 world are unseen, so there may be nothing to count.
    assert expected["artifacts/count"] > 0 or order == 2
    for name, value in expected.items():
        if value is None:
            assert pd.isna(last[name]), name
        else:
            assert last[name] == pytest.approx(value, rel=1e-6 if name == "train/loss" else 1e-12), name
    survival = pd.read_parquet(run.folder.path / "survival.parquet")
    at_end = survival[(survival["step"] == 150) & (survival["threshold"] == threshold)]
    assert at_end["count"].item() == expected["artifacts/count"]


@pytest.mark.slow
@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_kinships_equal_a_float64_brute_force(launch: Launch, contexts: str, threshold: float) -> None:
    settings = ["data=kinships", "training=minibatch", "training.steps=200", "training.evaluations=1"]
    chosen = [f"artifacts.threshold={threshold}", f"artifacts.contexts={contexts}", "tracking.mode=none"]
    assert launch("run", *settings, *chosen, "model=mlp")[0] == 0
    run = tc_sweeps.load_run(only_run())
    for order in (2, 3):
        expected = brute_force(run.model, 0, run.corpus, threshold=threshold, order=order, contexts=contexts)
        counted = count_artifacts(run.model, run.corpus, threshold=threshold, order=order, contexts=contexts)
        assert counted.count.item() == expected["artifacts/count"]
        assert counted.seen.item() == expected["artifacts/seen"]
    assert run.metrics["artifacts/count"].iloc[-1] == expected["artifacts/count"] > 0
    for name in ("generalization/recall", "hallucination/count", "hallucination/per_context", "test/loss"):
        told = 1e-6 if name == "test/loss" else 1e-9  # the loss is of logits in float32
        assert run.metrics[name].iloc[-1] == pytest.approx(expected[name], rel=told)


def test_the_mirror_at_wandb_says_what_the_local_table_says(launch: Launch) -> None:
    kinships = ["data=kinships", "training.steps=4", "training.evaluations=2", "sweep=mirrored", "model.width=8"]
    assert launch("run", *kinships)[0] == 0
    run = tc_sweeps.load_run(only_run("mirrored"))
    mirrored = read_run(run.folder.path)
    assert mirrored.id == f"mirrored-{run.folder.run_id}"
    assert mirrored.group == "mirrored"
    assert mirrored.config["data"]["held_out_fraction"] == 0.1
    assert mirrored.config["artifacts"]["contexts"] == "typed"
    rows = [row for row in mirrored.history if "train/loss" in row]
    assert [row["step"] for row in rows] == [2, 4]
    for row, (_, local) in zip(rows, run.metrics.iterrows(), strict=True):
        for name in METRICS:
            if pd.isna(local[name]):
                assert name not in row
            else:
                assert row[name] == pytest.approx(local[name], rel=1e-12), name
    assert mirrored.exit_code == 0


def test_a_loaded_run_answers_as_the_contract_says(launch: Launch) -> None:
    assert launch("run", "data=eats", "training.steps=10", "training.evaluations=1", "tracking.mode=none")[0] == 0
    run = tc_sweeps.load_run(str(only_run()))
    assert run.status["state"] == "finished"
    assert repr(run) == f"<Run {only_run()}: finished>"
    assert run.corpus.vocab_size == 8
    assert run.corpus.sentences.dtype == torch.int64
    contexts = torch.tensor([[0, 4], [1, 5]])
    assert run.model.probabilities(contexts).shape == (2, 8)
    assert run.model.double().probabilities(contexts[:, :1]).dtype == torch.float64
    assert run.corpus.held_out is None
    assert run.corpus.labelled == "truth"
    assert tc_sweeps.load_sweep("scratch")["run_id"].tolist() == [run.folder.run_id]


def test_a_run_stops_at_its_target_excess_loss_with_a_full_survival_curve(launch: Launch) -> None:
    target = ["training.steps=2000", "training.evaluations=40", "training.target_excess_loss=0.2"]
    assert launch("run", *QUICK, *target, "tracking.mode=none", "objective=last")[0] == 0
    run = tc_sweeps.load_run(only_run())
    steps = run.metrics["step"]
    assert steps.iloc[-1] < 2000
    assert (run.metrics["train/excess_loss"] <= 0.2).tolist() == [False] * (len(steps) - 1) + [True]
    survival = pd.read_parquet(run.folder.path / "survival.parquet")
    assert survival[survival["step"] == steps.iloc[-1]]["threshold"].min() == pytest.approx(0.01)


def test_the_same_command_again_touches_nothing(launch: Launch) -> None:
    assert launch("run", *QUICK)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in only_run().iterdir() if path.is_file()}
    assert launch("run", *QUICK)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in only_run().iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ("experiment=figure2", "(objective, data.num_sentences, seed)"),
        ("experiment=search_kinships", "(training.learning_rate, training.weight_decay, model.width)"),
        ("hydra.sweeper.blocks=[{params:{seed:1}}]", "(blocks)"),
        ("seed=3", None),
    ],
)
def test_a_run_that_leaves_axes_aside_says_what_sweeps_them(launch: Launch, chosen: str, named: str | None) -> None:
    quick = QUICK if "kinships" not in chosen else ["training.steps=2", "training.evaluations=1", "model.width=8"]
    code, out, _ = launch("run", chosen, *quick, "tracking=none")
    assert code == 0
    assert out.count(" makes a sweep only with -m.") == (named is not None)
    assert named is None or f"what hydra.sweeper names {named}" in out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_trains_on_the_device(launch: Launch) -> None:
    assert launch("run", "training.accelerator=cuda", "tracking.mode=none", *QUICK)[0] == 0


def test_an_update_that_spoils_the_weights_at_the_very_end_fails_the_run(launch: Launch) -> None:
    code, _, err = launch(
        "run", *QUICK, "training.steps=1", "training.evaluations=1", "training.learning_rate=1e39", "tracking=none"
    )
    assert code == 1
    assert "not finite at step 1" in err
    run = tc_sweeps.load_run(only_run())
    assert run.status["state"] == "failed"
    assert run.metrics.empty


def test_a_schedulers_variables_do_not_disturb_a_run(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "sweep"}.items():
        monkeypatch.setenv(name, value)
    assert launch("run", *QUICK, "tracking=none")[0] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(launch: Launch) -> None:
    code, _, err = launch("run", *QUICK, "training.accelerator=cuda", "tracking=none")
    assert code == 1
    assert "training.accelerator=cuda, but this machine has no CUDA device" in err
    assert "Traceback" not in err
    code, _, err = launch("run", *QUICK, "artifacts.engine=flex", "tracking=none")
    assert code == 1
    assert "artifacts.engine=flex counts on a CUDA device only: use auto, or chunked." in err
    assert "Traceback" not in err
