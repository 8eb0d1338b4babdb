"""CP logit tensors l[t_1..t_n] = sum_r prod_i A_i[t_i, r], many fitted at once to the seen fibers of a data tensor.

Letters: `M` fit (a rank and a start), `C` seen context, `R` component, `V` vocabulary, `n` order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.corpus.randomness import random_normals
from tc_sweeps.corpus.tensor import DataTensor

__all__ = ["CPLogits", "Criterion", "consistent_contexts", "fit", "fit_cp", "joined", "random_starts", "truncated"]

_EVERY = 25  # steps between two looks at which fits are consistent
# A fit that after k steps has more than 50 / k of the contexts wrong is given up: those of the smallest consistent rank
# have less than half of that, those two ranks below far more.
_PATIENCE = 50


@dataclass(frozen=True)
class Criterion:
    """When a completion is consistent with a seen fiber.

    `argmax`: the right token has the greatest logit, strictly. `kl`: the divergence from the data's fiber to the
    completion's is at most `epsilon` nats. `budget`: the right token has a probability above `threshold` (strictly), by
    logits whose norm, `CPLogits.norm_M`, is at most `budget` nats. `argmax` and `budget` need functional data, where a
    context has one answer. `linear`: there is no softmax, the CP tensor itself is the completion, and each of its
    entries is within `tolerance` of the data's share. Raises ValueError for an unknown name, and numbers that are not
    positive or no probability.
    """

    name: str = "argmax"
    epsilon: float = math.log(2)
    budget: float = 10.0
    threshold: float = 0.5
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.name not in ("argmax", "kl", "budget", "linear"):
            raise ValueError(f"criterion={self.name!r} must be 'argmax', 'kl', 'budget' or 'linear'.")
        for name, value in (("epsilon", self.epsilon), ("budget", self.budget), ("tolerance", self.tolerance)):
            if not value > 0:
                raise ValueError(f"{name}={value} must be greater than 0.")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold} must lie between 0 and 1.")

    @property
    def start(self) -> float:
        """The standard deviation of the entries fits begin with: shares between 0 and 1 are found from small ones."""
        return 0.1 if self.name == "linear" else 1.0


@dataclass(frozen=True, eq=False)
class CPLogits:
    """A stack of CP logit tensors; its completion is the softmax of a context's logits (themselves if `linear`)."""

    rank_M: Tensor  # components in use; the factors beyond them are zero
    consistent_M: Tensor  # whether the fit was consistent with the data before its steps were over
    factors: tuple[Tensor, ...]  # one per place, [M, V, R]

    def logits(self, contexts_Cn: Tensor) -> Tensor:
        """Return the logits of the next token, [M, C, V], of contexts of n - 1 tokens."""
        return torch.bmm(_product(_rows(self.factors, contexts_Cn)), self.factors[-1].transpose(1, 2))

    @property
    def norm_M(self) -> Tensor:
        """The norm of each tensor, [M] in nats: the root mean squares of its components, over all V^n entries, summed.

        Up to the factor V^(n/2) it is the sum over components of the products of their factors' lengths, whose least
        value over all ways to write a tensor as such a sum is its nuclear norm. It grows in proportion to the logits.
        """
        return _sizes(self.factors).sum(1)


def consistent_contexts(logits_MCV: Tensor, data: DataTensor, criterion: Criterion | None = None) -> Tensor:
    """Return which completions are consistent with D^n on which seen fibers, [M, C]; by default `argmax`.

    `logits_MCV` are those of `data.contexts_Cn`. Whether their norm is within the budget is not looked at.
    """
    criterion = criterion or Criterion()
    if criterion.name == "kl":
        log_MG = logits_MCV.log_softmax(2)[:, data.context_of_G, data.ngrams_Gn[:, -1]]
        share_G = data.empirical_G.float()
        kl_MC = log_MG.new_zeros(logits_MCV.shape[:2])
        kl_MC.index_add_(1, data.context_of_G, share_G * (share_G.log() - log_MG))
        return kl_MC <= criterion.epsilon
    if criterion.name == "linear":
        return (logits_MCV - _shares(data)).abs().amax(2) <= criterion.tolerance
    answer_C = data.ngrams_Gn[:, -1]  # in the order of the contexts, each of which has one
    right_MC = logits_MCV[:, torch.arange(len(answer_C)), answer_C]
    if criterion.name == "budget":
        return (right_MC - logits_MCV.logsumexp(2)).exp() > criterion.threshold
    return (logits_MCV >= right_MC[..., None]).sum(2) == 1


def _shares(data: DataTensor) -> Tensor:
    """Return the seen fibers as distributions, [C, V] in float32."""
    share_CV = torch.zeros(len(data.contexts_Cn), data.vocab_size)
    share_CV[data.context_of_G, data.ngrams_Gn[:, -1]] = data.empirical_G.float()
    return share_CV


