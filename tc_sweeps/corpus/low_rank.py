"""A world of chosen rank: the most probable completions of a CP tensor of logits.

Letters: `C` contexts, `R` components, `V` vocabulary, `n` order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.config import LowRankData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.functions import all_contexts, function_corpus
from tc_sweeps.corpus.randomness import random_normals

_ENTRIES = 1 << 22  # logits held at once, 32 MB


def low_rank_corpus(data: LowRankData) -> Corpus:
    """Return a corpus whose completions are the greatest logits of their contexts in a tensor of CP rank `rank`.

    The logit of (a, b, c) is sum_r A_ar B_br C_cr with standard normal factors that `data.seed` decides; n tokens: n
    factors. A smaller rank takes the first components of a larger one. Scaled up, these logits give every n-gram of W
    a probability above any threshold: the effective rank R_tau of W is at most `rank`. W itself, a tensor of zeros and
    ones, may have a far larger linear rank, for example as many along the last place as it has different completions.

    Example (V = 3, rank 1, n = 2) with A = (2, -1, .5) and B = (1, 0, -3): 0 follows 0 and 2, where A is positive, and
    2 follows 1.
    """
    assert data.order is not None
    assert data.seed is not None
    contexts_Cn = all_contexts(data)
    factors = [_factor(data, place) for place in range(data.order)]
    completions = []
    for chunk_Bn in torch.split(contexts_Cn, max(1, _ENTRIES // data.vocab_size)):
        product_BR = torch.ones(len(chunk_Bn), data.rank, dtype=torch.float64)
        for factor_VR, token_B in zip(factors[:-1], chunk_Bn.unbind(1), strict=True):
            product_BR = product_BR * factor_VR[token_B]
        completions.append((product_BR @ factors[-1].T).argmax(1))
    return function_corpus(data, contexts_Cn, torch.cat(completions))


def _factor(data: LowRankData, place: int) -> Tensor:
    """Return the factor of one place of the n-gram, [V, R]; a component does not depend on how many there are."""
    assert data.seed is not None
    slots_RV = torch.arange(data.rank * data.vocab_size).view(data.rank, data.vocab_size)
    return random_normals(data.seed, f"factor {place}", slots_RV).T
