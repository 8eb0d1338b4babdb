"""The most probable completions of a CP tensor against the sum over its components, entry by entry."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.config import LowRankData
from tc_sweeps.corpus import low_rank
from tests.corpus.functions import assert_a_function_of_all_contexts, assert_nested, assert_split, corpus, rows


def most_probable(context, *, vocab_size, rank, seed):
    """Return the token with the greatest sum_r A_ar B_br C_cr, in Python's own arithmetic."""
    data = LowRankData(vocab_size=vocab_size, rank=rank, seed=seed)
    factors = [low_rank._factor(data, place).tolist() for place in range(len(context) + 1)]
    logits = []
    for token in range(vocab_size):
        logit = 0.0
        for r in range(rank):
            product = factors[-1][token][r]
            for place, at in enumerate(context):
                product *= factors[place][at][r]
            logit += product
        logits.append(logit)
    return logits.index(max(logits))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 4), st.integers(1, 5), st.integers(0, 99), st.integers(2, 6))
def test_the_truth_is_the_greatest_entry_of_every_fiber(order, rank, seed, V):
    made = corpus(
        "low_rank", num_sentences=None, order=order, vocab_size=V, rank=rank, seed=seed, held_out_fraction=0.5
    )
    assert_a_function_of_all_contexts(made, order)
    assert_split(made, fraction=0.5, sentences=None)
    assert set(rows(made.truth)) == {
        (*context, most_probable(context, vocab_size=V, rank=rank, seed=seed))
        for context in itertools.product(range(V), repeat=order - 1)
    }


def test_rank_one_knows_two_completions_and_more_components_know_more():
    completions = [len({c for *_, c in rows(corpus("low_rank", rank=rank).truth)}) for rank in (1, 2, 8)]
    assert completions[0] == 2, "the greatest and the least entry of the last factor"
    assert completions[0] < completions[1] < completions[2]


def test_a_smaller_rank_takes_the_first_components_of_a_larger_one():
    small, large = (low_rank._factor(LowRankData(rank=rank, seed=0), 1) for rank in (2, 5))
    assert (large[:, :2] == small).all()
    assert not (low_rank._factor(LowRankData(rank=2, seed=0), 0) == small).any(), "each place has its own"


@pytest.mark.parametrize("entries", [1, 1000])
def test_the_truth_does_not_depend_on_how_many_logits_are_held_at_once(monkeypatch, entries):
    whole = rows(corpus("low_rank", num_sentences=None, vocab_size=16).truth)
    monkeypatch.setattr(low_rank, "_ENTRIES", entries)
    assert rows(corpus("low_rank", num_sentences=None, vocab_size=16).truth) == whole


def test_each_seed_has_a_truth_of_its_own():
    assert (
        len({tuple(rows(corpus("low_rank", num_sentences=None, vocab_size=16, seed=seed).truth)) for seed in range(4)})
        == 4
    )


def test_neither_more_sentences_nor_a_larger_fraction_changes_what_was_chosen_before():
    assert_nested("low_rank", "num_sentences", 100, 1000)
    assert_nested("low_rank", "held_out_fraction", 0.1, 0.5)
