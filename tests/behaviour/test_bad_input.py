"""Bad input: one sentence that names the key, exit code 1, no traceback, nothing trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.behaviour.conftest import Launch

REFUSED = [
    (["sede=3"], "did you mean 'seed'?"),
    (["+sede=3"], "did you mean 'seed'?"),
    (["+data.vocab_sise=9"], "did you mean 'data.vocab_size'?"),
    (["width=16"], "did you mean 'model.width'?"),
    (["model.width=wide"], "model.width: Value 'wide'"),
    (["data=randon"], "Could not find 'data/randon'"),
    (["hydra.lancher=joblib"], "did you mean 'hydra.launcher'?"),
    (["model.width=30"], "model.width=30 is not divisible by model.heads=4"),
    (["data.vocab_size=1"], "data.vocab_size=1"),
    (["data.num_sentences=10001"], "data.num_sentences=10001 is more than the 10000"),
    (["data=kinships", "data.num_sentences=99999"], "data.num_sentences=99999 is more than"),
    (["artifacts.engine=flex", "artifacts.threshold=0.2"], "artifacts.threshold=0.2 is below 1/2: use chunked"),
    (["artifacts.threshold=0"], "artifacts.threshold=0.0 must lie between 0 and 1"),
    (["artifacts.threshold=1"], "artifacts.threshold=1.0 must lie between 0 and 1"),
    (["artifacts.threshold=nan"], "artifacts.threshold=nan must lie between 0 and 1"),
    (["data.order=1"], "data.order=1 must be at least 2"),
    (["artifacts.order=4"], "artifacts.order=4 must lie between 2 and data.order=3"),
    (["training.steps=0"], "training.steps=0 must be at least 1"),
    (["training.evaluations=2000"], "training.evaluations=2000 is more than training.steps=1000"),
    (["training.learning_rate=0"], "training.learning_rate=0.0 must be greater than 0"),
    (["training.learning_rate=-1"], "training.learning_rate=-1.0 must be greater than 0"),
    (["model.mlp_width=-4"], "model.mlp_width=-4 must be at least 0"),
    (["data.num_sentences=-1"], "data.num_sentences=-1 must be at least 1"),
    (["data=triples"], "data.path is missing"),
    (["data=triples", "data.path=none.tsv"], "data.path=none.tsv cannot be read"),
    (["sweep=a/b"], "sweep='a/b'"),
    (["-m", "seed=range(0,3"], "seed=range(0,3 cannot be read: "),
    (["-m", "hydra.sweeper.objectives={}"], "hydra/sweeper=grid has params, zip, exclude, blocks, max_batch_size."),
    (["-m", "hydra/sweeper=optuna", "hydra.sweeper.zip=[seed]"], "'hydra.sweeper.zip': a search, hydra/sweeper=optuna"),
    (
        ["-m", "hydra.sweeper.blocks=[{model.width:'8,16'}]"],
        "Unknown key 'model.width': a block of hydra.sweeper.blocks has params, zip, exclude.",
    ),
    (["model.width="], "model.width"),
    (["model.width"], "model.width"),
]

FILES = [
    (b"", "facts.tsv, line 1"),
    (b"a\tb\tc\na\tb\n", "facts.tsv, line 2: 2 columns where 3 are expected"),
    (b"a\tb\tc\na\tb\tc\td\n", "facts.tsv, line 2: 4 columns where 3 are expected"),
    (b"a\tb\tc\na\t\xff\tc\n", "facts.tsv, line 2: the file is not UTF-8"),
    (b"a\ta\ta\n", "only one distinct token"),
]


def assert_refused(code: int, err: str, fragment: str) -> None:
    assert code == 1
    assert fragment in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize(("overrides", "fragment"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_a_bad_key_or_value_is_refused_in_one_sentence(launch: Launch, overrides: list[str], fragment: str) -> None:
    code, _, err = launch("run", *overrides)
    assert_refused(code, err, fragment)
    assert not list(Path().glob("outputs/*/*/model.safetensors"))


@pytest.mark.parametrize(("content", "fragment"), FILES, ids=lambda value: str(value)[:20])
def test_a_bad_file_is_refused_with_its_line(launch: Launch, content: bytes, fragment: str) -> None:
    Path("facts.tsv").write_bytes(content)
    code, _, err = launch("run", "data=triples", "data.path=facts.tsv")
    assert_refused(code, err, fragment)


def test_repeated_lines_are_accepted_counted_and_said(launch: Launch) -> None:
    Path("facts.tsv").write_text("a\tb\tc\na\tb\tc\nb\tc\ta\n")
    short = ["training.steps=2", "training.evaluations=1", "tracking.mode=none"]
    code, out, err = launch("run", "data=triples", "data.path=facts.tsv", *short)
    assert code == 0
    assert "1 of 3 lines repeat another line" in out + err


EXPERIMENTS = [
    ("# @package _global_\ndata:\n  vocab_sise: 9\n", "did you mean 'data.vocab_size'?"),
    ("# @package _global_\nseed: 1\nseed: 2\n", "mine.yaml, line 3: found duplicate key seed."),
    ("# @package _global_\ndata: {\nseed: 2\n", "mine.yaml, line 4: "),
    ("sweep: mine\nseed: 1\n", "The experiment's file does not begin with '# @package _global_'"),
]


@pytest.mark.parametrize(("content", "fragment"), EXPERIMENTS, ids=lambda value: str(value)[-20:])
def test_what_is_wrong_in_an_experiment_file_is_said(launch: Launch, content: str, fragment: str) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(content)
    code, _, err = launch("run", "--config-dir", "conf", "experiment=mine")
    assert_refused(code, err, fragment)


def test_an_experiment_of_the_users_own_runs(launch: Launch) -> None:
    Path("conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nsweep: mine\ndata:\n  vocab_size: 9\n  num_sentences: 20\ntraining:\n  steps: 2\n"
    Path("conf/experiment/mine.yaml").write_text(text + "  evaluations: 1\n")
    assert launch("run", "--config-dir", "conf", "experiment=mine", "tracking.mode=none")[0] == 0
    assert len(list(Path("outputs/mine").glob("*/model.safetensors"))) == 1


def test_the_real_command_exits_with_1_and_one_sentence(
    command: Callable[..., subprocess.Popen[str]],
) -> None:
    process = command("+data.vocab_sise=9")
    _, err = process.communicate(timeout=120)
    assert_refused(process.returncode, err, "did you mean 'data.vocab_size'?")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["run", "model.width=30"], ["run", "--cfg", "job"], ["table", "none"]],
    ids=" ".join,
)
def test_questions_and_refusals_import_no_torch(shell: Path, arguments: list[str]) -> None:
    script = (
        "import sys\nfrom tc_sweeps import cli\nsys.argv = ['tc-sweeps', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sweeper", ["grid", "optuna"])
def test_without_its_scheduler_nothing_is_queued(
    shell: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch, sweeper: str
) -> None:
    objectives = ["hydra.sweeper.objectives={train/loss: minimize}"] * (sweeper == "optuna")
    sweep = ["run", "-m", "seed=0,1", f"hydra/sweeper={sweeper}", *objectives]
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        assert launch(*sweep, "hydra/launcher=slurm") == (
            1,
            "",
            "hydra/launcher=slurm: there is no sbatch here; submit from a machine of the cluster.\n",
        )
    monkeypatch.delitem(sys.modules, "tc_sweeps.sweep.executors.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = launch(*sweep, "hydra/launcher=ray")
    assert (code, out) == (1, "")
    assert err == "hydra/launcher=ray needs the package ray: install the extra with pip install -e '.[ray]'.\n"
    assert not list(shell.iterdir())


def test_what_sbatch_says_is_said_once(shell: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch = shell / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    code, _, err = launch("run", "-m", "sweep=s", "seed=0,1", "hydra/launcher=slurm")
    assert code == 1
    assert err.count("no such partition") == 1
