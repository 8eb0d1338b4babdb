"""The data tensor against a brute-force count over sentences."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.corpus import DataTensor
from tc_sweeps.corpus.tensor import distinct_rows, find_rows

MOUSE, EATS, CHEESE, FISH = range(4)


@st.composite
def padded_corpora(draw, *, shortest=1):
    """Draw (V, sentences of different lengths, the same padded with -1), at least one of the greatest length."""
    V = draw(st.integers(2, 5))
    longest = draw(st.integers(2, 4))
    token = st.integers(0, V - 1)
    sentences = draw(st.lists(st.lists(token, min_size=shortest, max_size=longest), max_size=12))
    sentences.append(draw(st.lists(token, min_size=longest, max_size=longest)))
    padded = torch.tensor([s + [-1] * (longest - len(s)) for s in sentences])
    return V, sentences, padded


@st.composite
def tables(draw, count):
    """Draw `count` tables of rows of one width, each possibly empty."""
    width = draw(st.integers(1, 3))
    row = st.lists(st.integers(-1, 2), min_size=width, max_size=width)
    return [torch.tensor(draw(st.lists(row, max_size=10)), dtype=torch.int64).reshape(-1, width) for _ in range(count)]


def brute_force(sentences, order):
    return Counter(tuple(s[:order]) for s in sentences if len(s) >= order)


def test_the_worked_example_of_the_docstring():
    sentences = torch.tensor([[MOUSE, EATS, CHEESE], [MOUSE, EATS, CHEESE], [MOUSE, EATS, FISH]])
    third = DataTensor.of(sentences, 3, 4)
    assert third.ngrams_Gn.tolist() == [[MOUSE, EATS, CHEESE], [MOUSE, EATS, FISH]]
    assert third.count_G.tolist() == [2, 1]
    assert third.fibers(torch.tensor([[MOUSE, EATS]])).tolist() == [[0, 0, 2, 1]]
    second = DataTensor.of(sentences, 2, 4)
    assert second.ngrams_Gn.tolist() == [[MOUSE, EATS]]
    assert second.count_G.tolist() == [3]
    assert third.entropy() == pytest.approx(-(2 * math.log(2 / 3) + math.log(1 / 3)) / 3, abs=1e-15)


@settings(deadline=None)
@given(padded_corpora())
def test_the_tensor_counts_every_ngram_of_sentences_that_are_long_enough(corpus):
    V, sentences, padded = corpus
    for order in range(2, padded.shape[1] + 1):
        tensor, wanted = DataTensor.of(padded, order, V), brute_force(sentences, order)
        assert tensor.order == order
        counted = dict(zip(map(tuple, tensor.ngrams_Gn.tolist()), tensor.count_G.tolist(), strict=True))
        assert counted == wanted
        assert tensor.ngrams_Gn.tolist() == sorted(map(list, wanted))


@settings(deadline=None)
@given(padded_corpora())
def test_contexts_counts_and_shares_are_those_of_the_fibers(corpus):
    V, sentences, padded = corpus
    for order in range(2, padded.shape[1] + 1):
        tensor, wanted = DataTensor.of(padded, order, V), brute_force(sentences, order)
        per_context = Counter()
        for ngram, count in wanted.items():
            per_context[ngram[:-1]] += count
        assert [tuple(c) for c in tensor.contexts_Cn.tolist()] == sorted(per_context)
        assert tensor.context_count_C.tolist() == [per_context[c] for c in sorted(per_context)]
        assert torch.equal(tensor.contexts_Cn[tensor.context_of_G], tensor.ngrams_Gn[:, :-1])
        shares = [wanted[g] / per_context[g[:-1]] for g in sorted(wanted)]
        assert tensor.empirical_G.dtype == torch.float64
        assert tensor.empirical_G.tolist() == shares


@settings(deadline=None)
@given(padded_corpora(), st.data())
def test_fibers_are_right_for_repeated_and_unseen_contexts_in_any_order(corpus, data):
    V, sentences, padded = corpus
    order = data.draw(st.integers(2, padded.shape[1]))
    context = st.lists(st.integers(0, V - 1), min_size=order - 1, max_size=order - 1)
    asked = data.draw(st.lists(context, max_size=8))
    asked = asked + asked[:2]  # some twice
    contexts = torch.tensor(asked, dtype=torch.int64).reshape(-1, order - 1)
    fibers = DataTensor.of(padded, order, V).fibers(contexts)
    wanted = brute_force(sentences, order)
    assert fibers.shape == (len(asked), V)
    assert fibers.tolist() == [[wanted[(*c, t)] for t in range(V)] for c in asked]


@settings(deadline=None)
@given(padded_corpora())
def test_entropy_is_the_mean_surprise_of_the_last_token_given_its_context(corpus):
    V, sentences, padded = corpus
    for order in range(2, padded.shape[1] + 1):
        long_enough = [tuple(s[:order]) for s in sentences if len(s) >= order]
        ngram_count, context_count = Counter(long_enough), Counter(s[:-1] for s in long_enough)
        surprises = [-math.log(ngram_count[s] / context_count[s[:-1]]) for s in long_enough]
        assert DataTensor.of(padded, order, V).entropy() == pytest.approx(np.mean(surprises), abs=1e-12)


def test_a_tensor_without_sentences_has_zero_fibers():
    empty = DataTensor.of(torch.tensor([[0, 1, -1]]), 3, 2)
    assert len(empty.ngrams_Gn) == len(empty.contexts_Cn) == 0
    assert empty.fibers(torch.tensor([[0, 1], [1, 1]])).tolist() == [[0, 0], [0, 0]]


@settings(deadline=None)
@given(tables(1))
def test_distinct_rows_are_sorted_counted_and_give_back_the_rows(drawn):
    [rows] = drawn
    distinct, place, count = distinct_rows(rows)
    wanted = Counter(map(tuple, rows.tolist()))
    assert [tuple(row) for row in distinct.tolist()] == sorted(wanted)
    assert count.tolist() == [wanted[row] for row in sorted(wanted)]
    assert torch.equal(distinct[place], rows)


@settings(deadline=None)
@given(tables(2), st.randoms(use_true_random=False))
def test_find_rows_finds_exactly_the_rows_that_the_table_holds(drawn, random):
    rows, table = drawn
    table = distinct_rows(table)[0]
    shuffled = list(range(len(table)))
    random.shuffle(shuffled)
    table = table[torch.tensor(shuffled, dtype=torch.int64)]  # the table need not be sorted
    held = table.tolist()
    wanted = [held.index(row) if row in held else -1 for row in rows.tolist()]
    assert find_rows(rows, table).tolist() == wanted


def test_rows_that_are_too_many_to_number_are_sorted_all_the_same() -> None:
    rows = torch.tensor([[2**62, -5, 1], [0, 2**62, 1], [2**62, -5, 1], [0, -(2**62), 3]])
    distinct, place, count = distinct_rows(rows)
    assert distinct.tolist() == [[0, -(2**62), 3], [0, 2**62, 1], [2**62, -5, 1]]
    assert place.tolist() == [2, 1, 2, 0]
    assert count.tolist() == [1, 1, 2]
