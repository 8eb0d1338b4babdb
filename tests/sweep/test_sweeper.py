"""The grid sweeper and the stacked launcher in use: the product, the checks before anything starts, callbacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tc_sweeps import cli
from tc_sweeps.sweep.axes import Block, expand
from tests.behaviour.conftest import QUICK, Launch, launch, shell  # noqa: F401 -- fixtures

LOCAL = [*QUICK, "training.steps=2", "training.evaluations=1", "tracking.mode=none"]


def runs(sweep: str = "s") -> pd.DataFrame:
    return pd.read_parquet(f"outputs/{sweep}/results.parquet")


# ---------------------------------------------------------------------------------------------------------- the product


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    with initialize_config_dir(str(cli._conf()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


ARGUMENTS = [
    [],
    ["seed=1"],
    ["seed=0,1,2", "model.width=16,32"],
    ["model.width=16,32", "seed=0,1,2", "objective=all,last"],
    ["seed=range(0,5)"],
    ["seed=range(5,0,step=-2)", "training.learning_rate=range(0.1,0.4,step=0.1)"],
    ["seed=choice(1,2)", "data.seed=sort(3,1,2)", "sweep=sort(b,a,reverse=true)"],
    ["model=glob(*)", "seed=0,1"],
    ["model=glob(*,exclude=m*)", "experiment=glob([figure*])"],
    ["sweep='a,b','c'", 'tracking.entity="x=1"', "tracking.project='it\\'s'"],
    ["sweep=a\\,b,c"],
    ["data.columns=[0,1,2],[2,1,0]", "data.path=a b.tsv,null"],
    ["model={width:8,heads:2},{width:16}"],
    ["seed=0", "model.width=8,16", "seed=5,6"],
    ["+new=1,2", "++seed=3,4", "seed=5"],
    ["~objective", "seed=1,2"],
    ["sweep=s_${seed}", "seed=1,2", "training.batch_size=null,8", "model.tied=true,false"],
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
def test_the_jobs_are_those_of_hydras_sweeper_in_its_order(loader: ConfigLoader, arguments: list[str]) -> None:
    parser = OverridesParser.create(config_loader=loader)
    [expected] = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
    assert expand([Block()], arguments, parser.parse_overrides) == expected


@pytest.mark.parametrize(
    ("argument", "fragment"),
    [
        ("training.learning_rate=interval(0,1)", "an axis needs its values one by one"),
        ("seed=range(0,0)", "this axis has no values"),
        ("model=glob(none*)", "this axis has no values"),
        ("hydra.verbose=true,false", "Sweeping over Hydra's configuration is not supported"),
        ("seed=0,1 seed=5", "seed=0,1 and seed=5 give one axis twice"),
        ("hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0 must be at least 1"),
        ("hydra.sweeper.max_batch_size=-1", "hydra.sweeper.max_batch_size=-1 must be at least 1"),
    ],
)
def test_axes_that_make_no_jobs_are_refused(launch: Launch, argument: str, fragment: str) -> None:  # noqa: F811
    code, _, err = launch("run", "-m", *argument.split())
    assert code == 1
    assert fragment in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("outputs").exists()


def test_zips_exclusions_and_blocks_from_the_command_line_and_from_a_file(launch: Launch) -> None:  # noqa: F811
    axes = ["model.width=8,16", "training.learning_rate=1e-2,2e-2", "seed=0,1"]
    said = ["hydra.sweeper.zip=[model.width,training.learning_rate]", "hydra.sweeper.exclude=[{model.width:8,seed:1}]"]
    assert launch("run", "-m", *LOCAL, "sweep=s", *axes, *said)[0] == 0
    assert sorted(zip(*(runs()[key] for key in ("model.width", "training.learning_rate", "seed")), strict=True)) == [
        (8, 0.01, 0),
        (16, 0.02, 0),
        (16, 0.02, 1),
    ]
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text(
        """# @package _global_
sweep: mine
hydra:
  sweeper:
    params: {seed: "0,1"}
    blocks:
      - params: {training.learning_rate: "0.01,0.02", training.weight_decay: "0,1"}
        zip: [training.learning_rate, training.weight_decay]
      - params: {objective: last}
        exclude: [{seed: [1, 2]}, {seed: 1}]
