"""AdamW for a stack: every member has its own learning rate, weight decay and fate.

Letters: `M` member, `T` weight (all parameters of a member in one row), `S` step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tc_sweeps.config import Training

__all__ = ["VectorAdamW", "evaluation_steps", "rate_factor"]


class VectorAdamW:
    """AdamW (Loshchilov and Hutter 2019) over parameters with a leading member axis.

    All parameters of a member lie in one row, and the parameters given become views of it: a step is then a dozen
    operations, whatever the number of parameters. Inactive members keep their parameters and moments, even where their
    gradient is not finite. Nothing in a step is a number of Python's that changes, so that it can be captured.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Sequence[Training]) -> None:
        self.parameters = list(parameters)
        self._settings = settings[0]  # what the members share
        self._weight_MT = torch.cat([p.detach().flatten(1) for p in self.parameters], 1)
        self._mean_MT, self._square_MT = torch.zeros_like(self._weight_MT), torch.zeros_like(self._weight_MT)
        self._rate_M1 = self._weight_MT.new_tensor([[s.learning_rate] for s in settings])
        self._decay_M1 = self._weight_MT.new_tensor([[s.weight_decay] for s in settings])
        self._schedule_S3 = self._weight_MT.new_tensor(_schedule(settings[0]))
        self._zero, self._one, self._beta1, self._beta2 = self._weight_MT.new_tensor(
            [0.0, 1.0, settings[0].beta1, settings[0].beta2]
        )
        self.mean = self._views(self._mean_MT)
        self.square = self._views(self._square_MT)
        for parameter, view in zip(self.parameters, self._views(self._weight_MT), strict=True):
            parameter.data = view

    def _views(self, flat_MT: Tensor) -> list[Tensor]:
        """Return the part of every parameter in the rows of all members, in the parameter's shape."""
        parts = torch.split(flat_MT, [p[0].numel() for p in self.parameters], 1)
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], step: Tensor, active_M: Tensor) -> None:
        """Update the active members; `step` counts from 0, int64 on the device of the parameters."""
        s, active_M1 = self._settings, active_M[:, None]
        # Inactive members: gradient and rate 0, both betas 1. A NaN times 0 would stay one, so the gradient is filled.
        gradient_MT = torch.cat([g.flatten(1) for g in gradients], 1).masked_fill_(~active_M1, 0.0)
        if s.clip_norm is not None:
            norm_M1 = (gradient_MT * gradient_MT).sum(1, keepdim=True).sqrt_()
            gradient_MT *= (s.clip_norm / (norm_M1 + 1e-6)).clamp_max_(1.0)
        factor, correction, epsilon = self._schedule_S3.index_select(0, step.view(1)).unbind(1)
        rate_M1 = torch.where(active_M1, self._rate_M1 * factor, self._zero)
        beta1_M1 = torch.where(active_M1, self._beta1, self._one)
        beta2_M1 = torch.where(active_M1, self._beta2, self._one)
        self._mean_MT.mul_(beta1_M1).add_(gradient_MT, alpha=1 - s.beta1)
        self._square_MT.mul_(beta2_M1).addcmul_(gradient_MT, gradient_MT, value=1 - s.beta2)
        direction_MT = self._mean_MT / self._square_MT.sqrt().add_(epsilon)
        self._weight_MT.mul_(1 - rate_M1 * self._decay_M1).addcmul_(direction_MT, rate_M1 * correction, value=-1)


def _schedule(training: Training) -> list[tuple[float, float, float]]:
    """Return for every step the rate's factor, and both bias corrections as a factor of the rate and an epsilon.

    mean / correction1 / (sqrt(square) / correction2 + epsilon) is
    mean / (sqrt(square) + epsilon * correction2) * (correction2 / correction1).
    """
    rows = []
    for step in range(training.steps):
        correction1 = 1 - training.beta1 ** (step + 1)
        correction2 = math.sqrt(1 - training.beta2 ** (step + 1))
        rows.append((rate_factor(training, step), correction2 / correction1, training.epsilon * correction2))
    return rows


def rate_factor(training: Training, step: int) -> float:
    """Return what the learning rate is multiplied by at a step: linear warm-up, then constant or half a cosine."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    if training.schedule == "constant":
        return 1.0
    done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    return (1 + math.cos(math.pi * done)) / 2


def evaluation_steps(training: Training) -> list[int]:
    """Return the steps after which artifacts are counted, `evaluations` of them, increasing, the last at the end.

    even: multiples of steps / evaluations. log: a geometric sequence from 1, pushed apart where whole steps collide.
    """
    steps, count = training.steps, training.evaluations
    if training.spacing == "even":
        return [round(steps * (i + 1) / count) for i in range(count)]
    chosen: list[int] = []
    for i in range(count):
        wanted = round(steps ** (i / (count - 1))) if count > 1 else steps
        # Not before the step after the last one chosen, and early enough to leave a step for each that follows.
        chosen.append(min(max(wanted, chosen[-1] + 1 if chosen else 1), steps - (count - 1 - i)))
    return chosen
