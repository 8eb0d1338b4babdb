"""Modular addition against the sums, one by one."""

from __future__ import annotations

import itertools

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.corpus.functions import assert_a_function_of_all_contexts, assert_nested, assert_split, corpus, rows


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 4), st.integers(2, 13), st.sampled_from([0.0, 0.3, 0.5]), st.integers(0, 99))
def test_the_truth_is_every_sum(order, p, fraction, seed):
    assume(p ** (order - 1) <= 500)
    made = corpus("modular", order=order, modulus=p, held_out_fraction=fraction, seed=seed)
    assert made.vocab_size == p
    assert_a_function_of_all_contexts(made, order)
    assert_split(made, fraction=fraction, sentences=None)
    sums = set()
    for terms in itertools.product(range(p), repeat=order - 1):
        total = 0
        for term in terms:
            total += term
            total -= p if total >= p else 0
        sums.add((*terms, total))
    assert set(rows(made.truth)) == sums


def test_half_of_the_sums_are_held_out_by_default():
    made = corpus("modular")
    assert (made.vocab_size, len(made.sentences), len(made.held_out)) == (59, 1741, 1740)


def test_the_seed_decides_what_is_held_out_and_nothing_else():
    made = [corpus("modular", modulus=11, seed=seed) for seed in range(4)]
    assert len({tuple(rows(m.held_out)) for m in made}) == 4
    assert len({tuple(rows(m.truth)) for m in made}) == 1


def test_neither_more_sentences_nor_a_larger_fraction_changes_what_was_chosen_before():
    assert_nested("modular", "num_sentences", 100, 1000)
    assert_nested("modular", "held_out_fraction", 0.3, 0.5)
