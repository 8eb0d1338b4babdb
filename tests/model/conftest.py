"""What several tests of the model stand on: small models with every weight in play, small corpora, a real trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from tc_sweeps.config import Config, resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import CorpusModule, Outside, StackModule, ToyTransformer, build_model


@pytest.fixture
def shaken_model() -> Callable[..., ToyTransformer]:
    """Make a float64 model whose zero and unit weights (biases, positions, norms) are random too."""

    def make(*, vocab_size: int = 6, max_length: int = 3, members: int = 1, seed: int = 0, **model) -> ToyTransformer:
        made = ToyTransformer(
            resolve({"model": {"width": 8, "heads": 2, **model}}).model,
            vocab_size=vocab_size,
            max_length=max_length,
            seeds=range(seed, seed + members),
        ).double()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in made.named_parameters():
            if name.endswith("_bias") or name.startswith("norm") or name == "position":
                parameter.data += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
        return made

    return make


@pytest.fixture
def fit() -> Callable[..., StackModule]:
    """Train configs as a stack with Lightning, set as in `train`, on the CPU; returns the trained module."""

    def train(
        configs: Sequence[Config],
        corpora: Sequence[Corpus] | None = None,
        *,
        precision: torch.dtype = torch.float32,
        state: Mapping[str, Tensor] | None = None,
        evaluations_made: int = 0,
        evaluations: int | None = None,  # up to this one; None: all
    ) -> StackModule:
        corpora = corpora or [build_corpus(config.data) for config in configs]
        model = build_model(
            configs[0].model,
            vocab_size=corpora[0].vocab_size,
            max_length=corpora[0].order - 1,
            seeds=[config.seed for config in configs],
            unsupported=configs[0].objective.outside.method == "unsupported",
        )
        outside = None if configs[0].objective.outside.method == "none" else Outside(corpora, configs)
        module = StackModule(model.to(precision), configs, outside=outside, evaluations_made=evaluations_made)
        if state is not None:
            module.load_state(state)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=(evaluations or configs[0].training.evaluations) - evaluations_made,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, CorpusModule(corpora, configs))
        return module

    return train
