"""Where a sweep stands: every state, reasons in groups, the command that comes next; on made-up folders."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import made
import pandas as pd
import pytest

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.report import all_sweeps, find_sweep, load_sweep, sweep_status
from tc_sweeps.store import RunFolder, SweepFolder, Worker

COMMAND = "python -m tc_sweeps -m sweep=s model.width=8,16"


def queue(outputs: Path, overrides: dict[str, object]) -> RunFolder:
    """A run that waits: planned, with its config, without metrics."""
    config = resolve(made.nested({"sweep": "s", **overrides}))
    run = RunFolder.of(config, outputs)
    SweepFolder(run.path.parent).add_runs([run.run_id], experiment=None, launch=None)
    run.queue(config)
    return run


def finish(outputs: Path, overrides: dict[str, object]) -> RunFolder:
    return made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18)


def fail(outputs: Path, overrides: dict[str, object], reason: str, step: int = 10) -> RunFolder:
    run = made.begin(outputs, "s", overrides)
    run.set_state("failed", reason=reason, step=step)
    return run


def launched(outputs: Path, command: str | None = COMMAND) -> None:
    """Begin the plan as a multirun does."""
    SweepFolder(outputs / "s").add_runs([], experiment=None, launch="2026-11-23T10:00:00", command=command)


def held_by_the_dead(run: RunFolder) -> None:
    """Leave the lease of a worker whose process is gone."""
    with Worker(run.path.parent) as worker:
        worker.claim([run], wanted=lambda _: True)
        lease = json.loads((run.path / ".lease").read_text())
    gone = subprocess.Popen(["true"])
    gone.wait()
    (run.path / ".lease").write_text(json.dumps(lease | {"pid": gone.pid}))


def test_every_state_is_counted_over_all_and_by_axis(outputs: Path) -> None:
    launched(outputs)
    for seed in (0, 1):
        finish(outputs, {"model.width": 8, "seed": seed})
    fail(outputs, {"model.width": 8, "seed": 2}, "the loss was not finite at step 100", step=100)
    queue(outputs, {"model.width": 16, "seed": 0})
    stopped = made.begin(outputs, "s", {"model.width": 16, "seed": 1})
    stopped.set_state("interrupted", reason="interrupted by a signal", step=400)
    running = made.begin(outputs, "s", {"model.width": 16, "seed": 2})
    running.set_state("running", step=500)
    with Worker(outputs / "s") as worker:
        worker.claim([running], wanted=lambda _: True)
        text = sweep_status("s")
    assert text.startswith("s: 6 runs: 2 finished, 1 running, 1 queued, 1 failed, 1 interrupted\n50 % of 6,000 steps")
    table = text.split("\n\n")[1]
    assert table.splitlines() == [
        "             finished  running  queued  failed  interrupted",
        "model.width",
        "  8                 2        -       -       1            -",
        "  16                -        1       1       -            1",
        "seed",
        "  0                 1        -       1       -            -",
        "  1                 1        -       -       -            1",
        "  2                 -        1       -       1            -",
    ]
    assert "1 interrupted: interrupted by a signal\n" in text
    assert f"  {stopped.path} at step 400 of 1,000: model.width=16 seed=1" in text
    assert "To look again:       tc-sweeps status s" in text
    assert COMMAND not in text  # somebody trains them
    assert table not in sweep_status("s", axes=False)


def test_a_run_whose_worker_is_dead_is_interrupted(outputs: Path) -> None:
    launched(outputs)
    held_by_the_dead(made.begin(outputs, "s", {"seed": 0}))
    text = sweep_status("s")
    assert "1 run: 1 interrupted" in text
    assert "its process is gone" in text
    assert f"To train the 1 run missing:  {COMMAND}" in text


def test_the_values_of_an_axis_are_sorted(outputs: Path) -> None:
    for width in (16, 8, 128):
        queue(outputs, {"model.width": width})
    assert [line.split()[0] for line in sweep_status("s").split("\n\n")[1].splitlines()[2:]] == ["8", "16", "128"]


def test_a_search_is_told_of_in_trials(outputs: Path) -> None:
    """Two have ended, one is pruned, one was interrupted, one repeats a run, and two were not asked for yet."""
    launched(outputs)
    runs = [made.begin(outputs, "s", {"seed": seed}) for seed in range(3)]
    runs[0].set_state("finished", step=1000)
    runs[1].prune(400)
    runs[2].set_state("interrupted", reason="interrupted by a signal", step=500)
    trials = pd.DataFrame({"run_id": [runs[0].run_id, None, *(run.run_id for run in runs)]})
    trials["state"] = ["complete", "failed", "running", "running", "running"]  # as it was when the runs began
    trials.attrs |= {"objectives": {"train/loss": "minimize"}, "trials": 7}
    trials.to_parquet("outputs/s/trials.parquet")
    told = "4 of 7 trials; 3 runs: 1 finished, 1 pruned, 1 interrupted"
    text = sweep_status("s")
    assert text.startswith(f"s: {told}\n83 % of 3,000 steps done")
    assert f"To go on with the search:  {COMMAND}\n" in text
    assert "pruned by" not in text
    assert all_sweeps() == f"s  {told}"
    assert load_sweep("s")["state"].tolist() == ["finished", "pruned", "interrupted"]


def test_reasons_are_grouped_also_where_their_numbers_differ(outputs: Path) -> None:
    for seed in range(30):
        fail(outputs, {"seed": seed}, f"the loss was not finite at step {seed}; a lower rate may help", step=seed)
    fail(outputs, {"seed": 30}, "ValueError: a reason\nof two lines")
    fail(outputs, {"seed": 31}, "x " * 5000)
    text = sweep_status("s")
    assert "30 failed: the loss was not finite at step …; a lower rate may help\n  for example outputs/s/" in text
    assert "1 failed: ValueError: a reason of two lines\n" in text
    assert "seed: 32 values" in text
    assert len(text.splitlines()) < 20
    assert max(map(len, text.splitlines())) < 400


def test_equal_reasons_keep_their_numbers(outputs: Path) -> None:
    for seed in (0, 1):
        fail(outputs, {"seed": seed}, "out of memory: 2.5 GiB were wanted")
    assert "2 failed: out of memory: 2.5 GiB were wanted\n" in sweep_status("s")


def test_a_thousand_reasons_do_not_fill_the_screen(outputs: Path) -> None:
    for seed in range(20):
        fail(outputs, {"seed": seed}, "reason " + "a" * seed)
    assert "... and 10 more reasons" in sweep_status("s")


@pytest.mark.parametrize(
    ("command", "again"),
    [
        (COMMAND, f"{COMMAND} hydra.launcher.retry_failed=true"),
        (f"{COMMAND} hydra.launcher.retry_failed=true", f"{COMMAND} hydra.launcher.retry_failed=true"),
        (f"{COMMAND} hydra/launcher=joblib", f"{COMMAND} hydra/launcher=joblib"),
        (None, "the command that started it, with hydra.launcher.retry_failed=true"),
    ],
)
def test_failed_runs_are_tried_again_by_the_same_command(outputs: Path, command: str | None, again: str) -> None:
    launched(outputs, command)
    finish(outputs, {"model.width": 8})
    fail(outputs, {"model.width": 16}, "some reason")
    assert f"To try what failed again:  {again}\n" in sweep_status("s")
    assert "exploded" not in sweep_status("s")


def test_what_would_fail_again_is_not_offered_to_be_tried(outputs: Path) -> None:
    launched(outputs)
    finish(outputs, {"model.width": 8})
    fail(outputs, {"model.width": 16}, "the loss was not finite at step 3; a lower training.learning_rate may help")
    text = sweep_status("s")
    assert "retry_failed" not in text
    assert text.splitlines()[-1].startswith("Runs whose loss exploded would do so again")
    fail(outputs, {"model.width": 32}, "some reason")
    assert "retry_failed" in sweep_status("s")


def test_a_finished_sweep_is_to_be_looked_at(outputs: Path) -> None:
    for width in (8, 16):
        finish(outputs, {"model.width": width})
    text = sweep_status("s")
    assert text.startswith("s: 2 runs: 2 finished\n100 % of 2,000 steps done")
    assert "tc-sweeps table s" in text
    assert "tc-sweeps figure s --x model.width --y artifacts/per_ngram" in text
    made.sizes_sweep(outputs, seeds=[0])
    assert sweep_status("figure2").endswith("tc-sweeps figure figure2")  # an experiment with a figure of its own


def test_runs_of_earlier_plans_come_when_asked_for(outputs: Path) -> None:
    finish(outputs, {"seed": 0})
    launched(outputs)
    finish(outputs, {"seed": 1})
    assert "s: 1 run:" in sweep_status("s")
    assert "\n\nNot shown: 1 run of earlier commands of 's'; --all adds them.\n" in sweep_status("s")
    assert "s: 2 runs:" in sweep_status(find_sweep("s", every=True))


def test_runs_of_several_worlds_have_a_status(outputs: Path) -> None:
    finish(outputs, {"seed": 0})
    queue(outputs, {"data.name": "kinships"})
    assert "  kinships" in sweep_status("s")


def test_a_sweep_without_runs_and_no_sweep_at_all(outputs: Path) -> None:
    launched(outputs)
    assert sweep_status("s") == "The sweep 's' has no runs yet."
    with pytest.raises(ConfigError, match=r"it holds s\.$"):
        sweep_status("z")


def test_a_thousand_runs_answer_at_once_and_without_torch(outputs: Path) -> None:
    SweepFolder(outputs / "s").add_runs([f"{number:016x}" for number in range(1000)], experiment=None, launch=None)
    run = queue(outputs, {})
    config = (run.path / "config.yaml").read_text()
    for number in range(1000):
        path = outputs / "s" / f"{number:016x}"
        path.mkdir()
        (path / "config.yaml").write_text(config.replace("seed: 0", f"seed: {number}"))
        status = {"state": "finished", "reason": None, "step": 1000, "attempt": 1}
        (path / "status.json").write_text(json.dumps(status))
    code = "import sys; sys.argv = ['tc-sweeps', 'status', 's']; from tc_sweeps.cli import main; main()"
    code += "; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 30  # 2 seconds on an idle machine
    assert "1001 runs: 1000 finished, 1 queued" in done.stdout