# ------------------------------------------------------------------------------------------------------------- starts


def random_starts(
    data: DataTensor, ranks: Sequence[int], *, restarts: int, seed: int, deviation: float = 1.0
) -> CPLogits:
    """Return random tensors to begin with, for every rank (outermost) and restart: normal, of this standard deviation.

    A restart does not depend on the stack, and those of a smaller rank are the first components of a larger one, up to
    scale. Padded components are zero in all factors: so is their gradient, and they stay so.
    """
    if min(ranks, default=0) < 1 or restarts < 1:
        raise ValueError(f"ranks={list(ranks)} and restarts={restarts} must be at least 1.")
    rank_M = torch.tensor([rank for rank in ranks for _ in range(restarts)])
    scale_M = (deviation / rank_M.float().sqrt()) ** (1 / data.order)
    widest = max(ranks)
    used_MR = torch.arange(widest) < rank_M[:, None]
    slots_RV = torch.arange(widest * data.vocab_size).view(widest, data.vocab_size)
    factors = []
    for place in range(data.order):
        drawn = [
            random_normals(seed, f"cp factor {place} restart {restart}", slots_RV).T for restart in range(restarts)
        ]
        factor_MVR = torch.stack(drawn).float().repeat(len(ranks), 1, 1)
        factors.append(factor_MVR * (scale_M[:, None] * used_MR)[:, None])
    return CPLogits(rank_M, torch.zeros(len(rank_M), dtype=torch.bool), tuple(factors))


def truncated(fits: CPLogits, rank: int, most: int, *, deviation: float = 1.0) -> CPLogits:
    """Return as starts the largest `rank` components of at most so many fits, the consistent ones first.

    What is left of a fit of a larger rank is near one of this rank more often than chance is, once its logits are as
    small as those of random starts: of this deviation, with every component spread evenly over its factors (LOG.md).
    """
    chosen_M = torch.argsort(fits.consistent_M, descending=True, stable=True)[:most]
    kept_MR = _sizes(fits.factors)[chosen_M].topk(rank, dim=1).indices
    factors = [factor[chosen_M].gather(2, kept_MR[:, None].expand(-1, factor.shape[1], -1)) for factor in fits.factors]
    size_MR = _sizes(factors)
    target_MR = deviation * size_MR / size_MR.square().sum(1, keepdim=True).sqrt()
    even = [
        factor_MVR * (target_MR ** (1 / len(factors)) / _root_mean_square(factor_MVR))[:, None]
        for factor_MVR in factors
    ]
    count = len(chosen_M)
    return CPLogits(torch.full((count,), rank), torch.zeros(count, dtype=torch.bool), tuple(even))


def joined(stacks: Sequence[CPLogits]) -> CPLogits:
    """Return stacks of equal width as one."""
    return CPLogits(
        torch.cat([stack.rank_M for stack in stacks]),
        torch.cat([stack.consistent_M for stack in stacks]),
        tuple(torch.cat(parts) for parts in zip(*(stack.factors for stack in stacks), strict=True)),
    )


# ------------------------------------------------------------------------------------------------------------ fitting


def fit_cp(
    data: DataTensor,
    ranks: Sequence[int],
    *,
    restarts: int = 8,
    seed: int = 0,
    steps: int = 1000,
    learning_rate: float = 0.05,
    criterion: Criterion | None = None,
) -> CPLogits:
    """Return CP logit tensors of every rank and restart (ranks outermost), fitted to D^n from random starts by `fit`.

    Raises ValueError for numbers below 1, and for data with several answers to a context under `argmax` and `budget`.
    """
    deviation = (criterion or Criterion()).start
    starts = random_starts(data, ranks, restarts=restarts, seed=seed, deviation=deviation)
    return fit(data, starts, steps=steps, learning_rate=learning_rate, criterion=criterion)


