"""What is typed after `tc-sweeps`, and what it answers."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import made
import pandas as pd
import pytest

from tc_sweeps.cli import main
from tc_sweeps.config import ConfigError
from tc_sweeps.report import find_sweep, load_sweep
from tc_sweeps.report.curves import figure_xy
from tc_sweeps.report.html.payload import gather
from tc_sweeps.store import SweepFolder

MAIN = "from tc_sweeps.cli import main; main()"


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
        ("artifacts widths", "'widths' does not name a run: it is a sweep of 4, "),
        ("artifacts outputs/widths", "'outputs/widths' does not name a run"),
        ("artifacts ab12", "'ab12' does not name a run"),
        ("artifacts width/ab12", "There is no sweep 'width' in "),
        ("artifacts widths/nope", "The sweep 'widths' has no run 'nope'; it has "),
        ("artifacts widths/", "'widths/' does not name a run"),
        ("artifacts widths/a --top 0", "--top 0 must be at least 1."),
        ("artifacts widths/a --label halucination", "is no label; did you mean 'hallucination'?"),
        ("artifacts widths/a --label x,y", "is no label; there are generalization, hallucination and unlabelled."),
        ("status nope", "it holds widths."),
        ("watch widths", "widths: 4 runs: 4 finished\n100 % of 4,000 steps done\n"),
        ("watch widths --metrics train/accuracy,artifacts/count --where model.width=8", "accuracy"),
        ("watch widths --every 0", "--every 0 must be above 0"),
        ("watch nope", "it holds widths."),
        ("compare widths widths", "'widths' and 'widths' are the same: there is nothing to compare."),
        ("compare widths nope", "it holds widths."),
        ("compare widths widhts", "; did you mean 'widths'?"),
        ("compare widths widhts/ab", "There is no sweep 'widhts' in "),
        ("artifacts widhts", "'widhts' does not name a run; did you mean 'widths'?"),
        ("compare widths widths/x --metrics train/loss", "The sweep 'widths' has no run 'x'; it has "),
        ("status", "widths  4 runs: 4 finished\n"),
    ],
)
def test_what_is_typed_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, answered: str
) -> None:
    assert answered in answer(monkeypatch, capsys, *typed.split())


EARLIER = "Not shown: 2 runs of earlier commands of 'widths'; --all adds them."


@pytest.mark.usefixtures("_widths")
@pytest.mark.parametrize(
    ("typed", "of_all"),
    [
        ("status widths", "4 finished"),
        ("watch widths", "4 finished"),
        ("table widths", "4 finished runs"),
        ("figure widths --x model.width --y train/loss", "_against_model_width_all.png"),
        ("figure widths --as figure3", "figure3_all.png"),
        ("report widths", "report_all.html"),
        ("compare widths other", "A: widths, 4 of 4 runs finished"),
        ("compare other widths", "B: widths, 4 of 4 runs finished"),
        ("table widths --where model.width=8", "2 finished runs"),
        ("table widths --where model.width=8 --where seed=0", "1 finished run:"),
    ],
)
def test_runs_of_earlier_commands_are_told_of_and_come_when_asked_for(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, of_all: str
) -> None:
    made.finished_random_run(outputs, "other", {"model.width": 16}, ratio=lambda _: 18)
    assert "Not shown" not in answer(monkeypatch, capsys, *typed.split())
    later = load_sweep("widths", where={"model.width": 16})["run_id"]
    SweepFolder(outputs / "widths").add_runs(list(later), experiment=None, launch="2026")
    said = answer(monkeypatch, capsys, *typed.split())
    assert EARLIER in said
    assert "4 finished" not in said
    said = answer(monkeypatch, capsys, *typed.split(), "--all")
    assert of_all in said
    assert "Not shown" not in said


@pytest.mark.usefixtures("_widths")
def test_a_figure_and_a_report_of_all_runs_hold_those_of_earlier_commands(outputs: Path) -> None:
    later = load_sweep("widths", where={"model.width": 16})["run_id"]
    SweepFolder(outputs / "widths").add_runs(list(later), experiment=None, launch="2026")
    for every, widths in ((False, [16]), (True, [8, 16])):
        sweep = find_sweep("widths", every=every)
        line, *_ = figure_xy(sweep, "model.width", "train/loss").axes[0].lines
        assert list(line.get_xdata()) == widths
        assert sorted(set(gather([sweep]).runs["model.width"])) == widths
    with pytest.raises(ConfigError, match=r"has model\.width=8; there are 16\. Not shown: 2 runs of earlier commands"):
        load_sweep("widths", where={"model.width": 8})


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


def test_a_run_is_named_by_its_path_or_the_beginning_of_its_id(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.finished_mice_run(outputs, "mice")
    printed = answer(monkeypatch, capsys, "artifacts", f"mice/{run.run_id}")
    lines = printed.splitlines()
    assert lines[0] == f"mice/{run.run_id}: 4 artifacts at P > 0.5, all unlabelled: nothing says what is true."
    assert lines[1:3] == ["All are kept by name.", "Shown: all 4."]
    assert [line.split()[:4] for line in lines[5:]] == [
        ["1", "mouse", "eat", "cheese"],
        ["2", "mice", "grain", "grain"],
        ["3", "sleep", "sleep", "mouse"],
        ["4", "cheese", "cheese", "sleep"],
    ]
    for named in (run.path, run.path.resolve(), f"mice/{run.run_id[:3]}", f"outputs/mice/{run.run_id[:1]}"):
        assert answer(monkeypatch, capsys, "artifacts", str(named)) == printed
    monkeypatch.chdir(run.path)
    assert answer(monkeypatch, capsys, "artifacts", ".") == printed


def test_a_beginning_that_several_runs_share_is_refused(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [made.failed_run(outputs, "s", {"seed": seed}).run_id for seed in range(17)]
    shared = next(name[0] for name in names if sum(other[0] == name[0] for other in names) > 1)
    count = sum(name[0] == shared for name in names)
    said = answer(monkeypatch, capsys, "artifacts", f"s/{shared}")
    assert said.startswith(f"'s/{shared}' is the beginning of {count} runs, {shared}")
    assert said.endswith(": write more of the id.")


def test_a_run_without_artifacts_by_name_says_why_in_one_sentence(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = f"s/{made.failed_run(outputs, 's', {}).run_id}"
    assert answer(monkeypatch, capsys, "artifacts", failed) == (
        f"The run {failed} has failed at step 37: The loss became non-finite at step 37; it has no list of artifacts."
    )
    killed = made.begin(outputs, "s", {"seed": 1})
    killed.set_state("running", step=5)  # nobody holds its lease
    assert answer(monkeypatch, capsys, "artifacts", f"s/{killed.run_id}") == (
        f"The run s/{killed.run_id} has not finished (it is interrupted, at step 5): "
        "its artifacts are listed when it has."
    )


def test_a_run_with_no_artifact_says_so(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.finished_random_run(outputs, "s", {}, ratio=lambda _: 0)
    run.write_table("artifacts", pd.DataFrame({"tokens": [], "probability": [], "label": [], "seen": [], "right": []}))
    said = f"s/{run.run_id}: no artifact at P > 0.5.\n"
    assert answer(monkeypatch, capsys, "artifacts", f"s/{run.run_id}") == said
    filtered = answer(monkeypatch, capsys, "artifacts", f"s/{run.run_id}", "--label", "hallucination")
    assert filtered == f"{said}None is kept with label hallucination.\n"


@pytest.mark.parametrize("typed", ["-m tc_sweeps --help", f"-c '{MAIN}' table s", f"-c '{MAIN}' plan seed=0,1"])
def test_who_reads_only_the_beginning_ends_a_command_without_a_word(outputs: Path, typed: str) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    reading, writing = os.pipe()
    os.close(reading)  # head is gone before anything is written
    command = [sys.executable, *shlex.split(typed)]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_artifacts_are_read_without_torch(outputs: Path) -> None:
    run = made.finished_mice_run(outputs, "mice")
    code = "import sys; from tc_sweeps.cli import main; main(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, "artifacts", f"mice/{run.run_id}"], check=False).returncode == 0
