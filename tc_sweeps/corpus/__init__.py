"""Corpora: the worlds, what is seen, held out and true in them, and the data tensor."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tc_sweeps.config import World
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.grammar import grammar_corpus
from tc_sweeps.corpus.kinships import kinships_corpus
from tc_sweeps.corpus.latent import latent_corpus
from tc_sweeps.corpus.low_rank import low_rank_corpus
from tc_sweeps.corpus.modular import modular_corpus
from tc_sweeps.corpus.noise import noised
from tc_sweeps.corpus.pykeen import pykeen_corpus
from tc_sweeps.corpus.random import random_corpus
from tc_sweeps.corpus.ratings import ratings_corpus
from tc_sweeps.corpus.relations import relations_corpus
from tc_sweeps.corpus.tensor import Consistency, DataTensor, consistency
from tc_sweeps.corpus.text import text_corpus
from tc_sweeps.corpus.triples import triples_corpus

__all__ = ["Consistency", "Corpus", "DataTensor", "build_corpus", "consistency"]

_BUILDERS: dict[str, Callable[[Any], Corpus]] = {
    "random": random_corpus,
    "triples": triples_corpus,
    "kinships": kinships_corpus,
    "pykeen": pykeen_corpus,
    "grammar": grammar_corpus,
    "relations": relations_corpus,
    "latent": latent_corpus,
    "modular": modular_corpus,
    "low_rank": low_rank_corpus,
    "ratings": ratings_corpus,
    "text": text_corpus,
}


def build_corpus(data: World) -> Corpus:
    """Return the corpus of a resolved world config; raises `ConfigError` for input that cannot be used."""
    assert data.seed is not None
    corpus = replace(_BUILDERS[data.name](data), judge_seed=data.seed)
    return noised(corpus, share=data.noise, seed=data.seed)
