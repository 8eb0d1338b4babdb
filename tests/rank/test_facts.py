"""The ranks of a corpus as facts of a run."""

from __future__ import annotations

import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.rank import RANK_FACTS, effective_rank, rank_bounds, rank_facts
from tc_sweeps.rank.facts import extensions

LATENT = {"name": "latent", "vocab_size": 8, "classes": 2, "num_sentences": 24, "held_out_fraction": 0.25, "seed": 1}


def latent(**changed: object) -> Corpus:
    return build_corpus(resolve({"data": LATENT | changed}).data)


def test_the_facts_are_the_ranks_of_the_training_data_alone_and_with_each_kind_of_answers():
    corpus = latent()
    facts = rank_facts(corpus, order=3, seed=5)
    assert tuple(facts) == RANK_FACTS
    data = corpus.tensor(3)
    more = {name: effective_rank(tensor, seed=5).rank for name, tensor in extensions(corpus, order=3, seed=5).items()}
    assert {name: facts[name] for name in more} == more
    assert facts["rank/effective"] == min(effective_rank(data, seed=5).rank, *more.values())
    assert (facts["rank/lower"], facts["rank/upper"]) == (rank_bounds(data).lower, rank_bounds(data).upper)
    assert facts["rank/effective_with_test"] < facts["rank/effective_with_random"], "16 random answers are no classes"


def test_each_extension_answers_every_held_out_context_once():
    corpus = latent()
    held_out = corpus.held_out_ngrams(3)
    added = {}
    for name, tensor in extensions(corpus, order=3, seed=0).items():
        assert len(tensor.contexts_Cn) == len(tensor.ngrams_Gn) == 24 + 16
        answers = tensor.fibers(held_out[:, :-1]).argmax(1)
        assert torch.equal(tensor.fibers(corpus.sentences[:, :-1]).argmax(1), corpus.sentences[:, -1])
        added[name.removeprefix("rank/effective_with_")] = answers
    assert torch.equal(added["test"], held_out[:, -1])
    assert torch.equal(added["shuffled"].sort().values, held_out[:, -1].sort().values)
    assert not torch.equal(added["shuffled"], held_out[:, -1])
    assert len(set(added["random"].tolist()) - set(held_out[:, -1].tolist())) > 0
    again, other = (extensions(corpus, order=3, seed=seed)["rank/effective_with_random"] for seed in (0, 1))
    assert torch.equal(again.fibers(held_out[:, :-1]).argmax(1), added["random"])
    assert not torch.equal(other.fibers(held_out[:, :-1]).argmax(1), added["random"])


def test_without_held_out_data_there_is_nothing_to_add():
    facts = rank_facts(latent(held_out_fraction=0.0), order=3, seed=0)
    assert [name for name, value in facts.items() if value is None] == [
        "rank/effective_with_test",
        "rank/effective_with_shuffled",
        "rank/effective_with_random",
    ]


def test_counts_are_kept_where_an_ngram_is_added_to_those_of_its_context():
    """Training says (0, 1, 2) twice, the test (0, 1, 3): a fiber of two answers, for which the criterion is kl."""
    corpus = Corpus(
        vocab_size=4,
        sentences=torch.tensor([[0, 1, 2], [0, 1, 2], [1, 1, 0]]),
        held_out=torch.tensor([[0, 1, 3]]),
        truth=torch.tensor([[0, 1, 2], [0, 1, 3], [1, 1, 0]]),
    )
    tensor = extensions(corpus, order=3, seed=0)["rank/effective_with_test"]
    assert tensor.ngrams_Gn.tolist() == [[0, 1, 2], [0, 1, 3], [1, 1, 0]]
    assert tensor.count_G.tolist() == [2, 1, 1]
    facts = rank_facts(corpus, order=3, seed=0)
    assert facts["rank/effective_with_test"] == effective_rank(tensor, criterion="kl").rank
