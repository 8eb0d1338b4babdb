"""Small corpora and sharp models to count on."""

from __future__ import annotations

from typing import Any

import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.corpus.tensor import distinct_rows
from tc_sweeps.model import StackModel, build_model

MODELS: dict[str, dict[str, Any]] = {
    "attention": {"width": 8, "heads": 2},
    "everything": {
        "width": 8,
        "heads": 2,
        "layers": 2,
        "mlp_width": 8,
        "positions": True,
        "layer_norm": True,
        "biases": True,
        "tied": True,
        "vo_width": 3,
    },
    "cp": {"name": "cp", "rank": 4, "init_scale": 0.3},  # its logits grow with the third power of its weights
}


def sharp_model(
    corpora: list[Corpus], shape: str, *, seed: int, sharpness: float = 4.0, unsupported: bool = False
) -> StackModel:
    """Return an untrained stack whose weights are scaled up, so that many probabilities are near 0 and 1."""
    config = resolve({"model": MODELS[shape]}).model
    model = build_model(
        config,
        vocab_size=corpora[0].vocab_size,
        max_length=corpora[0].order - 1,
        seeds=[seed + m for m in range(len(corpora))],
        unsupported=unsupported,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(sharpness)
    return model


def random_world(vocab_size: int, sentences: int, order: int, seed: int, sampler: str = "functional") -> Corpus:
    data = {"vocab_size": vocab_size, "num_sentences": sentences, "order": order, "sampler": sampler, "seed": seed}
    return build_corpus(resolve({"data": data}).data)


def labelled_world(labelled: Any, *, vocab_size: int = 7, order: int = 3, seed: int = 0) -> Corpus:
    """Return a corpus with several answers per context, held-out contexts, noise outside W, and any kind of labels."""
    generator = torch.Generator().manual_seed(seed)
    truth = distinct_rows(torch.randint(vocab_size, (45, order), generator=generator))[0]
    contexts, place, _ = distinct_rows(truth[:, :-1])
    kept_from = torch.rand(len(contexts), generator=generator) < 0.4
    held_out = truth[kept_from[place]]
    train = truth[~kept_from[place]]
    noise = train[:3].clone()
    noise[:, -1] = (noise[:, -1] + 1) % vocab_size  # some of these are not in W
    if labelled == "list":
        extra = torch.randint(vocab_size, (6, order - 1), generator=generator)
        labelled = distinct_rows(torch.cat([contexts, extra]))[0]
    return Corpus(
        vocab_size=vocab_size,
        sentences=torch.cat([train, train[:5], noise]),
        held_out=held_out,
        truth=truth,
        labelled=labelled,
        judge_seed=seed,
    )
