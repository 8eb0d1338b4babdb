"""The toy transformer against a second one written with loops, and what its architecture promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from naive_transformer import naive_logits, naive_probabilities, weights_of

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus
from tc_sweeps.model import ToyTransformer
from tc_sweeps.model.prefixes import Prefixes, full_batch, stack_batches

V = 6

SHAPES = {
    "the paper's": {},
    "two layers": {"layers": 2},
    "three layers": {"layers": 3},
    "MLP": {"mlp_width": 12},
    "positions": {"positions": True},
    "layer norm": {"layer_norm": True},
    "biases": {"biases": True},
    "tied": {"tied": True},
    "narrow heads": {"qk_width": 3, "vo_width": 5, "heads": 3, "width": 7},
    "one head": {"heads": 1, "qk_width": 2, "vo_width": 9},
    "large embedding": {"init_scale": 5.7},
    "everything, one layer": {
        "mlp_width": 5, "positions": True, "layer_norm": True, "biases": True, "tied": True, "qk_width": 3,
    },
    "everything, three layers": {
        "layers": 3, "mlp_width": 5, "positions": True, "layer_norm": True, "biases": True, "vo_width": 7, "heads": 4,
    },
}  # fmt: skip


def all_contexts(length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(V), repeat=length)))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_probabilities_equal_a_naive_transformer(shaken_model, shape, members):
    model = shaken_model(members=members, **shape)
    for length in (1, 2, 3):
        contexts_Cm = all_contexts(length)[:: 2 * length - 1]
        found_MCV = model.probabilities(contexts_Cm.expand(members, -1, -1)).detach().numpy()
        assert found_MCV.shape == (members, len(contexts_Cm), V)
        for m in range(members):
            weights = weights_of(model, m)
            wanted_CV = [naive_probabilities(weights, model.config, c) for c in contexts_Cm.tolist()]
            np.testing.assert_allclose(found_MCV[m], wanted_CV, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [SHAPES["the paper's"], SHAPES["everything, three layers"]], ids=["least", "most"])
def test_members_read_their_own_contexts(shaken_model, shape):
    model = shaken_model(members=3, **shape)
    contexts_MCm = torch.randint(V, (3, 10, 2), generator=torch.Generator().manual_seed(0))
    found_MCV = model.probabilities(contexts_MCm).detach().numpy()
    for m in range(3):
        wanted = [naive_probabilities(weights_of(model, m), model.config, c) for c in contexts_MCm[m].tolist()]
        np.testing.assert_allclose(found_MCV[m], wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_product_of_contexts_and_tokens_equals_every_context_by_itself(shaken_model, shape):
    model = shaken_model(members=3, **shape)
    generator = torch.Generator().manual_seed(1)
    for m, contexts in ((0, 1), (1, 6), (2, 5), (2, 1)):
        context_MCm = torch.randint(V, (3, contexts, m), generator=generator)
        token_MB = torch.randint(V, (3, 4), generator=generator)
        longer_MCBm = torch.cat(
            [context_MCm[:, :, None].expand(-1, -1, 4, -1), token_MB[:, None, :, None].expand(-1, contexts, -1, -1)],
            dim=3,
        )
        found_MCBD = model.product_hidden(context_MCm, token_MB)
        wanted_MCBD = model.last_hidden(longer_MCBm.flatten(1, 2)).view_as(found_MCBD)
        torch.testing.assert_close(found_MCBD, wanted_MCBD, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_logits_of_shared_and_padded_prefixes_equal_a_naive_transformer(shaken_model, shape, positions):
    """The rows that training computes: prefixes of different corpora and lengths, in one padded stack."""
    corpora = [
        Corpus(V, torch.tensor([[0, 1, 2, 3], [0, 1, 4, -1], [5, 1, -1, -1], [0, 2, 2, 2]])),
        Corpus(V, torch.tensor([[3, 3, 3, 3], [3, -1, -1, -1]])),
    ]
    model = shaken_model(members=2, **shape)
    batches = [full_batch(corpus, positions) for corpus in corpora]
    logits_MRV = model.logits(stack_batches(batches).prefixes).detach().numpy()
    for m, batch in enumerate(batches):
        prefixes, weights = batch.prefixes, weights_of(model, m)
        for row, wanted in enumerate(prefixes.wanted_MR[0]):
            ancestors = prefixes.ancestor_MPA[0, wanted, : prefixes.length_MP[0, wanted]]
            context = prefixes.token_MP[0, ancestors].tolist()
            expected = naive_logits(weights, model.config, context)[-1]
            np.testing.assert_allclose(logits_MRV[m, row], expected, rtol=0, atol=1e-12)


# -------------------------------------------------------------------------------------------- what the model cannot see


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_without_positions_a_doubled_token_reads_like_a_single_one(shaken_model, layers):
    model = shaken_model(layers=layers, mlp_width=4)
    single = model.probabilities(all_contexts(1))
    for times in (2, 3):
        repeated = model.probabilities(all_contexts(1).repeat(1, times))
        torch.testing.assert_close(repeated, single, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
def test_with_positions_a_doubled_token_reads_otherwise(shaken_model, layers):
    model = shaken_model(layers=layers, positions=True)
    apart = (model.probabilities(all_contexts(1).repeat(1, 2)) - model.probabilities(all_contexts(1))).abs()
    assert (apart.amax(1) > 1e-3).all()


def test_one_layer_without_positions_sees_a_multiset_and_the_last_token(shaken_model):
    model = shaken_model()
    contexts = all_contexts(3)
    swapped = contexts[:, [1, 0, 2]]
    torch.testing.assert_close(model.probabilities(swapped), model.probabilities(contexts), rtol=0, atol=1e-12)
    other_end = contexts[:, [0, 2, 1]]
    differs = contexts[:, 1] != contexts[:, 2]
    apart = (model.probabilities(other_end) - model.probabilities(contexts)).abs().amax(1)
    assert (apart[differs] > 1e-6).all(), "the last token asks the question"


@pytest.mark.parametrize("shape", [{"layers": 2}, {"positions": True}], ids=["two layers", "positions"])
def test_two_layers_or_positions_see_the_order_of_a_context(shaken_model, shape):
    model = shaken_model(**shape)
    contexts = all_contexts(3)
    contexts = contexts[contexts[:, 0] != contexts[:, 1]]
    apart = (model.probabilities(contexts[:, [1, 0, 2]]) - model.probabilities(contexts)).abs().amax(1)
    assert (apart > 1e-9).all()


# ------------------------------------------------------------------------------------------------------------ causality


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_of_a_prefix_do_not_depend_on_what_follows(shaken_model, shape):
    model = shaken_model(**shape)
    contexts = all_contexts(3)[::7]
    chains = Prefixes.chains(contexts[None])
    everywhere = Prefixes(
        chains.token_MP, chains.ancestor_MPA, chains.length_MP, torch.arange(chains.token_MP.shape[1])[None]
    )
    rows_CmV = torch.softmax(model.logits(everywhere)[0], -1).view(len(contexts), 3, V)
    for length in (1, 2, 3):
        wanted = model.probabilities(contexts[:, :length])
        torch.testing.assert_close(rows_CmV[:, length - 1], wanted, rtol=0, atol=1e-13)
    other_end = contexts.clone()
    other_end[:, 2] = (other_end[:, 2] + 1) % V
    chains = Prefixes.chains(other_end[None])
    everywhere = Prefixes(chains.token_MP, chains.ancestor_MPA, chains.length_MP, everywhere.wanted_MR)
    others_CmV = torch.softmax(model.logits(everywhere)[0], -1).view(len(contexts), 3, V)
    assert torch.equal(others_CmV[:, :2], rows_CmV[:, :2])
    assert not torch.isclose(others_CmV[:, 2], rows_CmV[:, 2]).all(1).any()


# ------------------------------------------------------------------------------------------------------- small promises


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_parameters_are_counted_as_by_hand(shape):
    config = resolve({"model": {"width": 8, "heads": 2, **shape}}).model
    model = ToyTransformer(config, vocab_size=V, max_length=3, seeds=[0, 1])
    D, H, K, O, W = config.width, config.heads, config.qk_width, config.vo_width, config.mlp_width  # noqa: E741
    layer = 2 * D * H * K + 2 * D * H * O + 2 * D * W
    if config.biases:
        layer += 2 * H * K + H * O + D + (W + D if W else 0)
    if config.layer_norm:
        layer += 2 * D + (2 * D if W else 0)
    inside = config.layers * layer + (2 * D if config.layer_norm else 0)
    outside = V * D + (0 if config.tied else D * V) + (3 * D if config.positions else 0)
    assert model.num_parameters(embedding=True) == inside + outside
    assert model.num_parameters(embedding=False) == inside
    assert sum(p.numel() for p in model.parameters()) == 2 * (inside + outside)


def test_the_default_model_has_4096_parameters_besides_its_embeddings():
    model = ToyTransformer(resolve({}).model, vocab_size=100, max_length=2, seeds=[0])
    assert model.num_parameters(embedding=False) == 4 * 32 * 32
    assert model.num_parameters(embedding=True) == 4 * 32 * 32 + 2 * 32 * 100


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_initial_weights_depend_on_the_members_seed_alone(shape):
    config = resolve({"model": {"width": 8, "heads": 2, **shape}}).model
    seeds = [7, 3, 11]
    stack = ToyTransformer(config, vocab_size=V, max_length=3, seeds=seeds)
    assert stack.num_members == 3
    torch.manual_seed(123)  # the global generator has no say
    for m, seed in enumerate(seeds):
        alone = ToyTransformer(config, vocab_size=V, max_length=3, seeds=[seed])
        for name, value in alone.named_parameters():
            assert torch.equal(value[0], stack.get_parameter(name)[m]), name
    matrices = [n for n, p in stack.named_parameters() if p.dim() == 3 and not n.startswith("norm") and n != "position"]
    for name in matrices:
        assert not torch.isclose(stack.get_parameter(name)[0], stack.get_parameter(name)[1]).any(), name


def test_a_shared_part_begins_with_the_same_weights_in_other_architectures():
    plain, rich = (
        ToyTransformer(resolve({"model": m}).model, vocab_size=V, max_length=3, seeds=[5])
        for m in ({}, {"layers": 2, "mlp_width": 16, "biases": True})
    )
    for name, value in plain.named_parameters():
        assert torch.equal(value, rich.get_parameter(name)), name


def test_initial_weights_have_the_documented_spread():
    config = resolve({"model": {"width": 64, "heads": 2, "mlp_width": 100, "init_scale": 3.0}}).model
    model = ToyTransformer(config, vocab_size=300, max_length=3, seeds=[0])
    wanted = {"embedding": 3 / 8, "query0": 1 / 8, "output0": 1 / 8, "mlp_in0": 1 / 8, "mlp_out0": 1 / 10,
              "unembedding": 1 / 8}  # fmt: skip
    for name, spread in wanted.items():
        value = model.get_parameter(name).detach()
        assert float(value.std()) == pytest.approx(spread, rel=0.05), name
        assert abs(float(value.mean())) < 5 * spread / value.numel() ** 0.5, name
    fresh = ToyTransformer(
        resolve({"model": {"biases": True, "positions": True, "layer_norm": True}}).model,
        vocab_size=V, max_length=3, seeds=[0],
    )  # fmt: skip
    for name, value in fresh.named_parameters():
        if name.endswith("_bias") or name == "position":
            assert (value == 0).all(), name
        if name.startswith("norm"):
            assert (value[:, 0] == 1).all(), name
            assert (value[:, 1] == 0).all(), name


@pytest.mark.parametrize("shape", [SHAPES["the paper's"], SHAPES["everything, three layers"]], ids=["least", "most"])
def test_a_member_taken_out_is_the_same_model_with_weights_of_its_own(shaken_model, shape):
    stack = shaken_model(members=3, **shape)
    contexts = all_contexts(2)
    before = stack.probabilities(contexts.expand(3, -1, -1))
    alone = stack.member(1)
    assert alone.num_members == 1
    torch.testing.assert_close(alone.probabilities(contexts), before[1], rtol=0, atol=1e-13)
    for parameter in alone.parameters():
        parameter.data.zero_()
    assert torch.equal(stack.probabilities(contexts.expand(3, -1, -1)), before)


def test_probabilities_are_a_distribution_in_the_precision_of_the_weights(shaken_model):
    model = shaken_model()
    for precision in (torch.float64, torch.float32):
        found = model.to(precision).probabilities(all_contexts(2))
        assert found.dtype == precision
        assert (found > 0).all()
        torch.testing.assert_close(found.sum(1), torch.ones(V * V, dtype=precision))


def test_contexts_without_a_member_axis_are_refused_for_a_stack(shaken_model):
    with pytest.raises(ValueError, match=r"\[M, C, m\], for a stack of 2 models"):
        shaken_model(members=2).probabilities(all_contexts(2))


def test_hidden_states_times_the_unembedding_are_the_logits_behind_the_probabilities(shaken_model):
    for tied in (False, True):
        model = shaken_model(members=2, tied=tied)
        contexts = all_contexts(2).expand(2, -1, -1)
        logits = model.last_hidden(contexts) @ model.unembedding_matrix()
        assert model.unembedding_matrix().shape == (2, 8, V)
        torch.testing.assert_close(logits.softmax(-1), model.probabilities(contexts), rtol=0, atol=1e-14)


@pytest.mark.parametrize("contexts", [[[6, 0]], [[-1, 0]], [[0, 1, 2]]])
@pytest.mark.parametrize("positions", [False, True])
def test_contexts_that_the_model_cannot_read_are_refused(positions, contexts):
    config = resolve({"model": {"width": 8, "positions": positions}}).model
    model = ToyTransformer(config, vocab_size=6, max_length=2, seeds=[0])
    with pytest.raises(ValueError, match="Contexts have"):
        model.probabilities(torch.tensor(contexts))
