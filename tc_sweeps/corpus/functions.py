"""Worlds that are known whole: every context has one right completion, and W lists all of them.

Letters: `C` contexts, all V^(n-1) of them in lexicographic order, `n` order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.config import FunctionData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.facts import split_facts


def all_contexts(data: FunctionData) -> Tensor:
    """Return every context of a world, [C, n-1], in lexicographic order."""
    assert data.order is not None
    tokens = torch.arange(data.vocabulary()[1])
    return torch.cartesian_prod(*[tokens] * (data.order - 1)).view(-1, data.order - 1)


def function_corpus(data: FunctionData, contexts_Cn: Tensor, completion_C: Tensor) -> Corpus:
    """Return the corpus of a function of the context: W is its whole graph, of which a share of contexts is held out.

    What is neither held out nor among the `num_sentences` is true and unseen: an artifact there is labelled, but does
    not enter recall. Raises `ConfigError` as `split_facts` does.
    """
    assert data.seed is not None
    truth = torch.cat([contexts_Cn, completion_C[:, None]], dim=1)
    rest, held_out = split_facts(
        truth, seed=data.seed, held_out_fraction=data.held_out_fraction, num_sentences=data.num_sentences
    )
    return Corpus(
        vocab_size=data.vocabulary()[1],
        sentences=rest,
        held_out=held_out if len(held_out) else None,
        truth=truth,
    )
