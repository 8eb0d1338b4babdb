"""The table of a sweep under way: its rows, curves and size, what is read again, on made-up folders."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import made
import pandas as pd
import pytest
from rich.console import Console

from tc_sweeps.config import METRICS, ConfigError, resolve
from tc_sweeps.report.following import FEW_RUNS, Following
from tc_sweeps.report.sparkline import sparkline
from tc_sweeps.report.status import is_done
from tc_sweeps.report.watch import picture, watch
from tc_sweeps.store import RunFolder, SweepFolder, Worker
from tests.terminal import Terminal


def queue(outputs: Path, overrides: dict[str, object], sweep: str = "s") -> RunFolder:
    config = resolve(made.nested({"sweep": sweep, **overrides}))
    run = RunFolder.of(config, outputs)
    SweepFolder(run.path.parent).add_runs([run.run_id], experiment=None, launch=None)
    run.queue(config)
    return run


def evaluated(run: RunFolder, step: int, **metrics: float) -> None:
    values = {name.replace("_", "/", 1): value for name, value in metrics.items()}
    run.add_row(step, dict.fromkeys(METRICS, float("nan")) | values)


def lines(following: Following, *, width: int = 200, height: int = 60, metrics: tuple[str, ...] = ()) -> list[str]:
    """What is drawn after another look."""
    following.look()
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(picture(following, console, (width, height), metrics, []))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([0, 1, 3], 16, "▁▃█"),
        ([3, 2, 1, 0], 16, "█▆▃▁"),
        ([0, 2, 6, 8], 2, "▁█"),  # means of two each
        ([0, math.nan, 1], 16, "▁ █"),
        ([0, math.nan, 2, 2], 2, "▁█"),
        ([5, 5], 16, "▄▄"),
        ([1, math.inf, 2], 16, "▁ █"),
        ([math.nan], 16, " "),
        ([], 16, ""),
    ],
)
def test_a_curve_is_a_line_of_blocks(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_a_curve_is_the_mean_of_the_runs_that_are_there_and_of_those_that_have_reached_their_target(
    outputs: Path,
) -> None:
    for seed in range(FEW_RUNS):
        queue(outputs, {"seed": seed})
    made.finished_run(outputs, "s", {"seed": 0}, {step: {"train/loss": step / 10} for step in (10, 20, 30, 40)})
    made.finished_run(outputs, "s", {"seed": 1}, {10: {"train/loss": 3}, 20: {"train/loss": 0}})  # stays at 0
    running = made.begin(outputs, "s", {"seed": FEW_RUNS})  # with it the runs are told of as one group
    evaluated(running, 10, train_loss=2)
    evaluated(running, 20, train_loss=math.inf)
    *_, row = lines(Following("s"), metrics=("train/loss",))
    # Means 2, 1, 1.5 and 2; the latest values are 4 and 0, and infinity is none.
    assert row.split()[-2:] == ["2", "█▁▅█"]


def test_few_runs_have_a_row_each(outputs: Path) -> None:
    finished = made.finished_run(outputs, "s", {"model.width": 8}, {10: {"train/loss": 4}, 20: {"train/loss": 2.5}})
    running = made.begin(outputs, "s", {"model.width": 16})
    evaluated(running, 500, train_loss=1.25)
    queue(outputs, {"model.width": 32, "seed": 1})
    finished.set_state("finished", step=1000)
    with Worker(outputs / "s") as worker:
        worker.claim([running], wanted=lambda _: True)
        drawn = lines(Following("s"), metrics=("train/loss",))
    assert drawn == [
        "s: 3 runs: 1 finished, 1 running, 1 queued",
        "50 % of 3,000 steps done",
        "",
        "model/                         train/",
        " width  seed  runs       step  loss",
        "     8     0  finished  1,000   2.5  █▁",
        "    16     0  running     500  1.25  ▄",
        "    32     1  queued        0     -",
    ]


def test_many_runs_are_means_over_seeds(outputs: Path) -> None:
    for width in (8, 16):
        for seed in range(FEW_RUNS):
            run = made.begin(outputs, "s", {"model.width": width, "seed": seed})
            evaluated(run, 100, artifacts_per_ngram=seed)
            if seed:
                evaluated(run, 200, artifacts_per_ngram=10 + seed)
                run.set_state("finished")
    drawn = lines(Following("s"))
    assert [line.split() for line in drawn[3:5]] == [["model/", "artifacts/"], ["width", "runs", "step", "per_ngram"]]
    mean = sum([0, *(10 + seed for seed in range(1, FEW_RUNS))]) / FEW_RUNS
    for width, line in zip((8, 16), drawn[5:], strict=True):
        assert " ".join(line.split()) == f"{width} {FEW_RUNS - 1} finished, 1 interrupted 100-200 {mean:.4g} ▁█"


def test_a_look_reads_only_what_is_new(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [made.begin(outputs, "s", {"seed": seed, "model.width": 8 * (seed + 1)}) for seed in range(3)]
    for run in runs:
        evaluated(run, 100, train_loss=2)
        run.set_state("failed", reason="by accident")
    read: list[Path] = []
    whole = Path.read_text

    def reading(path: Path, *arguments: str, **options: str) -> str:
        read.append(path)
        return whole(path, *arguments, **options)

    following = Following("s")
    monkeypatch.setattr(Path, "read_text", reading)
    lines(following, metrics=("train/loss",))
    assert {path.name for path in read} == {"plan.json", "config.yaml", "status.json", "metrics.csv"}
    read.clear()
    lines(following, metrics=("train/loss",))
    assert read == []
    runs[1].set_state("queued")
    read.clear()
    assert "queued" in " ".join(lines(following, metrics=("train/loss",)))
    assert read == [runs[1].path / "status.json"]
    evaluated(runs[1], 200, train_loss=1.5)
    read.clear()
    assert "█▁" in " ".join(lines(following, metrics=("train/loss",)))
    assert {path.name for path in read} <= {"status.json", "metrics.csv", ".lease"}
    assert all(path.parent == runs[1].path for path in read)


def test_runs_that_come_later_are_seen(outputs: Path) -> None:
    SweepFolder(outputs / "s").add_runs(["0123456789abcdef"], experiment=None, launch=None)  # its folder is to come
    following = Following("s")
    assert lines(following) == ["The sweep 's' has no runs yet."]
    assert not is_done(following.folder, following.runs)
    made.finished_random_run(outputs, "s", {"model.width": 8}, ratio=lambda _: 18)
    assert lines(following)[0] == "s: 1 run: 1 finished"
    made.finished_random_run(outputs, "s", {"model.width": 16}, ratio=lambda _: 18)
    assert [line.split()[0] for line in lines(following)[5:]] == ["8", "16"]
    assert is_done(following.folder, following.runs)


def test_a_search_is_done_when_its_trials_are(outputs: Path) -> None:
    run = made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    trials = pd.DataFrame({"run_id": [run.run_id], "state": ["complete"]})
    for total, done in ((3, False), (1, True)):
        trials.attrs |= {"objectives": {"train/loss": "minimize"}, "trials": total}
        trials.to_parquet("outputs/s/trials.parquet")
        following = Following("s")
        following.look()
        assert is_done(following.folder, following.runs) is done


def test_what_is_in_training_is_shown_where_there_is_no_room_for_all(outputs: Path) -> None:
    runs = [queue(outputs, {"model.width": 4 * (place + 1)}) for place in range(30)]
    made.finished_random_run(outputs, "s", {"model.width": 40}, ratio=lambda _: 18)
    runs[20].set_state("running", step=5)
    with Worker(outputs / "s") as worker:
        worker.claim([runs[20]], wanted=lambda _: True)
        drawn = lines(Following("s"), height=10)
    assert len(drawn) <= 10
    assert [line.split()[0] for line in drawn[5:7]] == ["40", "84"]
    assert drawn[-1] == "28 more rows: those in training come first."


@pytest.mark.parametrize("width", range(20, 160, 20))
def test_no_line_is_wider_than_the_terminal(outputs: Path, width: int) -> None:
    made.kinships_sweep(outputs)
    drawn = lines(Following("kinships"), width=width)
    assert max(map(len, drawn)) <= width
    assert len(drawn) <= 12
    if width >= 60:
        assert "…" not in "".join(drawn[:-1])  # metrics that have no room are left out whole
    names = ("recall", "per_context", "per_ngram", "excess_loss")
    shown = [name in drawn[4] for name in names]
    assert shown == sorted(shown, reverse=True)
    assert all(shown) or drawn[-1].startswith("In a wider termi")
    assert width < 80 or shown[:2] == [True, True]  # what it is about has room in any terminal


def test_the_time_left_is_that_of_the_pace(outputs: Path) -> None:
    launch = time.time() - 60
    plan = {"launch": pd.Timestamp(launch, unit="s", tz="UTC").isoformat(), "experiment": None, "run_ids": []}
    runs = [queue(outputs, {"seed": seed}) for seed in range(4)]
    path = outputs / "s" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | plan | {"run_ids": [run.run_id for run in runs]}))
    runs[0].set_state("finished", step=1000)
    os.utime(runs[0].path / "status.json", (launch - 10, launch - 10))  # before this launch
    runs[1].set_state("finished", step=1000)
    following = Following("s")
    assert "left" not in lines(following)[1]  # nobody trains it
    runs[2].set_state("running", step=500)
    with Worker(outputs / "s") as worker:
        worker.claim([runs[2]], wanted=lambda _: True)
        following = Following("s")
        following.look()
        seconds = following.seconds_left()  # 1,500 steps in a minute, and 1,500 are left
        assert seconds is not None
        assert 60 < seconds < time.time() - launch
        assert re.search(r", about [1-9] min left at the present pace$", lines(following)[1])


def test_nothing_that_a_terminal_obeys_is_drawn(outputs: Path) -> None:
    for order in ("a\x1b[2J", "b[red]c"):
        run = made.finished_random_run(outputs, "s", {"data.vocab_size": 100 + len(order)}, ratio=lambda _: 18)
        config = (run.path / "config.yaml").read_text()
        (run.path / "config.yaml").write_text(config.replace("schedule: constant", f"schedule: {json.dumps(order)}"))
    drawn = "\n".join(lines(Following("s")))
    assert "\x1b" not in drawn
    assert r"a\x1b[2J" in drawn
    assert "b[red]c" in drawn


def test_where_standard_output_is_no_terminal_there_is_one_table(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in range(4, 404, 4):
        queue(outputs, {"model.width": width})
    watch("s", workers=lambda: ["slurm 17: 1 pending"])
    drawn = capsys.readouterr().out.splitlines()
    assert drawn[2] == "slurm 17: 1 pending"
    assert len(drawn) < 60
    assert "more rows" in drawn[-1]


def test_what_stays_on_the_screen_is_drawn_for_its_last_size(outputs: Path) -> None:
    for width in (8, 16):
        made.finished_random_run(outputs, "s", {"model.width": width}, ratio=lambda _: 18)
    code = """
