"""Which runs a filter keeps: given as a dict, and typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest

from tc_sweeps.config import ConfigError
from tc_sweeps.report import load_curves, load_survival, load_sweep, parse_where
from tc_sweeps.report.where import in_order, name_where, spell_where

RUNS = [
    {"model.width": 8, "seed": 0, "training.learning_rate": 0.01, "model.tied": False},
    {"model.width": 8, "seed": 1, "training.learning_rate": 0.1, "model.tied": True},
    {"model.width": 16, "seed": 0, "training.learning_rate": 0.01, "training.batch_size": 100},
    {"model.width": 16, "seed": 1, "training.learning_rate": 1e-5},
    {"model.width": 32, "seed": 0, "data.name": "kinships", "data.held_out_fraction": 0.5},
]


@pytest.fixture
def sweep(outputs: Path) -> str:
    for overrides in RUNS:
        made.begin(outputs, "s", overrides)
    return "s"


@pytest.mark.parametrize(
    ("where", "places"),
    [
        (None, [0, 1, 2, 3, 4]),
        ({}, [0, 1, 2, 3, 4]),
        ({"model.width": 8}, [0, 1]),
        ({"model.width": 8.0}, [0, 1]),
        ({"model.width": [8, 32, 99]}, [0, 1, 4]),
        ({"model.width": np.array([16])}, [2, 3]),
        ({"model.width": (8, 32, 99)}, [0, 1, 4]),
        ({"training.batch_size": (None, 100), "seed": (1,)}, [1, 3]),
        ({"training.learning_rate": [0.1, 1e-5, 7]}, [1, 3]),
        ({"seed": range(1, 5)}, [1, 3]),
        ({"model.width": np.int64(16), "seed": {1}}, [3]),
        ({"training.learning_rate": 1e-2}, [0, 2, 4]),
        ({"data.name": "random", "seed": 0}, [0, 2]),
        ({"model.tied": True}, [1]),
        ({"training.batch_size": 100}, [2]),
        ({"training.batch_size": None}, [0, 1, 3, 4]),
        ({"training.batch_size": [None, 100]}, [0, 1, 2, 3, 4]),
        ({"data.held_out_fraction": None}, [0, 1, 2, 3]),  # a key that their world does not have
        ({"data.held_out_fraction": float("nan")}, [0, 1, 2, 3]),
    ],
)
def test_a_filter_keeps_the_runs_that_agree_in_every_key(
    sweep: str, where: dict[str, Any] | None, places: list[int]
) -> None:
    runs = load_sweep(sweep, where=where)
    assert list(zip(runs["model.width"], runs["seed"], strict=True)) == [
        (RUNS[place]["model.width"], RUNS[place]["seed"]) for place in places
    ]
    assert list(runs.index) == list(range(len(places)))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"widht": 8}, r"^The sweep 's' has no config key 'widht'; did you mean 'model\.width'\?$"),
        ({"model.width": 8, "bananas": 1}, r"'bananas'; its runs differ in data\.name, model\.width.* and seed\.$"),
        ({"artifacts/count": 8}, r"^The sweep 's' has no config key 'artifacts/count'"),
        ({"model.width": 64}, r"^No run of the sweep 's' has model\.width=64; there are 8, 16 and 32\.$"),
        ({"model.width": "8"}, r"^No run of the sweep 's' has model\.width=8; there are"),
        ({"seed": True}, r"^No run of the sweep 's' has seed=true; there are 0 and 1\.$"),
        ({"seed": []}, r"^No run of the sweep 's' has seed=; there are 0 and 1\.$"),
        ({"training.batch_size": [1, 2]}, r"has training\.batch_size=1,2; there are null and 100\.$"),
        ({"model.width": 32, "seed": 1}, r"^No run of the sweep 's' has model\.width=32 and seed=1 together\.$"),
    ],
)
def test_a_filter_that_leaves_no_run_is_one_sentence(sweep: str, where: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_sweep(sweep, where=where)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (0.005928, [0.00592764]),  # as a table shows it
        (0.00592764, [0.00592764]),
        (0.01235, []),  # two are shown as this one
        (0.0123457, [0.012345678]),  # as a legend shows it
        ([0.012345678, 0.3], [0.012345678, 0.3]),
        (0.006, []),  # to fewer digits than are shown
    ],
)
def test_a_number_stands_for_the_one_that_is_shown_in_this_way(outputs: Path, wanted: Any, found: list[float]) -> None:
    for rate in (0.3, 0.012345678, 0.00592764, 0.012351):
        made.begin(outputs, "s", {"training.learning_rate": rate})
    where = {"training.learning_rate": wanted}
    if found:
        assert sorted(load_sweep("s", where=where)["training.learning_rate"]) == found
    else:
        there = r"there are 0\.00592764, 0\.012345678, 0\.012351 and 0\.3\.$"
        with pytest.raises(ConfigError, match=there):
            load_sweep("s", where=where)


def test_a_filter_that_is_text_is_refused_in_a_sentence(sweep: str) -> None:
    with pytest.raises(ConfigError, match=r"^where='model\.width=8' is no dict of keys and values, as in where={"):
        load_sweep(sweep, where="model.width=8")  # type: ignore[arg-type]


def test_values_come_in_order_whatever_they_are() -> None:
    values = [16, "b", 8, None, (2, 1), 0.5, "a", float("nan"), True, 8]
    assert in_order(values) == [None, 0.5, True, 8, 16, (2, 1), "a", "b"]


def test_a_tuple_is_one_value_that_is_a_list(outputs: Path) -> None:
    Path("facts.tsv").write_text("a\tb\tc\n")
    for columns in ([0, 1, 2], [2, 1, 0]):
        made.begin(outputs, "s", {"data.name": "triples", "data.path": "facts.tsv", "data.columns": columns})
    assert load_sweep("s")["data.columns"].tolist() == [(0, 1, 2), (2, 1, 0)]
    assert load_sweep("s", where={"data.columns": (2, 1, 0)})["data.columns"].tolist() == [(2, 1, 0)]
    assert len(load_sweep("s", where={"data.columns": [[2, 1, 0], (0, 1, 2)]})) == 2
    typed = parse_where(["data.columns=[0,1,2],[1,1,1]"])
    assert load_sweep("s", where=typed)["data.columns"].tolist() == [(0, 1, 2)]
    with pytest.raises(ConfigError, match=r"has data\.columns=\[1,1,1\]; there are \[0,1,2\] and \[2,1,0\]\.$"):
        load_sweep("s", where={"data.columns": (1, 1, 1)})


def test_curves_and_survival_take_the_same_filter(outputs: Path) -> None:
    for seed in (0, 1, 2):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18)
    where = {"seed": [0, 2]}
    assert load_curves("s", where=where).groupby("seed").size().to_dict() == {seed: len(made.STEPS) for seed in (0, 2)}
    survival = load_survival("s", [0.5], where=where)
    assert survival["seed"].tolist() == [0, 2]
    with pytest.raises(ConfigError, match="has seed=7; there are 0, 1 and 2"):
        load_curves("s", where={"seed": 7})


def test_a_sweep_without_runs_has_nothing_to_filter(outputs: Path) -> None:
    (outputs / "empty").mkdir()
    (outputs / "empty" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    assert load_sweep("empty", where={"seed": 0}).empty


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        ([], {}),
        (["model.width=8"], {"model.width": 8}),
        (["model.width=8,16", "seed=0"], {"model.width": [8, 16], "seed": 0}),
        (["training.learning_rate=1e-2"], {"training.learning_rate": 0.01}),
        (["seed=range(0,3)"], {"seed": [0, 1, 2]}),
        (["data.num_sentences=null,500"], {"data.num_sentences": [None, 500]}),
        (["model.tied=true"], {"model.tied": True}),
        (["data.name=kinships,random"], {"data.name": ["kinships", "random"]}),
        (["data.path='a, b.tsv','c d'"], {"data.path": ["a, b.tsv", "c d"]}),
        (["data.path='a, b.tsv'"], {"data.path": "a, b.tsv"}),
        (["data.columns=[0,'1']"], {"data.columns": (0, "1")}),
    ],
)
def test_a_typed_filter_reads_values_as_overrides_do(texts: list[str], where: dict[str, Any]) -> None:
    assert parse_where(texts) == where


@pytest.mark.parametrize(
    "text",
    [
        *("model.width", "=8", "~model.width", "+model.width=8", "a@b=8", "seed=1,", "seed=(1"),
        *("seed=interval(0,1)", "seed=glob(*)"),
    ],
)
def test_a_filter_that_cannot_be_read_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: write KEY=VALUE\[,VALUE\.\.\.\], as in --where model"):
        parse_where([text])


def test_a_key_typed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--where names seed twice: give its values together"):
        parse_where(["seed=0", "seed=1"])


@pytest.mark.parametrize(
    ("where", "text", "name"),
    [
        (None, "", ""),
        ({"seed": 0}, "seed=0", "_where_seed=0"),
        ({"a.b": [0.1, None], "c": (1, True)}, "a.b=0.1,null and c=[1,true]", "_where_a.b=0.1,null_and_c=_1,true_"),
        ({"data.path": "/x/y z"}, "data.path=/x/y z", "_where_data.path=_x_y_z"),
        ({"seed": range(100)}, f"seed={','.join(map(str, range(100)))}", None),
    ],
)
def test_a_filter_names_files(where: dict[str, Any] | None, text: str, name: str | None) -> None:
    assert spell_where(where) == text
    if name is not None:
        assert name_where(where) == name
    assert len(name_where(where)) < 150
    assert name_where({"seed": range(100)}) != name_where({"seed": range(101)})
