"""The loss of the paper, equations (1) and (2).

Letters: `M` member, `R` wanted row, `T` target, `V` vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.model.prefixes import Targets

__all__ = ["loss", "loss_floor", "trained_tensors"]


def loss(logits_MRV: Tensor, targets: Targets) -> Tensor:
    """Return loss (1) of every member, [M], in nats per sentence.

    The sum over sentences and positions, grouped by distinct prefix: each target weighs its share of the sentences.
    """
    V = logits_MRV.shape[-1]
    log_p_MRV = torch.log_softmax(logits_MRV, dim=-1)
    log_p_MT = log_p_MRV.flatten(1).gather(1, targets.row_MT * V + targets.token_MT)
    return -(targets.weight_MT * log_p_MT).sum(1)


def trained_tensors(corpus: Corpus, positions: str) -> list[DataTensor]:
    """Return the data tensors whose fibers the loss compares with the model's, one per order with any: equation (2).

    "all": D^2..D^n. "last": per order the sentences of exactly that many tokens.
    """
    tensors = []
    for order in range(2, corpus.order + 1):
        sentences = corpus.sentences
        if positions == "last" and order < corpus.order:
            sentences = sentences[sentences[:, order] < 0]
        tensor = DataTensor.of(sentences, order, corpus.vocab_size)
        if len(tensor.ngrams_Gn):
            tensors.append(tensor)
    return tensors


def loss_floor(corpus: Corpus, positions: str) -> float:
    """Return the least loss that any table of conditional distributions reaches, in nats per sentence.

    Excess loss is the loss above this floor; 0 means that the completion is consistent with the data.
    """
    tensors = trained_tensors(corpus, positions)
    return sum(tensor.entropy() * int(tensor.count_G.sum()) for tensor in tensors) / len(corpus.sentences)
