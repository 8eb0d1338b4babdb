"""Loss (1) against a loop over sentences, its grouping by order (2), its floor, and its gradient."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_transformer import naive_logits, weights_of

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus
from tc_sweeps.model import ToyTransformer, loss, loss_floor, trained_tensors
from tc_sweeps.model.objectives import loss_gradient, replayed
from tc_sweeps.model.prefixes import full_batch, padded_sentences, stack_batches

V = 4
WEIGHT_ROUNDING = 1.2e-7  # the weights of the targets are float32; relative, all terms have one sign


@st.composite
def corpora(draw):
    """Draw sentences of different lengths (1 to 4 tokens), at least one of the greatest length."""
    longest = draw(st.integers(2, 4))
    token = st.integers(0, V - 1)
    sentences = draw(st.lists(st.lists(token, min_size=1, max_size=longest), max_size=10))
    sentences.append(draw(st.lists(token, min_size=longest, max_size=longest)))
    return Corpus(V, torch.tensor([s + [-1] * (longest - len(s)) for s in sentences]))


def sentences_of(corpus: Corpus) -> list[list[int]]:
    return [[token for token in row if token >= 0] for row in corpus.sentences.tolist()]


def trained_places(sentence: list[int], positions: str) -> range:
    """The places of the tokens that a sentence's loss has a term for."""
    return range(1 if positions == "all" else max(1, len(sentence) - 1), len(sentence))


def direct_loss(model, sentences: list[list[int]], positions: str, member: int = 0) -> float:
    """Loss (1) as it is written: the mean over sentences of the summed surprise of each token given those before."""
    weights, total = weights_of(model, member), 0.0
    for sentence in sentences:
        if len(sentence) > 1:
            logits = naive_logits(weights, model.config, sentence[:-1])
            log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            total -= sum(log_p[place - 1, sentence[place]] for place in trained_places(sentence, positions))
    return total / len(sentences)


def model_for(corpus: Corpus, seed: int = 0, members: int = 1, **model) -> ToyTransformer:
    config = resolve({"model": {"width": 4, "heads": 2, **model}}).model
    seeds = range(seed, seed + members)
    return ToyTransformer(config, vocab_size=V, max_length=corpus.order - 1, seeds=seeds).double()


@settings(deadline=None, max_examples=40)
@given(corpora(), st.sampled_from(["all", "last"]), st.integers(0, 99))
def test_loss_1_over_distinct_prefixes_equals_a_loop_over_sentences(corpus, positions, seed):
    model, batch = model_for(corpus, seed), full_batch(corpus, positions)
    found = loss(model.logits(batch.prefixes), batch.targets).item()
    assert found == pytest.approx(direct_loss(model, sentences_of(corpus), positions), rel=WEIGHT_ROUNDING)


@settings(deadline=None, max_examples=40)
@given(corpora(), st.sampled_from(["all", "last"]), st.integers(0, 99))
def test_loss_2_grouped_by_order_equals_loss_1(corpus, positions, seed):
    model = model_for(corpus, seed)
    grouped = 0.0
    for tensor in trained_tensors(corpus, positions):
        log_p_CV = model.probabilities(tensor.contexts_Cn).log()
        log_p_G = log_p_CV[tensor.context_of_G, tensor.ngrams_Gn[:, -1]]
        grouped -= (tensor.count_G * log_p_G).sum().item() / len(corpus.sentences)
    assert grouped == pytest.approx(direct_loss(model, sentences_of(corpus), positions), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(corpora(), min_size=2, max_size=3), st.sampled_from(["all", "last"]))
def test_padding_in_a_stack_weighs_nothing(drawn, positions):
    longest = max(corpus.order for corpus in drawn)
    drawn = [Corpus(V, torch.nn.functional.pad(c.sentences, (0, longest - c.order), value=-1)) for c in drawn]
    model = model_for(drawn[0], members=len(drawn))
    batch = stack_batches([full_batch(corpus, positions) for corpus in drawn])
    found = loss(model.logits(batch.prefixes), batch.targets)
    for m, corpus in enumerate(drawn):
        wanted = direct_loss(model, sentences_of(corpus), positions, member=m)
        assert found[m].item() == pytest.approx(wanted, rel=WEIGHT_ROUNDING)


@settings(deadline=None, max_examples=40)
@given(corpora(), st.sampled_from(["all", "last"]))
def test_a_batch_has_each_distinct_prefix_once_and_all_weight(corpus, positions):
    batch = full_batch(corpus, positions)
    sentences = sentences_of(corpus)
    prefixes = batch.prefixes
    held = [
        tuple(prefixes.token_MP[0, ancestors[:length]].tolist())
        for ancestors, length in zip(prefixes.ancestor_MPA[0], prefixes.length_MP[0].tolist(), strict=True)
    ]
    assert sorted(held) == sorted({tuple(s[:n]) for s in sentences for n in range(1, len(s))})
    pairs = Counter((tuple(s[:place]), s[place]) for s in sentences for place in trained_places(s, positions))
    wanted_rows = [held[row] for row in prefixes.wanted_MR[0].tolist()]
    found = {
        (wanted_rows[row], token): weight
        for row, token, weight in zip(*(part[0].tolist() for part in vars(batch.targets).values()), strict=True)
    }
    assert found.keys() == pairs.keys()
    for pair, weight in found.items():
        assert weight == pytest.approx(pairs[pair] / len(sentences), rel=WEIGHT_ROUNDING)
    assert set(wanted_rows) == {context for context, _ in pairs}, "only rows with a target are computed"


