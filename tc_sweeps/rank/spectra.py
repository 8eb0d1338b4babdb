"""Spectra of a trained model: how low its rank is, at every evaluation, from the weights at hand.

What is unfolded is the tensor of log-probabilities, centred over the last place,

    X[t_1..t_n] = log P(t_n | t_1..t_{n-1}) - mean over t of log P(t | t_1..t_{n-1}).

A log-probability is a logit less the log-sum-exp of its context. That, as anything else that depends on the context
alone, is the same for all t_n, so that centring removes it: X is the centred logits. With h the hidden state of a
context and U the unembedding, less the mean of its columns, X[t_1..t_n] = h[t_1..t_{n-1}] . U[:, t_n]. (An unsupported
token is no token: its column is left out, and its share of the log-sum-exp is removed with it.)

Unfolding i is the matrix of place i against all others, and its squared singular values are the eigenvalues of a Gram
matrix that a stream over contexts adds up. With U U^T = R R^T and y = R^T h, of width D,

    G_i[a, a'] = sum over the contexts with t_i = a and those with t_i = a', alike elsewhere, of y . y'     [V, V]
    G_n        = sum over contexts of y y^T, with the same eigenvalues as X^T X but for zeros               [D, D]

so V^n is never in memory. Squares halve the digits: of singular values what lies 8 digits below the greatest is lost.

Letters: `M` member, `S` token at a place, `P` context less its last token, `D` width, `V` vocabulary, `L` layer, `H`
head, `K` width of a head, `R` singular value, `m` and `n` tokens.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tc_sweeps.model import CountedModel, ToyTransformer

__all__ = [
    "Spectra",
    "gram_bytes",
    "head_spectra",
    "nuclear_norm",
    "numerical_rank",
    "stable_rank",
    "unfolding_spectra",
]

# Singular values below this share of the greatest do not count for the numerical rank. With a hundredth every unfolding
# of a default run has the most that its shape allows, from the first evaluation to the last (LOG.md).
_NEGLIGIBLE = 0.1
_VECTORS = 6  # of the width, in float64, that a context takes while its hidden state is made and added up


def stable_rank(spectrum: Tensor) -> Tensor:
    """Return |X|_F^2 / sigma_max^2 of matrices with these singular values, [.., R]; NaN where all are zero.

    It lies between 1 and the rank, and hardly moves with what is small.
    """
    return spectrum.square().sum(-1) / spectrum.square().amax(-1)


def nuclear_norm(spectrum: Tensor) -> Tensor:
    """Return the sum of the singular values, [.., R], the norm that weight decay on two factors holds down."""
    return spectrum.sum(-1)


def numerical_rank(spectrum: Tensor) -> Tensor:
    """Return how many singular values, [.., R], are greater than a tenth of the greatest; NaN where one is NaN."""
    count = (spectrum > _NEGLIGIBLE * spectrum.amax(-1, keepdim=True)).sum(-1).double()
    return torch.where(spectrum.isnan().any(-1), torch.nan, count)


# ------------------------------------------------------------------------------------------------------- the unfoldings


def gram_bytes(tokens: int) -> int:
    """Return what the unfolding along a place takes at least: a Gram matrix of its tokens, and its decomposition."""
    return 3 * 8 * tokens**2


def unfolding_spectra(model: CountedModel, tokens: Sequence[Tensor], *, contexts_at_once: int) -> list[Tensor]:
    """Return the singular values of the unfoldings along every place, the last token's last, each [M, S] or [M, D].

    `model`: in float64. `tokens`: those considered at each place of a context, [M, S]. About `contexts_at_once`
    contexts of a member are in memory together, and never fewer than one place has tokens.
    """
    unembedding_MDV = model.unembedding_matrix()[..., : model.vocab_size]
    centred_MDV = unembedding_MDV - unembedding_MDV.mean(2, keepdim=True)
    root_MDD = _root(torch.bmm(centred_MDV, centred_MDV.mT))
    sizes = [token_MS.shape[1] for token_MS in tokens]
    places = range(len(tokens))
    # The blocks of one place have all its tokens. Where one block has all contexts, it serves every place.
    at_once = math.prod(sizes) <= contexts_at_once
    last_MDD = torch.zeros_like(root_MDD)
    spectra: list[Tensor] = []
    for together in [list(places)] if at_once else [[place] for place in places]:
        grams = {place: root_MDD.new_zeros(len(root_MDD), sizes[place], sizes[place]) for place in together}
        if len(places) == 1:  # two places: the unfoldings are one matrix and its transpose
            grams = {}
        for block in _blocks(sizes, together[0], contexts_at_once):
            y = _states(model, [token_MS[:, part] for token_MS, part in zip(tokens, block, strict=True)], root_MDD)
            for place, gram_MSS in grams.items():
                y_MSX = y.movedim(1 + place, 1).flatten(2)
                gram_MSS.baddbmm_(y_MSX, y_MSX.mT)
            if together[0] == 0:
                y_MCD = y.flatten(1, -2)
                last_MDD.baddbmm_(y_MCD.mT, y_MCD)
        spectra += [_eigenvalues(gram_MSS).sqrt() for gram_MSS in grams.values()]
    last_MD = _eigenvalues(last_MDD).sqrt()
    return [*(spectra or [last_MD]), last_MD]


def _blocks(sizes: Sequence[int], whole: int, contexts_at_once: int) -> Iterator[tuple[slice, ...]]:
    """Yield products of tokens per place that make up all contexts: all at the place `whole`, parts of the others."""
    room = max(1, contexts_at_once // sizes[whole])
    parts = []
    for place in reversed(range(len(sizes))):
        length = sizes[place]
        if place != whole:
            length = min(length, room)
            room = max(1, room // length)
        parts.append([slice(begin, begin + length) for begin in range(0, sizes[place], length)])
    yield from itertools.product(*reversed(parts))


def _states(model: CountedModel, tokens: Sequence[Tensor], root_MDD: Tensor) -> Tensor:
    """Return y of the contexts that are the product of tokens per place, [M, S_1, .., S_{n-1}, D]."""
    M = len(root_MDD)
    head_MPm = tokens[-1].new_zeros(M, 1, 0)
    for token_MS in tokens[:-1]:
        P, S = head_MPm.shape[1], token_MS.shape[1]
        next_MPS1 = token_MS[:, None, :, None].expand(M, P, S, 1)
        head_MPm = torch.cat([head_MPm[:, :, None].expand(M, P, S, -1), next_MPS1], dim=-1).flatten(1, 2)
    hidden_MPSD = model.product_hidden(head_MPm, tokens[-1])
    y_MCD = torch.bmm(hidden_MPSD.flatten(1, 2), root_MDD)
    return y_MCD.view(M, *(token_MS.shape[1] for token_MS in tokens), -1)


# ------------------------------------------------------------------------------------------------- the heads' products


def head_spectra(model: ToyTransformer) -> dict[str, Tensor]:
    """Return the singular values of every head's products of projections, [M, L, H, K].

    `query_key`: W_Q W_K^T, whose bilinear form of two states is the score before it is divided by the root of the
    width; `value_output`: W_V W_O, what a state adds to another's. Biases and layer norms do not enter.
    """
    config, M = model.config, model.num_members

    def by_head(name: str) -> Tensor:
        """Return the projections from states to heads, [M, L, H, D, K]."""
        matrix_LMDX = torch.stack([model.get_parameter(f"{name}{layer}").double() for layer in range(config.layers)])
        return matrix_LMDX.transpose(0, 1).view(M, config.layers, config.width, config.heads, -1).transpose(2, 3)

    output_LMXD = torch.stack([model.get_parameter(f"output{layer}").double() for layer in range(config.layers)])
    output_MLHKD = output_LMXD.transpose(0, 1).view(M, config.layers, config.heads, -1, config.width)
    return {
        "query_key": _of_product(by_head("query"), by_head("key").mT),
        "value_output": _of_product(by_head("value"), output_MLHKD),
    }


def _of_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the singular values of products, [.., D, K] by [.., K, D], from Gram matrices of the inner width K."""
    root = _root(right @ right.mT)
    return _eigenvalues(root.mT @ (left.mT @ left) @ root).sqrt()


