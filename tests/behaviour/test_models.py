"""A model of another kind is one word: it is trained beside the others, resumed, counted, read back and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tc_sweeps
from tc_sweeps.artifacts import count_artifacts
from tests.behaviour.conftest import Launch

SMALL = ["training.steps=60", "training.evaluations=3", "data.vocab_size=12", "data.num_sentences=30", "tracking=none"]


def test_a_cp_tensor_and_a_transformer_in_one_sweep(launch: Launch) -> None:
    code, _, err = launch("run", "-m", "sweep=s", "model=attention,cp", "seed=0,1", *SMALL)
    assert code == 0, err
    runs = tc_sweeps.load_sweep("s")
    assert sorted(runs["model.name"]) == ["cp", "cp", "transformer", "transformer"]
    assert runs.loc[runs["model.name"] == "cp", "model/non_embedding_parameters"].tolist() == [0, 0]
    assert runs.loc[runs["model.name"] == "cp", "model/parameters"].tolist() == [16 * (13 + 12 + 12)] * 2
    for run_id in runs.loc[runs["model.name"] == "cp", "run_id"]:
        run = tc_sweeps.load_run(f"outputs/s/{run_id}")
        doubles = run.model.double()
        assert type(doubles).__name__ == "CPTensor"
        last = run.metrics.iloc[-1]
        contexts = torch.cartesian_prod(torch.arange(12), torch.arange(12))
        above = {
            (*context.tolist(), int(token))
            for context, row in zip(contexts, doubles.probabilities(contexts), strict=True)
            for token in torch.nonzero(row > 0.5)[:, 0]
        }
        seen = {tuple(sentence) for sentence in run.corpus.sentences.tolist()}
        assert len(above - seen) == last["artifacts/count"] == int(count_artifacts(run.model, run.corpus).count)
        assert len(above & seen) == last["train/above_threshold"]
    code, out, _ = launch("table", "s")
    assert code == 0
    assert "cp" in out
    assert launch("figure", "s", "--x", "model.name", "--y", "artifacts/per_ngram")[0] == 0
    assert launch("report", "s")[0] == 0


def test_a_cp_tensor_goes_on_and_is_the_same_alone_and_in_a_stack(launch: Launch) -> None:
    assert launch("run", "-m", "sweep=s", "model=cp", "model.rank=5", "seed=0,1,2", *SMALL)[0] == 0
    assert launch("run", "sweep=solo", "model=cp", "model.rank=5", "seed=1", *SMALL)[0] == 0
    [alone] = Path("outputs/solo").glob("*/model.safetensors")
    assert alone.read_bytes() == Path("outputs/s", alone.parent.name, alone.name).read_bytes()
    code, out, _ = launch("plan", "sweep=s", "model=cp", "model.rank=5,6", "seed=0,1,2", *SMALL)
    assert code == 0
    assert "model.rank" in out
    assert "3 finished" in out


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["model=cp", "model.width=8"], "Unknown key 'model.width' (transformer has it): model=cp has name, "),
        (["model.rank=8"], "Unknown key 'model.rank' (cp has it): model=transformer has name, "),
        (["model=pc"], "Could not find 'model/pc'"),
    ],
    ids=str,
)
def test_a_key_of_another_model_is_refused(launch: Launch, wrong: list[str], sentence: str) -> None:
    code, _, err = launch("run", *wrong, *SMALL)
    assert code == 1
    assert sentence in err


def test_a_file_of_a_model_without_a_schema_is_told_how_to_begin(launch: Launch, shell: Path) -> None:
    (shell / "conf/model").mkdir(parents=True)
    (shell / "conf/model/wide.yaml").write_text("width: 64\n")
    code, _, err = launch("run", "--config-dir", "conf", "model=wide", *SMALL)
    assert code == 1
    assert "must begin with 'defaults: [/schema/model/transformer@_here_]'." in err


def test_users_are_recommended_items(launch: Launch) -> None:
    small = ["data.users=20", "data.items=15", "data.likes=6", "data.held_out_fraction=0.34", "training.steps=100"]
    code, _, err = launch(
        "run", "-m", "experiment=recommendation", "seed=0,1", *small, "training.evaluations=1", "tracking=none"
    )
    assert code == 0, err
    runs = tc_sweeps.load_sweep("recommendation")
    assert len(runs) == 28
    assert (runs["artifacts/seen"] == runs["artifacts/count"]).all(), "every user is seen in part"
    assert (runs["generalization/count"] + runs["hallucination/count"] == runs["artifacts/count"]).all()
    code, out, _ = launch("figure", "recommendation")
    assert code == 0
    assert "recommendation is hallucination" in out
