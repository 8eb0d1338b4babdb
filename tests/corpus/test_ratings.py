"""The likes of users against a sort of their ratings in Python's own arithmetic, and what is held out of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.artifacts import Counter
from tc_sweeps.config import ConfigError, RatingsData, resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.corpus.randomness import random_normals
from tests.artifacts.brute_force import assert_rows_equal, brute_force
from tests.artifacts.worlds import sharp_model
from tests.corpus.functions import corpus, rows

SMALL = {"users": 6, "items": 9, "rank": 2, "likes": 4, "held_out_fraction": 0.5}


@settings(deadline=None, max_examples=25)
@given(
    users=st.integers(1, 8),
    items=st.integers(4, 12),
    rank=st.integers(1, 5),
    likes=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_a_user_likes_the_items_that_it_rates_highest(users, items, rank, likes, seed):
    chosen = {"users": users, "items": items, "rank": rank, "likes": likes, "seed": seed}
    made = corpus("ratings", **chosen, held_out_fraction=0.5)
    of_users, of_items = (
        random_normals(seed, f"{name} factor", torch.arange(rank * count).view(rank, count)).tolist()
        for name, count in (("user", users), ("item", items))
    )
    wanted = set()
    for user in range(users):
        rated = [sum(of_users[r][user] * of_items[r][item] for r in range(rank)) for item in range(items)]
        best = sorted(range(items), key=lambda item: -rated[item])[:likes]
        wanted |= {(user, users + item) for item in best}
    assert set(rows(made.truth)) == wanted
    assert made.vocab_size == users + items


def test_the_same_number_of_likes_of_each_user_is_held_out_and_the_others_are_trained():
    made = corpus("ratings", **SMALL)
    seen, held, truth = (set(rows(part)) for part in (made.sentences, made.held_out, made.truth))
    assert not seen & held
    assert seen | held == truth
    assert len(made.sentences) == len(seen)
    for part, each in ((seen, 2), (held, 2), (truth, 4)):
        assert [sum(user == u for u, _ in part) for user in range(6)] == [each] * 6


def test_the_world_is_closed_and_its_contexts_are_users():
    made = corpus("ratings", **SMALL)
    assert made.labelled_contexts(2) == "all"
    assert made.contexts == "typed"
    assert made.places(2, "typed")[0].tolist() == list(range(6))
    assert made.tokens[:1] == ("user1",)
    assert made.tokens[5:8] == ("user6", "item1", "item2")


def test_a_larger_fraction_or_number_of_likes_leaves_what_was_chosen():
    less, more = (set(rows(corpus("ratings", **SMALL | {"held_out_fraction": f}).held_out)) for f in (0.25, 0.5))
    assert less < more
    few, many = (set(rows(corpus("ratings", **SMALL | {"likes": likes}).truth)) for likes in (4, 6))
    assert few < many


def test_each_seed_has_a_truth_of_its_own_and_nothing_need_be_held_out():
    assert len({tuple(rows(corpus("ratings", **SMALL, seed=seed).truth)) for seed in range(4)}) == 4
    whole = corpus("ratings", **SMALL | {"held_out_fraction": 0.0})
    assert whole.held_out is None
    assert rows(whole.sentences) == rows(whole.truth)


def test_sizes_are_those_of_the_corpus():
    data = resolve({"data": {"name": "ratings", **SMALL}}).data
    made = build_corpus(data)
    assert data.sizes() == (len(made.sentences), made.vocab_size)
    assert RatingsData().sizes() == (3200, 300)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("shape", ["attention", "cp"])
@pytest.mark.parametrize("contexts", ["typed", "all"])
def test_labels_in_contexts_that_are_partly_seen_equal_brute_force(contexts, shape, noise):
    """All artifacts lie in seen contexts, recall is of the held-out likes there, and everything else is wrong."""
    corpora = [corpus("ratings", **SMALL, seed=seed, noise=noise) for seed in (0, 1)]
    model = sharp_model(corpora, shape, seed=5)
    counter = Counter(corpora, order=2, threshold=0.125, contexts=contexts, memory_mib=256, device=torch.device("cpu"))
    for member, row in enumerate(counter.evaluate(model).rows):
        made = corpora[member]
        assert_rows_equal(row, brute_force(model, member, made, threshold=0.125, order=2, contexts=contexts))
        assert row["generalization/count"] + row["hallucination/count"] == row["artifacts/count"] > 0
        if contexts == "typed":
            assert row["artifacts/unseen"] == 0
            assert row["hallucination/per_context"] is None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"order": 3}, "data.order=3 must be 2: a sentence of data=ratings is a user and an item."),
        ({"users": 0}, "data.users=0 must be at least 1."),
        ({"rank": 0}, "data.rank=0 must be at least 1."),
        ({"likes": 101}, "data.likes=101 is more than data.items=100; lower it."),
        (
            {"held_out_fraction": 0.01},
            "data.held_out_fraction=0.01 of data.likes=20 holds out 0 likes of each user: choose one that holds out "
            "some and leaves some.",
        ),
        ({"likes": 1, "held_out_fraction": 0.9}, "data.held_out_fraction=0.9 of data.likes=1 holds out 1 likes of"),
    ],
    ids=str,
)
def test_what_no_such_world_can_be_is_refused(wrong, sentence):
    with pytest.raises(ConfigError) as error:
        resolve({"data": {"name": "ratings", **wrong}})
    assert str(error.value).startswith(sentence)
