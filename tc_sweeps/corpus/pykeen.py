"""Any knowledge graph that PyKEEN knows (nations, umls and kinships come with it; others it downloads)."""

from __future__ import annotations

from tc_sweeps.config import ConfigError, PykeenData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.facts import Row, facts_corpus

_COLUMN = {"subject": 0, "relation": 1, "object": 2}  # PyKEEN's order: head, relation, tail


def pykeen_corpus(data: PykeenData) -> Corpus:
    """Return a graph's facts in the order of `data.columns`, a share of the contexts held out.

    PyKEEN's own split into training, validation and testing is joined first: here whole contexts are held out.
    Raises `ConfigError` where PyKEEN is not installed or does not know the dataset.
    """
    assert data.order is not None
    assert data.seed is not None
    return facts_corpus(
        read_rows(data.dataset, data.columns),
        order=data.order,
        seed=data.seed,
        held_out_fraction=data.held_out_fraction,
        num_sentences=data.num_sentences,
        contexts="typed",
    )


def read_rows(dataset: str, columns: list[str]) -> list[Row]:
    """Return all facts of a PyKEEN dataset as names, sorted, with the columns in the order asked for."""
    try:
        from pykeen.datasets import dataset_resolver, get_dataset
    except ImportError as error:
        raise ConfigError("data=pykeen needs PyKEEN: install the extra with pip install -e '.[kg]'.") from error
    if dataset.lower() not in {name.lower() for name in dataset_resolver.options}:
        raise ConfigError(f"data.dataset={dataset} is not a dataset of PyKEEN; python -m pykeen lists them.")
    graph = get_dataset(dataset=dataset)
    facts = {
        tuple(str(cell) for cell in fact)
        for part in graph.factory_dict.values()
        for fact in part.label_triples(part.mapped_triples)
    }
    return sorted(tuple(fact[_COLUMN[column]] for column in columns) for fact in facts)
