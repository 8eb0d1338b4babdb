"""What a plan says: runs and their states, axes, stacks and times, without torch and without a trace."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.store import Job
from tc_sweeps.sweep.engine import Launch
from tc_sweeps.sweep.plan import Time, _sizes, past_times, plan_text, shape_of, values_of
from tests.behaviour.conftest import QUICK, launch, shell  # noqa: F401 -- fixtures
from tests.behaviour.conftest import Launch as Launcher


def jobs(outputs: Path, *trees: dict[str, object]) -> list[Job]:
    return [Job.of(resolve({"sweep": "s", **tree}), outputs) for tree in trees]


def text(planned: list[Job], times: dict[str, Time] | None = None) -> str:
    return plan_text(planned, times or {}, Launch(workers=1), command="COMMAND")


def test_runs_are_counted_by_what_is_done_of_them(tmp_path: Path) -> None:
    planned = jobs(tmp_path, *({"seed": seed} for seed in (0, 1, 2, 3, 3)))
    assert text(planned).startswith("s: 4 runs (5 jobs, of which some are the same run): 4 new\n")
    for job, state in zip(planned, ("finished", "failed", "interrupted"), strict=False):
        job.folder.queue(job.config)
        job.folder.set_state(state)
    assert text(planned[:4]).startswith("s: 4 runs: 1 new, 1 finished, 1 failed, 1 begun\n")
    assert text(planned[:4]).endswith("To start it: COMMAND")
    done = text(planned[:2])
    assert "Stacks" not in done
    assert done.endswith("To try again what failed: COMMAND hydra.launcher.retry_failed=true")
    assert "To " not in text(planned[:1])
    planned[1].folder.set_state("failed", reason="the loss was not finite at step 3; a lower rate may help")
    assert "To " not in text(planned[:2])  # it would fail again


def test_axes_are_named_with_their_values(tmp_path: Path) -> None:
    planned = jobs(tmp_path, *({"seed": seed, "model": {"width": width}} for width in (8, 16) for seed in range(20)))
    lines = text(planned).splitlines()
    assert lines[1] == "  model.width  8, 16"
    assert lines[2] == "  seed         0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (20 values)"


def test_axes_that_go_together_share_a_line_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    zipped = [(8, 0.02), (16, 0.01)]
    trees = [
        {"seed": seed, "model": {"width": width}, "training": {"learning_rate": rate}}
        for width, rate in zipped
        for seed in range(3)
    ]
    axes = ["  model.width, training.learning_rate  (8, 0.02), (16, 0.01)", f"  {'seed':35}  0, 1, 2"]
    assert text(jobs(tmp_path, *trees)).splitlines()[1:3] == axes
    assert "combinations" not in text(jobs(tmp_path, *trees))
    assert text(jobs(tmp_path, *trees[:-1])).splitlines()[1:4] == [*axes, "  5 of the 6 combinations of these values"]


def test_times_are_those_of_runs_of_the_same_shape(tmp_path: Path) -> None:
    planned = jobs(tmp_path, *({"seed": seed, "model": {"width": width}} for width in (8, 16) for seed in range(3)))
    shapes = [shape_of({"training.steps": 1000, "training.evaluations": 20})]
    assert "not known, since no run of these shapes" in text(planned, {shapes[0]: Time(1.0, 1)})
    values = {job.config.model.width: values_of(job.config) for job in planned}
    half = text(planned, {shape_of(values[8]): Time(0.02, 7)})
    assert "Device-minutes, about: 1.0 for 3 runs, as 7 runs like them took" in half
    assert "Not known for 3, of other shapes" in half
    fast = {shape_of(values[8]): Time(0.001, 7)}
    assert "Device-seconds, about: 3 for 3 runs, as 7 runs like them took" in text(planned, fast)
    just_now = plan_text(planned, fast, Launch(workers=1), command="COMMAND", measured=True)
    assert "for 3 runs, measured just now. Not known for 3, which fail in their first steps\n" in just_now
    both = text(planned, {shape_of(values[8]): Time(0.02, 7), shape_of(values[16]): Time(0.04, 1)})
    assert "Device-minutes, about: 3.0 for 6 runs, as 8 runs like them took" in both


def test_rates_seeds_and_more_steps_are_of_one_shape(tmp_path: Path) -> None:
    same = jobs(
        tmp_path,
        {},
        {"seed": 3, "training": {"learning_rate": 0.1}, "sweep": "t"},
        {"training": {"steps": 2000, "evaluations": 40}},
    )
    same += jobs(tmp_path, {"data": {"noise": 0.1}})
    other = jobs(tmp_path, {"model": {"width": 16}}, {"data": {"num_sentences": 400}}, {"training": {"evaluations": 2}})
    shapes = [shape_of(values_of(job.config)) for job in [*same, *other]]
    assert len(set(shapes[:4])) == 1
    assert len(set(shapes)) == 4


@pytest.mark.parametrize(
    "data",
    [
        {"name": "random", "num_sentences": 30},
        {"name": "kinships", "held_out_fraction": 0.3},
        {"name": "latent", "noise": 0.1},
        {"name": "latent", "num_sentences": None},
        {"name": "modular", "modulus": 7, "held_out_fraction": 0.3},
        {"name": "modular", "modulus": 7, "order": 4},
        {"name": "low_rank", "vocab_size": 9, "num_sentences": 5},
    ],
    ids=str,
)
def test_the_sizes_of_a_corpus_are_known_before_it_is_built(data: dict[str, object]) -> None:
    config = resolve({"data": data})
    corpus = build_corpus(config.data)
    sentences, tokens = _sizes(config)
    assert tokens == corpus.vocab_size
    assert abs(sentences - len(corpus.sentences)) <= (1 if data["name"] == "kinships" else 0), "a share of the contexts"


def test_a_plan_knows_what_a_launch_has_measured(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    sweep = [*QUICK, "tracking=none", "sweep=s", "data.columns=null,[0,1,2]", "data=triples", "data.path=facts.tsv"]
    sweep = [word for word in sweep if not word.startswith(("data.vocab_size", "data.num_sentences"))]
    Path("facts.tsv").write_text("".join(f"a{i}\tb{i}\tc{i}\n" for i in range(8)))
    assert launch("run", "-m", *sweep, "seed=0,1")[0] == 0
    table = pd.read_parquet("outputs/s/results.parquet")
    assert (table["seconds_per_step"] > 0).all()
    assert {time.runs for time in past_times().values()} == {2}
    code, out, _ = launch("plan", *sweep, "seed=0,1,2")
    assert code == 0
    assert "s: 6 runs: 2 new, 4 finished" in out
    assert "for 2 runs, as 4 runs like them took" in out


def test_the_sizes_of_a_world_that_is_made_are_taken_from_its_keys(tmp_path: Path) -> None:
    planned = jobs(tmp_path, {"data": {"name": "grammar"}}, {"data": {"name": "relations"}})
    assert [_sizes(job.config) for job in planned] == [(192, 56), (168, 54)]


@pytest.mark.parametrize(("data", "sentences"), [({}, 900), ({"num_sentences": 50}, 50)])
def test_a_text_has_about_a_window_for_every_word_that_is_not_held_out(
    tmp_path: Path, data: dict[str, int], sentences: int
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("ten words, more or less, in each of these lines\n" * 100, encoding="utf-8")
    config = resolve({"data": {"name": "text", "path": str(book), "vocab_size": 300, **data}})
    assert _sizes(config) == (sentences, 300)


def test_it_leaves_no_trace_and_imports_no_torch(shell: Path) -> None:  # noqa: F811
    script = (
        "import sys\nfrom tc_sweeps import cli\ncode = cli.plan(sys.argv[1:])\nsys.exit(code or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "experiment=vocabulary", "seed=range(0,40)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vocabulary: 200 runs: 200 new\n")
    assert done.stdout.endswith("python -m tc_sweeps -m experiment=vocabulary 'seed=range(0,40)'\n")
    assert not list(Path().iterdir())


def test_calibration_measures_every_shape_and_leaves_no_trace(launch: Launcher) -> None:  # noqa: F811
    axes = ["model.width=8,16", "seed=0,1", "training.evaluations=4"]
    code, out, _ = launch("plan", "--calibrate", *QUICK, *axes)
    assert code == 0
    assert "Device-seconds, about: " in out
    assert "for 4 runs, measured just now" in out
    assert not list(Path().iterdir())


def test_calibration_leaves_out_what_is_done_and_what_fails(launch: Launcher) -> None:  # noqa: F811
    quick = [*QUICK, "training.evaluations=4", "tracking=none"]
    assert launch("run", "-m", *quick, "seed=0,1")[0] == 0
    code, out, _ = launch("plan", "--calibrate", *quick, "seed=0,1")
    assert (code, out.splitlines()[0]) == (0, "scratch: 2 runs: 2 finished")
    code, out, _ = launch("plan", "--calibrate", *quick, "training.learning_rate=1e39", "seed=5,6")
    assert code == 0
    assert "not known" in out
    Path("latin1.tsv").write_bytes("ä\tb\tc\n".encode("latin-1"))
    code, out, _ = launch("plan", "--calibrate", "data=triples", "data.path=latin1.tsv")
    assert code == 0
    assert "not known" in out


def test_a_plan_takes_the_workers_of_the_launch(launch: Launcher) -> None:  # noqa: F811
    for workers in (1, 3):
        _, out, _ = launch("plan", "seed=range(0,40)", f"hydra.launcher.workers={workers}")
        assert f"on {workers} worker" in out
    code, _, err = launch("plan", "seed=0,1", "hydra.launcher.workers=0")
    assert code == 1
    assert err.endswith("hydra.launcher.workers=0 must be at least 1.\n")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["seed=0,1", "model.width=8,9"], "seed=0 model.width=9: model.width=9 is not divisible"),
        (["sede=0,1"], "did you mean 'seed'?"),
        (["experiment=search_kinships"], "hydra/sweeper=optuna cannot be planned"),
        (["hydra/sweeper=basic", "seed=0,1"], "Only hydra/sweeper=grid can be planned"),
    ],
)
def test_what_cannot_be_planned_is_refused(launch: Launcher, arguments: list[str], fragment: str) -> None:  # noqa: F811
    code, _, err = launch("plan", *arguments)
    assert code == 1
    assert fragment in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_ten_thousand_runs_take_less_than_a_gibibyte(shell: Path) -> None:  # noqa: F811
    script = (
        "import resource, sys\nfrom tc_sweeps import cli\n"
        "code = cli.plan(['model.width=8,16,32,64,128', 'training.weight_decay=range(0,20)', 'seed=range(0,100)'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, *_, kibibytes = done.stdout.splitlines()
    assert first == "scratch: 10,000 runs: 10,000 new"
    assert int(kibibytes) < 1 << 20
