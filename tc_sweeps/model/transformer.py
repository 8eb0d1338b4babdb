"""The toy transformer of the paper: causal and residual, without layer norm, biases or positional encodings.

Letters: `M` member of the stack, `P` prefix, `R` wanted row, `S` state (a token in the first layer, a prefix later),
`A` ancestor, `C` context, `B` token after a context, `D` width, `H` head, `K` query-key width of a head, `O`
value-output width of a head, `X` all heads (of all places), `F` MLP width, `L` place in a sentence, `V` vocabulary, `U`
the vocabulary and the unsupported token, where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.config import TransformerConfig
from tc_sweeps.model.prefixes import Prefixes
from tc_sweeps.model.stack import Route, StackModel, drawn, take

__all__ = ["ToyTransformer"]


@dataclass(frozen=True, eq=False)
class LayerRoute(Route):
    """Where the rows of one layer find the states that they read."""

    state_MR: Tensor  # the row's own state, as an index into the states of all members in a row, [M * S]
    ancestor_MRA: Tensor  # those of the shorter prefixes, its ancestors, likewise
    beyond_MRA1: Tensor  # whether an ancestor is padding


class ToyTransformer(StackModel):
    """A stack of M transformers of one shape."""

    config: TransformerConfig

    @property
    def hidden_width(self) -> int:
        """The width D of the model."""
        return self.config.width

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        D, V, H = config.width, self.vocab_size, config.heads
        assert config.qk_width is not None
        assert config.vo_width is not None
        K, O, W = config.qk_width, config.vo_width, config.mlp_width  # noqa: E741
        shapes: dict[str, tuple[int, ...]] = {"embedding": (V, D)}
        if config.positions:
            shapes["position"] = (self.max_length, D)
        for i in range(config.layers):
            shapes |= {f"query{i}": (D, H * K), f"key{i}": (D, H * K)}
            shapes |= {f"value{i}": (D, H * O), f"output{i}": (H * O, D)}
            if W:
                shapes |= {f"mlp_in{i}": (D, W), f"mlp_out{i}": (W, D)}
            if config.biases:
                shapes |= {f"{part}{i}_bias": (size,) for part, size in _bias_sizes(config).items()}
            if config.layer_norm:
                shapes |= {f"norm_attention{i}": (2, D)} | ({f"norm_mlp{i}": (2, D)} if W else {})
        if config.layer_norm:
            shapes["norm_final"] = (2, D)
        if not config.tied:
            shapes["unembedding"] = (D, V)
        return shapes

    def _initial(self, name: str, shape: tuple[int, ...], seeds: Sequence[int]) -> Tensor:
        """Return the initial value of a parameter for every member, [M, *shape].

        Matrices are normal with variance 1 / (width of their input); so is the embedding, seen as the transposed
        unembedding, times `init_scale`. Biases and positions are zero, norms the identity.
        """
        if name.endswith("_bias") or name == "position":
            return torch.zeros(len(seeds), *shape)
        if name.startswith("norm"):
            return torch.stack([torch.ones(shape[1]), torch.zeros(shape[1])]).repeat(len(seeds), 1, 1)
        scale = self.config.init_scale * self.config.width**-0.5 if name == "embedding" else shape[0] ** -0.5
        return drawn(name, shape, seeds, scale)

    def _is_embedding(self, name: str) -> bool:
        return name in ("embedding", "position", "unembedding")

    def _vocabulary_matrix(self) -> Tensor:
        if self.config.tied:
            return self.get_parameter("embedding").transpose(1, 2)
        return self.get_parameter("unembedding")

    def product_hidden(self, contexts_MCm: Tensor, token_MB: Tensor) -> Tensor:
        """Return the hidden states at every context followed by every token, [M, C, B, D].

        They are `last_hidden` of these C * B longer contexts up to rounding, at a fraction of the work: what a token
        asks and what a context answers is computed once for each of them.
        """
        (M, C, m), B = contexts_MCm.shape, token_MB.shape[1]
        if m == 0:
            return self.last_hidden(token_MB[:, :, None])[:, None]
        if self.config.layers > 1:
            return self.hidden(Prefixes.product(contexts_MCm, token_MB)).view(M, C, B, -1)
        first_M1 = torch.arange(M, device=token_MB.device)[:, None] * self.vocab_size
        context_MSD = take(self.get_parameter("embedding"), contexts_MCm.flatten(1) + first_M1)
        token_MBD = take(self.get_parameter("embedding"), token_MB + first_M1)
        if self.config.positions:
            position_MLD = self.get_parameter("position")
            context_MSD = context_MSD + position_MLD[:, :m].repeat(1, C, 1)
            token_MBD = token_MBD + position_MLD[:, m, None]
        hidden_MSD = self._attend_product(context_MSD.view(M, C, m, -1), token_MBD).flatten(1, 2)
        return self._norm("norm_final", self._after_mlp(0, hidden_MSD)).view(M, C, B, -1)

    def _attend_product(self, context_MCAD: Tensor, token_MBD: Tensor) -> Tensor:
        """Return the states of tokens after the first layer's attention to a context and themselves, [M, C, B, D].

        Through head h with weight w_h the token b adds w_h v_bh W_h to its own state, and the token at place j of the
        context adds w_jh v_jh W_h. The vectors v W depend on a token or on a context alone, so for one token b the
        first sum over heads is a product of weights [C, H] with a table [H, D]; for one context the second sum, over
        places and heads, is a product of weights [B, A H] with a table [A H, D]. Nothing of the width of all heads is
        made for every pair.
        """
        H = self.config.heads
        M, C, A, D = context_MCAD.shape
        B = token_MBD.shape[1]
        context_MSD = self._norm("norm_attention0", context_MCAD.flatten(1, 2))
        normed_MBD = self._norm("norm_attention0", token_MBD)
        query_MBHK = self._project("query0", normed_MBD).view(M, B, H, -1)
        query_MBHK = query_MBHK * query_MBHK.shape[-1] ** -0.5
        own_key_MBHK = self._project("key0", normed_MBD).view(M, B, H, -1)
        key_MCAHK = self._project("key0", context_MSD).view(M, C, A, H, -1)
        own_score_MHBC = (query_MBHK * own_key_MBHK).sum(-1).transpose(1, 2)[..., None].expand(M, H, B, C)
        score_AMHBC = torch.einsum("mbhk,mcahk->amhbc", query_MBHK, key_MCAHK)
        weight_AMHBC = torch.softmax(torch.cat([score_AMHBC, own_score_MHBC[None]]), dim=0)

        output_MHOD = self.get_parameter("output0").view(M, H, -1, D)
        own_value_MBHO = self._project("value0", normed_MBD).view(M, B, H, -1)
        value_MCAHO = self._project("value0", context_MSD).view(M, C, A, H, -1)
        own_table_MBHD = torch.einsum("mbho,mhod->mbhd", own_value_MBHO, output_MHOD)
        table_MCAHD = torch.einsum("mcaho,mhod->mcahd", value_MCAHO, output_MHOD)
        if self.config.biases:
            token_MBD = token_MBD + self.get_parameter("output0_bias")[:, None]
        hidden_MBCD = torch.baddbmm(
            token_MBD.flatten(0, 1)[:, None],
            weight_AMHBC[A].permute(0, 2, 3, 1).flatten(0, 1),  # [M * B, C, H]
            own_table_MBHD.flatten(0, 1),
        ).view(M, B, C, D)
        # In place, of tensors without gaps: anything else makes the product a slow loop over its batch.
        hidden_MCBD = hidden_MBCD.transpose(1, 2).contiguous()
        weight_MCBX = weight_AMHBC[:A].permute(1, 4, 3, 0, 2).flatten(3).contiguous()
        hidden_MCBD.flatten(0, 1).baddbmm_(weight_MCBX.flatten(0, 1), table_MCAHD.reshape(M * C, A * H, D))
        return hidden_MCBD

    def _read(self, routes: Sequence[Route]) -> Tensor:
        state_MSD: Tensor = self.get_parameter("embedding")
        if self.config.positions:
            state_MSD = (self.get_parameter("position")[:, :, None] + state_MSD[:, None]).flatten(1, 2)
        for layer, route in enumerate(routes):
            assert isinstance(route, LayerRoute)
            state_MSD = self._block(layer, state_MSD, route)
        return self._norm("norm_final", state_MSD)

    def routes(self, prefixes: Prefixes) -> list[Route]:
        """Return the route of every layer."""
        # In the first layer a prefix's state is that of its last token (at its place, with positional encodings), so
        # projections are made once per token; from the second layer on each prefix has a state of its own.
        P, S = prefixes.token_MP.shape[1], self.vocab_size
        state_of_MP = prefixes.token_MP
        if self.config.positions:
            state_of_MP = (prefixes.length_MP - 1) * S + state_of_MP
            S *= self.max_length
        member_M1 = torch.arange(len(state_of_MP), device=state_of_MP.device)[:, None]
        routes: list[Route] = []
        for layer in range(self.config.layers):
            ancestor_MRA, length_MR, state_MR = prefixes.ancestor_MPA, prefixes.length_MP, state_of_MP
            if layer == self.config.layers - 1:
                ancestor_MRA = ancestor_MRA[member_M1, prefixes.wanted_MR]
                length_MR = length_MR.gather(1, prefixes.wanted_MR)
                state_MR = state_MR.gather(1, prefixes.wanted_MR)
            ancestor_MRA = ancestor_MRA[:, :, : self.max_length - 1]
            ancestor_MRA = state_of_MP.gather(1, ancestor_MRA.flatten(1)).view_as(ancestor_MRA)
            beyond_MRA = torch.arange(1, ancestor_MRA.shape[2] + 1, device=length_MR.device) >= length_MR[:, :, None]
            first_M1 = member_M1 * S  # where the states of each member begin
            routes.append(LayerRoute(state_MR + first_M1, ancestor_MRA + first_M1[:, :, None], beyond_MRA[..., None]))
            S, state_of_MP = P, torch.arange(P, device=length_MR.device).expand(len(state_of_MP), -1)
        return routes

    def _block(self, layer: int, state_MSD: Tensor, route: LayerRoute) -> Tensor:
        """Return the states of rows after one layer, [M, R, D]: each attends to its ancestors and itself."""
        H = self.config.heads
        A = route.ancestor_MRA.shape[2]
        normed_MSD = self._norm(f"norm_attention{layer}", state_MSD)
        key_MSX, value_MSX = self._project(f"key{layer}", normed_MSD), self._project(f"value{layer}", normed_MSD)
        query_MSX = self._project(f"query{layer}", normed_MSD) * (key_MSX.shape[-1] // H) ** -0.5
        own_score_MSH = _by_head(query_MSX * key_MSX, H).sum(-1)
        # What a row reads of its own state comes in one look-up, what it reads of its ancestors' in another.
        own = [state_MSD, query_MSX, value_MSX, own_score_MSH]
        state_MRD, query_MRX, own_value_MRX, own_score_MRH = _take_together(own, route.state_MR)
        key_MRAX, value_MRAX = _take_together([key_MSX, value_MSX], route.ancestor_MRA)
        score_MRAH = _by_head(query_MRX[:, :, None] * key_MRAX, H).sum(-1)
        score_MRAH = score_MRAH.masked_fill(route.beyond_MRA1, -torch.inf)
        weight_MRAH = torch.softmax(torch.cat([score_MRAH, own_score_MRH[:, :, None]], dim=2), dim=2)
        mixed_MRHO = weight_MRAH[:, :, A, :, None] * _by_head(own_value_MRX, H)
        mixed_MRHO = mixed_MRHO + (weight_MRAH[:, :, :A, :, None] * _by_head(value_MRAX, H)).sum(2)
        hidden_MRD = state_MRD + self._project(f"output{layer}", mixed_MRHO.flatten(2))
        return self._after_mlp(layer, hidden_MRD)

    def _after_mlp(self, layer: int, hidden_MSD: Tensor) -> Tensor:
        """Return the states after the MLP of a layer, the same ones where it has none."""
        if not self.config.mlp_width:
            return hidden_MSD
        inner_MSF = torch.relu(self._project(f"mlp_in{layer}", self._norm(f"norm_mlp{layer}", hidden_MSD)))
        return hidden_MSD + self._project(f"mlp_out{layer}", inner_MSF)

    def _project(self, name: str, x_MSD: Tensor) -> Tensor:
        projected = x_MSD @ self.get_parameter(name)
        if self.config.biases:
            projected = projected + self.get_parameter(f"{name}_bias")[:, None]
        return projected

    def _norm(self, name: str, x_MSD: Tensor) -> Tensor:
        if not self.config.layer_norm:
            return x_MSD
        scale_MD, shift_MD = self.get_parameter(name).unbind(1)
        return F.layer_norm(x_MSD, x_MSD.shape[-1:]) * scale_MD[:, None] + shift_MD[:, None]


def _bias_sizes(config: TransformerConfig) -> dict[str, int]:
    assert config.qk_width is not None
    assert config.vo_width is not None
    qk, vo = config.heads * config.qk_width, config.heads * config.vo_width
    sizes = {"query": qk, "key": qk, "value": vo, "output": config.width}
    return sizes | ({"mlp_in": config.mlp_width, "mlp_out": config.width} if config.mlp_width else {})


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Return what all heads hold, [..., X], as [..., H, X / H]."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads)


def _take_together(tables: Sequence[Tensor], index: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of several tables at the same index."""
    return torch.split(take(torch.cat(list(tables), dim=-1), index), [table.shape[-1] for table in tables], dim=-1)
