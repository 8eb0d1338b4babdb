"""The layer tensor of the companion (arXiv 2502.05076): an attention layer as a 3-tensor, its rank, what it decodes.

A layer without positions, norms, biases and MLP answers a context (a, b) with the logits

    L[a, b, :] = D[b] + sum over heads h of { s_h(a, b) M_h[a] + (1 - s_h(a, b)) M_h[b] },
    s_h(a, b) = sigmoid(q_h[b] . (k_h[a] - k_h[b]) / sqrt(qk_width)),

where D = E U is the embedding times the unembedding and M_h = E W_V W_O U what head h moves, both [V, V]. The companion
says on what the rank of L depends; its formulas are not public, and the bounds here are derived anew.

Letters: `M` member, `H` head, `K` query-key or value-output width of a head, `D` width, `V` vocabulary (once for each
place of a tensor), `C` context, `G` n-gram, `U` the vocabulary and any unsupported token, `m` tokens of a context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tc_sweeps.config import TransformerConfig
from tc_sweeps.corpus import DataTensor
from tc_sweeps.model import CountedModel, ToyTransformer

__all__ = [
    "LayerBounds",
    "decoded_tensor",
    "first_token_share",
    "layer_rank_bounds",
    "layer_tensor",
    "numerical_flattening_ranks",
    "softmax_at_least",
]

_MOST_ENTRIES = 2**24  # of layer tensors: 128 MiB in float64, V = 256 for one model
_PROBABILITIES = 2**22  # that are decoded together


@dataclass(frozen=True)
class LayerBounds:
    """No layer tensor of this shape has a greater rank than `upper`, the less of two ways to write it; see below."""

    flattenings: dict[str, int]  # no flattening has a greater rank: "1" is t_1 against the other places
    residual: int  # rank-one terms through the residual stream
    heads: int  # rank-one terms through the heads

    @property
    def upper(self) -> int:
        """The fewest rank-one terms that are enough for every layer of this shape."""
        return min(self.residual, self.heads)


def layer_rank_bounds(config: TransformerConfig, vocab_size: int) -> LayerBounds:
    """Return upper bounds on the rank of the layer tensor, whatever the weights are (lower ones: of given weights).

    Through the residual stream: L[a, b, c] is the sum over the width d of state_d(a, b) U[d, c]. So the flattening of
    the last place has at most the rank min(D, V), and in a basis of that many vectors L is a sum of matrices [V, V]
    times a vector over c. A matrix has at most the rank V: at most V min(D, V) rank-one terms.

    Through the heads: with M_h[a, c] = sum over k of x_hk[a] y_hk[c], k up to vo_width,

        L[a, b, c] = 1[a] (D + sum_h M_h)[b, c] + sum over h, k of { s_h(a, b) (x_hk[a] - x_hk[b]) } y_hk[c].

    The first part is a matrix over (b, c) of rank min(D, V). In the second each brace is a matrix [V, V], and the y_hk
    span no more than r = min(heads * vo_width, D, V) vectors over c: at most V r rank-one terms. So what a model can
    hold grows with its heads and their value-output width, as far as the width goes.

    `qk_width` enters nowhere. The scores are a matrix of rank qk_width + 1 at most, but s_h is their sigmoid, entry by
    entry, and such a matrix can have the rank V even for qk_width = 1. For the same reason the flattenings of the other
    places have no bound but V.
    """
    V, D = vocab_size, config.width
    vo_width = config.vo_width or D // config.heads
    across = min(D, V)
    return LayerBounds(
        flattenings={"1": V, "2": V, "3": across},
        residual=V * across,
        heads=V * min(config.heads * vo_width, across) + across,
    )


def layer_tensor(model: ToyTransformer) -> Tensor:
    """Return the layer tensor L of every member, [M, V, V, V] in float64: the logits of all contexts of two tokens.

    Raises ValueError for a model of another form, and for tensors of more than 2^24 entries in all.
    """
    _require_bare_layer(model)
    M, V = model.num_members, model.vocab_size
    if M * V**3 > _MOST_ENTRIES:
        raise ValueError(
            f"{M} layer tensors of {V}^3 entries are more than {_MOST_ENTRIES} in all: take fewer members."
        )
    embedding_MVD = model.get_parameter("embedding").detach().double()
    unembedding_MDV = model.unembedding_matrix().detach().double()[..., :V]
    value_MHVK = _by_head(model, "value0")
    output_MHKD = model.get_parameter("output0").detach().double().view(M, model.config.heads, -1, model.config.width)
    moved_MHVV = value_MHVK @ output_MHKD @ unembedding_MDV[:, None]
    direct_MVV = embedding_MVD @ unembedding_MDV
    layer_MVVV = (direct_MVV + moved_MHVV.sum(1))[:, None].repeat(1, V, 1, 1)
    for share_MVV, moved_MVV in zip(first_token_share(model).unbind(1), moved_MHVV.unbind(1), strict=True):
        layer_MVVV += share_MVV[..., None] * (moved_MVV[:, :, None] - moved_MVV[:, None])
    return layer_MVVV


def first_token_share(model: ToyTransformer) -> Tensor:
    """Return how much of its attention each head pays to the first token of a context (a, b): s_h(a, b), [M, H, V, V].

    The rest goes to the second token, which asks. Raises ValueError for a model of another form.
    """
    _require_bare_layer(model)
    query_MHVK, key_MHVK = _by_head(model, "query0"), _by_head(model, "key0")
    score_MHVV = key_MHVK @ query_MHVK.mT  # [a, b]: what b asks of a
    own_MHV = score_MHVV.diagonal(dim1=2, dim2=3)
    return torch.sigmoid((score_MHVV - own_MHV[:, :, None]) * query_MHVK.shape[-1] ** -0.5)


def _by_head(model: ToyTransformer, name: str) -> Tensor:
    """Return a projection of all tokens' embeddings in float64, [M, H, V, K]."""
    embedding_MVD = model.get_parameter("embedding").detach().double()
    projected_MVX = embedding_MVD @ model.get_parameter(name).detach().double()
    by_head_MHVK: Tensor = projected_MVX.view(*projected_MVX.shape[:2], model.config.heads, -1).transpose(1, 2)
    return by_head_MHVK


