"""What is counted: thresholds, ceilings, and the numbers that are logged at every evaluation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch

from tc_sweeps.config import LEAST_THRESHOLD, METRICS
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.tensor import distinct_rows

__all__ = [
    "EXACT_THRESHOLDS",
    "METRICS",
    "accuracy_cap",
    "check_order",
    "check_threshold",
    "most_tokens",
    "survival_thresholds",
]

EXACT_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)  # where the survival curve is exact, besides the configured one


def check_threshold(threshold: float) -> None:
    """Raise ValueError for a threshold outside (0, 1), or so small that float32 cannot tell what is above it."""
    if not LEAST_THRESHOLD <= threshold < 1:
        raise ValueError(f"threshold={threshold} must lie between 0 and 1, and be at least {LEAST_THRESHOLD}.")


def check_order(corpus: Corpus, order: int | None) -> None:
    """Raise ValueError for an order outside 2..order of the corpus."""
    if order is not None and not 2 <= order <= corpus.order:
        raise ValueError(f"order={order} must lie between 2 and {corpus.order}, the order of the corpus.")


def check_contexts(contexts: str | None) -> None:
    """Raise ValueError for a word that says nothing about which contexts are considered."""
    if contexts not in (None, "all", "typed"):
        raise ValueError(f"contexts={contexts!r} must be 'all' or 'typed', or None for the corpus's choice.")


def survival_thresholds(threshold: float) -> np.ndarray:
    """Return the thresholds of the survival curve N(tau), increasing, in float64.

    Even in log-odds from .01 to .9999 (1/2 is one of them), joined by those at which the curve is exact.
    """
    end = math.log(99)
    even = 1 / (1 + np.exp(-np.linspace(-end, 2 * end, 49)))
    exact = np.array([*EXACT_THRESHOLDS, threshold])
    apart = np.abs(even[:, None] - exact[None]).min(1) > 1e-9
    return np.unique(np.concatenate([even[apart], exact]))


def most_tokens(threshold: float, vocab_size: int) -> int:
    """Return the most tokens of one context that can have a probability strictly above the threshold: min(K, V).

    K = ceil(1/threshold) - 1 in exact rational arithmetic: K + 1 probabilities above it would sum to more than 1.
    """
    return min(math.ceil(1 / Fraction(threshold)) - 1, vocab_size)


def accuracy_cap(corpus: Corpus, order: int, *, sees_multisets: bool) -> float:
    """Return the greatest accuracy on the distinct training n-grams that a model can reach.

    Contexts that a model cannot tell apart share one answer, so at most the majority of their n-grams is right.
    `sees_multisets`: one layer without positions sees the last token of a context and the multiset of the others.
    """
    tensor = corpus.tensor(order)
    context = tensor.ngrams_Gn[:, :-1]
    if sees_multisets:
        context = context.clone()
        context[:, :-1] = context[:, :-1].sort(dim=1).values
    _, class_G, _ = distinct_rows(context)
    answers, _, count = distinct_rows(class_G[:, None] * corpus.vocab_size + tensor.ngrams_Gn[:, -1:])
    majority = torch.zeros(len(class_G), dtype=torch.int64)  # of each class, of which there are no more than n-grams
    majority.scatter_reduce_(0, answers[:, 0] // corpus.vocab_size, count, "amax")
    return int(majority.sum()) / len(tensor.ngrams_Gn)
