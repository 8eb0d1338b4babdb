"""Latent classes: the truth is a function of hidden classes, and its unfoldings have the ranks that are said."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError
from tests.corpus.functions import assert_a_function_of_all_contexts, assert_nested, assert_split, corpus, rows


@st.composite
def worlds(draw):
    order = draw(st.integers(2, 4))
    V = draw(st.integers(2, {2: 30, 3: 10, 4: 5}[order]))
    fraction = draw(st.sampled_from([0.0, 0.3, 0.5]))
    contexts = V ** (order - 1)
    assume(fraction == 0 or 0 < round(fraction * contexts) < contexts)
    sentences = draw(st.none() | st.integers(1, contexts - round(fraction * contexts)))
    return {
        "vocab_size": V,
        "order": order,
        "classes": draw(st.integers(1, V)),
        "held_out_fraction": fraction,
        "num_sentences": sentences,
        "seed": draw(st.integers(0, 99)),
    }


def groups_of_alike(made, place):
    """Return the tokens in groups, put together where no context tells them apart at a place."""
    following = {}
    for ngram in rows(made.truth):
        following.setdefault(ngram[place], {})[ngram[:place] + ngram[place + 1 : -1]] = ngram[-1]
    groups = {}
    for token, answers in following.items():
        groups.setdefault(tuple(sorted(answers.items())), []).append(token)
    return list(groups.values())


@settings(deadline=None, max_examples=40)
@given(worlds())
def test_completions_depend_on_at_most_as_many_kinds_of_token_as_there_are_classes(data):
    made = corpus("latent", **data)
    assert_a_function_of_all_contexts(made, data["order"])
    assert_split(made, fraction=data["held_out_fraction"], sentences=data["num_sentences"])
    for place in range(data["order"] - 1):
        assert len(groups_of_alike(made, place)) <= data["classes"]


@settings(deadline=None, max_examples=40)
@given(worlds())
def test_the_unfoldings_have_the_ranks_that_are_said(data):
    made = corpus("latent", **data)
    n, V, classes = data["order"], data["vocab_size"], data["classes"]
    tensor = torch.zeros([V] * n, dtype=torch.float64)
    tensor[tuple(made.truth.T)] = 1.0
    for place in range(n):
        rank = int(torch.linalg.matrix_rank(tensor.movedim(place, 0).reshape(V, -1)))
        if place < n - 1:
            assert rank <= classes
        else:
            assert rank == len({ngram[-1] for ngram in rows(made.truth)}) <= min(V, classes ** (n - 1))


@pytest.mark.parametrize("classes", [3, 8])
def test_classes_are_of_one_size_up_to_one_and_the_same_at_every_place(classes):
    made = corpus("latent", vocab_size=20, classes=classes, num_sentences=None)
    first, second = (groups_of_alike(made, place) for place in (0, 1))  # with so many tuples no two classes are alike
    sizes = [len(group) for group in first]
    assert len(sizes) == classes
    assert max(sizes) - min(sizes) <= 1
    assert sorted(map(sorted, first)) == sorted(map(sorted, second))


def test_the_default_world_shows_the_pairs_of_classes_a_few_times_each_and_holds_contexts_out():
    made = corpus("latent")
    assert (made.vocab_size, len(made.sentences), len(made.held_out), len(made.truth)) == (64, 400, 1024, 4096)
    kind = {token: number for number, group in enumerate(groups_of_alike(made, 0)) for token in group}
    shown = Counter((kind[a], kind[b]) for a, b, _ in rows(made.sentences))
    assert len(shown) >= 60, "400 draws from 64 pairs leave hardly one out"
    assert math.isclose(sum(shown.values()) / 64, 6.25)


def test_each_number_of_classes_and_each_seed_has_a_truth_of_its_own():
    truths = [corpus("latent", vocab_size=12, num_sentences=None, seed=seed, classes=4).truth for seed in range(4)]
    truths += [corpus("latent", vocab_size=12, num_sentences=None, classes=classes).truth for classes in (2, 12)]
    assert len({tuple(rows(truth)) for truth in truths}) == 6


def test_neither_more_sentences_nor_a_larger_fraction_changes_what_was_chosen_before():
    assert_nested("latent", "num_sentences", 100, 300)
    assert_nested("latent", "held_out_fraction", 0.1, 0.4)


def test_a_fraction_that_holds_out_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data\.held_out_fraction=0\.01 of 16 contexts rounds to none"):
        corpus("latent", vocab_size=4, classes=2, num_sentences=None, held_out_fraction=0.01)
