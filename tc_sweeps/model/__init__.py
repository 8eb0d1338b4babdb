"""Models and their training: toy transformer and CP tensor, the loss, AdamW for stacks, the Lightning modules."""

from tc_sweeps.model.build import build_model
from tc_sweeps.model.counted import CountedModel
from tc_sweeps.model.cp import CPTensor
from tc_sweeps.model.module import CorpusModule, StackModule, batch_shape
from tc_sweeps.model.objectives import loss, loss_floor, trained_tensors
from tc_sweeps.model.optimizer import VectorAdamW, evaluation_steps
from tc_sweeps.model.outside import Outside, outside_remarks
from tc_sweeps.model.stack import StackModel
from tc_sweeps.model.transformer import ToyTransformer

__all__ = [
    "CPTensor",
    "CorpusModule",
    "CountedModel",
    "Outside",
    "StackModel",
    "StackModule",
    "ToyTransformer",
    "VectorAdamW",
    "batch_shape",
    "build_model",
    "evaluation_steps",
    "loss",
    "loss_floor",
    "outside_remarks",
    "trained_tensors",
]
