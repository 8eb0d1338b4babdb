"""Random n-grams: the corpora of the paper's Figures 2 and 3. There is no truth, so no artifact can be right."""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.config import RandomData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_integers

_BLOCK = 1 << 16  # draws made at once; the corpus does not depend on it


def random_corpus(data: RandomData) -> Corpus:
    """Return `num_sentences` random sentences of `order` tokens.

    functional: the contexts are distinct and each has one random completion, as a table of facts does. uniform: the
    n-grams are distinct draws from all V^n, so that a context may have several completions. A smaller corpus is a
    prefix of a larger one with the same seed: both take distinct draws in the order of their first appearance.

    Example (V = 4, n = 3, functional): (2, 0, 3), (1, 1, 0), (0, 2, 3) but never (2, 0, 3) with (2, 0, 1).
    """
    assert data.order is not None
    assert data.seed is not None
    V, n = data.vocab_size, data.order
    if data.sampler == "functional":
        contexts = _digits(_distinct_draws(data.seed, data.num_sentences, V ** (n - 1)), V, n - 1)
        last = random_integers(data.seed, "completions", 0, torch.arange(data.num_sentences), V)
        sentences = torch.cat([contexts, last[:, None]], dim=1)
    else:
        sentences = _digits(_distinct_draws(data.seed, data.num_sentences, V**n), V, n)
    return Corpus(vocab_size=V, sentences=sentences)


def _distinct_draws(seed: int, count: int, population: int) -> Tensor:
    """Return the first `count` distinct values of an endless sequence of uniform draws from `0..population-1`."""
    seen: dict[int, None] = {}
    start = 0
    while len(seen) < count:
        slots = torch.arange(start, start + _BLOCK)
        for value in random_integers(seed, "distinct", 0, slots, population).tolist():
            seen.setdefault(value)
            if len(seen) == count:
                break
        start += _BLOCK
    return torch.tensor(list(seen), dtype=torch.int64)


def _digits(numbers: Tensor, base: int, places: int) -> Tensor:
    """Return the digits of each number in a base, most significant first, [K, places]."""
    powers = torch.tensor([base**place for place in reversed(range(places))])
    return numbers[:, None] // powers % base
