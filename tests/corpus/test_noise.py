"""Noise: how much is replaced, by what, and what stays true, in every world."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError, data_file
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.noise import noised
from tests.corpus.functions import corpus, rows

WORLDS = {
    "random": {"num_sentences": 300},
    "kinships": {},
    "triples": {"path": data_file("kinships.tsv"), "held_out_fraction": 0.2, "num_sentences": 500},
    "latent": {},
    "modular": {"modulus": 23},
    "low_rank": {"vocab_size": 20, "num_sentences": None},
    "ratings": {"users": 20},
}


def parts(made: Corpus) -> dict[str, set[tuple[int, ...]]]:
    """Return the sentences, W, what is held out and what was replaced as sets."""
    return {name: set(rows(getattr(made, name))) for name in ("sentences", "truth", "held_out", "replaced")}


def assert_noised(clean: Corpus, made: Corpus, share: float) -> None:
    """What noise promises, stated with sets: nothing here knows how it was done."""
    n = clean.order
    before, after = parts(clean), parts(made)
    full = {ngram for ngram in before["sentences"] if ngram[-1] >= 0}
    gone, new = before["sentences"] - after["sentences"], after["sentences"] - before["sentences"]
    assert len(gone) == len(new) == round(share * len(full)), "no two of them became one"
    assert after["replaced"] == gone <= full
    assert len(made.replaced) == len(gone), "each once"
    assert new.isdisjoint(before["sentences"] | before["truth"])
    assert {ngram[-1] for ngram in new} <= {ngram[-1] for ngram in full | before["truth"]}
    assert after["truth"] == before["truth"]
    assert after["held_out"] == before["held_out"]
    assert after["held_out"].isdisjoint(gone)
    if made.truth is not None:
        assert gone <= after["truth"]
    # Sentence by sentence: only last tokens change, and all copies alike.
    became = set(zip(rows(clean.sentences), rows(made.sentences), strict=True))
    assert len({old for old, _ in became}) == len({new for _, new in became}) == len(became)
    assert torch.equal(clean.sentences[:, : n - 1], made.sentences[:, : n - 1])
    assert (made.vocab_size, made.labelled, made.tokens) == (clean.vocab_size, clean.labelled, clean.tokens)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.9])
@pytest.mark.parametrize("world", WORLDS)
def test_every_world_can_be_noised(world: str, share: float) -> None:
    clean = corpus(world, **WORLDS[world])
    made = corpus(world, **WORLDS[world], noise=share)
    assert_noised(clean, made, share)
    assert (made.truth is None) == (world == "random")


@pytest.mark.parametrize("world", WORLDS)
def test_no_noise_is_the_world_as_it_is(world: str) -> None:
    made = corpus(world, **WORLDS[world], noise=0.0)
    assert made.replaced is None


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    """Corpora with repeated and short sentences, several answers to a context, and truth beyond the data, or none."""
    order, V = draw(st.integers(2, 3)), draw(st.integers(3, 5))
    ngram = st.tuples(*[st.integers(0, V - 1)] * order)
    sentences = draw(st.lists(ngram, min_size=1, max_size=12))
    padded = [[*sentence[:-1], -1] for sentence in draw(st.lists(ngram, max_size=3))]
    sentences_Nn = torch.tensor([*map(list, sentences), *padded])
    if draw(st.booleans()):
        return Corpus(vocab_size=V, sentences=sentences_Nn)
    more = set(draw(st.lists(ngram, max_size=12))) - set(sentences)
    held_out = torch.tensor(sorted(more)) if more else None
    return Corpus(
        vocab_size=V, sentences=sentences_Nn, held_out=held_out, truth=torch.tensor(sorted({*sentences, *more}))
    )


@settings(deadline=None, max_examples=200)
@given(corpora(), st.floats(0.01, 0.99), st.integers(0, 99))
def test_noise_keeps_its_promises_or_says_why_it_cannot(clean: Corpus, share: float, seed: int) -> None:
    full = {ngram for ngram in rows(clean.sentences) if ngram[-1] >= 0}
    known = full | set(rows(clean.truth))
    last = {ngram[-1] for ngram in known}
    # How many can be replaced: in each context at most as many as it has free tokens.
    room = 0
    for context in {ngram[:-1] for ngram in full}:
        free = len(last) - len({ngram for ngram in known if ngram[:-1] == context})
        room += min(free, len({ngram for ngram in full if ngram[:-1] == context}))
    count = round(share * len(full))
    if count == 0:
        with pytest.raises(ConfigError, match=r"rounds to none; raise it or set it to 0\.$"):
            noised(clean, share=share, seed=seed)
    elif count > room:
        with pytest.raises(ConfigError, match=rf"asks for {count} of {len(full)} .* only {room} can .*; lower it\.$"):
            noised(clean, share=share, seed=seed)
    else:
        assert_noised(clean, noised(clean, share=share, seed=seed), share)


@pytest.mark.parametrize("world", WORLDS)
def test_a_larger_share_replaces_the_same_ngrams_by_the_same_and_more(world: str) -> None:
    clean = corpus(world, **WORLDS[world])
    less, more = (corpus(world, **WORLDS[world], noise=share) for share in (0.1, 0.3))
    changed = (less.sentences != clean.sentences).any(1)
    assert set(rows(less.replaced)) < set(rows(more.replaced))
    assert torch.equal(less.sentences[changed], more.sentences[changed])


def test_the_seed_of_the_data_alone_decides() -> None:
    made = [corpus("modular", modulus=23, noise=0.1, seed=seed) for seed in (0, 0, 1, 2)]
    assert torch.equal(made[0].sentences, made[1].sentences)
    assert len({tuple(rows(m.replaced)) for m in made}) == 3
    # In a corpus that is the same for every seed:
    clean = corpus("modular", modulus=23, held_out_fraction=0.0)
    new = [noised(clean, share=0.1, seed=seed) for seed in (0, 1)]
    assert set(rows(new[0].replaced)) != set(rows(new[1].replaced))


def test_new_tokens_are_drawn_evenly_from_those_that_are_free() -> None:
    p = 31
    clean = corpus("modular", modulus=p, held_out_fraction=0.0)
    made = noised(clean, share=0.99, seed=0)
    shift = (made.sentences[:, -1] - clean.sentences[:, -1]) % p
    count = torch.bincount(shift, minlength=p)[1:].double()  # each of p - 1 wrong answers about 31.7 times
    chi_square = ((count - count.mean()) ** 2 / count.mean()).sum()
    assert chi_square < 59.7, "the .999 quantile of 30 degrees of freedom, and this is a draw of 29"


def test_the_example_of_the_docstring() -> None:
    truth = torch.tensor([[0, 1, 3], [0, 2, 4], [1, 2, 3]])
    for seed in range(9):
        made = noised(Corpus(vocab_size=5, sentences=truth, truth=truth), share=1 / 3, seed=seed)
        assert len(set(rows(made.sentences)) - {(0, 1, 4), (0, 2, 3), (1, 2, 4)}) == 2


def test_where_no_other_token_stands_last_it_is_refused() -> None:
    only = torch.tensor([[0, 1, 2], [1, 1, 2]])
    with pytest.raises(ConfigError, match=r"data\.noise=0\.5 asks for 1 of 2 training n-grams, and only 0 can"):
        noised(Corpus(vocab_size=3, sentences=only), share=0.5, seed=0)
