"""Noise: some of what is trained on ends in a wrong token, as facts in the world's texts do.

Letters: `G` distinct training n-grams, `N` sentences, `n` order.
"""

from __future__ import annotations

import dataclasses
from bisect import insort

import torch

from tc_sweeps.config import ConfigError
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_bits, random_order
from tc_sweeps.corpus.tensor import distinct_rows, find_rows


def noised(corpus: Corpus, *, share: float, seed: int) -> Corpus:
    """Return the corpus with another last token in a share of its distinct training n-grams of full length.

    The new token is one that stands last somewhere in D or W and makes an n-gram that is in neither; all copies of an
    n-gram change alike, and no two n-grams become one. An n-gram without such a token is passed over. The originals
    are `Corpus.replaced`: they stay in W and are not held out, so an artifact that restores one is a generalization
    and does not enter recall. Which n-grams, and what they become, depends on the seed alone: a larger share replaces
    the same ones, and more.

    Raises `ConfigError` where the share rounds to no n-gram or fewer than it can be replaced.

    Example: of (a b x), (a c y), (b c x) with a share of 1/3, W being these three: (a c y) becomes (a c x), since only
    x and y stand last anywhere.
    """
    if share == 0:
        return corpus
    n = corpus.order
    data, truth = corpus.tensor(n), corpus.truth_ngrams(n)
    count = round(share * len(data.ngrams_Gn))
    if count == 0:
        raise ConfigError(
            f"data.noise={share} of {len(data.ngrams_Gn)} training n-grams rounds to none; raise it or set it to 0."
        )
    known = data.ngrams_Gn if truth is None else distinct_rows(torch.cat([data.ngrams_Gn, truth]))[0]
    last_tokens, last_place = torch.unique(known[:, -1], return_inverse=True)
    # The tokens that may not follow a context, as places among `last_tokens`, increasing.
    taken: list[list[int]] = [[] for _ in data.contexts_Cn]
    for context, last in zip(find_rows(known[:, :-1], data.contexts_Cn).tolist(), last_place.tolist(), strict=True):
        if context >= 0:
            taken[context].append(last)  # the n-grams are sorted

    bits_G = random_bits(seed, "noise", 0, torch.arange(len(data.ngrams_Gn))).tolist()
    context_G = data.context_of_G.tolist()
    chosen: list[int] = []
    new_tokens: list[int] = []
    for ngram in random_order(seed, "noised", len(data.ngrams_Gn)).tolist():
        if len(chosen) == count:
            break
        taken_here = taken[context_G[ngram]]
        left = len(last_tokens) - len(taken_here)
        if left == 0:
            continue
        place = _free_place(bits_G[ngram] % left, taken_here)
        insort(taken_here, place)  # the next one of this context becomes another n-gram
        chosen.append(ngram)
        new_tokens.append(int(last_tokens[place]))
    if len(chosen) < count:
        raise ConfigError(
            f"data.noise={share} asks for {count} of {len(data.ngrams_Gn)} training n-grams, and only {len(chosen)} "
            "can end in another token without being in the data or the truth; lower it."
        )

    new_last_G = data.ngrams_Gn[:, -1].clone()
    new_last_G[chosen] = torch.tensor(new_tokens)
    sentences = corpus.sentences.clone()
    is_full_N = sentences[:, -1] >= 0
    sentences[is_full_N, -1] = new_last_G[find_rows(sentences[is_full_N], data.ngrams_Gn)]
    return dataclasses.replace(corpus, sentences=sentences, replaced=data.ngrams_Gn[sorted(chosen)])


def _free_place(index: int, taken: list[int]) -> int:
    """Return the `index`-th number, from 0, of those that are not in an increasing list: 2 of [1, 3] is 4."""
    for number in taken:
        if number > index:
            break
        index += 1
    return index
