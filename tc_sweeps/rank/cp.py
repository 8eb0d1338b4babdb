"""CP logit tensors l[t_1..t_n] = sum_r prod_i A_i[t_i, r], many fitted at once to the seen fibers of a data tensor.

Letters: `M` fit (a rank and a restart), `C` seen context, `R` component, `V` vocabulary, `n` order. Factors are kept as
[V, M, R], so that a token's row is looked up for all fits at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.corpus.randomness import random_normals
from tc_sweeps.corpus.tensor import DataTensor

__all__ = ["CPLogits", "consistent_contexts", "fit_cp"]

_EVERY = 25  # steps between two looks at which fits are consistent
_HOPELESS = 0.75  # a fit that after a quarter of its steps answers fewer contexts right is given up


@dataclass(frozen=True, eq=False)
class CPLogits:
    """A stack of CP logit tensors; its completion is the softmax of a context's logits."""

    rank_M: Tensor  # components in use; the factors beyond them are zero
    restart_M: Tensor
    consistent_M: Tensor  # whether the fit was consistent with the data before its steps were over
    factors: tuple[Tensor, ...]  # one per place, [V, M, R]

    def logits(self, contexts_Cn: Tensor) -> Tensor:
        """Return the logits of the next token, [M, C, V], of contexts of n - 1 tokens."""
        return _logits(self.factors, contexts_Cn)


def _logits(factors: Sequence[Tensor], contexts_Cn: Tensor) -> Tensor:
    product_CMR = factors[0].index_select(0, contexts_Cn[:, 0])
    for factor_VMR, token_C in zip(factors[1:-1], contexts_Cn[:, 1:].unbind(1), strict=True):
        product_CMR = product_CMR * factor_VMR.index_select(0, token_C)
    return torch.bmm(product_CMR.transpose(0, 1), factors[-1].permute(1, 2, 0))


def consistent_contexts(logits_MCV: Tensor, data: DataTensor, epsilon: float | None) -> Tensor:
    """Return which completions are consistent with D^n on which seen fibers, [M, C].

    `logits_MCV` are those of `data.contexts_Cn`.
    With `epsilon` the divergence from the data's fiber to the completion's is at most that many nats. Without it (which
    needs functional data) the right token has the greatest logit, strictly.
    """
    if epsilon is None:
        answer_C = data.ngrams_Gn[:, -1]  # in the order of the contexts, each of which has one
        right_MC = logits_MCV[:, torch.arange(len(answer_C)), answer_C]
        return (logits_MCV >= right_MC[..., None]).sum(2) == 1
    log_MG = logits_MCV.log_softmax(2)[:, data.context_of_G, data.ngrams_Gn[:, -1]]
    share_G = data.empirical_G.float()
    kl_MC = log_MG.new_zeros(logits_MCV.shape[:2])
    kl_MC.index_add_(1, data.context_of_G, share_G * (share_G.log() - log_MG))
    return kl_MC <= epsilon


def fit_cp(
    data: DataTensor,
    ranks: Sequence[int],
    *,
    restarts: int = 8,
    seed: int = 0,
    steps: int = 1000,
    learning_rate: float = 0.1,
    epsilon: float | None = None,
) -> CPLogits:
    """Return CP logit tensors of every rank and restart (ranks outermost), fitted to D^n as one stack in float32.

    The loss of a fit is the cross-entropy of the last token over the n-grams of the data, unseen fibers masked out.
    Adam takes at most `steps` steps. A fit ends as soon as it is consistent (see `consistent_contexts`), with the
    factors it has then; without `epsilon` it is given up where a quarter of the steps leaves it far from that.

    The first factors are normal with logits of unit variance; a restart's do not depend on the stack, and those of a
    smaller rank are the first components of a larger one, up to scale. Padded components are zero in all factors: so is
    their gradient, and they stay so. Raises ValueError for numbers below 1, and for data with several answers to
    a context without `epsilon`.
    """
    if min(ranks, default=0) < 1 or restarts < 1 or steps < 1:
        raise ValueError(f"ranks={list(ranks)}, restarts={restarts} and steps={steps} must be at least 1.")
    if epsilon is None and len(data.contexts_Cn) < len(data.ngrams_Gn):
        raise ValueError("A context has several answers: only a divergence, epsilon, says what is consistent with it.")
    rank_M = torch.tensor([rank for rank in ranks for _ in range(restarts)])
    restart_M = torch.arange(restarts).repeat(len(ranks))
    factors = [_start(data, place, rank_M, restart_M, seed) for place in range(data.order)]
    fitted = [factor_VMR.clone() for factor_VMR in factors]
    consistent_M = torch.zeros(len(rank_M), dtype=torch.bool)
    left_M = torch.arange(len(rank_M))  # the fits that go on
    weight_G = (data.count_G / data.count_G.sum()).float()
    weight_CV = torch.zeros(len(data.contexts_Cn), data.vocab_size)
    weight_CV[data.context_of_G, data.ngrams_Gn[:, -1]] = weight_G
    weight_C = weight_CV.sum(1)
    moments = [(torch.zeros_like(factor), torch.zeros_like(factor)) for factor in factors]
    for step in range(1, steps + 1):
        for factor in factors:
            factor.requires_grad_(True)
        logits_MCV = _logits(factors, data.contexts_Cn)
        loss = (logits_MCV.logsumexp(2) * weight_C).sum() - (logits_MCV * weight_CV).sum()
        gradients = torch.autograd.grad(loss, factors)
        factors = [factor.detach() for factor in factors]
        for factor, gradient, (first, second) in zip(factors, gradients, moments, strict=True):
            _adam(factor, gradient, first, second, step, learning_rate)
        if step % _EVERY and step < steps:
            continue
        consistent_MC = consistent_contexts(_logits(factors, data.contexts_Cn), data, epsilon)
        over = consistent_M[left_M] = consistent_MC.all(1)
        if epsilon is None and 4 * step >= steps:
            over = over | (consistent_MC.double().mean(1) < _HOPELESS)
        for kept, factor in zip(fitted, factors, strict=True):
            kept[:, left_M] = factor
        if over.all():
            break
        left_M = left_M[~over]
        factors = [factor[:, ~over] for factor in factors]
        moments = [(first[:, ~over], second[:, ~over]) for first, second in moments]
    return CPLogits(rank_M, restart_M, consistent_M, tuple(fitted))


def _start(data: DataTensor, place: int, rank_M: Tensor, restart_M: Tensor, seed: int) -> Tensor:
    """Return the first factor of a place, [V, M, R], zero beyond the rank of each fit."""
    widest = int(rank_M.max())
    slots_RV = torch.arange(widest * data.vocab_size).view(widest, data.vocab_size)
    drawn = [
        random_normals(seed, f"cp factor {place} restart {restart}", slots_RV).T
        for restart in range(int(restart_M.max()) + 1)
    ]
    factor_VMR = torch.stack(drawn, 1)[:, restart_M].float()
    scale_M = rank_M.float() ** (-1 / (2 * data.order))
    used_MR = torch.arange(widest) < rank_M[:, None]
    return factor_VMR * (scale_M[:, None] * used_MR)


def _adam(factor: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float) -> None:
    """Take one step of Adam, in place."""
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.01)
    size = (second / (1 - 0.99**step)).sqrt_().add_(1e-12)  # gradients are shares of the data: Adam's 1e-8 is too much
    factor.addcdiv_(first, size, value=-rate / (1 - 0.9**step))
