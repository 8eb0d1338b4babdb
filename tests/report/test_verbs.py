"""What is typed after `tc-sweeps`, and what it answers."""

from __future__ import annotations

import sys
from pathlib import Path

import made
import pytest

from tc_sweeps.cli import main


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    """What a command prints, or the sentence that it ends with."""
    monkeypatch.setattr(sys, "argv", ["tc-sweeps", *typed])
    try:
        main()
    except SystemExit as ended:
        return str(ended.code)
    return capsys.readouterr().out


@pytest.fixture
def _widths(outputs: Path) -> None:
    for width in (8, 16):
        for seed in (0, 1):
            made.finished_random_run(outputs, "widths", {"model.width": width, "seed": seed}, ratio=lambda _: 18)


@pytest.mark.usefixtures("_widths")
@pytest.mark.parametrize(
    ("typed", "answered"),
    [
        ("table widths --where seed=0", "2 finished runs"),
        ("table widths --where training.learning_rate=1e-2 --where model.width=8,16", "4 finished runs"),
        ("table widths --where seed=7", "No run of the sweep 'widths' has seed=7; there are 0 and 1."),
        ("table widths --where sed=7", "The sweep 'widths' has no config key 'sed'; did you mean 'seed'?"),
        ("figure widths", "as in: tc-sweeps figure widths --x model.width --y artifacts/per_ngram"),
        ("figure widths --x model.width --y train/loss --where seed=0", "_against_model_width_where_seed=0.png"),
        ("figure widths --as figure3 --where seed=0", "Runs:    those with seed=0"),
        ("figure widths --x model.width", "--x needs --y: a metric or a fact, as in --y artifacts/per_ngram."),
        ("figure widths --y train/loss", "--y needs --x: a config key, a fact, or step, as in --x step."),
        ("figure widths --by seed", "--by needs --x: a config key, a fact, or step, as in --x step."),
        ("figure widths --as figure3 --x step --y train/loss", "--as draws the figure of an experiment as it is"),
        ("figure widths --x bananas --y train/loss", "this sweep; its runs differ in model.width and seed."),
        ("figure widths --x step --y bananas", "its metrics are train/loss, train/excess_loss, train/accuracy"),
        ("status nope", "it holds widths."),
        ("status", "widths  4 runs: 4 finished\n"),
    ],
)
def test_what_is_typed_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, answered: str
) -> None:
    assert answered in answer(monkeypatch, capsys, *typed.split())


def test_status_of_all_sweeps_has_a_line_for_each(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(monkeypatch, capsys, "status") == f"{outputs.resolve()} holds no sweep yet.\n"
    made.finished_random_run(outputs, "long_name", {"seed": 0}, ratio=lambda _: 18)
    made.failed_run(outputs, "long_name", {"seed": 1})
    made.begin(outputs, "killed", {"seed": 1}).set_state("running", step=5)
    (outputs / "empty").mkdir()
    (outputs / "empty" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    assert answer(monkeypatch, capsys, "status").splitlines() == [
        "empty      no runs yet",
        "killed     1 run: 1 interrupted",  # nobody holds its lease
        "long_name  2 runs: 1 finished, 1 failed",
    ]
