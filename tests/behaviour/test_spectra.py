"""A run with rank.spectra=true: its columns, what they hold, that they are the same in any stack, what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import tc_sweeps
from tc_sweeps.config import METRICS
from tc_sweeps.rank import head_spectra, stable_rank
from tests.behaviour.conftest import QUICK, Launch
from tests.rank.test_spectra import by_brute_force

SPECTRA = [name for name in METRICS if name.startswith("spectra/")]


def runs(sweep: str) -> list[tc_sweeps.load.Run]:
    return [tc_sweeps.load_run(path.parent) for path in sorted(Path("outputs", sweep).glob("*/status.json"))]


def test_the_last_row_tells_the_spectra_of_the_saved_model(launch: Launch) -> None:
    assert launch("run", "rank.spectra=true", "tracking=none", *QUICK)[0] == 0
    [run] = runs("scratch")
    defined = run.metrics[SPECTRA].notna()
    assert defined.all().equals(pd.Series({name: "unfolding_4" not in name for name in SPECTRA}))
    last = run.metrics.iloc[-1]
    for place, spectrum in enumerate(by_brute_force(run.model, run.corpus.places(3, "all")), start=1):
        assert last[f"spectra/unfolding_{place}/stable_rank"] == pytest.approx(stable_rank(spectrum).item(), rel=1e-9)
        assert last[f"spectra/unfolding_{place}/nuclear_norm"] == pytest.approx(spectrum.sum().item(), rel=1e-6)
        assert last[f"spectra/unfolding_{place}/numerical_rank"] == (spectrum > 0.1 * spectrum.max()).sum()
    told = last["spectra/query_key/stable_rank"]
    assert told == pytest.approx(stable_rank(head_spectra(run.model)["query_key"]).mean().item(), rel=1e-9)


def test_without_it_the_columns_are_empty_and_the_rest_is_the_same(launch: Launch) -> None:
    assert launch("run", "sweep=with", "rank.spectra=true", "tracking=none", *QUICK)[0] == 0
    assert launch("run", "sweep=without", "tracking=none", *QUICK)[0] == 0
    [with_spectra], [without] = runs("with"), runs("without")
    assert with_spectra.folder.run_id != without.folder.run_id
    assert without.metrics[SPECTRA].isna().all(axis=None)
    pd.testing.assert_frame_equal(with_spectra.metrics.drop(columns=SPECTRA), without.metrics.drop(columns=SPECTRA))


def test_a_member_of_a_stack_has_the_spectra_it_has_alone(launch: Launch) -> None:
    asked = ["rank.spectra=true", "tracking=none", "artifacts.contexts=typed", *QUICK]
    assert launch("run", "-m", "sweep=stacked", "seed=0,1,2", *asked)[0] == 0
    for seed in range(3):
        assert launch("run", "sweep=alone", f"seed={seed}", *asked)[0] == 0
    stacked, alone = (
        {run.folder.run_id: (run.folder.path / "metrics.csv").read_bytes() for run in runs(sweep)}
        for sweep in ("stacked", "alone")
    )
    assert len(stacked) == 3
    assert stacked == alone


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["artifacts.exact_ngrams=1000"], "1.7e+03 n-grams are more than artifacts.exact_ngrams=1.0e+03: raise that"),
        (
            ["artifacts.memory_mib=1", "data.vocab_size=250"],
            "rank.spectra=true needs 2 MiB for the 250 tokens of a place, and artifacts.memory_mib=1: raise that",
        ),
        (
            ["artifacts.measure=joint", "data.vocab_size=10000"],
            "1.0e+12 n-grams are more than artifacts.exact_ngrams=1.0e+11: leave it out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(launch: Launch, asked: list[str], said: str) -> None:
    code, _, err = launch("run", "rank.spectra=true", "tracking=none", *QUICK, *asked)
    assert code == 1
    assert said in err
    [run] = runs("scratch")
    assert run.status["state"] == "failed"
    assert run.metrics.empty
