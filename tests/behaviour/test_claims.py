"""The scorecard of the claims, of a real sweep: what it prints is what the runs' own tables say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.behaviour.conftest import Launch

QUICK = ["training.steps=150", "training.evaluations=2", "tracking=none", "hydra.launcher.workers=1"]
SMALL = ["data=latent", "data.vocab_size=16", "data.classes=4", "data.num_sentences=40", "seed=0,1"]


def test_a_real_sweep_is_judged_and_the_page_written(launch: Launch, shell: Path) -> None:
    code, out, err = launch("claims")
    assert (code, out) == (1, "")
    assert "Claim (d) has no runs yet: python -m tc_sweeps -m experiment=claim_d" in err
    code, _, err = launch("run", "-m", "experiment=claim_d", *SMALL, *QUICK, "objective.outside.share=0.1")
    assert code == 0, err
    code, out, err = launch("claims")
    assert code == 0, err
    runs = pd.read_parquet("outputs/claim_d/results.parquet").set_index(["seed", "objective.outside.method"])
    wrong = runs["judge/hallucination/per_context"].unstack()
    removed = 1 - wrong["unsupported"] / wrong["none"]
    page = Path("outputs/claims.md").read_text()
    [row] = [line.split("|") for line in page.splitlines() if line.startswith("| latent, share 0.1 |")]
    assert float(row[2].split()[0]) == round(removed.mean(), len(row[2].split()[0].partition(".")[2]))
    assert row[3].strip() == "2 seeds"
    assert row[4].strip() == "cannot be said"  # of so few seeds
    assert "Verdict: Cannot be said." in out
    assert "Claim (a) has no runs yet: python -m tc_sweeps -m experiment=claim_a" in out
    assert (shell / "outputs/claim_d/figures/claim_d.png").stat().st_size > 10_000


def test_help_says_what_it_does(launch: Launch, shell: Path) -> None:
    code, out, _ = launch("claims", "--help")
    assert code == 0
    assert "claims.md" in out