def _require_bare_layer(model: ToyTransformer) -> None:
    config = model.config
    extras = {name: getattr(config, name) for name in ("mlp_width", "positions", "layer_norm", "biases")}
    added = [f"model.{name}={value}" for name, value in extras.items() if value]
    if config.layers != 1 or added:
        said = ", ".join([f"model.layers={config.layers}", *added])
        raise ValueError(f"A layer tensor is that of one attention layer and nothing else, and this model has {said}.")


def numerical_flattening_ranks(tensor_VVV: Tensor) -> dict[str, int]:
    """Return the ranks of a tensor's flattenings by their rows, "1" for the first place; each bounds its rank below.

    In floating point: singular values within rounding of zero, as `torch.linalg.matrix_rank` has it, count as zero.
    """
    return {
        str(place + 1): int(torch.linalg.matrix_rank(tensor_VVV.movedim(place, 0).flatten(1)))
        for place in range(tensor_VVV.dim())
    }


# ------------------------------------------------------------------------------------------------------ what is decoded


def softmax_at_least(logits: Tensor, tau: float) -> Tensor:
    """Return the companion's softmax_{>= tau}, over the last axis: 1 where a probability is at least tau, else 0.

    At least, whereas an artifact has strictly more than its threshold; the two differ where a probability is tau.
    """
    return (torch.softmax(logits, dim=-1) >= tau).long()


def decoded_tensor(model: CountedModel, contexts_Cm: Tensor, tau: float) -> DataTensor:
    """Return the tensor that is decoded from a completion: 1 for each n-gram of the contexts with P >= tau.

    Where a model has memorised its data, this is the data tensor on the seen fibers (if each has one n-gram, or few
    enough for tau) and the artifacts elsewhere; `rank_bounds` tells the rank of both. In the precision of the weights.

    `model`: a stack of one. `contexts_Cm`: distinct. Raises ValueError for several members.
    """
    if model.num_members != 1:
        raise ValueError(f"One completion is decoded, and this is a stack of {model.num_members}: take one member.")
    unembedding_DU = model.unembedding_matrix().detach()[0]
    found = [contexts_Cm.new_zeros(0, contexts_Cm.shape[1] + 1)]
    for part_Cm in torch.split(contexts_Cm, max(1, _PROBABILITIES // unembedding_DU.shape[1])):
        logits_CU = model.last_hidden(part_Cm[None]).detach()[0] @ unembedding_DU
        row_G, token_G = torch.nonzero(softmax_at_least(logits_CU, tau)[:, : model.vocab_size], as_tuple=True)
        found.append(torch.cat([part_Cm[row_G], token_G[:, None]], dim=1))
    ngrams_Gn = torch.cat(found)
    return DataTensor.of(ngrams_Gn, ngrams_Gn.shape[1], model.vocab_size)
