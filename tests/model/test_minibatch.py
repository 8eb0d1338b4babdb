"""Minibatches: what is drawn is what is trained on, and on average it is the corpus."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from naive_transformer import naive_logits, weights_of

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.randomness import random_integers
from tc_sweeps.model import ToyTransformer, loss
from tc_sweeps.model.prefixes import full_batch, minibatch, padded_sentences

V = 5
SEEDS = torch.tensor([4, 9, 4])


def random_sentences(count: int, lengths: list[int], seed: int) -> torch.Tensor:
    """Return random sentences padded with -1; the lengths take turns."""
    sentences = torch.randint(V, (count, max(lengths)), generator=torch.Generator().manual_seed(seed))
    for i in range(count):
        sentences[i, lengths[i % len(lengths)] :] = -1
    return sentences


def stack(lengths: list[int]) -> list[Corpus]:
    return [Corpus(V, random_sentences(count, lengths, seed)) for seed, count in enumerate((9, 4, 6))]


def model_for(order: int, **model) -> ToyTransformer:
    config = resolve({"model": {"width": 4, "heads": 2, **model}}).model
    return ToyTransformer(config, vocab_size=V, max_length=order - 1, seeds=[0, 1, 2]).double()


def drawn_batch(corpora, step, *, size=7, positions="all", seed_M=SEEDS):
    sentences_MNL, count_M = padded_sentences(corpora)
    return minibatch(sentences_MNL, count_M, seed_M=seed_M, step=step, size=size, vocab_size=V, positions=positions)


def direct_losses(model, member: int, corpus: Corpus, positions: str) -> list[float]:
    """Return the summed surprise of each sentence of a corpus."""
    weights, losses = weights_of(model, member), []
    for row in corpus.sentences.tolist():
        sentence = [token for token in row if token >= 0]
        places = range(1 if positions == "all" else max(1, len(sentence) - 1), len(sentence))
        if len(sentence) < 2:
            losses.append(0.0)
            continue
        logits = naive_logits(weights, model.config, sentence[:-1])
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses.append(-sum(log_p[place - 1, sentence[place]] for place in places))
    return losses


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("lengths", [[2], [3], [4], [3, 2, 1], [4, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("shape", [{}, {"layers": 2, "positions": True, "mlp_width": 3}], ids=["least", "most"])
def test_the_loss_of_a_minibatch_is_the_mean_over_the_drawn_sentences(shape, lengths, positions):
    corpora, model = stack(lengths), model_for(max(lengths), **shape)
    each = [direct_losses(model, m, corpus, positions) for m, corpus in enumerate(corpora)]
    for step in (0, 1, 1000):
        batch = drawn_batch(corpora, step, positions=positions)
        found = loss(model.logits(batch.prefixes), batch.targets)
        for m, corpus in enumerate(corpora):
            chosen = random_integers(int(SEEDS[m]), "minibatch", step, torch.arange(7), len(corpus.sentences))
            wanted = np.mean([each[m][i] for i in chosen.tolist()])
            assert found[m].item() == pytest.approx(wanted, rel=1.2e-7, abs=1e-12)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_shapes_do_not_depend_on_the_draw(positions):
    corpora = stack([4, 1, 2, 3])
    shapes = {
        tuple(tuple(t.shape) for part in (batch.prefixes, batch.targets) for t in vars(part).values())
        for batch in (drawn_batch(corpora, step, positions=positions) for step in range(20))
    }
    assert len(shapes) == 1


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("lengths", [[3], [4, 1, 2, 3]], ids=str)
def test_the_mean_over_many_steps_is_the_loss_of_the_whole_corpus(lengths, positions):
    corpora, model, steps, size = stack(lengths), model_for(max(lengths)), 50, 200
    total = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for step in range(steps):
            batch = drawn_batch(corpora, step, size=size, positions=positions)
            total += loss(model.logits(batch.prefixes), batch.targets)
    for m, corpus in enumerate(corpora):
        each = direct_losses(model, m, corpus, positions)
        standard_error = np.std(each) / math.sqrt(steps * size)
        assert abs(total[m].item() / steps - np.mean(each)) < 4 * standard_error
        whole = full_batch(corpus, positions)
        assert loss(model.member(m).logits(whole.prefixes), whole.targets).item() == pytest.approx(np.mean(each))


def test_the_gradient_of_a_minibatch_is_that_of_its_sentences_as_a_corpus():
    corpora, model = stack([3, 2]), model_for(3, layers=2)
    batch = drawn_batch(corpora, 5)
    gradients = torch.autograd.grad(loss(model.logits(batch.prefixes), batch.targets).sum(), list(model.parameters()))
    for m, corpus in enumerate(corpora):
        chosen = random_integers(int(SEEDS[m]), "minibatch", 5, torch.arange(7), len(corpus.sentences))
        whole, alone = full_batch(Corpus(V, corpus.sentences[chosen]), "all"), model.member(m)
        wanted = torch.autograd.grad(loss(alone.logits(whole.prefixes), whole.targets).sum(), list(alone.parameters()))
        for found, reference in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(found[m], reference[0], rtol=1e-6, atol=1e-7)


def test_draws_depend_on_seed_and_step_and_not_on_the_stack():
    corpora = [stack([3])[0]] * 3
    batch = drawn_batch(corpora, 3)
    tokens = batch.targets.token_MT
    assert torch.equal(tokens[0], tokens[2]), "the same seed and corpus"
    assert not torch.equal(tokens[0], tokens[1])
    assert not torch.equal(tokens, drawn_batch(corpora, 4).targets.token_MT)
    for m in range(3):
        alone = drawn_batch(corpora[m : m + 1], 3, seed_M=SEEDS[m : m + 1])
        for part in ("prefixes", "targets"):
            for name, value in vars(getattr(alone, part)).items():
                assert torch.equal(value[0], getattr(getattr(batch, part), name)[m]), name


def test_every_sentence_is_drawn_equally_often_and_no_padding_ever():
    corpora = [Corpus(V, torch.tensor([[i, i] for i in range(n)])) for n in (2, 5, 3)]
    counts = torch.zeros(3, V)
    for step in range(200):
        batch = drawn_batch(corpora, step, size=10)
        assert (batch.targets.weight_MT > 0).all()
        counts += torch.nn.functional.one_hot(batch.targets.token_MT, V).sum(1)
    for m, n in enumerate((2, 5, 3)):
        assert (counts[m, n:] == 0).all()
        share = 1 / n
        assert (counts[m, :n] - 2000 * share).abs().max() < 4 * math.sqrt(2000 * share * (1 - share))


def test_a_step_in_a_tensor_draws_what_its_number_draws():
    """The step is a tensor in training, where a captured graph advances it."""
    corpora = stack([4, 1, 2, 3])
    for step in (0, 1, 1000):
        number, tensor = drawn_batch(corpora, step), drawn_batch(corpora, torch.tensor(step))
        for part in ("prefixes", "targets"):
            for name, value in vars(getattr(number, part)).items():
                assert torch.equal(value, getattr(getattr(tensor, part), name)), name
