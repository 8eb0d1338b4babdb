"""A second transformer, written from the paper's description with loops in numpy, to hold the first one against.

One member, one context at a time: the whole sequence is attended to densely, with nothing shared and nothing padded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tc_sweeps.config import ModelConfig
from tc_sweeps.model import ToyTransformer

Weights = dict[str, np.ndarray]


def weights_of(model: ToyTransformer, member: int) -> Weights:
    """Return one member's weights in float64."""
    return {name: value[member].detach().double().numpy() for name, value in model.named_parameters()}


def naive_logits(weights: Weights, config: ModelConfig, context: Sequence[int]) -> np.ndarray:
    """Return the logits of the next token after every prefix of a context, [L, V]."""
    states = [weights["embedding"][token] for token in context]
    if config.positions:
        states = [state + weights["position"][place] for place, state in enumerate(states)]
    for layer in range(config.layers):
        states = _attend(weights, config, layer, states)
        if config.mlp_width:
            states = [_perceive(weights, config, layer, state) for state in states]
    unembedding = weights["embedding"].T if config.tied else weights["unembedding"]
    return np.array([_normed(weights, config, "norm_final", state) @ unembedding for state in states])


def naive_probabilities(weights: Weights, config: ModelConfig, context: Sequence[int]) -> np.ndarray:
    """Return P(t | context) for every token, [V]."""
    return _softmax(naive_logits(weights, config, context)[-1])


def _attend(weights: Weights, config: ModelConfig, layer: int, states: list[np.ndarray]) -> list[np.ndarray]:
    normed = [_normed(weights, config, f"norm_attention{layer}", state) for state in states]
    queries, keys, values = (
        [_linear(weights, config, f"{part}{layer}", state) for state in normed] for part in ("query", "key", "value")
    )
    K, O = config.qk_width, config.vo_width  # noqa: E741
    attended = []
    for i, state in enumerate(states):
        heads = []
        for h in range(config.heads):
            qk, vo = slice(h * K, (h + 1) * K), slice(h * O, (h + 1) * O)
            scores = np.array([queries[i][qk] @ keys[j][qk] / np.sqrt(K) for j in range(i + 1)])
            heads.append(sum(share * values[j][vo] for j, share in enumerate(_softmax(scores))))
        attended.append(state + _linear(weights, config, f"output{layer}", np.concatenate(heads)))
    return attended


def _perceive(weights: Weights, config: ModelConfig, layer: int, state: np.ndarray) -> np.ndarray:
    inner = _linear(weights, config, f"mlp_in{layer}", _normed(weights, config, f"norm_mlp{layer}", state))
    return state + _linear(weights, config, f"mlp_out{layer}", np.maximum(inner, 0))


def _linear(weights: Weights, config: ModelConfig, name: str, state: np.ndarray) -> np.ndarray:
    return state @ weights[name] + (weights[f"{name}_bias"] if config.biases else 0)


def _normed(weights: Weights, config: ModelConfig, name: str, state: np.ndarray) -> np.ndarray:
    if not config.layer_norm:
        return state
    scale, shift = weights[name]
    return (state - state.mean()) / np.sqrt(state.var() + 1e-5) * scale + shift


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()