"""
    )
    assert launch("run", "--config-dir", "conf", "-m", "experiment=mine", *LOCAL)[0] == 0
    found = runs("mine")
    keys = ["seed", "training.weight_decay", "objective.positions"]
    assert sorted(zip(*(found[key] for key in keys), strict=True)) == [
        (0, 0, "all"),
        (0, 0, "last"),
        (0, 1, "all"),
        (1, 0, "all"),
        (1, 1, "all"),
    ]


@pytest.mark.parametrize(
    ("said", "fragment"),
    [
        ("hydra.sweeper.zip=[seed,model.widht]", "names 'model.widht'"),
        ("hydra.sweeper.exclude=[{sede:1}]", "did you mean 'seed'?"),
        ("hydra.sweeper.blocks=[{parms:{seed:1}}]", "parms"),
        ("hydra.sweeper.zip=seed", "hydra.sweeper.zip"),
    ],
)
def test_what_is_wrong_about_axes_is_said_in_one_sentence(launch: Launch, said: str, fragment: str) -> None:  # noqa: F811
    code, _, err = launch("run", "-m", "seed=0,1", said)
    assert code == 1
    assert fragment in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("outputs").exists()


def test_axes_of_the_config_can_be_replaced_where_they_stand(launch: Launch) -> None:  # noqa: F811
    axes = ["+hydra.sweeper.params.seed='range(0,3)'", "+hydra.sweeper.params={objective:'last,all'}"]
    assert launch("run", "-m", *LOCAL, "sweep=s", *axes, "seed=7,8")[0] == 0
    found = runs().sort_values(["seed", "objective.positions"])
    assert found["seed"].tolist() == [7, 7, 8, 8]
    assert found["objective.positions"].tolist() == ["all", "last"] * 2


# ------------------------------------------------------------------------------------------- before anything is started

BAD = [
    ("model.width=8,9,16", "model.width=9", "model.width=9 is not divisible by model.heads=4"),
    ("training.steps=2,x,3", "training.steps=x", "training.steps: Value 'x'"),
    ("++data.vocab_sise=1,2", "++data.vocab_sise=1", "did you mean 'data.vocab_size'?"),
    ("data.seed=1,'${sede}',2", "data.seed='${sede}'", "sede"),
    ("objective=all,lst", "objective=lst", "Could not find 'objective/lst'"),
    ("training.learning_rate=0.1,???", "training.learning_rate=???", "training.learning_rate: Missing mandatory value"),
]


@pytest.mark.parametrize(("axis", "value", "fragment"), BAD)
def test_a_bad_job_in_the_middle_is_named_and_nothing_starts(
    launch: Launch,  # noqa: F811
    axis: str,
    value: str,
    fragment: str,
) -> None:
    code, _, err = launch("run", "-m", *LOCAL, axis, "sweep=s", "seed=0,1")
    assert code == 1
    job, _, why = err.partition(": ")
    assert {value, "sweep=s", "seed=0"} <= set(job.split(" "))
    assert fragment in why
    assert len(err.strip().splitlines()) == 1
    assert not Path("outputs").exists()


# ------------------------------------------------------------------------------------------------ batches and launchers


def test_failures_stop_no_later_batch(launch: Launch) -> None:  # noqa: F811
    axes = ["training.learning_rate=1e39,1e-2", "seed=0,1,2"]
    code, out, err = launch(
        "run", "-m", *QUICK, "tracking.mode=none", "sweep=s", *axes, "hydra.sweeper.max_batch_size=2"
    )
    assert code == 1
    assert "3 of 6 jobs failed" in err
    assert sorted(runs()["state"]) == ["failed"] * 3 + ["finished"] * 3
    assert len(json.loads(Path("outputs/s/plan.json").read_text())["run_ids"]) == 6
    assert "3 failed: the loss was not finite at step" in out


@pytest.mark.parametrize(
    "plugins",
    [
        ["hydra/launcher=basic"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/sweeper=basic"],
        ["hydra/sweeper=basic", "hydra/launcher=basic"],
    ],
    ids=" ".join,
)
def test_any_launcher_goes_with_any_sweeper(launch: Launch, plugins: list[str]) -> None:  # noqa: F811
    assert launch("run", "-m", *LOCAL, "sweep=ours", "model.width=8,16", "seed=0,1")[0] == 0
    assert launch("run", "-m", *LOCAL, "sweep=s", "model.width=8,16", "seed=0,1", *plugins)[0] == 0
    assert set(runs()["state"]) == {"finished"}
    # Jobs in processes of their own enter the plan as they start, in any order.
    theirs, ours = (table.set_index("run_id")["train/loss"].to_dict() for table in (runs(), runs("ours")))
    assert theirs == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_resolvers_of_hydra_name_the_sweep_of_every_job(launch: Launch, launcher: str) -> None:  # noqa: F811
    names = "sweep=n${hydra:job.num}_${now:%Y}_${hydra:runtime.choices.objective}"
    assert launch("run", "-m", *LOCAL, names, "objective=all,last", f"hydra/launcher={launcher}")[::2] == (0, "")
    year = pd.Timestamp.now().year
    found = {path.name for path in Path("outputs").iterdir() if not path.name.startswith(".")}
    assert found == {f"n0_{year}_all", f"n1_{year}_last"}


def test_the_environment_that_a_config_sets_holds_while_jobs_run(
    launch: Launch,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERE", "before")
    assert launch("run", "-m", *LOCAL, "sweep=s", "+hydra.job.env_set.HERE=job", *RECORDING)[0] == 0
    assert [event["environment"] for event in Recorder.events] == ["before", "job", "job", "before"]


# ------------------------------------------------------------------------------------------------------------ callbacks


class Recorder(Callback):
    """Writes down what Hydra calls."""

    events: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self) -> None:
        Recorder.events = []

    def _add(self, name: str, **values: Any) -> None:
        import os

        from hydra.core.hydra_config import HydraConfig

        current = HydraConfig.get().job.num if name.startswith("job") else None
        self.events.append({"name": name, "current": current, "environment": os.environ.get("HERE"), **values})

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._add("start")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._add("end")

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        assert kwargs["task_function"] is not None
        place = Path(config.hydra.runtime.output_dir)
        self._add("job_start", seed=config.seed, number=config.hydra.job.num, place=place)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        place = Path(config.hydra.runtime.output_dir)
        self._add(
            "job_end",
            seed=config.seed,
            number=config.hydra.job.num,
            place=place,
            status=job_return.status.name,
            returned=job_return._return_value,
            overrides=list(job_return.overrides or []),
        )


RECORDING = [f"+hydra.callbacks.recorder._target_={Recorder.__module__}.{Recorder.__qualname__}"]


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_callbacks_hear_of_every_job_once_as_with_hydras_launcher(launch: Launch, launcher: str) -> None:  # noqa: F811
    arguments = [*LOCAL, "sweep=s", "training.learning_rate=0.01", "seed=5,6", f"hydra/launcher={launcher}"]
    assert launch("run", "-m", *arguments, *RECORDING)[0] == 0
    events = Recorder.events
    assert (events[0]["name"], events[-1]["name"]) == ("start", "end")
    starts, ends = ([e for e in events if e["name"] == name] for name in ("job_start", "job_end"))
    assert len(starts) + len(ends) == len(events) - 2
    for found in (starts, ends):
        assert [(e["number"], e["current"], e["seed"]) for e in found] == [(0, 0, 5), (1, 1, 6)]
        assert [e["place"].name for e in found] == ["0", "1"]
    losses = dict(zip(runs()["seed"], runs()["train/loss"], strict=True))
    assert [e["returned"]["train/loss"] for e in ends] == [losses[5], losses[6]]
    assert [e["status"] for e in ends] == ["COMPLETED"] * 2
    assert "seed=6" in ends[1]["overrides"]


def test_callbacks_hear_of_failures(launch: Launch) -> None:  # noqa: F811
    arguments = [*QUICK, "tracking.mode=none", "sweep=s", "training.learning_rate=1e39,1e-2", *RECORDING]
    assert launch("run", "-m", *arguments)[0] == 1
    ends = [event for event in Recorder.events if event["name"] == "job_end"]
    assert [event["status"] for event in ends] == ["FAILED", "COMPLETED"]
    assert "not finite at step" in str(ends[0]["returned"])


# ----------------------------------------------------------------------------------------------- other tasks, questions

APP = """
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=None)
def task(config):
    print("job", HydraConfig.get().job.num, config.a)
    if config.a == 2:
        raise ValueError("two")

