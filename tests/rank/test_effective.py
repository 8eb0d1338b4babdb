"""CP logit tensors and the effective rank."""

from __future__ import annotations

import math

import pytest
import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import DataTensor, build_corpus
from tc_sweeps.rank import (
    CPLogits,
    Criterion,
    EffectiveRank,
    consistent_contexts,
    effective_rank,
    fit_cp,
    rank_bounds,
    seen_fibers_rank,
)
from tests.rank.made import functional, planted

AMBIGUOUS = DataTensor(3, torch.tensor([[0, 1, 0], [0, 1, 2], [1, 1, 1]]), torch.tensor([3, 1, 2]))


@pytest.mark.parametrize("rank", range(1, 13))
def test_the_effective_rank_is_no_greater_than_a_planted_one(rank):
    """Every context of a world of this rank is seen; from about 6 on, 144 answers need fewer components."""
    data = build_corpus(
        resolve(
            {
                "data": {
                    "name": "low_rank",
                    "vocab_size": 12,
                    "rank": rank,
                    "held_out_fraction": 0,
                    "num_sentences": None,
                }
            }
        ).data
    ).tensor(3)
    found = effective_rank(data)
    assert 1 <= found.rank <= rank
    assert found.rank <= rank_bounds(data).upper
    assert found.consistent[found.rank] > 0


def test_random_answers_need_more_than_one_component():
    """Of a tensor of rank one each token of the last place wins or loses by one sign: two answers at most."""
    data = functional(torch.tensor([[0, 0], [0, 1], [1, 0]]), torch.tensor([0, 1, 2]), 3)
    found = effective_rank(data, steps=300)
    assert found.rank == 2
    assert found.consistent[1] == 0


def test_the_effective_rank_of_the_database_is_two_by_hand(database):
    """Of rank one there are two answers at most, and the database has four. In the plane they are found by hand.

    A context (p, s) is the point p * s, entry by entry. With born_in = currency = (1, 1), lives_in = (1, -1),
    Astrid = (0, 1), Bernard = (1, 0), Colin = (-1, 0), Malaysia = (1, -1), Singapore = (-1, 1) these points are
    (0, 1), (1, 0), (-1, 0) where they are born, (0, -1), (1, 0), (-1, 0) where they live, (1, -1) and (-1, 1). As
    answers, Singapore = (1, 1), Malaysia = (-1, -1), Ringgit = (.9, -.9), Dollar = (-.9, .9): on the axes the first two
    have the logit 1 and the others at most .9; of (1, -1) the Ringgit has 1.8, and the first two 0.
    """
    places = [
        {"born_in": (1, 1), "lives_in": (1, -1), "currency": (1, 1)},
        {"Astrid": (0, 1), "Bernard": (1, 0), "Colin": (-1, 0), "Malaysia": (1, -1), "Singapore": (-1, 1)},
        {"Singapore": (1, 1), "Malaysia": (-1, -1), "Ringgit": (0.9, -0.9), "Dollar": (-0.9, 0.9)},
    ]
    factors = [torch.zeros(1, database.corpus.vocab_size, 2) for _ in places]
    for factor, points in zip(factors, places, strict=True):
        for name, point in points.items():
            factor[0, database.corpus.tokens.index(name)] = torch.tensor(point)
    by_hand = CPLogits(torch.tensor([2]), torch.tensor([False]), tuple(factors))
    data = database.corpus.tensor(3)
    assert consistent_contexts(by_hand.logits(data.contexts_Cn), data).all()
    found = effective_rank(database.corpus, steps=300)
    assert found.rank == 2
    assert found.consistent[1] == 0


def test_the_same_seed_gives_the_same_fits_and_another_seed_others():
    data = planted(3, vocab_size=8, contexts=30)
    first, again, other = (fit_cp(data, [1, 2], restarts=2, seed=seed, steps=50) for seed in (0, 0, 1))
    contexts = data.contexts_Cn
    assert torch.equal(first.logits(contexts), again.logits(contexts))
    assert not torch.equal(first.logits(contexts), other.logits(contexts))
    assert effective_rank(data, seed=3, steps=100) == effective_rank(data, seed=3, steps=100)


