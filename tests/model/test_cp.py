"""The CP tensor against a sum over its terms written with loops, its gradients, and what its factors promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import CorpusModule, CPTensor, StackModule, build_model
from tc_sweeps.model.prefixes import Prefixes, full_batch, stack_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*(run with no optimizer|num_workers|LeafSpec|`GPU` available).*")

V = 5


def cp(*, rank: int = 3, order: int = 3, members: int = 1, unsupported: bool = False, **model) -> CPTensor:
    config = resolve({"model": {"name": "cp", "rank": rank, **model}}).model
    made = build_model(config, vocab_size=V, max_length=order - 1, seeds=range(7, 7 + members), unsupported=unsupported)
    assert isinstance(made, CPTensor)
    return made.double()


def naive_logits(model: CPTensor, member: int, context: tuple[int, ...]) -> np.ndarray:
    """Return the logits after a context, entry by entry: the sum over terms of products over places."""
    factors = [model.get_parameter(f"factor{i}")[member].detach().numpy() for i in range(model.max_length + 1)]
    places = (V,) * (model.max_length - len(context)) + tuple(context)
    return np.array(
        [
            sum(
                math.prod(factors[i][token, term] for i, token in enumerate((*places, answer)))
                for term in range(model.config.rank)
            )
            for answer in range(V)
        ]
    )


def naive_probabilities(model: CPTensor, member: int, context: tuple[int, ...]) -> np.ndarray:
    power = np.exp(naive_logits(model, member, context))
    if "unsupported" not in dict(model.named_parameters()):
        return power / power.sum()
    hidden = model.last_hidden(torch.tensor([[context]]).expand(model.num_members, -1, -1))[member, 0].detach().numpy()
    abstaining = math.exp(hidden @ model.get_parameter("unsupported")[member].detach().numpy()[:, 0])
    return power / (power.sum() + abstaining)


def all_contexts(length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(V), repeat=length)))


@pytest.mark.parametrize("unsupported", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_of_contexts_of_every_length_are_those_of_the_sum_over_terms(order, rank, unsupported):
    model = cp(order=order, rank=rank, members=2, unsupported=unsupported)
    for length in range(1, order):
        contexts_Cm = all_contexts(length)[:: 2 * length - 1]
        found_MCV = model.probabilities(contexts_Cm.expand(2, -1, -1)).detach().numpy()
        for m in range(2):
            wanted_CV = [naive_probabilities(model, m, context) for context in map(tuple, contexts_Cm.tolist())]
            np.testing.assert_allclose(found_MCV[m], wanted_CV, rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_product_of_contexts_and_tokens_equals_every_context_by_itself(order):
    model = cp(order=order, members=3)
    generator = torch.Generator().manual_seed(1)
    for m in range(order - 1):
        contexts = 1 if m == 0 else 6
        context_MCm = torch.randint(V, (3, contexts, m), generator=generator)
        token_MB = torch.randint(V, (3, 4), generator=generator)
        longer_MCBm = torch.cat(
            [context_MCm[:, :, None].expand(-1, -1, 4, -1), token_MB[:, None, :, None].expand(-1, contexts, -1, -1)],
            dim=3,
        )
        found_MCBK = model.product_hidden(context_MCm, token_MB)
        assert torch.equal(found_MCBK, model.last_hidden(longer_MCBm.flatten(1, 2)).view_as(found_MCBK))


def corpus_of_several_lengths() -> Corpus:
    sentences = torch.tensor([[0, 1, 2, 3], [0, 1, 2, -1], [0, 1, -1, -1], [3, 2, 1, 0], [0, 1, 2, 1], [0, 1, 2, 3]])
    return Corpus(vocab_size=V, sentences=sentences)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_prefixes_that_sentences_share_are_read_as_contexts(positions):
    model, corpus = cp(order=4, members=2), corpus_of_several_lengths()
    batch = stack_batches([full_batch(corpus, positions)] * 2)
    logits_MRV = model.logits(batch.prefixes).detach().numpy()
    prefixes = batch.prefixes
    for m, row in itertools.product(range(2), range(full_batch(corpus, positions).prefixes.wanted_MR.shape[1])):
        wanted = int(prefixes.wanted_MR[m, row])
        places = prefixes.ancestor_MPA[m, wanted, : int(prefixes.length_MP[m, wanted])]
        context = tuple(prefixes.token_MP[m, places].tolist())
        np.testing.assert_allclose(logits_MRV[m, row], naive_logits(model, m, context), rtol=0, atol=1e-13)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_gradients_of_the_logits_are_those_of_the_sum_over_terms(order):
    """Every logit of every length, with respect to every factor, against the derivative of each product by hand."""
    model = cp(order=order, rank=2)
    for length in range(1, order):
        context = tuple(range(length))
        logits_V = model.logits(Prefixes.chains(torch.tensor([[context]])))[0, 0]
        factors = [model.get_parameter(f"factor{i}") for i in range(order)]
        answer = V - 1
        found = torch.autograd.grad(logits_V[answer], factors)
        read = (V,) * (order - 1 - length) + context + (answer,)
        for place, (factor, gradient) in enumerate(zip(factors, found, strict=True)):
            wanted = torch.zeros_like(factor)
            others = [factors[i][0, token] for i, token in enumerate(read) if i != place]
            wanted[0, read[place]] = torch.stack(others).prod(0).detach()
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("settings_", [{}, {"batch_size": 8}, {"clip_norm": 0.1}], ids=str)
def test_a_step_in_float32_is_the_step_in_float64(settings_):
    config = resolve(
        {
            "data": {"vocab_size": 12, "num_sentences": 40},
            "model": {"name": "cp", "rank": 4},
            "training": {"steps": 10, "evaluations": 1, **settings_},
        }
    )
    corpus = build_corpus(config.data)
    module = StackModule(build_model(config.model, vocab_size=12, max_length=2, seeds=[0]), [config])
    module.on_fit_start()
    batch = CorpusModule([corpus], [config]).batch
    data = batch if settings_.get("batch_size") else module._rows(batch)
    exact = module._exact(data)
    module._optimize(data)
    for name, value in module.state().items():
        torch.testing.assert_close(value.double(), exact[name].double(), rtol=1e-3, atol=1e-7, msg=name)


def test_a_blank_that_is_never_read_keeps_what_it_begins_with(fit):
    """With positions=last no context is short; with all, the blank before the last token is trained."""
    base = {
        "data": {"vocab_size": 12, "num_sentences": 40},
        "model": {"name": "cp", "rank": 4},
        "training": {"steps": 10, "evaluations": 1},
    }
    for positions, moves in (("last", False), ("all", True)):
        config = resolve(base | {"objective": {"positions": positions}})
        before = build_model(config.model, vocab_size=12, max_length=2, seeds=[0]).get_parameter("factor0")[0]
        after = fit([config]).model.get_parameter("factor0")[0]
        assert torch.equal(after[-1], before[-1]) != moves
        assert not torch.equal(after[:-1], before[:-1])


def test_order_and_number_of_the_tokens_of_a_context_matter():
    model = cp(order=4)
    (abc, bac, aa, a) = (
        model.probabilities(torch.tensor([context]))[0] for context in ([0, 1, 2], [1, 0, 2], [0, 0], [0])
    )
    assert not torch.isclose(abc, bac).any()
    assert not torch.isclose(aa, a).any()


# ------------------------------------------------------------------------------------------------------- small promises


@pytest.mark.parametrize(("order", "rows"), [(2, [V, V]), (3, [V + 1, V, V]), (4, [V + 1, V + 1, V, V])])
def test_a_factor_has_a_row_for_the_blank_where_there_may_be_one(order, rows):
    model = cp(order=order, members=2, unsupported=True)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes == {f"factor{i}": (2, n, 3) for i, n in enumerate(rows)} | {"unsupported": (2, 3, 1)}
    assert model.num_parameters(embedding=True) == 3 * (sum(rows) + 1)
    assert model.num_parameters(embedding=False) == 0
    assert model.unembedding_matrix().shape == (2, 3, V + 1)


@pytest.mark.parametrize(("rank", "order", "scale"), [(1, 2, 1.0), (8, 3, 1.0), (64, 3, 3.0), (8, 4, 0.3)])
def test_the_initial_logits_have_the_configured_spread(rank, order, scale):
    """In the mean over seeds of the mean square; a product of normal numbers has heavy tails, hence the wide margin."""
    config = resolve({"model": {"name": "cp", "rank": rank, "init_scale": scale}}).model
    model = build_model(config, vocab_size=40, max_length=order - 1, seeds=range(60))
    contexts = torch.randint(40, (60, 50, order - 1), generator=torch.Generator().manual_seed(0))
    logits = (model.last_hidden(contexts) @ model.unembedding_matrix()).detach()
    assert float(logits.square().mean().sqrt()) == pytest.approx(scale, rel=0.25)


def test_initial_weights_depend_on_the_members_seed_alone():
    config = resolve({"model": {"name": "cp"}}).model
    stack = build_model(config, vocab_size=V, max_length=2, seeds=[7, 3, 11])
    torch.manual_seed(123)  # the global generator has no say
    for m, seed in enumerate([7, 3, 11]):
        alone = build_model(config, vocab_size=V, max_length=2, seeds=[seed], unsupported=m == 1)
        for name, value in stack.named_parameters():
            assert torch.equal(alone.get_parameter(name)[0], value[m]), name
    assert not torch.isclose(stack.get_parameter("factor1")[0], stack.get_parameter("factor1")[1]).any()


def test_a_member_taken_out_is_the_same_model_with_weights_of_its_own():
    stack = cp(members=3)
    before = stack.probabilities(all_contexts(2).expand(3, -1, -1))
    alone = stack.member(1)
    assert alone.num_members == 1
    assert torch.equal(alone.probabilities(all_contexts(2)), before[1])
    for parameter in alone.parameters():
        parameter.data.zero_()
    assert torch.equal(stack.probabilities(all_contexts(2).expand(3, -1, -1)), before)


@pytest.mark.parametrize("contexts", [[[V, 0]], [[-1, 0]], [[0, 1, 2]]])
def test_contexts_that_the_model_cannot_read_are_refused(contexts):
    with pytest.raises(ValueError, match="Contexts have"):
        cp().probabilities(torch.tensor(contexts))