def fit(
    data: DataTensor,
    starts: CPLogits,
    *,
    steps: int = 1000,
    learning_rate: float = 0.05,
    criterion: Criterion | None = None,
    enough: int | None = None,
) -> CPLogits:
    """Return CP logit tensors fitted to D^n as one stack in float32, from these starts.

    The loss of a fit is the cross-entropy of the last token, the mean over the seen contexts; unseen fibers are masked
    out. Adam takes at most `steps` steps. A fit ends as soon as it is consistent (see `Criterion`; by default
    `argmax`), with the factors it has then; under `argmax` it is given up where it is far from that. All end once
    `enough` of them are consistent.

    Under `linear` the loss is half the squared error of the seen fibers, and the rate falls to 0 over the steps, so
    that a fit that can leave no error leaves none.
    Under `budget` every step is followed by a projection: logits whose norm is above the budget are scaled down to it.
    Contexts whose answer is above the threshold, with a tenth of the rest to spare, do not pull any more.
    """
    criterion = criterion or Criterion()
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1.")
    if criterion.name in ("argmax", "budget") and not data.is_functional:
        raise ValueError("A context has several answers: criterion 'kl' or 'linear' says what is consistent with it.")
    enough = len(starts.rank_M) if enough is None else enough
    factors = [factor.clone() for factor in starts.factors]
    fitted = [factor.clone() for factor in starts.factors]
    moments = [(torch.zeros_like(factor), torch.zeros_like(factor)) for factor in factors]
    consistent_M = torch.zeros(len(starts.rank_M), dtype=torch.bool)
    left_M = torch.arange(len(consistent_M))  # the fits that go on
    target_CV = _shares(data)
    for step in range(steps + 1):
        rows = _rows(factors, data.contexts_Cn)
        product_MCR = _product(rows)
        logits_MCV = torch.bmm(product_MCR, factors[-1].transpose(1, 2))
        if step and (step % _EVERY == 0 or step == steps):
            consistent_MC = consistent_contexts(logits_MCV, data, criterion)
            over = consistent_M[left_M] = consistent_MC.all(1)
            for kept, factor in zip(fitted, factors, strict=True):
                kept[left_M] = factor
            if criterion.name == "argmax":
                over = over | ((~consistent_MC).double().mean(1) * step > _PATIENCE)
            if step == steps or over.all() or consistent_M.sum() >= enough:
                break
            if over.any():
                left_M = left_M[~over]
                factors = [factor[~over] for factor in factors]
                moments = [(first[~over], second[~over]) for first, second in moments]
                rows, product_MCR, logits_MCV = [row[~over] for row in rows], product_MCR[~over], logits_MCV[~over]
        # Of the loss by hand, times the number of contexts, which Adam does not see: autograd takes twice the time.
        residual_MCV = (logits_MCV if criterion.name == "linear" else logits_MCV.softmax(2)) - target_CV
        if criterion.name == "budget":
            answered_MC = (residual_MCV * target_CV).sum(2) > -0.9 * (1 - criterion.threshold)  # p - 1 of the answer
            residual_MCV.masked_fill_(answered_MC[..., None], 0.0)
        gradients = _gradients(residual_MCV, rows, product_MCR, factors, data.contexts_Cn)
        rate = learning_rate * (1 - step / steps) if criterion.name == "linear" else learning_rate
        for factor, gradient, (first, second) in zip(factors, gradients, moments, strict=True):
            _adam(factor, gradient, first, second, step + 1, rate)
        if criterion.name == "budget":
            scale_M = (criterion.budget / _sizes(factors).sum(1)).clamp(max=1.0) ** (1 / len(factors))
            for factor in factors:
                factor.mul_(scale_M[:, None, None])
    return CPLogits(starts.rank_M, consistent_M, tuple(fitted))


def _rows(factors: Sequence[Tensor], contexts_Cn: Tensor) -> list[Tensor]:
    """Return the rows of every factor but the last for the tokens of the contexts, each [M, C, R]."""
    return [
        factor.index_select(1, token_C) for factor, token_C in zip(factors[:-1], contexts_Cn.unbind(1), strict=True)
    ]


def _gradients(
    residual_MCV: Tensor, rows: Sequence[Tensor], product_MCR: Tensor, factors: Sequence[Tensor], contexts_Cn: Tensor
) -> list[Tensor]:
    """Return the gradient of each factor, [M, V, R], for that of the logits.

    Of l[c, v] = sum_r prod_i A_i[c_i, r] U[v, r]: for U the product, for A_i the rows of U and of all other factors.
    """
    pulled_MCR = torch.bmm(residual_MCV, factors[-1])
    gradients = []
    for place, factor in enumerate(factors[:-1]):
        others_MCR = math.prod((row for other, row in enumerate(rows) if other != place), start=pulled_MCR)
        gradients.append(torch.zeros_like(factor).index_add_(1, contexts_Cn[:, place], others_MCR))
    return [*gradients, torch.bmm(residual_MCV.transpose(1, 2), product_MCR)]


def _adam(factor: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, rate: float) -> None:
    """Take one step of Adam, in place."""
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.01)
    size = (second / (1 - 0.99**step)).sqrt_().add_(1e-12)  # Adam's 1e-8 is too much once all is answered
    factor.addcdiv_(first, size, value=-rate / (1 - 0.9**step))


def _root_mean_square(factor_MVR: Tensor) -> Tensor:
    return factor_MVR.square().mean(1).sqrt()


def _sizes(factors: Sequence[Tensor]) -> Tensor:
    """Return the root mean square of every component over all V^n entries, [M, R]."""
    return _product([_root_mean_square(factor_MVR) for factor_MVR in factors])


def _product(tensors: Sequence[Tensor]) -> Tensor:
    return math.prod(tensors[1:], start=tensors[0])