# ---------------------------------------------------------------------------------------------------------- eigenvalues


def _root(gram: Tensor) -> Tensor:
    """Return R with R R^T = G for symmetric matrices without negative eigenvalues; NaN where one is not finite."""
    is_finite = gram.isfinite().all(-1).all(-1)[..., None]
    values, vectors = torch.linalg.eigh(torch.where(is_finite[..., None], gram, 0.0))
    root: Tensor = vectors * torch.where(is_finite, values.clamp_min(0.0).sqrt(), torch.nan)[..., None, :]
    return root


def _eigenvalues(gram: Tensor) -> Tensor:
    """Return the eigenvalues of symmetric matrices without negative ones; NaN where a matrix is not finite.

    Of a model that has diverged nothing can be decomposed, and it must not spoil the others.
    """
    is_finite = gram.isfinite().all(-1).all(-1)[..., None]
    values = torch.linalg.eigvalsh(torch.where(is_finite[..., None], gram, 0.0)).clamp_min(0.0)
    return torch.where(is_finite, values, torch.nan)


# -------------------------------------------------------------------------------------------------------- a whole stack


class Spectra:
    """What the spectra of a stack say at an evaluation, over the contexts that are considered."""

    def __init__(self, places: Sequence[list[Tensor]], *, memory_mib: int, device: torch.device) -> None:
        """`places`: per member and place the tokens considered there, as `Corpus.places` gives them."""
        self._memory_bytes, self._is_cpu = memory_mib << 20, device.type == "cpu"
        self._alike: dict[tuple[int, ...], list[int]] = {}  # members by how many tokens their places have
        for member, tokens in enumerate(places):
            self._alike.setdefault(tuple(map(len, tokens)), []).append(member)
        self._tokens = {
            sizes: [torch.stack([places[m][place] for m in members]).to(device) for place in range(len(sizes))]
            for sizes, members in self._alike.items()
        }

    def __call__(self, model: CountedModel) -> dict[str, Tensor]:
        """Return the metrics of every member by name, [M], of a stack in float64.

        Of the query-key and value-output products a metric is the mean over heads and layers; other models than
        transformers have none. Nothing comes to the host, but a CUDA device is waited for: LAPACK tells whether its
        iterations have converged.
        """
        parts, order = [], []
        for sizes, members in self._alike.items():
            D = model.unembedding_matrix().shape[1]
            contexts = max(*sizes, (self._memory_bytes // 2) // (8 * _VECTORS * D))
            # On the CPU one at a time: products of stacks round otherwise, and there is little to gain.
            at_once = 1 if self._is_cpu else max(1, contexts // math.prod(sizes))
            for begin in range(0, len(members), at_once):
                chosen = members[begin : begin + at_once]
                tokens = [token_MS[begin : begin + at_once] for token_MS in self._tokens[sizes]]
                parts.append(_metrics(_substack(model, chosen), tokens, contexts))
                order += chosen
        place_M = torch.tensor(order).argsort().tolist()
        return {name: torch.cat([part[name] for part in parts])[place_M] for name in parts[0]}


def _metrics(model: CountedModel, tokens: Sequence[Tensor], contexts_at_once: int) -> dict[str, Tensor]:
    unfoldings = unfolding_spectra(model, tokens, contexts_at_once=contexts_at_once)
    spectra = {f"unfolding_{place + 1}": spectrum_MR for place, spectrum_MR in enumerate(unfoldings)}
    if isinstance(model, ToyTransformer):
        spectra |= head_spectra(model)
    measures = {"stable_rank": stable_rank, "nuclear_norm": nuclear_norm, "numerical_rank": numerical_rank}
    return {
        f"spectra/{name}/{measure}": of(spectrum).flatten(0).view(len(spectrum), -1).mean(1)
        for name, spectrum in spectra.items()
        for measure, of in measures.items()
    }


def _substack(model: CountedModel, members: Sequence[int]) -> CountedModel:
    """Return some members of a stack as a stack."""
    if list(members) == list(range(model.num_members)):
        return model
    assert isinstance(model, nn.Module)
    some = copy.copy(model)
    some._parameters = {
        name: nn.Parameter(parameter[list(members)], requires_grad=False)
        for name, parameter in model.named_parameters()
    }
    return cast(CountedModel, some)
