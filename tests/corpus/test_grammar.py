"""The grammar: which sentences are right, which are trained, and the paper's example (3) word for word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.corpus import build_corpus


def grammar(**data):
    return build_corpus(resolve({"data": {"name": "grammar", **data}}).data)


def said(corpus, ngrams):
    return [] if ngrams is None else [" ".join(corpus.tokens[token] for token in row) for row in ngrams.tolist()]


sizes = st.fixed_dictionaries(
    {
        "subjects": st.integers(1, 15),
        "verbs": st.integers(1, 10),
        "objects": st.integers(1, 20),
        "seed": st.integers(0, 99),
    }
)


def test_the_smallest_is_the_papers_example():
    corpus = grammar(subjects=1, verbs=1, objects=1)
    assert corpus.tokens == ("mouse", "mice", "eats", "eat", "cheese")
    assert said(corpus, corpus.sentences) == ["mouse eats cheese", "mice eat cheese"]
    assert sorted(said(corpus, corpus.held_out)) == ["mice eats cheese", "mouse eat cheese"]
    assert len(corpus.truth) == 4


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_what_is_right_depends_on_the_lemmas_alone(data):
    corpus = grammar(**data)
    S, F, names = data["subjects"], data["verbs"], corpus.tokens
    subjects, verbs, objects = names[: 2 * S], names[2 * S : 2 * (S + F)], names[2 * (S + F) :]
    assert (len(set(names)), len(objects)) == (corpus.vocab_size, data["objects"])
    right = {tuple(sentence.split()) for sentence in said(corpus, corpus.truth)}
    assert len(right) == len(corpus.truth) == 4 * S * F
    answer = {(subject, verb): thing for subject, verb, thing in right}
    assert set(answer) == set(itertools.product(subjects, verbs)), "every subject with every verb, once"
    for lemma, other in itertools.product(range(S), range(F)):
        forms = itertools.product(subjects[2 * lemma : 2 * lemma + 2], verbs[2 * other : 2 * other + 2])
        [thing] = {answer[form] for form in forms}
        assert thing in objects


@settings(deadline=None, max_examples=30)
@given(sizes, st.floats(0, 0.9), st.data())
def test_training_agrees_in_number_and_all_else_that_is_right_is_held_out(data, fraction, more):
    agreeing = 2 * data["subjects"] * data["verbs"]
    if fraction and not 0 < round(fraction * agreeing) < agreeing:
        fraction = 0.0
    left = agreeing - round(fraction * agreeing)
    wanted = more.draw(st.none() | st.integers(1, left))
    corpus = grammar(**data, held_out_fraction=fraction, num_sentences=wanted)
    trained, held_out = set(said(corpus, corpus.sentences)), set(said(corpus, corpus.held_out))
    assert len(trained) == len(corpus.sentences) == (left if wanted is None else wanted)
    singular = {name: place % 2 for place, name in enumerate(corpus.tokens)}
    assert all(singular[subject] == singular[verb] for subject, verb, _ in map(str.split, trained))
    whole = grammar(**data, held_out_fraction=fraction)  # what num_sentences leaves out is not held out
    assert trained <= set(said(whole, whole.sentences))
    assert held_out == set(said(whole, whole.truth)) - set(said(whole, whole.sentences))
    assert corpus.labelled == "all"


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.integers(0, 99))
def test_a_larger_fraction_holds_out_a_superset(one, other, seed):
    fewer, more = (grammar(held_out_fraction=fraction, seed=seed) for fraction in sorted((one, other)))
    assert set(said(fewer, fewer.held_out)) <= set(said(more, more.held_out))
    assert set(said(fewer, fewer.truth)) == set(said(more, more.truth)), "what is right does not change"


def test_other_seeds_draw_other_objects():
    assert len({tuple(said(corpus, corpus.truth)) for corpus in (grammar(seed=seed) for seed in range(5))}) == 5


def test_the_world_is_small_by_default():
    corpus = grammar()
    assert corpus.vocab_size <= 60
    assert 100 <= len(corpus.sentences) <= 400
    assert not any(name[-1].isdigit() for name in corpus.tokens), "real words only"


def test_a_larger_world_makes_words_up():
    corpus = grammar(subjects=13, verbs=9, objects=17)
    assert {"subject13", "subjects13", "verbs9", "verb9", "object17"} <= set(corpus.tokens)
    assert corpus.tokens[24:26] == ("subject13", "subjects13")


@settings(deadline=None, max_examples=30)
@given(sizes, st.floats(0, 0.8))
def test_its_sizes_are_known_without_it(data, fraction):
    agreeing = 2 * data["subjects"] * data["verbs"]
    assume(fraction == 0 or 0 < round(fraction * agreeing) < agreeing)
    config = resolve({"data": {"name": "grammar", **data, "held_out_fraction": fraction}})
    corpus = build_corpus(config.data)
    assert config.data.sizes() == (len(corpus.sentences), corpus.vocab_size)


def test_a_fraction_that_holds_out_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data\.held_out_fraction=0\.1 of 2 contexts rounds to none"):
        grammar(subjects=1, verbs=1, held_out_fraction=0.1)
