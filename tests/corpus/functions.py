"""What worlds that are known whole have in common: W is a function, and whole contexts of it are held out."""

from __future__ import annotations

import itertools
from typing import Any

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus

Ngram = tuple[int, ...]


def corpus(name: str, **data: Any) -> Corpus:
    return build_corpus(resolve({"data": {"name": name, **data}}).data)


def rows(ngrams: Any) -> list[Ngram]:
    return [] if ngrams is None else [tuple(row) for row in ngrams.tolist()]


def assert_a_function_of_all_contexts(made: Corpus, order: int) -> None:
    contexts = [ngram[:-1] for ngram in rows(made.truth)]
    assert sorted(contexts) == sorted(itertools.product(range(made.vocab_size), repeat=order - 1))
    assert all(0 <= ngram[-1] < made.vocab_size for ngram in rows(made.truth))
    assert made.labelled == "truth", "every context is in W"
    assert made.contexts == "all"


def assert_split(made: Corpus, *, fraction: float, sentences: int | None) -> None:
    """Training and held-out n-grams are disjoint parts of W, of the sizes asked for."""
    truth, trained, held_out = (rows(part) for part in (made.truth, made.sentences, made.held_out))
    assert len(held_out) == len(set(held_out)) == round(fraction * len(truth))
    assert len(trained) == len(set(trained)) == (len(truth) - len(held_out) if sentences is None else sentences)
    assert set(trained) | set(held_out) <= set(truth)
    assert set(trained).isdisjoint(held_out)


def assert_nested(name: str, key: str, small: Any, large: Any, **data: Any) -> None:
    """A larger number of sentences trains on a longer prefix; a larger fraction holds out a superset."""
    fewer, more = corpus(name, **data, **{key: small}), corpus(name, **data, **{key: large})
    assert rows(fewer.truth) == rows(more.truth)
    if key == "num_sentences":
        assert rows(fewer.sentences) == rows(more.sentences)[:small]
        assert rows(fewer.held_out) == rows(more.held_out)
    else:
        assert set(rows(fewer.held_out)) < set(rows(more.held_out))