def test_a_stack_holds_every_rank_and_restart_with_no_more_components_than_its_rank():
    data = planted(4, vocab_size=8, contexts=40)
    stack = fit_cp(data, [1, 3], restarts=2, steps=60)
    assert stack.rank_M.tolist() == [1, 1, 3, 3]
    assert [int(factor.any(0).sum()) for factor in stack.factors[0]] == [1, 1, 3, 3]
    everything = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    for rank, logits_CV in zip(stack.rank_M.tolist(), stack.logits(everything), strict=True):
        assert torch.linalg.matrix_rank(logits_CV.double(), rtol=1e-5) <= rank


def test_a_fit_that_says_it_is_consistent_is():
    data = planted(2, vocab_size=8, contexts=40)
    stack = fit_cp(data, [1, 2, 4], restarts=3)
    chosen_MC = stack.logits(data.contexts_Cn).argmax(2)
    assert torch.equal((chosen_MC == data.ngrams_Gn[:, 2]).all(1), stack.consistent_M)
    assert stack.consistent_M.any()


def test_a_hopeless_fit_is_given_up():
    """A tensor of rank one has two answers, which leaves 21 of these 36 contexts wrong, more than 50 / 100 of them."""
    data = functional(torch.cartesian_prod(torch.arange(6), torch.arange(6)), torch.arange(36) % 5, 6)
    early, late, by_divergence = (
        fit_cp(data, [1], restarts=2, steps=steps, criterion=criterion).logits(data.contexts_Cn)
        for steps, criterion in ((100, Criterion()), (200, Criterion()), (200, Criterion("kl", epsilon=0.1)))
    )
    assert torch.equal(early, late)
    assert not torch.equal(late, by_divergence)


def test_equal_logits_answer_nothing():
    data = planted(2, vocab_size=4, contexts=5)
    assert not consistent_contexts(torch.zeros(1, 5, 4), data).any()
    assert not consistent_contexts(torch.full((1, 5, 4), math.nan), data).any()


def test_divergence_is_measured_on_every_fiber():
    """The fiber (3, 0, 1)/4 against itself, and against the uniform one, from which it is log 3 - H = 0.536 nats."""
    right = torch.tensor([[[3.0, 1e-9, 1.0], [1e-9, 1.0, 1e-9]]]).log()
    uniform = right.clone()
    uniform[0, 0] = 0
    strict, loose = Criterion("kl", epsilon=0.53), Criterion("kl", epsilon=0.54)
    assert consistent_contexts(torch.cat([right, uniform]), AMBIGUOUS, strict).tolist() == [[True, True], [False, True]]
    assert consistent_contexts(uniform, AMBIGUOUS, loose).tolist() == [[True, True]]


def test_several_answers_are_met_within_the_divergence():
    found = effective_rank(AMBIGUOUS, epsilon=0.01)
    assert found.rank <= 2, "one component for each context is enough"
    assert effective_rank(AMBIGUOUS, criterion="kl", epsilon=0.01) == found


def test_a_stricter_divergence_needs_no_smaller_rank():
    data = planted(2, vocab_size=8, contexts=40)
    loose, strict = (effective_rank(data, criterion="kl", epsilon=epsilon).rank for epsilon in (1.9, 0.05))
    assert loose <= strict


def test_two_tokens_are_a_matrix():
    data = functional(torch.arange(6)[:, None], torch.arange(6), 6)
    assert effective_rank(data).rank == 2, "six directions in the plane, each the nearest to itself"


