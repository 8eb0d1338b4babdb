"""How artifacts are counted, as a run says it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tests.behaviour.conftest import QUICK, Launch

LARGE = ["data.order=4", "data.vocab_size=300", "data.num_sentences=400", "artifacts.exact_ngrams=1e9", "tracking=none"]
SHORT = ["training.steps=60", "training.evaluations=2", "model.width=16", "artifacts.sampling.contexts=2000"]
INTERVAL = ["artifacts/count_low", "artifacts/count", "artifacts/count_high"]


def test_a_sweep_of_too_many_ngrams_is_estimated_and_says_so_once(launch: Launch) -> None:
    code, out, err = launch("run", "-m", "sweep=large", *LARGE, *SHORT, "seed=0,1", "training.learning_rate=1e-2,2e-2")
    assert code == 0, err
    assert out.count("Artifacts are estimated, with 95 % intervals: 8.1e+09 n-grams of one run") == 1
    results = pd.read_parquet("outputs/large/results.parquet")
    for folder in Path("outputs/large").glob("*/metrics.csv"):
        metrics = pd.read_csv(folder)
        low, count, high = (metrics[name] for name in INTERVAL)
        assert ((low <= count) & (count <= high)).all()
        assert ((high - low)[count > 0] > 0).all()
        last = results[results["run_id"] == folder.parent.name].iloc[0]
        assert [last[name] for name in INTERVAL] == metrics.iloc[-1][INTERVAL].tolist()
        survival = pd.read_parquet(folder.parent / "survival.parquet")
        at_end = survival[(survival["step"] == 60) & (survival["threshold"] == 0.5)]
        assert at_end["count"].item() == metrics["artifacts/count"].iloc[-1]
        table = pd.read_parquet(folder.parent / "artifacts.parquet")
        assert list(table.columns) == ["tokens", "probability", "label", "seen", "right"]
        assert 0 < len(table) <= 10_000
        assert (table["probability"] > 0.5).all()
    named = "In 4 of 4 runs the numbers of artifacts are estimates."
    verbs = (
        ["table", "large"],
        ["figure", "large", "--x", "training.learning_rate", "--y", "artifacts/count"],
        ["report", "large"],
    )
    for verb in verbs:
        code, out, _ = launch(*verb)
        assert code == 0
        assert named in out, verb
    assert named in Path("outputs/large/report.html").read_text()
    _, out, _ = launch("artifacts", f"large/{results['run_id'].iloc[0]}")
    low, count, high = (f"{results[name].iloc[0]:,.0f}" for name in INTERVAL)
    assert f"about {count} artifacts (95 % interval {low} to {high})" in out
    assert "most confident of those in the contexts looked at" in out


def test_a_run_alone_has_the_estimates_that_it_has_in_a_stack(launch: Launch) -> None:
    relative = "artifacts.sampling.relative_error=0.2"
    assert launch("run", "-m", "sweep=stack", *LARGE, *SHORT, relative, "seed=0,1,2")[0] == 0
    assert launch("run", "sweep=alone", *LARGE, *SHORT, relative, "seed=1")[0] == 0
    [alone] = Path("outputs/alone").glob("*/metrics.csv")
    assert Path("outputs/stack", alone.parent.name, "metrics.csv").read_bytes() == alone.read_bytes()


def test_ngrams_that_have_no_number_fail_the_run(launch: Launch) -> None:
    Path("long.tsv").write_text("\n".join("\t".join(str(7 * i + j) for j in range(9)) for i in range(60)))
    facts = ["data=triples", "data.path=long.tsv", "data.order=9", "data.columns=[0,1,2,3,4,5,6,7,8]"]
    code, _, err = launch(
        "run", *facts, "data.held_out_fraction=0", *QUICK[:2], "tracking=none", "artifacts.contexts=all"
    )
    assert code == 1
    assert "n-grams are too many to number: lower artifacts.order or the vocabulary." in err


def test_an_estimate_asked_for_by_name_holds_what_is_counted(launch: Launch) -> None:
    quick = [*QUICK, "data.vocab_size=40", "training.steps=200", "training.evaluations=1", "tracking=none"]
    assert launch("run", "sweep=counted", *quick)[0] == 0
    sampled = ["artifacts.engine=sampled", "artifacts.sampling.contexts=500", "artifacts.sampling.method=stratified"]
    code, out, _ = launch("run", "sweep=sampled", *quick, *sampled)
    assert code == 0
    assert "are estimated" not in out
    [counted], [estimated] = (
        [tc_sweeps.load_run(path.parent).metrics.iloc[-1] for path in Path("outputs", sweep).glob("*/status.json")]
        for sweep in ("counted", "sampled")
    )
    assert pd.isna(counted["artifacts/count_low"])
    assert estimated["artifacts/count_low"] <= counted["artifacts/count"] <= estimated["artifacts/count_high"]
    assert estimated["artifacts/count_low"] < estimated["artifacts/count_high"]
    for name in ("train/loss", "train/accuracy", "artifacts/seen", "artifacts/ceiling"):
        assert estimated[name] == pytest.approx(counted[name], rel=1e-12)
    assert estimated["judge/artifacts/count"] == pytest.approx(counted["judge/artifacts/count"], rel=0.1)
    code, out, _ = launch("compare", "counted", "sampled")
    assert code == 0
    assert "In 1 of 2 runs the numbers of artifacts are estimates." in out
    assert "*" not in out


def test_contexts_cannot_be_mined_where_only_some_are_looked_at(launch: Launch) -> None:
    mined = ["objective=penalty", "objective.outside.contexts=mined", *LARGE, *SHORT]
    code, _, err = launch("run", "sweep=mined", *mined)
    assert code == 1
    said = "objective.outside.contexts=mined looks at every context, and 8.1e+09 n-grams are more than"
    assert said in err
    [status] = Path("outputs/mined").glob("*/status.json")
    run = tc_sweeps.load_run(status.parent)
    assert run.status["state"] == "failed"
    assert run.metrics.empty
    code, _, err = launch("run", "sweep=named", *mined, "artifacts.engine=sampled")
    assert code == 1
    assert "artifacts.engine=sampled looks at some contexts only" in err
