"""The Lightning side of training: one `training_step` is a block of optimizer steps up to the next evaluation.

Python is touched once per block by Lightning and the callbacks, so that a tiny model is not slowed down by them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tc_sweeps.config import Config
from tc_sweeps.corpus import Corpus
from tc_sweeps.model.graph import checked
from tc_sweeps.model.objectives import loss_gradient, replayed
from tc_sweeps.model.optimizer import VectorAdamW, evaluation_steps
from tc_sweeps.model.outside import Outside, outside_gradient, rows_of, teachable_count
from tc_sweeps.model.prefixes import Batch, Targets, bucket, full_batch, minibatch, padded_sentences, stack_batches
from tc_sweeps.model.stack import Route, StackModel

__all__ = ["CorpusModule", "StackModule", "batch_shape"]

# MKL's small products round by where a matrix lies in memory, which is another place for the second member of a stack.
# This asks for products that round alike everywhere; MKL reads it at its first call.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


class _Rows(NamedTuple):
    """A batch as the model reads it; the whole corpus is made ready once, a minibatch at each step."""

    routes: list[Route]  # of the wanted rows of the data, then of the taught contexts
    targets: Targets
    weight_MK: Tensor | None  # what each taught context weighs; None where there are none


class StackModule(pl.LightningModule):
    """Trains a stack of members on their corpora; they share everything but seed, corpus, rate, decay and target."""

    active_M: Tensor
    failed_step_M: Tensor
    seed_M: Tensor
    steps_made: Tensor
    smoothing_M: Tensor

    def __init__(
        self,
        model: StackModel,
        configs: Sequence[Config],
        *,
        outside: Outside | None = None,
        evaluations_made: int = 0,
    ) -> None:
        """Make a module that is to be trained by Lightning.

        `outside`: the contexts outside the data that the members are taught on. `evaluations_made`: the blocks that are
        behind the members already; training goes on with the next.
        """
        super().__init__()
        self.outside = outside
        self.automatic_optimization = False
        self.model = model
        self.configs = configs
        self.training_config = configs[0].training
        self.positions = configs[0].objective.positions
        self.blocks = [0, *evaluation_steps(self.training_config)]
        self.evaluations_made = evaluations_made
        self.register_buffer("active_M", torch.ones(len(configs), dtype=torch.bool))
        self.register_buffer("failed_step_M", torch.full((len(configs),), -1))
        self.register_buffer("seed_M", torch.tensor([config.seed for config in configs]))
        smoothing = [config.objective.label_smoothing for config in configs]
        self.register_buffer("smoothing_M", torch.tensor(smoothing))
        self._smooths = any(smoothing)
        self.register_buffer("steps_made", torch.tensor(self.blocks[evaluations_made]))
        self._adamw: VectorAdamW | None = None
        self._moments: Mapping[str, Tensor] = {}
        self._step: Callable[[], None] | None = None
        self._whole: tuple[Batch, _Rows] | None = None  # the whole corpus, and how the model reads it

    @property
    def step(self) -> int:
        """Optimizer steps made when the current block is over."""
        return self.blocks[self.evaluations_made + self.current_epoch + 1]

    def state(self) -> dict[str, Tensor]:
        """Return what training goes on from: parameters by name, moments as "mean.NAME" and "square.NAME", [M, ...].

        The tensors are those that training changes in place.
        """
        assert self._adamw is not None, "There are no moments before training."
        adamw, names = self._adamw, [name for name, _ in self.model.named_parameters()]
        state = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        for kind, moments in (("mean", adamw.mean), ("square", adamw.square)):
            state |= {f"{kind}.{name}": moment for name, moment in zip(names, moments, strict=True)}
        if self.outside is not None and self.outside.mined:
            state |= {f"outside.{name}": getattr(self.outside, name) for name in ("context_MKm", "length_M")}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore parameters and moments, bit for bit; before `fit`, with `evaluations_made` given to the module."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state[name])
        if self.outside is not None and self.outside.mined:
            size = self.outside.context_MKm.shape[1]
            self.outside.context_MKm.copy_(state["outside.context_MKm"][:, :size])
            self.outside.length_M.copy_(state["outside.length_M"])
        self._moments = state

    def configure_optimizers(self) -> None:
        """Lightning holds no optimizer: AdamW for a stack is ours."""

    def on_fit_start(self) -> None:
        """Make the optimizer where the parameters are now."""
        adamw = VectorAdamW(list(self.model.parameters()), [config.training for config in self.configs])
        if self._moments:
            for (name, _), mean, square in zip(self.model.named_parameters(), adamw.mean, adamw.square, strict=True):
                mean.copy_(self._moments[f"mean.{name}"])
                square.copy_(self._moments[f"square.{name}"])
            self._moments = {}
        self._adamw = adamw
        self._step = None

    def training_step(self, batch: Batch | list[Tensor]) -> None:
        """Make the optimizer steps of one block."""
        if self._step is None:
            if isinstance(batch, Batch):
                rows = self._rows(batch)
                self._whole = batch, rows
                self._step = self._ready(rows)
            else:
                self._step = self._ready(batch)
        for _ in range(self.blocks[self.evaluations_made + self.current_epoch], self.step):
            self._step()

    def teach(self, context_MJm: Tensor, count_M: Tensor) -> None:
        """Teach on the first `count_M` of new contexts of each member from the next step on; no synchronisation."""
        assert self.outside is not None
        self.outside.teach(context_MJm, count_M)
        if self._whole is not None:
            batch, rows = self._whole
            _overwrite(rows, self._rows(batch))

    def _ready(self, data: _Rows | list[Tensor]) -> Callable[[], None]:
        """Return the optimizer step on data that is the same at every epoch; on CUDA captured, if it can be."""

        def step() -> None:
            self._optimize(data)

        if self.device.type != "cuda":
            return step
        return checked(step, changed=self._changed(), state=self.state(), exact=self._exact(data))

    def _changed(self) -> list[Tensor]:
        """Return all tensors that training changes in place."""
        return [*self.state().values(), self.steps_made, self.active_M, self.failed_step_M]

    def _exact(self, data: _Rows | list[Tensor]) -> dict[str, Tensor]:
        """Return the state after one step in float64; nothing of this module changes."""
        outside = copy.deepcopy(self.outside)
        exact = StackModule(copy.deepcopy(self.model).double(), self.configs, outside=outside).to(self.device)
        exact.load_state(self.state())
        exact.on_fit_start()
        exact.steps_made.copy_(self.steps_made)
        exact.active_M.copy_(self.active_M)
        exact._optimize(data)
        return exact.state()

    def _rows(self, batch: Batch) -> _Rows:
        """Return the whole corpus, and all that is taught outside of it."""
        if self.outside is None:
            return _Rows(self.model.routes(batch.prefixes), batch.targets, None)
        prefixes = batch.prefixes.and_chains(self.outside.context_MKm)
        return _Rows(self.model.routes(prefixes), batch.targets, self.outside.weights())

    def _draw(self, sentences: list[Tensor]) -> _Rows:
        """Return a minibatch, with its part of what is taught outside the corpus."""
        sentences_MNL, count_M = sentences
        assert self.training_config.batch_size is not None
        batch = minibatch(
            sentences_MNL,
            count_M,
            seed_M=self.seed_M,
            step=self.steps_made,
            size=self.training_config.batch_size,
            vocab_size=self.model.vocab_size,
            positions=self.positions,
        )
        if self.outside is None:
            return _Rows(self.model.routes(batch.prefixes), batch.targets, None)
        context_MJm, weight_MJ = self.outside.drawn(self.outside.rows, seed_M=self.seed_M, step=self.steps_made)
        return _Rows(self.model.routes(batch.prefixes.and_chains(context_MJm)), batch.targets, weight_MJ)

    def _optimize(self, data: _Rows | list[Tensor]) -> None:
        """Make one step. No number of Python's in it changes from step to step."""
        assert self._adamw is not None
        rows = data if isinstance(data, _Rows) else self._draw(data)
        logits_MRU = self.model.logits(rows.routes)
        taught = 0 if rows.weight_MK is None else rows.weight_MK.shape[1]
        known = logits_MRU.shape[1] - taught
        smoothing_M = self.smoothing_M if self._smooths else None
        gradient_MRU, p_MT = loss_gradient(
            logits_MRU[:, :known], rows.targets, smoothing_M, vocab_size=self.model.vocab_size
        )
        if rows.weight_MK is not None:
            assert self.outside is not None
            outside_MKU = outside_gradient(logits_MRU[:, known:], rows.weight_MK, self.outside.method)
            gradient_MRU = torch.cat([gradient_MRU, outside_MKU], dim=1)
        gradients = torch.autograd.grad(logits_MRU, self._adamw.parameters, gradient_MRU)
        # A member whose loss is no longer finite stops where it is and takes nobody with it; no synchronisation.
        fails_M = self.active_M & ~torch.isfinite(p_MT.sum(1))
        self.failed_step_M.copy_(torch.where(fails_M, self.steps_made, self.failed_step_M))
        self.active_M &= ~fails_M
        self._adamw.step(gradients, self.steps_made, self.active_M)
        self.steps_made += 1