# ----------------------------------------------------------------------------------------------------------- the floor


@settings(deadline=None, max_examples=60)
@given(corpora(), st.sampled_from(["all", "last"]), st.integers(0, 2**31))
def test_the_floor_is_reached_by_the_empirical_table_and_by_no_other(corpus, positions, seed):
    sentences = sentences_of(corpus)
    pairs = [(tuple(s[:place]), s[place]) for s in sentences for place in trained_places(s, positions)]
    count, context_count = Counter(pairs), Counter(context for context, _ in pairs)
    empirical = -sum(math.log(count[pair] / context_count[pair[0]]) for pair in pairs) / len(sentences)
    assert loss_floor(corpus, positions) == pytest.approx(empirical, abs=1e-12)
    generator = np.random.default_rng(seed)
    table = {context: generator.dirichlet(np.ones(V)) for context in context_count}
    other = -sum(math.log(table[context][token]) for context, token in pairs) / len(sentences)
    assert other >= empirical - 1e-12


@settings(deadline=None, max_examples=20)
@given(corpora(), st.sampled_from(["all", "last"]), st.integers(0, 99))
def test_no_model_is_below_the_floor(corpus, positions, seed):
    model, batch = model_for(corpus, seed, layers=2, positions=True), full_batch(corpus, positions)
    with torch.no_grad():
        model.get_parameter("unembedding").mul_(3.0)
    found = loss(model.logits(batch.prefixes), batch.targets).item()
    assert found >= loss_floor(corpus, positions) - 1e-6


def test_the_floor_of_functional_data_is_that_of_its_shorter_orders():
    corpus = Corpus(V, torch.tensor([[0, 1, 2], [0, 2, 3], [1, 3, 0], [1, 3, 0]]))
    assert loss_floor(corpus, "all") == pytest.approx(2 * math.log(2) / 4)
    assert loss_floor(corpus, "last") == 0


def test_the_trained_tensors_of_last_are_those_of_sentences_of_that_length():
    corpus = Corpus(V, torch.tensor([[0, 1, 2], [0, 1, 3], [2, 3, -1], [1, -1, -1]]))
    everywhere = {t.order: t.ngrams_Gn.tolist() for t in trained_tensors(corpus, "all")}
    last = {t.order: t.ngrams_Gn.tolist() for t in trained_tensors(corpus, "last")}
    assert everywhere == {2: [[0, 1], [2, 3]], 3: [[0, 1, 2], [0, 1, 3]]}
    assert last == {2: [[2, 3]], 3: [[0, 1, 2], [0, 1, 3]]}


# ------------------------------------------------------------------------------------------------------- the gradients

GRADIENT_TOLERANCE = 4e-6  # of the largest entry of a parameter's gradient; float32 has 6e-8


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tied": True, "init_scale": 4.0},
        # wide enough that the layer norm, which divides by the spread of a state, does not magnify its rounding
        {
            "width": 16,
            "layers": 3,
            "mlp_width": 8,
            "positions": True,
            "layer_norm": True,
            "biases": True,
            "qk_width": 3,
        },
    ],
    ids=["the paper's", "tied", "everything"],
)
@pytest.mark.parametrize("positions", ["all", "last"])
def test_float32_gradients_equal_float64_gradients_of_the_direct_loss(shape, positions):
    generator = torch.Generator().manual_seed(0)
    sentences = torch.randint(V, (30, 4), generator=generator)
    sentences[:10, 3] = -1
    sentences[:4, 2] = -1
    corpus = Corpus(V, sentences)
    exact = model_for(corpus, members=2, **shape)
    single = model_for(corpus, members=2, **shape).float()
    batch = stack_batches([full_batch(corpus, positions)] * 2)
    found = torch.autograd.grad(loss(single.logits(batch.prefixes), batch.targets).sum(), list(single.parameters()))

    total = torch.zeros((), dtype=torch.float64)  # loss (1) again, sentence by sentence
    for sentence in sentences_of(corpus):
        for place in trained_places(sentence, positions):
            context = torch.tensor(sentence[:place]).expand(2, 1, -1)
            total = total - exact.probabilities(context)[:, 0, sentence[place]].log().sum() / len(sentences)
    wanted = torch.autograd.grad(total, list(exact.parameters()))
    for (name, _), gradient, reference in zip(exact.named_parameters(), found, wanted, strict=True):
        assert gradient.dtype == torch.float32
        apart = (gradient.double() - reference).abs().amax()
        assert apart <= GRADIENT_TOLERANCE * max(float(reference.abs().amax()), 1e-2), name