import fcntl, struct, termios
from tc_sweeps.report.watch import watch
def workers():  # whom the first picture asks, when it has begun to be drawn for 120 columns
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
    return []
watch("s", workers=workers)
"""
    with Terminal([sys.executable, "-c", code], Path.cwd(), size=(20, 120), env=os.environ) as terminal:
        assert terminal.end() == 0
    last = terminal.written.decode().rpartition("\x1b[?1049l")[2]
    assert "In a wider terminal: " in last
    assert "…" not in last.partition("In a wider terminal: ")[0]


@pytest.mark.usefixtures("outputs")
def test_what_cannot_be_watched_is_said(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"There is no sweep 'z' in .*; it holds s\."):
        watch("z")
    with pytest.raises(ConfigError, match=r"--metrics train/los is no metric; did you mean 'train/loss'\?"):
        watch("s", metrics=["train/los"])
    with pytest.raises(ConfigError, match=r"--every 0 must be above 0"):
        watch("s", every=0)
    with pytest.raises(ConfigError, match=r"No run of the sweep 's' has seed=7; there are 0\."):
        watch("s", where={"seed": 7})


@pytest.mark.slow
def test_ten_thousand_runs_are_looked_at_in_no_time_and_without_torch(outputs: Path) -> None:
    run = queue(outputs, {})
    config = (run.path / "config.yaml").read_text()
    names = [f"{number:016x}" for number in range(10_000)]
    for number, name in enumerate(names):
        path = outputs / "s" / name
        path.mkdir()
        text = config.replace("seed: 0", f"seed: {number % 10}").replace(
            "width: 32", f"width: {4 + 4 * (number // 10)}"
        )
        (path / "config.yaml").write_text(text)
        (path / "status.json").write_text('{"state": "queued", "reason": null, "step": 0, "attempt": 0}')
    SweepFolder(outputs / "s").add_runs(names, experiment=None, launch=None)
    following = Following("s")
    lines(following)
    began = time.process_time()  # not that of others on the same cores
    assert lines(following)[0] == "s: 10001 runs: 10001 queued"
    assert time.process_time() - began < 2  # a quarter of a second takes it
    shutil.rmtree("outputs")
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    code = "import sys; sys.argv = ['tc-sweeps', 'watch', 's']; from tc_sweeps.cli import main; main()"
    code += "; assert not {'torch', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
