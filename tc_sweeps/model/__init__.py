"""Models and their training: the toy transformer, the loss, AdamW for stacks, the Lightning modules."""

from tc_sweeps.model.module import CorpusModule, StackModule
from tc_sweeps.model.objectives import loss, loss_floor, trained_tensors
from tc_sweeps.model.optimizer import VectorAdamW, evaluation_steps
from tc_sweeps.model.prefixes import batch_shape
from tc_sweeps.model.transformer import ToyTransformer

__all__ = [
    "CorpusModule",
    "StackModule",
    "ToyTransformer",
    "VectorAdamW",
    "batch_shape",
    "evaluation_steps",
    "loss",
    "loss_floor",
    "trained_tensors",
]
