"""The effective ranks of the data are facts of a run that asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

import tc_sweeps
from tc_sweeps.config import resolve
from tc_sweeps.rank import RANK_FACTS, rank_facts
from tc_sweeps.store import RunFolder, run_id
from tests.behaviour.conftest import Launch

SMALL = ["data=latent", "data.vocab_size=8", "data.classes=2", "data.num_sentences=24"]
SHORT = ["model.width=8", "training.steps=10", "training.evaluations=1", "tracking=none"]


def test_a_sweep_lists_the_ranks_of_its_data(launch: Launch) -> None:
    code, _, err = launch("run", "-m", "sweep=s", "rank.effective=true", "data.seed=0,1", "seed=0,1", *SMALL, *SHORT)
    assert code == 0, err
    results = pd.read_parquet("outputs/s/results.parquet")
    for row in results.to_dict("records"):
        corpus = tc_sweeps.load_run(Path("outputs/s") / row["run_id"]).corpus
        assert {name: row[name] for name in RANK_FACTS} == rank_facts(corpus, order=3, seed=row["data.seed"])


def test_ranks_that_were_written_before_a_run_was_killed_stand(launch: Launch) -> None:
    """They are a function of what the run's id stands for."""
    config = resolve(
        {
            "sweep": "s",
            "rank": {"effective": True},
            "data": {"name": "latent", "vocab_size": 8, "classes": 2, "num_sentences": 24},
            "model": {"width": 8},
            "training": {"steps": 10, "evaluations": 1},
        }
    )
    folder = RunFolder.of(config)
    folder.queue(config)
    folder.write_facts(dict.fromkeys(RANK_FACTS, 77), None)
    assert launch("run", "sweep=s", "rank.effective=true", *SMALL, *SHORT)[0] == 0
    facts = json.loads((folder.path / "facts.json").read_text())
    assert {facts[name] for name in RANK_FACTS} == {77}
    assert facts["corpus/train_ngrams"] == 24


def test_a_run_that_does_not_ask_for_ranks_is_the_run_it_was(launch: Launch) -> None:
    assert launch("run", "sweep=s", *SMALL, *SHORT)[0] == 0
    assert not set(RANK_FACTS) & set(pd.read_parquet("outputs/s/results.parquet").columns)
    assert run_id(resolve({"rank": {"effective": False}})) == run_id(resolve({}))
    assert run_id(resolve({"rank": {"effective": True}})) != run_id(resolve({}))