if __name__ == "__main__":
    task()
"""


def test_a_task_without_many_runs_job_by_job_in_folders_of_hydras(shell: Path) -> None:  # noqa: F811
    Path("app.py").write_text(APP)
    plugins = ["hydra/launcher=stacked", "hydra/sweeper=grid", "hydra.sweep.dir=jobs"]
    done = subprocess.run(
        [sys.executable, "app.py", "-m", "+a=1,2,3", *plugins], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("job")] == ["job 0 1", "job 1 2", "job 2 3"]
    assert "+a=2: two" in done.stderr
    assert "1 of 3 jobs failed" in done.stderr
    assert [yaml.safe_load(Path(f"jobs/{n}/.hydra/overrides.yaml").read_text()) for n in range(3)] == [
        ["+a=1"],
        ["+a=2"],
        ["+a=3"],
    ]


QUESTIONS = [
    ["--help"],
    ["--hydra-help"],
    ["--cfg", "job"],
    ["--cfg", "all", "experiment=figure2"],
    ["--info"],
    ["--info", "defaults"],
    ["-m", "model.width=8,9"],
]


@pytest.mark.parametrize("arguments", QUESTIONS, ids=" ".join)
def test_questions_and_refused_sweeps_import_no_torch(shell: Path, arguments: list[str]) -> None:  # noqa: F811
    script = (
        "import sys\nfrom tc_sweeps import cli\n"
        "try:\n    cli.run(sys.argv[1:], program='tc-sweeps run')\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