def batch_shape(corpus: Corpus, config: Config) -> tuple[int, ...]:
    """Return how many prefixes, wanted rows and targets a batch has, padded as in `stack_batches`, how many rows of
    taught contexts besides, and of how many such contexts these are taken.

    Corpora of one batch shape can train in one stack. Raises `ConfigError` where there is no context to teach on.
    """
    size, positions = config.training.batch_size, config.objective.positions
    taught = 0 if config.objective.outside.method == "none" else bucket(teachable_count(corpus, config))
    outside = rows_of(taught, corpus, config), taught
    if size is not None:
        prefixes = corpus.vocab_size + size * (corpus.order - 2)
        wanted, targets = (prefixes, size * (corpus.order - 1)) if positions == "all" else (size, size)
        return prefixes, wanted, targets, *outside
    batch = full_batch(corpus, positions)
    lengths = (batch.prefixes.token_MP, batch.prefixes.wanted_MR, batch.targets.row_MT)
    return *(bucket(tensor.shape[1]) for tensor in lengths), *outside


def _overwrite(rows: _Rows, newer: _Rows) -> None:
    """Put newer rows in the place of others, where a captured step looks for them."""
    for route, new in zip(rows.routes, newer.routes, strict=True):
        for name, value in vars(new).items():
            getattr(route, name).copy_(value)
    if rows.weight_MK is not None and newer.weight_MK is not None:
        rows.weight_MK.copy_(newer.weight_MK)


class CorpusModule(pl.LightningDataModule):
    """Hands the whole corpus of every member to each block: as distinct prefixes, or as sentences to draw from."""

    def __init__(self, corpora: Sequence[Corpus], configs: Sequence[Config]) -> None:
        super().__init__()
        corpora = [replayed(corpus, config) for corpus, config in zip(corpora, configs, strict=True)]
        if configs[0].training.batch_size is None:
            positions = configs[0].objective.positions
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
