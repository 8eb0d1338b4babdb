"""What a run takes, measured on its corpus: what packing needs to know."""

from __future__ import annotations

import math
from dataclasses import replace

from tc_sweeps.artifacts import epsilon_of
from tc_sweeps.config import Config
from tc_sweeps.corpus import build_corpus
from tc_sweeps.sweep.packing import Load, load
from tc_sweeps.train import engine_of, ngrams_of, stack_key

__all__ = ["measure"]


def measure(config: Config) -> Load:
    """Return what a run takes; a run that cannot be trained is of a kind of its own."""
    try:
        corpus = build_corpus(config.data)
        kind = stack_key(config, corpus)
    except Exception:  # it will fail alone when it is trained, and its reason be recorded there
        return Load(object(), 1.0, 1)
    prefixes, wanted, _, outside, _ = kind[-1]  # the shape of its batch
    prefixes, wanted = prefixes + outside * (corpus.order - 1), wanted + outside
    ngrams, artifacts = ngrams_of(config, corpus), config.artifacts
    contexts, estimated = ngrams // corpus.vocab_size, 0
    if engine_of(config, corpus) == "sampled":
        contexts = min(contexts, artifacts.sampling.contexts)
        estimated = ngrams if artifacts.engine == "auto" else 0
    if artifacts.measure == "joint":  # at most so many prefixes go on
        contexts = min(contexts, (corpus.order - 1) * math.ceil(1 / epsilon_of(corpus, artifacts.epsilon)))
    found = load(config, kind, prefixes=prefixes, wanted=wanted, vocab_size=corpus.vocab_size, contexts=contexts)
    return replace(found, estimated=estimated)