@pytest.mark.parametrize(
    ("consistent", "stable"),
    [({2: 0.0, 3: 0.5, 4: 1.0}, True), ({2: 0.0, 3: 0.25, 4: 1.0}, False), ({4: 0.0}, False)],
)
def test_a_rank_that_few_restarts_reach_is_not_stable(consistent, stable):
    assert EffectiveRank(3, consistent, restarts=4).is_stable is stable


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"criterion": "cosine"}, "criterion='cosine' must be"),
        ({"epsilon": 0.0}, "epsilon=0.0 must be greater"),
        ({"restarts": 0}, "restarts=0"),
        ({"steps": 0}, "steps=0"),
        ({"criterion": "budget", "budget": 0.0}, "budget=0.0 must be greater"),
        ({"criterion": "linear", "tolerance": 0.0}, "tolerance=0.0 must be greater"),
        ({"criterion": "budget", "threshold": 1.0}, "threshold=1.0 must lie between"),
    ],
)
def test_bad_input_is_refused_by_name(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        effective_rank(planted(2, vocab_size=6, contexts=12), **options)


def test_data_that_leave_nothing_to_fit_are_refused():
    empty = DataTensor(4, torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="no n-gram"):
        effective_rank(empty)
    with pytest.raises(ValueError, match="several answers"):
        fit_cp(AMBIGUOUS, [1])
    with pytest.raises(ValueError, match="several answers"):
        effective_rank(AMBIGUOUS, criterion="budget")


def test_data_whose_fits_would_not_fit_into_memory_are_refused():
    contexts = torch.cartesian_prod(torch.arange(150), torch.arange(150))
    data = functional(contexts, torch.arange(len(contexts)) % 1000, 1000)
    with pytest.raises(ValueError, match=r"16 starts, 22,500 seen contexts and 1,000 tokens, 1\.3 GiB"):
        effective_rank(data)


def test_how_often_a_fact_is_told_does_not_change_the_effective_rank():
    """Each seen fiber is asked for alike, whatever its weight in the data."""
    data = planted(3, vocab_size=8, contexts=30)
    often = DataTensor(data.vocab_size, data.ngrams_Gn, 1 + torch.arange(30) % 7)
    assert effective_rank(often) == effective_rank(data)


# ------------------------------------------------------------------------------------------------------------- linear


def test_a_completion_needs_fewer_terms_than_the_facts_it_completes_by_hand():
    """f(0, 0) = 0, f(0, 1) = f(1, 0) = 1, and nothing of (1, 1): zeros there take three terms, exclusive or takes two.

    c_1 = (e_0 + e_1) / 2 and c_2 = (e_0 - e_1) / 2 with the factors (1, 1) and (1, -1) at both places: c_1 + c_2 = e_0
    for (0, 0), c_1 - c_2 = e_1 for (0, 1) and (1, 0), and c_1 + c_2 = e_0 for (1, 1), an artifact.
    """
    data = functional(torch.tensor([[0, 0], [0, 1], [1, 0]]), torch.tensor([0, 1, 1]), 2)
    assert seen_fibers_rank(data) == 2
    assert rank_bounds(data).upper == 3
    signs, answers = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[0.5, 0.5], [0.5, -0.5]])
    by_hand = CPLogits(torch.tensor([2]), torch.tensor([False]), (signs[None], signs[None], answers[None]))
    linear = Criterion("linear")
    assert consistent_contexts(by_hand.logits(data.contexts_Cn), data, linear).all()
    assert effective_rank(data, criterion="linear").rank == 2
    fits = fit_cp(data, [1, 2], criterion=linear)
    assert (fits.rank_M[fits.consistent_M] == 2).all()
    assert fits.consistent_M.any()


@pytest.mark.parametrize("rank", range(1, 13))
def test_a_planted_linear_rank_is_recovered_from_a_part_of_the_fibers(rank):
    """The fibers are mixtures of answers, one for each topic of the first token and class of the second.

    P(c | a, b) = sum_j P(j | a) [c = c(j, class of b)] has a term for each of its `rank` answers, and no completion has
    fewer than the seen fibers' matrix. The data tensor, which is zero elsewhere, has at least 10.
    """
    classes = next(size for size in (3, 2, 1) if rank % size == 0)
    topics = rank // classes
    draw = torch.Generator().manual_seed(rank)
    ngrams, counts = [], []
    for first in range(12):
        topic_counts = torch.randint(topics, (4,), generator=draw).bincount(minlength=topics).tolist()
        for second in range(12):
            if torch.rand((), generator=draw) < 0.7:
                for topic, count in enumerate(topic_counts):
                    if count:
                        ngrams.append((first, second, topic * classes + second % classes))
                        counts.append(count)
    data = DataTensor(12, torch.tensor(ngrams), torch.tensor(counts))
    assert len(data.contexts_Cn) < 120
    assert seen_fibers_rank(data) == rank
    assert rank_bounds(data).lower >= 10
    found = effective_rank(data, criterion="linear")
    assert found.rank == rank
    assert found.is_stable


