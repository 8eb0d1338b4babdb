"""The ranks of a corpus, with and without its test data, as facts of a run.

Letters: `K` held-out n-gram, `n` order, `G` distinct n-gram.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.randomness import random_integers, random_order
from tc_sweeps.corpus.tensor import distinct_rows
from tc_sweeps.rank.bounds import rank_bounds
from tc_sweeps.rank.effective import effective_rank

__all__ = ["RANK_FACTS", "extensions", "rank_facts"]

RANK_FACTS = (
    "rank/effective",
    "rank/effective_with_test",
    "rank/effective_with_shuffled",
    "rank/effective_with_random",
    "rank/lower",
    "rank/upper",
)

_found: dict[tuple[bytes, str, int], int] = {}  # in this process: runs that differ in their model share their data


def rank_facts(corpus: Corpus, *, order: int, seed: int) -> dict[str, int | None]:
    """Return the ranks of D^n by the names of the results table, `RANK_FACTS`; empty where nothing is held out.

    `rank/effective` is that of the training data, `_with_test` that of training and held-out n-grams together (section
    3.3: generalization error is low where the two are close), `_with_shuffled` and `_with_random` those with other
    answers in the same held-out contexts. `rank/lower` and `rank/upper` enclose the linear rank of D^n.

    What is consistent with more data is with less: under `argmax` the first is the least of all that are found, so that
    no luck of the searches makes it greater. Where some context has several answers in any of these data the criterion
    is `kl` for all: at its default, log 2 nats, it asks the same of functional data as `argmax` does. `seed` decides
    the answers and where fits begin.
    """
    data = corpus.tensor(order)
    tensors = {"rank/effective": data, **extensions(corpus, order=order, seed=seed)}
    functional = all(tensor.is_functional for tensor in tensors.values())
    criterion = "argmax" if functional else "kl"
    found = {name: _effective(tensor, criterion, seed) for name, tensor in tensors.items()}
    if functional:
        found["rank/effective"] = min(found.values())
    bounds = rank_bounds(data)
    return {name: found.get(name) for name in RANK_FACTS} | {"rank/lower": bounds.lower, "rank/upper": bounds.upper}


def _effective(data: DataTensor, criterion: str, seed: int) -> int:
    """Return the effective rank of data, which is searched once in a process."""
    contents = hashlib.sha256(f"{data.vocab_size} {data.order} ".encode())
    contents.update(data.ngrams_Gn.numpy().tobytes())
    contents.update(data.count_G.numpy().tobytes())
    asked = contents.digest(), criterion, seed
    if asked not in _found:
        _found[asked] = effective_rank(data, criterion=criterion, seed=seed).rank
    return _found[asked]


def extensions(corpus: Corpus, *, order: int, seed: int) -> dict[str, DataTensor]:
    """Return D^n with the held-out n-grams, once each, by the name of the fact: theirs, shuffled and random answers.

    The last tokens of the held-out n-grams are shuffled among them, or replaced by any of the vocabulary. Nothing where
    none are held out.
    """
    held_out_Kn = corpus.held_out_ngrams(order)
    if held_out_Kn is None or len(held_out_Kn) == 0:
        return {}
    count = len(held_out_Kn)
    answers = {
        "test": held_out_Kn[:, -1],
        "shuffled": held_out_Kn[random_order(seed, "shuffled test answers", count), -1],
        "random": random_integers(seed, "random test answers", 0, torch.arange(count), corpus.vocab_size),
    }
    data = corpus.tensor(order)
    return {
        f"rank/effective_with_{name}": _extended(data, torch.cat([held_out_Kn[:, :-1], answer_K[:, None]], dim=1))
        for name, answer_K in answers.items()
    }


def _extended(data: DataTensor, ngrams_Kn: Tensor) -> DataTensor:
    """Return D^n with these n-grams once more, each as often as it stands there."""
    ngrams_Gn, place, _ = distinct_rows(torch.cat([data.ngrams_Gn, ngrams_Kn]))
    count_G = torch.zeros(len(ngrams_Gn), dtype=torch.int64)
    count_G.index_add_(0, place, torch.cat([data.count_G, torch.ones(len(ngrams_Kn), dtype=torch.int64)]))
    return DataTensor(data.vocab_size, ngrams_Gn, count_G)
