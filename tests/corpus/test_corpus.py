"""What a corpus says about n-grams of an order: truncation, held-out n-grams, labels and the contexts considered."""

from __future__ import annotations

import itertools

import pytest
import torch

from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.corpus import truncated

SENTENCES = torch.tensor([[0, 1, 2], [0, 1, 2], [3, 1, -1], [4, 0, 2]])
HELD_OUT = torch.tensor([[0, 2, 1], [3, 1, 4], [0, 2, 3], [4, -1, -1]])
TRUTH = torch.cat([SENTENCES, HELD_OUT])


@pytest.fixture
def corpus():
    return Corpus(vocab_size=6, sentences=SENTENCES, held_out=HELD_OUT, truth=TRUTH)


def test_truncated_ngrams_are_distinct_and_long_enough():
    assert truncated(HELD_OUT, 3).tolist() == [[0, 2, 1], [0, 2, 3], [3, 1, 4]]
    assert truncated(HELD_OUT, 2).tolist() == [[0, 2], [3, 1]]


def test_a_held_out_ngram_is_held_out_at_its_own_order(corpus):
    assert corpus.held_out_ngrams(3).tolist() == [[0, 2, 1], [0, 2, 3], [3, 1, 4]]


def test_a_truncated_held_out_ngram_that_is_in_the_data_is_no_longer_held_out(corpus):
    assert corpus.held_out_ngrams(2).tolist() == [[0, 2]], "(3, 1) begins a training sentence"


def test_the_truth_is_truncated_to_distinct_ngrams(corpus):
    assert corpus.truth_ngrams(3).tolist() == [[0, 1, 2], [0, 2, 1], [0, 2, 3], [3, 1, 4], [4, 0, 2]]
    assert corpus.truth_ngrams(2).tolist() == [[0, 1], [0, 2], [3, 1], [4, 0]]


def test_labelled_contexts_are_by_default_those_of_the_truth(corpus):
    assert corpus.labelled_contexts(3).tolist() == [[0, 1], [0, 2], [3, 1], [4, 0]]
    assert corpus.labelled_contexts(2).tolist() == [[0], [3], [4]]


def test_in_a_closed_world_all_contexts_are_labelled():
    closed = Corpus(vocab_size=6, sentences=SENTENCES, truth=TRUTH, labelled="all")
    assert closed.labelled_contexts(3) == "all"
    assert closed.labelled_contexts(2) == "all"


def test_an_explicit_list_of_labelled_contexts_is_truncated_and_distinct():
    listed = torch.tensor([[5, 5], [0, 1], [5, 0], [0, 2], [3, 1], [4, 0]])
    explicit = Corpus(vocab_size=6, sentences=SENTENCES, truth=TRUTH, labelled=listed)
    assert explicit.labelled_contexts(3).tolist() == [[0, 1], [0, 2], [3, 1], [4, 0], [5, 0], [5, 5]]
    assert explicit.labelled_contexts(2).tolist() == [[0], [3], [4], [5]]


@pytest.mark.parametrize("labelled", ["truth", "all"])
def test_a_world_without_a_truth_labels_nothing(labelled):
    world = Corpus(vocab_size=6, sentences=SENTENCES, labelled=labelled)
    assert world.labelled_contexts(3) is None
    assert world.truth_ngrams(3) is None
    assert world.held_out_ngrams(3) is None


def test_all_places_hold_the_whole_vocabulary(corpus):
    assert [place.tolist() for place in corpus.places(3, "all")] == [[0, 1, 2, 3, 4, 5]] * 2
    assert [place.tolist() for place in corpus.places(2, "all")] == [[0, 1, 2, 3, 4, 5]]


def test_typed_places_hold_the_tokens_that_data_or_truth_have_there(corpus):
    assert [place.tolist() for place in corpus.places(3, "typed")] == [[0, 3, 4], [0, 1, 2]]
    only_data = Corpus(vocab_size=6, sentences=SENTENCES)
    assert [place.tolist() for place in only_data.places(3, "typed")] == [[0, 4], [0, 1]], "(3, 1) is no trigram"
    assert [place.tolist() for place in only_data.places(2, "typed")] == [[0, 3, 4]]


def test_typed_contexts_contain_every_context_of_data_and_truth(corpus):
    considered = set(itertools.product(*(place.tolist() for place in corpus.places(3, "typed"))))
    assert {tuple(c) for c in corpus.tensor(3).contexts_Cn.tolist()} <= considered
    assert {tuple(c[:2]) for c in corpus.truth_ngrams(3).tolist()} <= considered


def test_the_order_of_a_corpus_is_that_of_its_longest_sentence(corpus):
    assert corpus.order == 3
    assert [corpus.tensor(order).order for order in (2, 3)] == [2, 3]
    assert corpus.tensor(2).count_G.tolist() == [2, 1, 1]
    assert corpus.tensor(3).count_G.tolist() == [2, 1]
