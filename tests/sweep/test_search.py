"""Search: the space in Hydra's grammar, refusals, the total, and what is told of runs that finish, fail or repeat."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tc_sweeps import cli
from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.report import best_text, best_trials, draw_experiment, load_trials
from tc_sweeps.sweep.engine import Launch, runs_at_once
from tc_sweeps.sweep.trials import Space, spell
from tests.behaviour.conftest import Launch as Command
from tests.behaviour.conftest import launch, shell  # noqa: F401 -- fixtures

TINY = ["data.vocab_size=12", "data.num_sentences=30", "model.width=8", "training.steps=40", "training.evaluations=4"]
SEARCH = ["run", "-m", "hydra/sweeper=optuna", "sweep=s", "tracking=none", *TINY]
LESS = "hydra.sweeper.objectives={train/loss: minimize}"
RATES = "training.learning_rate=tag(log, interval(1e-3, 1e-1))"


def trials() -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend("outputs/s/study.journal"))
    return optuna.load_study(study_name="s", storage=storage).trials


def states() -> list[str]:
    return [trial.state.name for trial in trials()]


def attempts() -> list[int]:
    return [json.loads(path.read_text())["attempt"] for path in sorted(Path("outputs/s").glob("*/status.json"))]


# ------------------------------------------------------------------------------------------------------------ the space


@pytest.fixture
def space() -> Iterator[Callable[..., Space]]:
    def of(*overrides: str) -> Space:
        return Space.of(OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)))

    with initialize_config_dir(str(cli._conf()), version_base="1.3"):
        loader: ConfigLoader = GlobalHydra.instance().config_loader()
        yield of


AXES = [
    ("a=interval(0,1)", FloatDistribution(0, 1)),
    ("a=tag(log, interval(1e-3, 1e-1))", FloatDistribution(1e-3, 1e-1, log=True)),
    ("a=int(interval(1,8))", IntDistribution(1, 8)),
    ("a=int(tag(log, interval(1,64)))", IntDistribution(1, 64, log=True)),
    ("a=range(1,10)", IntDistribution(1, 9)),  # as everywhere in Hydra, the end of a range does not belong to it
    ("a=range(1,9,step=2)", IntDistribution(1, 7, step=2)),
    ("a=range(9,1,step=-4)", IntDistribution(5, 9, step=4)),
    ("a=tag(log, range(1,10))", IntDistribution(1, 9, log=True)),
    ("a=range(0.1,0.5,step=0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ("a=choice(8,16,32)", CategoricalDistribution((8, 16, 32))),
    ("a=8,16,32", CategoricalDistribution((8, 16, 32))),
    ("a=8,8,16", CategoricalDistribution((8, 16))),
    (
        "a=true,null,0.5,word,'two words',[1,2]",
        CategoricalDistribution((True, None, 0.5, "word", "'two words'", "[1,2]")),
    ),
    ("objective=glob(la*)", CategoricalDistribution(("label_smoothing", "last"))),
]


@pytest.mark.parametrize(("override", "distribution"), AXES, ids=[override for override, _ in AXES])
def test_hydras_grammar_as_distributions(
    space: Callable[..., Space], override: str, distribution: BaseDistribution
) -> None:
    found = space(override, "b=1")
    assert list(found.axes.values()) == [distribution]
    assert found.fixed == {"b": "b=1"}


def test_values_are_spelled_as_hydra_reads_them(space: Callable[..., Space]) -> None:
    found = space("a=range(0.1,0.5,step=0.1)", "b=true,null,'x y'", "c=interval(0,1)", "d=1", "e=1", "c=2", "d=3,4")
    assert found.overrides({"a": 0.1 + 2 * 0.1, "b": None, "d": 4}) == ["e=1", "c=2", "a=0.3", "b=null", "d=4"]
    assert [spell(value, found.axes["b"]) for value in found.axes["b"].choices] == ["true", "null", "'x y'"]  # type: ignore[attr-defined]
    assert float(spell(1e-05 / 3, FloatDistribution(0, 1))) == 1e-05 / 3


def test_every_value_of_an_axis_is_tried_with_the_first_and_the_last_of_the_others(space: Callable[..., Space]) -> None:
    found = space("a=1,2,3", "b=range(0,5)")
    assert list(found.ends()) == [
        (["a=1", "b=0"], ["a=1", "b=4"]),
        (["a=2", "b=0"], ["a=2", "b=4"]),
        (["a=3", "b=0"], ["a=3", "b=4"]),
        (["a=1", "b=0"], ["a=3", "b=0"]),
        (["a=1", "b=4"], ["a=3", "b=4"]),
    ]


REFUSED = [
    (["seed=1", LESS], "hydra.sweeper.params has no axis to search"),
    (["training.learning_rate=interval(0.1,0.1)", LESS], "an interval goes from a number to a larger one"),
    (["training.learning_rate=interval(1,0.1)", LESS], "an interval goes from a number to a larger one"),
    (["training.learning_rate=tag(log,interval(0,1))", LESS], "on a logarithmic scale an interval starts above 0"),
    (["seed=0,1", LESS], "seed=0,1: a search would choose the luckiest seed"),
    (["model.width=interval(8,12)", LESS], "model.width takes whole numbers, and an interval holds fractions"),
    (
        ["model.layers=tag(log,range(0,4))", LESS],
        "on a logarithmic scale a range holds whole numbers above 0, in steps of 1",
    ),
    (["model.layers=tag(log,choice(1,2))", LESS], "the values of a choice have no scale"),
    (["model.layers=tag(lgo,interval(1,2))", LESS], "the tag 'lgo' means nothing here"),
    (["model.layers=range(3,3)", LESS], "this axis has no values"),
    (["+hydra.sweeper.params.sweep='a,b'", LESS], "'sweep' says how runs are made, it cannot be searched"),
    ([RATES, RATES, LESS], "give one axis twice"),
    ([RATES], "hydra.sweeper.objectives=None names no metric and direction"),
    ([RATES, "hydra.sweeper.objectives={train/los: minimize}"], "'train/los' is no metric; did you mean 'train/loss'?"),
    ([RATES, "hydra.sweeper.objectives={train/loss: down}"], "train/loss=down is not one of maximize, minimize"),
    ([RATES, LESS, "hydra.sweeper.trials=0"], "hydra.sweeper.trials=0 must be at least 1"),
    ([RATES, LESS, "hydra.sweeper.batch=0"], "hydra.sweeper.batch=0 must be at least 1"),
    ([RATES, LESS, "hydra.sweeper.seed=-1"], "hydra.sweeper.seed=-1 must be at least 0"),
    ([RATES, LESS, "hydra.sweeper.sampler=grid"], "hydra.sweeper.sampler=grid is not one of tpe, random, nsgaii"),
    ([RATES, LESS, "hydra.sweeper.prune=all"], "hydra.sweeper.prune=all is not one of none, median, hyperband"),
    (
        [
            RATES,
            "hydra.sweeper.objectives={train/loss: minimize,artifacts/count: minimize}",
            "hydra.sweeper.prune=median",
        ],
        "hydra.sweeper.prune=median goes with one objective, not with 2",
    ),
    ([RATES, LESS, "hydra.sweeper.storage=study.db"], "hydra.sweeper.storage=study.db cannot be opened"),
    (["model.width=8,9", LESS], "model.width=9 is not divisible by model.heads=4"),
    (["+data.vocab_sise=1,2", LESS], "did you mean 'data.vocab_size'?"),
    (["objective=all,lst", LESS], "Could not find 'objective/lst'"),
]


@pytest.mark.parametrize(("arguments", "fragment"), REFUSED, ids=[fragment for _, fragment in REFUSED])
def test_what_makes_no_search_is_refused_before_anything_starts(
    launch: Command,  # noqa: F811
    arguments: list[str],
    fragment: str,
) -> None:
    code, _, err = launch(*SEARCH, *arguments)
    assert code == 1
    assert fragment in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("outputs").exists()


# ------------------------------------------------------------------------------------------------------------ the total


@pytest.mark.slow
def test_the_same_command_goes_on_to_the_total_and_no_further(launch: Command) -> None:  # noqa: F811
    search = [*SEARCH, RATES, LESS, "model.width=8,16"]
    code, out, err = launch(*search, "hydra.sweeper.trials=6", "hydra.sweeper.batch=4")
    assert (code, err) == (0, "")
    assert "6 trials: 6 complete." in out
    assert states() == ["COMPLETE"] * 6
    first = [trial.params for trial in trials()]
    assert launch(*search, "hydra.sweeper.trials=6")[0] == 0
    assert [trial.params for trial in trials()] == first
    assert launch(*search, "hydra.sweeper.trials=9")[0] == 0
    assert states() == ["COMPLETE"] * 9
    assert [trial.params for trial in trials()][:6] == first
    assert len({trial.params["training.learning_rate"] for trial in trials()}) == 9  # what was tried is not tried again
    # The plan has the runs of all batches and of the continuation, the table all trials.
    runs = [trial.user_attrs["run_id"] for trial in trials()]
    assert json.loads(Path("outputs/s/plan.json").read_text())["run_ids"] == list(dict.fromkeys(runs))
    results = pd.read_parquet("outputs/s/results.parquet").set_index("run_id")
    table = load_trials("s")
    assert table["run_id"].tolist() == runs
    assert table["train/loss"].tolist() == results.loc[runs, "train/loss"].tolist()
    assert table["training.learning_rate"].tolist() == results.loc[runs, "training.learning_rate"].tolist()
    assert list(table.columns) == ["number", "state", "train/loss", "training.learning_rate", "model.width", "run_id"]


@pytest.mark.slow
def test_a_sampler_starts_from_its_seed(launch: Command) -> None:  # noqa: F811
    def params(seed: int) -> list[dict[str, Any]]:
        arguments = [RATES, LESS, "hydra.sweeper.trials=4", f"hydra.sweeper.seed={seed}", f"sweep=seed{seed}"]
        assert launch(*SEARCH, *arguments)[0] == 0
        return load_trials(f"seed{seed}")["training.learning_rate"].tolist()

    before = params(1)
    Path("outputs").rename("before")
    assert params(1) == before
    assert params(2) != before


def test_a_suggestion_whose_run_is_done_trains_nothing(launch: Command) -> None:  # noqa: F811
    grid = ["run", "-m", "sweep=s", "tracking=none", *TINY]
    assert launch(*grid, "training.weight_decay=0,1", "training.learning_rate=1e-2,1e39")[0] == 1
    before = {path: path.stat().st_mtime_ns for path in Path("outputs/s").glob("*/*")}
    axes = ["training.weight_decay=0,1", "training.learning_rate=1e-2,1e39"]
    code, _, err = launch(*SEARCH, *axes, LESS, "hydra.sweeper.trials=12", "hydra/launcher=basic")
    assert code == 1  # as for other sweeps that have a failed run
    assert set(states()) == {"COMPLETE", "FAIL"}
    assert len(states()) == 12
    assert f"{states().count('FAIL')} of 12 trials failed." in err
    assert {path: path.stat().st_mtime_ns for path in Path("outputs/s").glob("*/*") if path in before} == before
    assert len(best_trials(load_trials("s"))) == 2  # each run once


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_a_failed_run_is_told_and_the_search_goes_on(launch: Command, launcher: str) -> None:  # noqa: F811
    search = [
        *SEARCH,
        "training.learning_rate=1e39,1e-2",
        "training.weight_decay=interval(0,1)",
        LESS,
        f"hydra/launcher={launcher}",
    ]
    code, _, err = launch(*search, "hydra.sweeper.trials=8", "hydra.sweeper.batch=4")
    assert code == 1
    assert set(states()) == {"COMPLETE", "FAIL"}
    failed = [trial for trial in trials() if trial.state.name == "FAIL"]
    assert all("not finite at step" in trial.user_attrs["reason"] for trial in failed)
    assert all("training.learning_rate=1e+39" in trial.user_attrs["overrides"] for trial in failed)
    assert f"{len(failed)} of 8 trials failed." in err
    assert launch(*search, "hydra.sweeper.trials=8")[0] == 1
    assert set(attempts()) == {1}


def test_settings_that_cannot_be_run_together_are_failed_trials(launch: Command) -> None:  # noqa: F811
    code, _, err = launch(*SEARCH, "model.heads=2,3", "model.width=8,12", LESS, "hydra.sweeper.trials=12")
    assert code == 1
    assert set(states()) == {"COMPLETE", "FAIL"}
    assert "model.width=8 is not divisible by model.heads=3" in err


def test_an_objective_that_no_run_has_ends_the_search(launch: Command) -> None:  # noqa: F811
    recall = "hydra.sweeper.objectives={generalization/recall: maximize}"
    code, _, err = launch(*SEARCH, RATES, recall, "hydra.sweeper.batch=2")
    assert code == 1
    assert err == (
        "hydra.sweeper.objectives: generalization/recall is undefined in all 10 runs: choose another metric, which "
        "this sweep may have as long as no trial has a value.\n"
    )
    assert states() == ["FAIL"] * 10  # the first ones might have fitted nothing yet
    assert launch(*SEARCH, RATES, LESS, "hydra.sweeper.batch=2", "hydra.sweeper.trials=2")[0] == 0
    assert states() == ["COMPLETE"] * 2
    assert attempts() == [1] * 10  # the runs were there


def test_few_trials_without_a_value_are_explained_as_well(launch: Command) -> None:  # noqa: F811
    recall = "hydra.sweeper.objectives={generalization/recall: maximize}"
    code, out, err = launch(*SEARCH, RATES, recall, "hydra.sweeper.trials=2")
    assert code == 1
    assert err.startswith("hydra.sweeper.objectives: generalization/recall is undefined in all 2 runs")
    assert "s: 2 of 2 trials; 2 runs: 2 finished" in out


def test_a_sweep_does_not_take_the_name_of_a_search(launch: Command) -> None:  # noqa: F811
    assert launch(*SEARCH, RATES, LESS, "hydra.sweeper.trials=1")[0] == 0
    plan = Path("outputs/s/plan.json").read_text()
    for verb in (["run", "-m"], ["plan"]):
        code, _, err = launch(*verb, *TINY, "sweep=s", "seed=0,1")
        assert code == 1
        assert "sweep=s is a search, whose list of runs another sweep would begin anew" in err
    assert Path("outputs/s/plan.json").read_text() == plan


CHANGED = [
    (["hydra.sweeper.objectives={train/loss: maximize}"], "are not those that the study 's' in"),
    (["hydra.sweeper.objectives={artifacts/count: minimize}"], "are not those that the study 's' in"),
    ([LESS, "training.steps=60"], "The study 's' was begun with training.steps=40, and now it is 60"),
    ([LESS, "model.width=8,16,32"], "only the ends of a range may change"),
    ([LESS, "training.learning_rate=interval(1e-3,1e-1)"], "only the ends of a range may change"),
]


def test_a_study_keeps_to_what_it_was_begun_for(launch: Command) -> None:  # noqa: F811
    axes, total = [RATES, "model.width=8,16"], "hydra.sweeper.trials=2"
    assert launch(*SEARCH, total, *axes, LESS)[0] == 0
    for changed, fragment in CHANGED:
        keys = [text.partition("=")[0] for text in changed]
        code, _, err = launch(*SEARCH, total, *(axis for axis in axes if axis.partition("=")[0] not in keys), *changed)
        assert code == 1
        assert fragment in err
        assert len(err.strip().splitlines()) == 1
    wider = "training.learning_rate=tag(log, interval(1e-3, 1))"
    assert launch(*SEARCH, total, LESS, axes[1], wider, "tracking=offline")[0] == 0
    assert len(states()) == 2


# -------------------------------------------------------------------------------------------------------------- pruning

BAD_AND_GOOD = [
    *("training.steps=1500", "training.evaluations=30", "training.learning_rate=1e-6,1e-2,1.1e-2"),
    *("training.weight_decay=interval(0,1e-3)", LESS, "hydra.sweeper.prune=median", "hydra.sweeper.sampler=random"),
]


@pytest.mark.slow
def test_pruning_ends_runs_that_compare_badly_and_the_others_finish(launch: Command) -> None:  # noqa: F811
    search = [*SEARCH, *BAD_AND_GOOD]
    code, out, err = launch(*search, "hydra.sweeper.trials=16", "hydra.sweeper.batch=4")
    assert (code, err) == (0, "")
    found = trials()
    assert {trial.state.name for trial in found} == {"COMPLETE", "PRUNED"}
    pruned = [trial for trial in found if trial.state.name == "PRUNED"]
    for trial in pruned:
        status = json.loads(Path("outputs/s", trial.user_attrs["run_id"], "status.json").read_text())
        assert status["state"] == "interrupted"
        assert status["reason"] == f"pruned by the search at step {status['step']}"
        assert status["step"] < 1500
        assert pd.read_csv(Path("outputs/s", trial.user_attrs["run_id"], "metrics.csv"))["step"].max() == status["step"]
    assert (
        f"s: 16 of 16 trials; {len(found)} runs: {len(found) - len(pruned)} finished, {len(pruned)} pruned\n100 %"
        in out
    )
    assert "missing" not in out  # a pruned run is not one that is to be trained on
    # The same command has nothing to do; a run that is launched for its own sake is trained to its end.
    assert launch(*search, "hydra.sweeper.trials=16")[0] == 0
    assert {trial.state.name for trial in trials()} == {"COMPLETE", "PRUNED"}
    again = pruned[0].user_attrs["overrides"]
    assert launch("run", *again)[0] == 0
    status = json.loads(Path("outputs/s", pruned[0].user_attrs["run_id"], "status.json").read_text())
    assert (status["state"], status["step"]) == ("finished", 1500)


# ------------------------------------------------------------------------------------------ storages and what they hold


def test_sqlite_serves_one_process(launch: Command) -> None:  # noqa: F811
    search = [*SEARCH, RATES, LESS, "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.trials=3"]
    assert launch(*search)[0] == 0
    assert launch(*search, "hydra.sweeper.trials=4")[0] == 0
    assert len(optuna.load_study(study_name="s", storage="sqlite:///study.db").trials) == 4
    lock = "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    holder = f"import fcntl; file = open('study.db.lock', 'a'); {lock}; print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline()  # a search that has ended holds the database no more
        code, _, err = launch(*search, "hydra.sweeper.trials=5")
        assert code == 1
        assert "storage=sqlite:///study.db is in use by another process" in err
        assert "journal" in err
    finally:
        other.kill()
        other.communicate()


def test_a_journal_whose_last_line_is_torn_goes_on(launch: Command) -> None:  # noqa: F811
    search = [*SEARCH, RATES, LESS]
    assert launch(*search, "hydra.sweeper.trials=3")[0] == 0
    with Path("outputs/s/study.journal").open("a") as file:
        file.write('{"op_code":4,"worker_')  # a full disk, or a kill in the middle of it
    assert launch(*search, "hydra.sweeper.trials=5")[0] == 0
    assert states() == ["COMPLETE"] * 5


def test_what_fills_the_stacks_is_told_by_what_packs_them() -> None:
    small, large = ({"data": {"vocab_size": 12, "num_sentences": 30}, "model": {"width": w}} for w in (8, 256))
    one, two = (runs_at_once(resolve(small), Launch(workers=workers, memory_mib=16)) for workers in (1, 2))
    assert one == two > 100
    assert runs_at_once(resolve(large), Launch(workers=1, memory_mib=16)) < one / 10


# --------------------------------------------------------------------------------------------------- several objectives


def test_several_objectives_have_a_front(launch: Command) -> None:  # noqa: F811
    both = "hydra.sweeper.objectives={train/loss: minimize,artifacts/count: minimize}"
    code, out, _ = launch(*SEARCH, RATES, both, "hydra.sweeper.trials=12", "hydra.sweeper.batch=6")
    assert code == 0
    assert "The front, to minimize train/loss, minimize artifacts/count:" in out
    study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend("outputs/s/study.journal")))
    assert {trial.number for trial in study.best_trials} == set(best_trials(load_trials("s"))["number"])
    assert "Written: outputs/s/trials.parquet outputs/s/figures/search.png" in out
    assert Path("outputs/s/figures/search.png").stat().st_size > 10_000


def made(objectives: dict[str, str], values: Sequence[Sequence[float]], states: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame({"number": range(len(values)), "state": states})
    table[list(objectives)] = np.array(values, dtype=float)
    table["run_id"] = [f"{number:016x}" for number in range(len(values))]
    table.attrs["objectives"] = objectives
    Path("outputs/made").mkdir(parents=True, exist_ok=True)
    Path("outputs/made/plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    table.to_parquet("outputs/made/trials.parquet")
    return load_trials("made")


def test_the_best_trials_by_hand(shell: Path) -> None:  # noqa: F811
    nan = float("nan")
    up_and_down = {"a/a": "maximize", "b/b": "minimize"}
    table = made(up_and_down, [(1, 1), (2, 2), (0, 0), (1, 2), (2, 2), (nan, nan)], [*["complete"] * 5, "failed"])
    assert best_trials(table)["number"].tolist() == [1, 4, 0, 2]
    assert "6 trials: 5 complete, 1 failed." in best_text(table)
    one = made({"a/a": "maximize"}, [(1,), (3,), (2,), (nan,)], [*["complete"] * 3, "pruned"])
    assert best_trials(one)["number"].tolist() == [1, 2, 0]
    none = made({"a/a": "maximize"}, [(nan,)], ["failed"])
    assert best_text(none).endswith("None has a value.")
    with pytest.raises(ConfigError, match="has a value: there is nothing to draw"):
        draw_experiment("made")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_number_of_objectives_is_drawn(shell: Path, count: int) -> None:  # noqa: F811
    values = np.random.default_rng(0).random((20, count))
    states = [*["complete"] * 16, "pruned", "failed", "pruned", "complete"]
    values[[16, 17, 18]] = np.nan
    made({f"artifacts/{name}": "maximize" for name in "abc"[:count]}, values.tolist(), states)
    drawing = draw_experiment("made")
    assert [path.name for path in drawing.paths] == ["search.png", "search.pdf"]
    assert drawing.paths[0].stat().st_size > 10_000
    assert drawing.verdict.startswith("20 trials: 17 complete, 2 pruned, 1 failed.")


def test_a_lock_that_a_killed_process_held_holds_nobody_up(launch: Command) -> None:  # noqa: F811
    """The journal lies at a relative path, and whatever stands beside it, its lock is free."""
    holder = (
        "import os, sys, pathlib\n"
        "from tc_sweeps.sweep.trials import _JournalLock\n"
        "_JournalLock(pathlib.Path('outputs/s/study.journal')).acquire()\n"
        "os.kill(os.getpid(), 9)"
    )
    Path("outputs/s").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", holder], check=False)
    assert launch(*SEARCH, LESS, RATES, "hydra.sweeper.trials=2")[0] == 0
    assert states() == ["COMPLETE"] * 2
    assert list(Path("outputs/s").glob(".study.journal.lock"))
