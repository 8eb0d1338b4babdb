"""Latent classes: what follows a context depends on the hidden classes of its tokens alone.

Letters: `C` contexts, `K` classes, `n` order.
"""

from __future__ import annotations

import torch

from tc_sweeps.config import LatentData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.functions import all_contexts, function_corpus
from tc_sweeps.corpus.randomness import random_integers, random_order


def latent_corpus(data: LatentData) -> Corpus:
    """Return a corpus whose completions are a random function of the classes of the context's tokens.

    Every token has one class at all places; classes differ by at most one token in size, and each of the K^(n-1) tuples
    of classes has a token drawn for it, so that different tuples may share one. `data.seed` decides both.

    As a tensor, W has equal slices for tokens of one class, so `classes` bounds the rank of its unfolding along every
    place of the context. Along the last place the rank is the number of different completions, at most
    min(V, classes^(n-1)); the CP rank is at most classes^(n-1).

    Example (V = 4, 2 classes, n = 3): tokens 0 and 3 are of one class, 1 and 2 of the other. If 2 follows (0, 1), it
    also follows (0, 2), (3, 1) and (3, 2): training on two of these four leaves two to be found.
    """
    assert data.seed is not None
    contexts_Cn = all_contexts(data)
    class_V = torch.empty(data.vocab_size, dtype=torch.int64)
    class_V[random_order(data.seed, "classes", data.vocab_size)] = torch.arange(data.vocab_size) % data.classes
    tuple_C = torch.zeros(len(contexts_Cn), dtype=torch.int64)
    for token_C in contexts_Cn.unbind(1):
        tuple_C = tuple_C * data.classes + class_V[token_C]
    completion_C = random_integers(data.seed, "class completions", 0, tuple_C, data.vocab_size)
    return function_corpus(data, contexts_Cn, completion_C)