def test_a_linear_completion_is_measured_entry_by_entry():
    """The fibers (3, 0, 1) / 4 and (0, 1, 0), the first also with an entry .002 off."""
    right = torch.tensor([[[0.75, 0.0, 0.25], [0.0, 1.0, 0.0]]])
    off = right.clone()
    off[0, 0, 1] = 0.002
    both = torch.cat([right, off])
    assert consistent_contexts(both, AMBIGUOUS, Criterion("linear")).tolist() == [[True, True], [False, True]]
    assert consistent_contexts(both, AMBIGUOUS, Criterion("linear", tolerance=0.003)).all()


# ------------------------------------------------------------------------------------------------------------- budget

SQUARE = functional(torch.arange(4)[:, None], torch.arange(4), 4)


def test_a_right_answer_is_one_above_any_threshold_once_its_logits_are_scaled_up():
    data = planted(2, vocab_size=8, contexts=40)
    fits = fit_cp(data, [3])
    scaled_MCV = 1e4 * fits.logits(data.contexts_Cn)[fits.consistent_M]
    assert len(scaled_MCV) > 0
    assert consistent_contexts(scaled_MCV, data, Criterion("budget", threshold=0.999)).all()
    low, high = (effective_rank(data, threshold=threshold) for threshold in (0.1, 0.999))
    assert low == high


@pytest.mark.parametrize(("threshold", "rank"), [(0.5, 2), (0.76, 2), (0.79, 3), (0.81, 3), (0.84, None)])
def test_within_a_budget_the_threshold_matters(threshold, rank):
    """Four tokens each followed by themselves, within 2 nats: a 4 x 4 matrix of nuclear norm 2 * 4.

    In the plane they are the corners of a square: logits s, 0, 0, -s of norm s = 2, P = e^2 / (e^2 + 2 + e^-2) = .776.
    In space those of a tetrahedron: logits s (I - J/4) of norm 3 s / 4 = 2, P = e^s / (e^s + 3) = .828, and with more
    dimensions there is nothing to gain.
    """
    if rank is None:
        with pytest.raises(ValueError, match=r"budget=2.0 with threshold=0.84: no CP logit tensor of rank 4 or less"):
            effective_rank(SQUARE, criterion="budget", budget=2.0, threshold=threshold)
    else:
        assert effective_rank(SQUARE, criterion="budget", budget=2.0, threshold=threshold).rank == rank


def test_a_larger_budget_needs_no_larger_rank_and_without_limit_the_threshold_does_not_matter():
    data = functional(torch.cartesian_prod(torch.arange(6), torch.arange(6)), torch.arange(36) * 7 % 11 % 6, 6)
    unbounded = effective_rank(data).rank
    ranks = {
        (budget, threshold): effective_rank(data, criterion="budget", budget=budget, threshold=threshold).rank
        for budget, threshold in ((12.0, 0.5), (12.0, 0.95), (1e4, 0.95))
    }
    assert ranks[12.0, 0.5] <= ranks[12.0, 0.95]
    assert ranks[1e4, 0.95] == unbounded <= ranks[12.0, 0.95]


def test_fits_are_within_their_budget():
    data = planted(2, vocab_size=8, contexts=40)
    for steps in (1, 60):
        fits = fit_cp(data, [1, 3], steps=steps, criterion=Criterion("budget", budget=0.7, threshold=0.9))
        assert (fits.norm_M <= 0.7 * (1 + 1e-6)).all()
