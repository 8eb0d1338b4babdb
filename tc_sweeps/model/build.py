"""From the config of a model to the model."""

from __future__ import annotations

from collections.abc import Sequence

from tc_sweeps.config import CPConfig, ModelConfig, TransformerConfig
from tc_sweeps.model.cp import CPTensor
from tc_sweeps.model.stack import StackModel
from tc_sweeps.model.transformer import ToyTransformer

__all__ = ["build_model"]

_MODELS: dict[type[ModelConfig], type[StackModel]] = {TransformerConfig: ToyTransformer, CPConfig: CPTensor}


def build_model(
    config: ModelConfig, *, vocab_size: int, max_length: int, seeds: Sequence[int], unsupported: bool = False
) -> StackModel:
    """Return a stack of the models that a config means, with a member for each seed; as in `StackModel`."""
    return _MODELS[type(config)](
        config, vocab_size=vocab_size, max_length=max_length, seeds=seeds, unsupported=unsupported
    )
