"""Modular addition: a rule that a model may find long after it has memorised what it was shown."""

from __future__ import annotations

from tc_sweeps.config import ModularData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.functions import all_contexts, function_corpus


def modular_corpus(data: ModularData) -> Corpus:
    """Return the corpus of (a, b, a + b mod p), where p is `modulus`; n tokens: the sum of the first n-1.

    `data.seed` decides which contexts are held out, and nothing else.

    Example (p = 5): (3, 4, 2) since 3 + 4 = 7 = 5 + 2; at n = 4 (3, 4, 4, 1).
    """
    contexts_Cn = all_contexts(data)
    return function_corpus(data, contexts_Cn, contexts_Cn.sum(1) % data.modulus)
