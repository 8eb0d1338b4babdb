"""Families: which relation is true of whom, what follows from training, and the paper's example (4) word for word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError, resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.corpus.relations import closure


def relations(**data):
    return build_corpus(resolve({"data": {"name": "relations", **data}}).data)


def facts(corpus, ngrams):
    return [] if ngrams is None else [tuple(corpus.tokens[token] for token in row) for row in ngrams.tolist()]


def said(corpus, ngrams):
    return [" ".join(fact) for fact in facts(corpus, ngrams)]


SMALLEST = {"families": 2, "parents": 0, "children": 2, "seed": 0}


@st.composite
def families(draw):
    parents, children = draw(st.integers(0, 2)), draw(st.integers(1, 4))
    assume(parents + children > 1)
    size = parents + children
    most = (size - 1) / size
    data = {"families": draw(st.integers(2, 4)), "parents": parents, "children": children}
    within = data["families"] * size * (size - 1)
    held_out = draw(st.integers(0, int(within * most + 1e-9))) / within
    return data | {"seed": draw(st.integers(0, 99)), "held_out_fraction": held_out}


def place_of(data, corpus):
    """Return the family of each person, and whether they are a child in it, from the order of the names alone."""
    size = data["parents"] + data["children"]
    people = corpus.tokens[: data["families"] * size]
    return {name: (place // size, place % size < data["children"]) for place, name in enumerate(people)}


def follows(known):
    """Say the rules one by one, as sentences about families, and apply them until nothing new follows."""
    known = set(known)
    while True:
        new = set()
        for a, b, relation in known:
            if relation in ("siblings", "spouses", "friends", "unrelated"):
                new.add((b, a, relation))
            if relation == "parent":
                new.add((b, a, "child"))
            if relation == "child":
                new.add((b, a, "parent"))
        for (a, b, one), (c, d, two) in itertools.product(known, repeat=2):
            if one == two == "siblings" and b == c and a != d:
                new.add((a, d, "siblings"))
            if one == "parent" and two == "siblings" and b == c and a != d:
                new.add((a, d, "parent"))
            if one == two == "parent" and b == d and a != c:
                new.add((a, c, "spouses"))
        if new <= known:
            return known
        known |= new


def test_the_smallest_is_the_papers_example():
    corpus = relations(**SMALLEST)
    assert corpus.tokens == ("Jack", "Jill", "Jane", "John", "siblings", "friends", "unrelated")
    assert said(corpus, corpus.sentences) == ["Jack Jill siblings", "Jane John siblings"]
    assert sorted(said(corpus, corpus.held_out)) == ["Jill Jack siblings", "John Jane siblings"]
    right = said(corpus, corpus.truth)
    assert {"Jack John friends", "John Jack friends", "Jane Jill unrelated", "Jill Jane unrelated"} <= set(right)
    assert len(right) == 4 * 3


def test_the_papers_contradictions_can_be_added_one_by_one():
    one, both = (relations(**SMALLEST, contradictions=share) for share in (0.5, 1.0))
    assert said(one, one.sentences) == ["Jack Jill siblings", "Jane John siblings", "Jack John friends"]
    assert said(both, both.sentences) == [*said(one, one.sentences), "Jane Jill unrelated"]
    assert set(said(both, both.held_out)) == {"Jill Jack siblings", "John Jane siblings"}, "licensed in any case"


@settings(deadline=None, max_examples=40)
@given(families())
def test_every_pair_has_one_relation_that_its_families_say(data):
    corpus = relations(**data)
    where = place_of(data, corpus)
    true = {(a, b): relation for a, b, relation in facts(corpus, corpus.truth)}
    assert len(corpus.truth) == len(true)
    assert set(true) == set(itertools.permutations(where, 2))
    roles = {(True, True): "siblings", (True, False): "child", (False, True): "parent", (False, False): "spouses"}
    for (a, b), relation in true.items():
        (family, child), (other_family, other_child) = where[a], where[b]
        if family == other_family:
            assert relation == roles[child, other_child]
        else:
            assert relation in ("friends", "unrelated")
            assert true[b, a] == relation


@settings(deadline=None, max_examples=25)
@given(families(), st.sampled_from([0.0, 0.3, 1.0]))
def test_what_is_held_out_is_what_follows_from_training(data, share):
    corpus = relations(**data, contradictions=share)
    trained = set(facts(corpus, corpus.sentences))
    assert len(trained) == len(corpus.sentences)
    held_out = set(facts(corpus, corpus.held_out))
    assert trained | held_out <= set(facts(corpus, corpus.truth))
    where = place_of(data, corpus)
    of_kin = {fact for fact in trained if where[fact[0]][0] == where[fact[1]][0]}
    assert held_out == follows(of_kin) - of_kin, "contradictions change nothing of it"
    kin = {fact for fact in facts(corpus, corpus.truth) if where[fact[0]][0] == where[fact[1]][0]}
    assert kin <= trained | held_out, "every fact within a family follows"
    if share == 0:
        assert trained <= kin
        assert len(held_out) == round(data["held_out_fraction"] * len(kin))


@settings(deadline=None, max_examples=30)
@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["siblings", "parent", "child"]))))
def test_the_closure_is_that_of_the_rules_also_of_facts_that_no_family_has(found):
    apart = {fact for fact in found if fact[0] != fact[1]}
    assert closure(apart) == follows(apart)


@settings(deadline=None, max_examples=25)
@given(families(), st.floats(0.3, 1), st.floats(0.3, 1))
def test_fewer_contradictions_are_the_beginning_of_more_and_are_true_of_silent_pairs(data, one, other):
    plain = relations(**data)
    fewer, more = (relations(**data, contradictions=share) for share in sorted((one, other)))
    base, some, many = (facts(corpus, corpus.sentences) for corpus in (plain, fewer, more))
    assert some[: len(base)] == base
    assert many[: len(some)] == some
    where = place_of(data, plain)
    subjects, objects = {a for a, _, _ in base}, {b for _, b, _ in base}
    silent = {(a, b) for a in subjects for b in objects if where[a][0] != where[b][0]}
    added = many[len(base) :]
    assert len(added) == round(max(one, other) * len(silent))
    assert {(a, b) for a, b, _ in added} <= silent
    assert set(added) <= set(facts(plain, plain.truth))


@pytest.mark.parametrize("share", [0.1, 0.35, 0.8])
def test_contradictions_leave_what_is_held_out_alone(share):
    """Both directions of a pair are trained, so that recall is asked of the same facts whatever their number."""
    without, some = relations(), relations(contradictions=share)
    extra = set(said(some, some.held_out)) ^ set(said(without, without.held_out))
    assert len(extra) <= 1, "the last pair may be trained in one direction only"


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 0.8), st.floats(0.01, 0.8), st.integers(0, 99))
def test_a_larger_fraction_holds_out_a_superset(one, other, seed):
    fewer, more = (relations(held_out_fraction=fraction, seed=seed) for fraction in sorted((one, other)))
    assert set(said(fewer, fewer.held_out)) <= set(said(more, more.held_out))
    assert said(fewer, fewer.truth) == said(more, more.truth), "what is right does not change"


def test_a_share_of_nobody_is_refused():
    with pytest.raises(ConfigError, match=r"data\.contradictions=0\.1 of 2 pairs rounds to none; raise it or"):
        relations(**SMALLEST, contradictions=0.1)


def test_other_seeds_hold_out_and_befriend_others():
    made = [relations(seed=seed) for seed in range(5)]
    assert len({tuple(said(corpus, corpus.truth)) for corpus in made}) == 5
    assert len({tuple(said(corpus, corpus.held_out)) for corpus in made}) == 5


def test_the_world_is_small_by_default_and_has_words_that_are_not_trained():
    corpus = relations()
    assert corpus.vocab_size <= 60
    assert 100 <= len(corpus.sentences) <= 400
    assert corpus.tokens[-6:] == ("siblings", "parent", "child", "spouses", "friends", "unrelated")
    assert {"friends", "unrelated"}.isdisjoint(relation for _, _, relation in facts(corpus, corpus.sentences))
    assert len(set(corpus.tokens)) == corpus.vocab_size
    assert corpus.labelled == "all"


@pytest.mark.parametrize("seed", range(5))
def test_everybody_is_a_subject_and_an_object_of_training(seed):
    corpus = relations(seed=seed)
    for place in (0, 1):
        assert corpus.sentences[:, place].unique().tolist() == list(range(corpus.vocab_size - 6))


@settings(deadline=None, max_examples=30)
@given(families(), st.sampled_from([0.0, 1.0]))
def test_its_sizes_are_known_without_it(data, share):
    config = resolve({"data": {"name": "relations", **data, "contradictions": share}})
    corpus = build_corpus(config.data)
    sentences, tokens = config.data.sizes()
    assert tokens == corpus.vocab_size
    assert sentences == len(corpus.sentences) if share == 0 else sentences >= len(corpus.sentences)
