"""From facts to a corpus: what is held out, what is trained on, what is true, what is in the vocabulary."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError
from tc_sweeps.corpus.facts import facts_corpus

ROWS = [(f"s{i % 7}", f"o{i % 11}", f"r{i % 5}") for i in range(90)]  # 77 contexts, 13 of them with two facts


def corpus(rows=ROWS, *, order=3, seed=0, held_out_fraction=0.0, num_sentences=None):
    return facts_corpus(
        rows,
        order=order,
        seed=seed,
        held_out_fraction=held_out_fraction,
        num_sentences=num_sentences,
        contexts="typed",
    )


def names(made, ngrams):
    return [] if ngrams is None else [tuple(made.tokens[token] for token in row) for row in ngrams.tolist()]


@st.composite
def lists_of_facts(draw):
    place = st.sampled_from("abcde")
    return draw(st.lists(st.tuples(place, place, place), min_size=1, max_size=25))


@settings(deadline=None)
@given(lists_of_facts(), st.floats(0, 0.99), st.integers(0, 99))
def test_contexts_are_held_out_whole_and_truth_is_training_plus_held_out(rows, fraction, seed):
    contexts = {row[:2] for row in rows}
    assume(fraction == 0 or 0 < round(fraction * len(contexts)) < len(contexts))
    made = corpus(rows, held_out_fraction=fraction, seed=seed)
    trained, held_out, truth = (names(made, part) for part in (made.sentences, made.held_out, made.truth))
    hidden = {fact[:2] for fact in held_out}
    assert len(hidden) == round(fraction * len(contexts)), "a share of the distinct contexts"
    assert hidden.isdisjoint(fact[:2] for fact in trained)
    assert Counter(trained) == Counter(row for row in rows if row[:2] not in hidden), "repeated facts stay repeated"
    assert sorted(held_out) == sorted({row for row in rows if row[:2] in hidden})
    assert sorted(truth) == sorted(set(rows)), "W: every fact once"


@settings(deadline=None)
@given(lists_of_facts())
def test_without_held_out_facts_the_sentences_are_the_rows_in_their_order(rows):
    made = corpus(rows)
    assert made.held_out is None
    assert names(made, made.sentences) == rows


@settings(deadline=None)
@given(lists_of_facts(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_a_larger_fraction_holds_out_a_superset(rows, one, other, seed):
    small, large = sorted((one, other))
    count = len({row[:2] for row in rows})
    assume(all(fraction == 0 or 0 < round(fraction * count) < count for fraction in (small, large)))
    fewer, more = (corpus(rows, held_out_fraction=f, seed=seed) for f in (small, large))
    assert set(names(fewer, fewer.held_out)) <= set(names(more, more.held_out))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_a_larger_number_of_sentences_trains_on_a_superset_and_leaves_the_held_out_facts_alone(one, other, seed):
    fewer, more = (corpus(held_out_fraction=0.25, num_sentences=number, seed=seed) for number in sorted((one, other)))
    assert len(fewer.sentences) == min(one, other)
    assert names(fewer, fewer.sentences) == names(more, more.sentences)[: len(fewer.sentences)]
    assert names(fewer, fewer.held_out) == names(more, more.held_out)
    assert set(names(fewer, fewer.truth)) == set(names(fewer, fewer.sentences)) | set(names(fewer, fewer.held_out))


def test_all_sentences_that_are_not_held_out_can_be_asked_for():
    whole = corpus(held_out_fraction=0.25)
    asked = corpus(held_out_fraction=0.25, num_sentences=len(whole.sentences))
    assert Counter(names(asked, asked.sentences)) == Counter(names(whole, whole.sentences))


def test_tokens_of_held_out_facts_are_in_the_vocabulary():
    rows = [(f"s{i}", f"o{i}", f"r{i}") for i in range(10)]  # every token occurs in one fact only
    made = corpus(rows, held_out_fraction=0.5)
    assert made.vocab_size == len(made.tokens) == 30
    assert len(made.held_out) == len(made.sentences) == 5
    trained = set(made.sentences.flatten().tolist())
    assert trained.isdisjoint(made.held_out.flatten().tolist())


def test_tokens_are_numbered_column_by_column_in_the_order_of_their_first_appearance():
    made = corpus([("b", "a", "x"), ("c", "b", "y"), ("a", "d", "x")])
    assert made.tokens == ("b", "c", "a", "d", "x", "y")
    assert made.sentences.tolist() == [[0, 2, 4], [1, 0, 5], [2, 3, 4]]


def test_a_shorter_order_keeps_the_first_columns_and_only_their_tokens():
    made = corpus([("a", "b", "x"), ("a", "b", "y"), ("b", "c", "x")], order=2)
    assert made.tokens == ("a", "b", "c")
    assert made.sentences.tolist() == [[0, 1], [0, 1], [1, 2]]


def test_what_is_held_out_and_what_is_trained_on_depend_on_the_seed():
    made = [corpus(held_out_fraction=0.3, num_sentences=20, seed=seed) for seed in range(5)]
    assert len({tuple(names(m, m.held_out)) for m in made}) == 5
    assert len({tuple(names(m, m.sentences)) for m in made}) == 5


def test_more_sentences_than_there_are_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"data\.num_sentences=100 is more than the 90 sentences"):
        corpus(num_sentences=100)


def test_holding_out_every_context_is_refused():
    with pytest.raises(ConfigError, match=r"data\.held_out_fraction=0\.9 leaves no sentence to train on"):
        corpus([("a", "b", "c"), ("b", "c", "d")], held_out_fraction=0.9)


def test_a_fraction_that_holds_out_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data\.held_out_fraction=0\.1 of 1 contexts rounds to none"):
        corpus([("a", "b", "c")], held_out_fraction=0.1)
