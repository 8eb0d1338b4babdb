"""The Lightning side of training: one `training_step` is a block of optimizer steps up to the next evaluation.

Python is touched once per block by Lightning and the callbacks, so that a tiny model is not slowed down by them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tc_sweeps.config import Config
from tc_sweeps.corpus import Corpus
from tc_sweeps.model.objectives import loss
from tc_sweeps.model.optimizer import VectorAdamW, evaluation_steps
from tc_sweeps.model.prefixes import Batch, full_batch, minibatch, padded_sentences, stack_batches
from tc_sweeps.model.transformer import ToyTransformer

__all__ = ["CorpusModule", "StackModule"]

# MKL's small products round by where a matrix lies in memory, which is another place for the second member of a stack.
# This asks for products that round alike everywhere; MKL reads it at its first call.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


class StackModule(pl.LightningModule):
    """Trains a stack of members on their corpora; the members share everything but seed, corpus, rate and decay."""

    active_M: Tensor
    failed_step_M: Tensor
    seed_M: Tensor

    def __init__(self, model: ToyTransformer, configs: Sequence[Config]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.configs = configs
        self.training_config = configs[0].training
        self.positions = configs[0].objective.positions
        self.blocks = [0, *evaluation_steps(self.training_config)]
        self.register_buffer("active_M", torch.ones(len(configs), dtype=torch.bool))
        self.register_buffer("failed_step_M", torch.full((len(configs),), -1))
        self.register_buffer("seed_M", torch.tensor([config.seed for config in configs]))
        self._adamw: VectorAdamW | None = None

    @property
    def step(self) -> int:
        """Optimizer steps made when the current block is over."""
        return self.blocks[self.current_epoch + 1]

    def configure_optimizers(self) -> None:
        """Lightning holds no optimizer: AdamW for a stack is ours."""

    def on_fit_start(self) -> None:
        """Make the optimizer where the parameters are now."""
        self._adamw = VectorAdamW(list(self.model.parameters()), [config.training for config in self.configs])

    def training_step(self, batch: Batch | list[Tensor]) -> None:
        """Make the optimizer steps of one block."""
        for step in range(self.blocks[self.current_epoch], self.step):
            self._optimize(batch if isinstance(batch, Batch) else self._draw(batch, step), step)

    def _draw(self, sentences: list[Tensor], step: int) -> Batch:
        sentences_MNL, count_M = sentences
        assert self.training_config.batch_size is not None
        return minibatch(
            sentences_MNL,
            count_M,
            seed_M=self.seed_M,
            step=step,
            size=self.training_config.batch_size,
            vocab_size=self.model.vocab_size,
            positions=self.positions,
        )

    def _optimize(self, batch: Batch, step: int) -> None:
        assert self._adamw is not None
        loss_M = loss(self.model.logits(batch.prefixes), batch.targets)
        gradients = torch.autograd.grad(loss_M.sum(), self._adamw.parameters)
        # A member whose loss is no longer finite stops where it is and takes nobody with it; no synchronisation.
        fails_M = self.active_M & ~torch.isfinite(loss_M.detach())
        self.failed_step_M.masked_fill_(fails_M, step)
        self.active_M &= ~fails_M
        self._adamw.step(gradients, step, self.active_M)


class CorpusModule(pl.LightningDataModule):
    """Hands the whole corpus of every member to each block: as distinct prefixes, or as sentences to draw from."""

    def __init__(self, corpora: Sequence[Corpus], config: Config) -> None:
        super().__init__()
        if config.training.batch_size is None:
            positions = config.objective.positions
            self.batch: Any = stack_batches([full_batch(corpus, positions) for corpus in corpora])
        else:
            self.batch = list(padded_sentences(corpora))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return one batch, the same in every epoch."""
        return DataLoader(_Once(self.batch), batch_size=None)


class _Once(Dataset[Any]):
    """A dataset whose only item is a batch."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        if index:
            raise IndexError(index)
        return self._batch
