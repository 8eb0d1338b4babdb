"""The Lightning callback that counts artifacts at every evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch

from tc_sweeps.artifacts.counter import Beside, Counter, Row
from tc_sweeps.model import Outside, StackModule

__all__ = ["ArtifactCallback", "Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation says about one member."""

    member: int
    step: int  # optimizer steps made; for a failed member the step whose loss was not finite
    state: Literal["running", "finished", "failed"]
    metrics: Row  # by metric name; empty for a failed member
    thresholds: np.ndarray  # [T], of the survival curve; from .01 on where the member has finished
    survival: np.ndarray  # [T], N(tau)


class ArtifactCallback(pl.Callback):
    """Counts the artifacts of the whole stack after each block of steps, and ends members that are done.

    A member is done at the last step, or at the first evaluation whose excess loss is at most its target. `publish` is
    called once per member that was still running. `beside`: what else is told of the models, as for
    `Counter.evaluate`.
    """

    def __init__(
        self, counter: Counter, publish: Callable[[Evaluation], None], *, beside: Beside | None = None
    ) -> None:
        self._counter = counter
        self._publish = publish
        self._beside = beside
        self._running = [True] * len(counter.corpora)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate, publish, and say who goes on."""
        assert isinstance(pl_module, StackModule)
        module, running = pl_module, [m for m, runs in enumerate(self._running) if runs]
        at_end = module.step == module.blocks[-1]
        evaluated = self._counter.evaluate(
            module.model,
            running_M=module.active_M,
            full_survival=at_end,
            beside=self._beside,
            failed_step=module.failed_step_M,
        )
        failed_steps = [int(step) for step in evaluated.carried["failed_step"]]
        states = {m: self._state(module, m, failed_steps[m], evaluated.rows[m]) for m in running}
        complete = evaluated.thresholds, evaluated.survival
        if "finished" in states.values() and not at_end:  # a member that has reached its target before
            counts = self._counter.count(module.model, running_M=module.active_M, full_survival=True)
            complete = counts.survival_thresholds.numpy(), counts.survival.numpy()
        for m, state in states.items():
            thresholds, survival = evaluated.thresholds, evaluated.survival
            if state == "finished":
                thresholds, survival = complete
            self._running[m] = state == "running"
            module.active_M[m] = self._running[m]
            failed = state == "failed"
            self._publish(
                Evaluation(
                    member=m,
                    step=failed_steps[m] if failed_steps[m] >= 0 else module.step,
                    state=state,
                    metrics={} if failed else evaluated.rows[m],
                    thresholds=np.broadcast_to(thresholds, survival.shape)[m],
                    survival=survival[m],
                )
            )
        trainer.should_stop = not any(self._running)
        if module.outside is not None and module.outside.mined and not (at_end or trainer.should_stop):
            self._mine(module, module.outside)

    def _mine(self, module: StackModule, outside: Outside) -> None:
        """Find the contexts where the models are surest, and have them taught on."""
        evaluation, evaluations = module.blocks.index(module.step), len(module.blocks) - 1
        counts = outside.due(evaluation, evaluations)
        context_MJm = self._counter.surest(
            module.model, max(counts), taught_MKm=outside.context_MKm, length_M=outside.length_M
        )
        module.teach(context_MJm, torch.tensor(counts, device=module.device))

    @staticmethod
    def _state(
        module: StackModule, member: int, failed_step: int, row: Row
    ) -> Literal["running", "finished", "failed"]:
        target, excess = module.configs[member].training.target_excess_loss, row["train/excess_loss"]
        assert excess is not None
        # The last update before an evaluation may be the one that spoils the weights.
        if failed_step >= 0 or not math.isfinite(excess):
            return "failed"
        reached = target is not None and excess <= target
        return "finished" if reached or module.step == module.blocks[-1] else "running"
