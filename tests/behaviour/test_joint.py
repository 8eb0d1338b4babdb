"""Runs whose artifacts are counted by joint probability: their files, and what the verbs make of them."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tc_sweeps.artifacts import joint_artifacts
from tests.behaviour.conftest import Launch

QUICK = ["training.steps=150", "training.evaluations=3", "model.width=8", "tracking=none", "artifacts.measure=joint"]
WORLD = ["data=latent", "data.vocab_size=16", "data.classes=4", "data.num_sentences=60"]
METRICS = ["artifacts/count", "artifacts/unseen", "generalization/count", "hallucination/count"]


def folders(sweep: str) -> list[Path]:
    return sorted(path.parent for path in Path("outputs", sweep).glob("*/model.safetensors"))


def test_a_run_leaves_the_joint_artifacts_of_its_model(launch: Launch) -> None:
    assert launch("run", "sweep=s", *WORLD, *QUICK)[0] == 0
    [folder] = folders("s")
    run = tc_sweeps.load_run(folder)
    found = joint_artifacts(run.model, run.corpus)
    assert found.certificate.complete_M.item()
    assert found.epsilon.item() == 1 / 120 == run.folder.read_facts()["corpus/epsilon"]
    table, last = pd.read_parquet(folder / "artifacts.parquet"), run.metrics.iloc[-1]
    assert len(table) == last["artifacts/count"] == found.count.item() > 0
    assert table["tokens"].map(list).tolist() == found.tables[0]["tokens"].tolist()
    assert table["probability"].tolist() == found.tables[0]["probability"].tolist()
    assert (table["conditional"] > table["probability"]).all()
    labels = table["label"].value_counts()
    assert labels.get("generalization", 0) == last["generalization/count"]
    assert labels.get("hallucination", 0) == last["hallucination/count"]
    assert table["seen"].sum() == last["artifacts/seen"]
    assert last["train/above_threshold"] == found.train_above.item() > 0
    room = math.ceil(1 / Fraction(1 / 120)) - 1
    assert last["artifacts/ceiling"] == room - found.train_above.item()
    for name in ("artifacts/unseen_confident_rate", "hallucination/per_context", "judge/hallucination/per_context"):
        assert run.metrics[name].isna().all()
    survival = pd.read_parquet(folder / "survival.parquet")
    at_end = survival[survival["step"] == 150]
    assert at_end["count"].iloc[0] == len(table)
    assert survival["step"].nunique() == 3
    assert at_end["threshold"].between(1 / 120, 1).all()


def test_runs_of_a_stack_are_as_alone_and_a_target_ends_them_early(launch: Launch) -> None:
    early = [*WORLD, *QUICK, "training.evaluations=5", "training.target_excess_loss=2.5"]
    sizes = "data.num_sentences=50,60"  # each has an epsilon of its own
    assert launch("run", "-m", "sweep=s", *early, "seed=0,1", sizes)[0] == 0
    ends = set()
    for folder in folders("s"):
        config = tc_sweeps.load_run(folder).config
        chosen = [f"seed={config.seed}", f"data.num_sentences={config.data.num_sentences}"]
        assert launch("run", "sweep=alone", *early, *chosen)[0] == 0
        alone = Path("outputs/alone", folder.name)
        for name in ("metrics.csv", "artifacts.parquet", "survival.parquet"):
            assert (folder / name).read_bytes() == (alone / name).read_bytes(), name
        ends.add(json.loads((folder / "status.json").read_text())["step"])
    assert len(folders("s")) == 4
    assert min(ends) < 150, "one has reached its target before the end"


def test_runs_whose_sentences_do_not_fit_together_go_on_as_smaller_stacks(launch: Launch) -> None:
    """2,000 sentences of 200 bytes each fit into a MiB, 6,000 do not."""
    few = ["data.vocab_size=60", "data.num_sentences=1000", "training.steps=2", "training.evaluations=1"]
    asked = [*few, "artifacts.measure=joint", "artifacts.memory_mib=1", "model.width=8", "tracking=none"]
    code, out, err = launch("run", "-m", "sweep=s", *asked, "seed=0,1,2")
    assert code == 0
    assert "out of memory; 3 runs go on as two stacks" in out + err
    assert len(folders("s")) == 3


def test_tables_figures_reports_and_lists_of_a_sweep(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", *WORLD, *QUICK, "model.width=8,16", "seed=0,1")[0] == 0
    assert launch("table", "s")[0] == 0
    results = pd.read_csv("outputs/s/results.csv")
    assert (results[METRICS] > 0).any().all()
    assert launch("figure", "s", "--x", "model.width", "--y", "artifacts/per_ngram")[0] == 0
    assert len(list(Path("outputs/s/figures").glob("*.png"))) == 1
    assert launch("report", "s")[0] == 0
    folder = folders("s")[0]
    code, out, _ = launch("artifacts", f"s/{folder.name}", "--top", "3")
    count = len(pd.read_parquet(folder / "artifacts.parquet"))
    assert code == 0
    assert f"{count} artifacts at P(sentence) > 0.00833333: " in out
    first = pd.read_parquet(folder / "artifacts.parquet")["probability"].iloc[0]
    assert f"{first:.4g}" in out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("objective.positions=last", "artifacts.measure=joint needs objective.positions=all"),
        ("artifacts.epsilon=2", "artifacts.epsilon=2.0 must lie between 0 and 1."),
    ],
)
def test_what_has_no_joint_probability_is_refused_before_anything_is_trained(
    launch: Launch, asked: str, said: str
) -> None:
    code, _, err = launch("run", *QUICK, asked)
    assert code == 1
    assert said in err
    assert not Path("outputs/scratch").exists()
