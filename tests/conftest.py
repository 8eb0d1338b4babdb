"""What every test stands on: one thread, and the database of the companion's blog for those that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.facts import facts_corpus


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: models as small as those of the tests gain nothing from more, and a busy machine stays usable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The facts of https://sheaves.github.io/Database-Tensors/, the blog of arXiv 2502.05076: each predicate is a function.
FACTS = (
    ("born_in", "Astrid", "Singapore"),
    ("born_in", "Bernard", "Singapore"),
    ("born_in", "Colin", "Malaysia"),
    ("lives_in", "Astrid", "Malaysia"),
    ("lives_in", "Bernard", "Singapore"),
    ("lives_in", "Colin", "Malaysia"),
    ("currency", "Malaysia", "Ringgit"),
    ("currency", "Singapore", "Dollar"),
)


@dataclass(frozen=True)
class Database:
    """The facts as (predicate, subject, object), their corpus, and the numbers of its tokens."""

    facts: tuple[tuple[str, str, str], ...]
    corpus: Corpus

    def numbers(self, place: int) -> list[int]:
        """Return the tokens at one place of the facts, each once, in the order of their first appearance."""
        assert self.corpus.tokens is not None
        return [self.corpus.tokens.index(name) for name in dict.fromkeys(fact[place] for fact in self.facts)]


@pytest.fixture
def database() -> Database:
    """The 3 x 5 x 4 database: three predicates, five subjects, four objects, eight facts."""
    corpus = facts_corpus(FACTS, order=3, seed=0, held_out_fraction=0.0, num_sentences=None, contexts="all")
    return Database(FACTS, corpus)