def test_float64_gradients_are_the_slopes_of_the_loss():
    corpus = Corpus(V, torch.tensor([[0, 1, 2, 3], [0, 1, 1, -1], [3, 2, -1, -1]]))
    model = model_for(corpus, layers=2, mlp_width=3, positions=True, layer_norm=True, biases=True)
    batch = full_batch(corpus, "all")
    parameters = dict(model.named_parameters())

    def value(**replaced):
        with torch.no_grad():
            for name, parameter in replaced.items():
                parameters[name].copy_(parameter)
            return loss(model.logits(batch.prefixes), batch.targets).item()

    gradients = torch.autograd.grad(loss(model.logits(batch.prefixes), batch.targets).sum(), list(parameters.values()))
    step, generator = 1e-5, torch.Generator().manual_seed(1)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        at = parameter.detach().clone()
        way = torch.randn(at.shape, generator=generator, dtype=torch.float64)
        slope = (value(**{name: at + step * way}) - value(**{name: at - step * way})) / (2 * step)
        value(**{name: at})
        assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9), name


def test_padded_sentences_keep_every_members_own():
    drawn = [Corpus(V, torch.tensor([[0, 1], [2, 3], [1, 1]])), Corpus(V, torch.tensor([[3, 3]]))]
    padded_MNL, count_M = padded_sentences(drawn)
    assert padded_MNL.tolist() == [[[0, 1], [2, 3], [1, 1]], [[3, 3], [-1, -1], [-1, -1]]]
    assert count_M.tolist() == [3, 1]


@settings(deadline=None, max_examples=40)
@given(corpora(), st.sampled_from(["all", "last"]), st.integers(0, 99), st.none() | st.floats(0, 0.99))
def test_the_gradient_in_the_logits_is_that_of_the_loss(corpus, positions, seed, smoothing):
    model, batch = model_for(corpus, seed), full_batch(corpus, positions)
    smoothing_M = None if smoothing is None else torch.tensor([smoothing], dtype=torch.float64)
    logits = model.logits(batch.prefixes).detach().requires_grad_()
    [wanted] = torch.autograd.grad(loss(logits, batch.targets, smoothing_M).sum(), [logits])
    found, p_MT = loss_gradient(logits.detach(), batch.targets, smoothing_M)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)
    assert -(batch.targets.weight_MT * p_MT.log()).sum().item() == pytest.approx(loss(logits, batch.targets).item())


@settings(deadline=None, max_examples=20)
@given(corpora(), st.integers(0, 99), st.floats(0, 0.99))
def test_label_smoothing_is_that_of_torch(corpus, seed, smoothing):
    model, batch = model_for(corpus, seed), full_batch(corpus, "all")
    logits, targets = model.logits(batch.prefixes), batch.targets
    found = loss(logits, targets, torch.tensor([smoothing], dtype=torch.float64))
    each = torch.nn.functional.cross_entropy(
        logits[0, targets.row_MT[0]], targets.token_MT[0], label_smoothing=smoothing, reduction="none"
    )
    assert found.item() == pytest.approx((targets.weight_MT[0] * each).sum().item(), rel=1e-9)


def test_label_smoothing_leaves_the_unsupported_token_out():
    corpus = Corpus(V, torch.tensor([[0, 1, 2], [1, 2, 3]]))
    model, batch = model_for(corpus), full_batch(corpus, "all")
    logits = torch.nn.functional.pad(model.logits(batch.prefixes), (0, 1)).detach().requires_grad_()
    smoothing_M = torch.tensor([0.3], dtype=torch.float64)
    [wanted] = torch.autograd.grad(loss(logits, batch.targets, smoothing_M, vocab_size=V).sum(), [logits])
    found, _ = loss_gradient(logits.detach(), batch.targets, smoothing_M, vocab_size=V)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)
    plain, _ = loss_gradient(logits.detach(), batch.targets)
    torch.testing.assert_close(found[..., V], plain[..., V], rtol=1e-12, atol=1e-15)


def test_replay_repeats_a_share_of_the_sentences():
    corpus = Corpus(V, torch.tensor([[a, b, 0] for a in range(V) for b in range(V)]))
    repeated = {}
    for share in (0.01, 0.25, 0.5):
        made = resolve({"objective": {"replay": share, "replay_times": 3}})
        counts = Counter(map(tuple, replayed(corpus, made).sentences.tolist()))
        repeated[share] = {sentence for sentence, count in counts.items() if count == 3}
        assert set(counts.values()) == {1, 3}
        assert len(counts) == 16
    assert [len(sentences) for sentences in repeated.values()] == [1, 4, 8]
    assert repeated[0.01] < repeated[0.25] < repeated[0.5]
    assert replayed(corpus, resolve({})) is corpus
