"""Random corpora: what each sampler promises, prefixes, seeds, and the corpus that ids stand for."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.config import RandomData, resolve
from tc_sweeps.corpus import build_corpus

# SHA-256 of the default corpus's sentences (int64, little endian), by generator version. If it changes, raise
# `RandomData.generator` in config.py and add a line here: runs made before would else share ids with other data.
GOLDEN = {1: "91ee0cacae9ce87850b881221c5f21cb53f59868ca3576de7a1c9f3ec18afed0"}


def corpus(**data):
    return build_corpus(resolve({"data": {"name": "random", **data}}).data)


def rows(sentences):
    return [tuple(sentence) for sentence in sentences.tolist()]


@st.composite
def settings_of_a_corpus(draw):
    V = draw(st.integers(2, 9))
    order = draw(st.integers(2, 4))
    sampler = draw(st.sampled_from(["functional", "uniform"]))
    room = V ** (order - 1 if sampler == "functional" else order)
    N = draw(st.integers(1, min(room, 200)))
    return {"vocab_size": V, "order": order, "sampler": sampler, "num_sentences": N, "seed": draw(st.integers(0, 99))}


@settings(deadline=None, max_examples=15)
@given(settings_of_a_corpus())
def test_sentences_are_distinct_ngrams_of_the_vocabulary_and_functional_contexts_are_distinct_too(data):
    made = corpus(**data)
    sentences = rows(made.sentences)
    assert made.vocab_size == data["vocab_size"]
    assert made.sentences.shape == (data["num_sentences"], data["order"])
    assert made.sentences.dtype == torch.int64
    assert all(0 <= token < data["vocab_size"] for sentence in sentences for token in sentence)
    assert len(set(sentences)) == len(sentences)
    if data["sampler"] == "functional":
        assert len({sentence[:-1] for sentence in sentences}) == len(sentences)
    assert made.truth is None
    assert made.held_out is None
    assert made.contexts == "all"


@settings(deadline=None, max_examples=15)
@given(settings_of_a_corpus(), st.floats(0, 1))
def test_a_smaller_corpus_is_a_prefix_of_a_larger_one_with_the_same_seed(data, share):
    fewer = max(1, int(share * data["num_sentences"]))
    larger = corpus(**data).sentences
    assert torch.equal(corpus(**data | {"num_sentences": fewer}).sentences, larger[:fewer])


@pytest.mark.parametrize("sampler", ["functional", "uniform"])
def test_all_sentences_of_a_small_world_can_be_drawn(sampler):
    room = {"functional": 16, "uniform": 64}[sampler]
    sentences = rows(corpus(vocab_size=4, sampler=sampler, num_sentences=room).sentences)
    part = {s[:-1] for s in sentences} if sampler == "functional" else set(sentences)
    assert len(part) == room


@pytest.mark.parametrize("sampler", ["functional", "uniform"])
def test_seeds_give_other_sentences(sampler):
    made = [corpus(sampler=sampler, seed=seed).sentences for seed in range(4)]
    shared = [len(set(rows(a)) & set(rows(b))) for i, a in enumerate(made) for b in made[:i]]
    assert max(shared) < 25, "500 of 10^6 n-grams (5 of 100 tokens shared by chance per context at most)"


def test_the_seed_of_the_run_is_the_seed_of_the_data_unless_it_has_its_own():
    by_run = build_corpus(resolve({"seed": 3}).data).sentences
    by_data = build_corpus(resolve({"seed": 0, "data": {"seed": 3}}).data).sentences
    assert torch.equal(by_run, by_data)
    assert not torch.equal(by_run, build_corpus(resolve({}).data).sentences)


def test_the_uniform_sampler_gives_contexts_several_completions():
    sentences = rows(corpus(vocab_size=5, sampler="uniform", num_sentences=100).sentences)
    assert len({sentence[:-1] for sentence in sentences}) <= 25 < len(sentences)


def test_tokens_are_uniform_at_every_place():
    sentences = corpus(vocab_size=10, order=4, num_sentences=1000, seed=5).sentences
    for place in range(4):
        counts = torch.bincount(sentences[:, place], minlength=10).double()
        chi_square = float(((counts - 100) ** 2 / 100).sum())
        assert chi_square < 36, "9 degrees of freedom: 36 is exceeded once in 25,000 places"


def test_the_default_corpus_is_the_one_that_the_ids_of_earlier_runs_stand_for():
    sentences = build_corpus(resolve({}).data).sentences
    digest = hashlib.sha256(sentences.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == GOLDEN[RandomData.generator]
