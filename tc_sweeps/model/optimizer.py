"""AdamW for a stack: every member has its own learning rate, weight decay and fate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tc_sweeps.config import Training

__all__ = ["VectorAdamW", "evaluation_steps", "rate_factor"]


class VectorAdamW:
    """AdamW (Loshchilov and Hutter 2019) over parameters with a leading member axis.

    Inactive members keep their parameters and moments: their update is selected away, since a product with 0 would let
    a NaN through.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], settings: Sequence[Training]) -> None:
        self.parameters = list(parameters)
        self.settings = settings[0]  # what the members share
        device = self.parameters[0].device
        self.rate_M = torch.tensor([s.learning_rate for s in settings], device=device)
        self.decay_M = torch.tensor([s.weight_decay for s in settings], device=device)
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], step: int, active_M: Tensor) -> None:
        """Update the active members; `step` counts from 0."""
        s = self.settings
        if s.clip_norm is not None:
            gradients = _clipped(gradients, s.clip_norm)
        rate_M = self.rate_M * rate_factor(s, step)
        correction1 = 1 - s.beta1 ** (step + 1)
        correction2 = math.sqrt(1 - s.beta2 ** (step + 1))
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.mean, self.square, strict=True):

            def of_member(value_M: Tensor, like: Tensor = parameter) -> Tensor:
                return value_M.view(-1, *[1] * (like.dim() - 1))

            new_mean = torch.lerp(mean, gradient, 1 - s.beta1)
            new_square = torch.lerp(square, gradient * gradient, 1 - s.beta2)
            direction = new_mean / (new_square.sqrt() / correction2 + s.epsilon)
            kept = parameter * of_member(1 - rate_M * self.decay_M)
            updated = kept - direction * of_member(rate_M / correction1)
            active = of_member(active_M)
            parameter.copy_(torch.where(active, updated, parameter))
            mean.copy_(torch.where(active, new_mean, mean))
            square.copy_(torch.where(active, new_square, square))


def _clipped(gradients: Sequence[Tensor], greatest: float) -> list[Tensor]:
    """Return the gradients scaled so that no member's norm is above `greatest`."""
    square_M = torch.stack([(g * g).flatten(1).sum(1) for g in gradients]).sum(0)
    scale_M = (greatest / (square_M.sqrt() + 1e-6)).clamp_max(1.0)
    return [g * scale_M.view(-1, *[1] * (g.dim() - 1)) for g in gradients]


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
