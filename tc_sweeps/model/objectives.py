"""The loss of the paper, equations (1) and (2).

Letters: `M` member, `R` wanted row, `T` target, `V` vocabulary, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tc_sweeps.config import Config
from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.randomness import random_order
from tc_sweeps.model.prefixes import Targets

__all__ = ["loss", "loss_floor", "loss_gradient", "replayed", "trained_tensors"]


def loss(
    logits_MRU: Tensor, targets: Targets, smoothing_M: Tensor | None = None, *, vocab_size: int | None = None
) -> Tensor:
    """Return loss (1) of every member, [M], in nats per sentence: what `loss_gradient` is the gradient of.

    The sum over sentences and positions, grouped by distinct prefix: each target weighs its share of the sentences.
    `smoothing_M`: the share of each target that is spread evenly over the vocabulary (Szegedy et al. 2016); None: 0.
    `vocab_size`: the tokens of the vocabulary, where the logits have an unsupported token besides.
    """
    U = logits_MRU.shape[-1]
    log_p_MRU = torch.log_softmax(logits_MRU, dim=-1)
    log_p_MT = log_p_MRU.flatten(1).gather(1, targets.row_MT * U + targets.token_MT)
    if smoothing_M is None:
        return -(targets.weight_MT * log_p_MT).sum(1)
    even_MT = log_p_MRU[..., :vocab_size].mean(-1).gather(1, targets.row_MT)
    share_M1 = smoothing_M[:, None]
    return -(targets.weight_MT * ((1 - share_M1) * log_p_MT + share_M1 * even_MT)).sum(1)


@torch.no_grad()
def loss_gradient(
    logits_MRU: Tensor, targets: Targets, smoothing_M: Tensor | None = None, *, vocab_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of loss (1) in the logits, [M, R, U], and the probabilities of the targets, [M, T].

    With w_t the weights of a row's targets it is (sum_t w_t) p - w, here in fewer passes over the logits than
    automatic differentiation of `loss` takes, which is most of the time of a small step. With smoothing s, w is
    (1 - s) w + s (sum_t w_t) / V over the vocabulary.
    """
    M, R, U = logits_MRU.shape
    p_MRU = torch.softmax(logits_MRU, dim=-1).contiguous()
    p_MN = p_MRU.view(M, R * U)
    target_MT = targets.row_MT * U + targets.token_MT
    p_MT = p_MN.gather(1, target_MT)
    weight_MT = targets.weight_MT.to(p_MRU.dtype)
    total_MR1 = p_MRU.new_zeros(M, R).scatter_add_(1, targets.row_MT, weight_MT)[..., None]
    p_MRU *= total_MR1
    if smoothing_M is not None:
        p_MRU[..., :vocab_size] -= smoothing_M[:, None, None] / (vocab_size or U) * total_MR1
        weight_MT = (1 - smoothing_M[:, None]) * weight_MT
    p_MN.scatter_add_(1, target_MT, -weight_MT)
    return p_MRU, p_MT


def replayed(corpus: Corpus, config: Config) -> Corpus:
    """Return the corpus as it is trained on: a share of the sentences occurs `objective.replay_times` times.

    Which ones depends on data.seed; a larger share is a superset, and any share but 0 is at least one sentence.
    """
    objective, N = config.objective, len(corpus.sentences)
    if objective.replay == 0:
        return corpus
    assert config.data.seed is not None
    again = random_order(config.data.seed, "replay", N)[: max(1, round(objective.replay * N))]
    repeated = corpus.sentences[again].repeat(objective.replay_times - 1, 1)
    return replace(corpus, sentences=torch.cat([corpus.sentences, repeated]))


def trained_tensors(corpus: Corpus, positions: str) -> list[DataTensor]:
    """Return the data tensors whose fibers the loss compares with the model's, one per order with any: equation (2).

    "all": D^2..D^n. "last": per order the sentences of exactly that many tokens.
    """
    tensors = []
    for order in range(2, corpus.order + 1):
        if positions == "last" and order < corpus.order:
            sentences = corpus.sentences[corpus.sentences[:, order] < 0]
            tensor = DataTensor.of(sentences, order, corpus.vocab_size)
        else:
            tensor = corpus.tensor(order)
        if len(tensor.ngrams_Gn):
            tensors.append(tensor)
    return tensors


def loss_floor(corpus: Corpus, positions: str) -> float:
    """Return the least loss that any table of conditional distributions reaches, in nats per sentence.

    Excess loss is the loss above this floor; 0 means that the completion is consistent with the data.
    """
    tensors = trained_tensors(corpus, positions)
    return sum(tensor.entropy() * int(tensor.count_G.sum()) for tensor in tensors) / len(corpus.sentences)
