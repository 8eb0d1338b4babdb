"""The kinship data that the package ships, and PyKEEN's graphs (with the kg extra)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tc_sweeps.config import ConfigError, KinshipsData, data_file, resolve
from tc_sweeps.corpus import build_corpus

# SHA-256 of kinships.tsv by generator version. If the file changes, raise `KinshipsData.generator` in config.py and add
# a line here: runs made before would else share ids with other data.
GOLDEN = {1: "d1b5b044f6f51f12077ccb771f4aecbb37a705cf6ed74a333b938c839eb9a03b"}


def kinships(**data):
    return build_corpus(resolve({"data": {"name": "kinships", **data}}).data)


@pytest.fixture(scope="module")
def whole():
    return kinships(held_out_fraction=0.0)


def test_the_file_is_the_one_that_the_ids_of_earlier_runs_stand_for():
    digest = hashlib.sha256(Path(data_file("kinships.tsv")).read_bytes()).hexdigest()
    assert digest == GOLDEN[KinshipsData.generator]


def test_there_are_10686_facts_over_104_people_and_25_relations(whole):
    assert whole.sentences.shape == (10_686, 3)
    assert len(whole.tensor(3).ngrams_Gn) == 10_686, "no fact twice"
    assert whole.vocab_size == 104 + 25
    assert whole.sentences[:, 0].unique().tolist() == list(range(104)), "people are the tokens 0..103"
    assert whole.sentences[:, 1].unique().tolist() == list(range(104))
    assert whole.sentences[:, 2].unique().tolist() == list(range(104, 129))
    assert all(name.startswith("person") for name in whole.tokens[:104])
    assert all(name.startswith("term") for name in whole.tokens[104:])


def test_98_8_percent_of_the_ordered_pairs_have_a_relation_and_only_one(whole):
    tensor = whole.tensor(3)
    assert len(tensor.contexts_Cn) == len(tensor.ngrams_Gn)
    assert round(100 * len(tensor.contexts_Cn) / 104**2, 1) == 98.8


def test_by_default_1069_facts_are_held_out_of_which_every_pair_is_new():
    made = kinships()
    assert len(made.held_out) == 1_069
    assert len(made.sentences) == 9_617
    pairs = {tuple(row) for row in made.sentences[:, :2].tolist()}
    assert pairs.isdisjoint(tuple(row) for row in made.held_out[:, :2].tolist())
    assert len(made.truth) == 10_686


def test_a_person_stands_at_both_places_of_the_contexts_considered():
    made = kinships()
    assert made.contexts == "typed"
    assert [place.tolist() for place in made.places(3, "typed")] == [list(range(104))] * 2


def test_pykeen_that_is_not_installed_is_refused_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pykeen.datasets", None)
    with pytest.raises(ConfigError, match=r"needs PyKEEN.*pip install -e '\.\[kg\]'"):
        build_corpus(resolve({"data": {"name": "pykeen"}}).data)


@pytest.mark.kg
def test_the_kinship_file_equals_pykeens_kinships(whole):
    pytest.importorskip("pykeen")
    theirs = build_corpus(resolve({"data": {"name": "pykeen", "dataset": "kinships", "held_out_fraction": 0.0}}).data)
    ours, same = ({tuple(c.tokens[t] for t in row) for row in c.sentences.tolist()} for c in (whole, theirs))
    assert ours == same
    assert len(ours) == 10_686


@pytest.mark.kg
@pytest.mark.parametrize(("dataset", "triples"), [("nations", 1_992), ("umls", 6_529)])
def test_pykeens_graphs_have_their_known_numbers_of_triples(dataset, triples):
    pytest.importorskip("pykeen")
    whole = build_corpus(resolve({"data": {"name": "pykeen", "dataset": dataset, "held_out_fraction": 0.0}}).data)
    assert len(whole.sentences) == len(whole.tensor(3).ngrams_Gn) == triples
    assert whole.contexts == "typed"


@pytest.mark.kg
def test_the_columns_of_pykeens_graphs_can_be_reordered():
    pytest.importorskip("pykeen")
    base = {"name": "pykeen", "dataset": "nations", "held_out_fraction": 0.0}
    facts = []
    for columns in (["subject", "object", "relation"], ["relation", "subject", "object"]):
        made = build_corpus(resolve({"data": base | {"columns": columns}}).data)
        place = [columns.index(name) for name in ("subject", "relation", "object")]
        facts.append({tuple(made.tokens[row[p]] for p in place) for row in made.sentences.tolist()})
    assert facts[0] == facts[1]


@pytest.mark.kg
def test_a_dataset_that_pykeen_does_not_know_is_refused_by_name():
    pytest.importorskip("pykeen")
    with pytest.raises(ConfigError, match=r"data\.dataset=nation is not a dataset of PyKEEN"):
        build_corpus(resolve({"data": {"name": "pykeen", "dataset": "nation"}}).data)
