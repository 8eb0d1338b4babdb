"""Stateless randomness against SplitMix64 in plain unsigned Python integers."""

from __future__ import annotations

import zlib
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.corpus.randomness import judged, random_bits, random_integers, random_normals, random_order

MASK = (1 << 64) - 1
signed = st.integers(-(2**63), 2**63 - 1)


def splitmix64(x: int) -> int:
    """The next output of SplitMix64 (Steele, Lea, Flood 2014) from state x, unsigned."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def plain_bits(seed: int, stream: str, step: int, slot: int) -> int:
    bits = splitmix64((seed + zlib.crc32(stream.encode())) & MASK)
    bits = splitmix64(bits ^ (step & MASK))
    return splitmix64(bits ^ splitmix64(slot & MASK)) & (MASK >> 1)


def test_the_reference_is_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF, "the first output of the generator seeded with 0"
    assert splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4, "and the second"


@settings(deadline=None)
@given(signed, st.text(max_size=8), signed, st.lists(signed, min_size=1, max_size=5))
def test_bits_equal_unsigned_arithmetic(seed, stream, step, slots):
    bits = random_bits(seed, stream, step, torch.tensor(slots))
    assert bits.dtype == torch.int64
    assert bits.tolist() == [plain_bits(seed, stream, step, slot) for slot in slots]
    assert (bits >= 0).all()


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2**40), st.integers(0, 2**31))
def test_integers_are_the_bits_modulo_high(seed, high, slot):
    [drawn] = random_integers(seed, "x", 7, torch.tensor([slot]), high).tolist()
    assert drawn == plain_bits(seed, "x", 7, slot) % high


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"stream": "b"}, {"step": 4}, {"slots": torch.arange(1000, 2000)}],
    ids=lambda o: next(iter(o)),
)
def test_seed_stream_step_and_slot_all_matter(other):
    first = {"seed": 1, "stream": "a", "step": 3, "slots": torch.arange(1000)}
    same = random_bits(**first) == random_bits(**first | other)
    assert not same.any()


def test_neighbouring_seeds_steps_and_slots_do_not_repeat_each_other():
    bits = random_bits(torch.arange(30)[:, None, None], "a", torch.arange(30)[:, None], torch.arange(30))
    assert len(bits.unique()) == 30**3


@pytest.mark.parametrize("what", ["seed", "step", "slots"])
def test_draws_along_every_part_are_uniform(what):
    parts = {"seed": 11, "step": 12, "slots": torch.tensor([13])} | {what: torch.arange(64_000)}
    drawn = random_integers(stream="uniform", high=64, **parts)
    counts = torch.bincount(drawn, minlength=64).double()
    assert len(counts) == 64
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert 25 < chi_square < 120, "63 degrees of freedom: mean 63, standard deviation 11"


def test_the_top_bits_are_uniform_too():
    counts = torch.bincount(random_bits(0, "top", 0, torch.arange(64_000)) >> 57, minlength=64).double()
    assert len(counts) == 64
    assert 25 < float(((counts - 1000) ** 2 / 1000).sum()) < 120


def test_neighbouring_draws_are_uncorrelated():
    x = random_bits(0, "pairs", 0, torch.arange(100_000)).double() / 2**63
    correlation = float(torch.corrcoef(torch.stack([x[:-1], x[1:]]))[0, 1])
    assert abs(correlation) < 5 / 100_000**0.5


def test_seed_step_slots_and_high_broadcast():
    seed_M, slot_B, high_M = torch.tensor([3, 4, 5]), torch.arange(6), torch.tensor([7, 70, 700])
    drawn = random_integers(seed_M[:, None], "minibatch", 9, slot_B[None], high_M[:, None])
    assert drawn.shape == (3, 6)
    for m in range(3):
        alone = random_integers(int(seed_M[m]), "minibatch", 9, slot_B, int(high_M[m]))
        assert torch.equal(drawn[m], alone)
    steps = random_bits(3, "minibatch", torch.arange(4)[:, None], slot_B)
    assert steps.shape == (4, 6)
    assert torch.equal(steps[2], random_bits(3, "minibatch", 2, slot_B))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 200))
def test_a_random_order_is_a_permutation_fixed_by_its_seed(seed, count):
    order = random_order(seed, "held out", count)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, random_order(seed, "held out", count))


def test_random_orders_differ_between_seeds_and_streams():
    orders = {tuple(random_order(seed, stream, 50).tolist()) for seed in range(20) for stream in ("a", "b")}
    assert len(orders) == 40


def test_every_place_of_a_random_order_is_reached_by_every_item():
    places = torch.stack([random_order(seed, "a", 6) for seed in range(3000)])
    counts = torch.stack([torch.bincount(places[:, i], minlength=6) for i in range(6)]).double()
    assert (counts - 500).abs().max() < 5 * (3000 * 1 / 6 * 5 / 6) ** 0.5


@pytest.mark.parametrize("places", [1, 2, 3])
def test_the_judge_has_a_seeded_half_of_the_contexts_which_says_nothing_of_their_tokens(places):
    tokens = torch.cartesian_prod(*[torch.arange(4096 ** (1 / places) + 1).long()] * places).view(-1, places)
    mine = judged(0, tokens[:, :-1], tokens[:, -1])
    assert abs(mine.double().mean() - 0.5) < 5 * 0.5 / len(tokens) ** 0.5
    for place in range(places if places > 1 else 0):
        for token in (0, 1, 2):
            part = mine[tokens[:, place] == token].double()
            assert abs(part.mean() - 0.5) < 5 * 0.5 / len(part) ** 0.5
    others = torch.stack([judged(seed, tokens[:, :-1], tokens[:, -1]) for seed in range(1, 9)])
    assert (abs((others == mine).double().mean(1) - 0.5) < 5 * 0.5 / len(tokens) ** 0.5).all()
    assert torch.equal(mine, judged(0, tokens[:, :-1], tokens[:, -1]))


def test_the_judges_half_is_the_same_for_members_of_a_stack_and_for_products_of_tokens():
    seeds, heads, lasts = torch.tensor([5, 6]), torch.randint(9, (2, 7, 2)), torch.arange(9).expand(2, -1)
    together = judged(seeds[:, None, None], heads[:, :, None], lasts[:, None])
    for m in range(2):
        for p in range(7):
            assert torch.equal(together[m, p], judged(int(seeds[m]), heads[m, p].expand(9, -1), lasts[m]))


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_normals_are_the_quantiles_of_the_bits(seed, slot):
    [drawn] = random_normals(seed, "x", torch.tensor([slot])).tolist()
    share = ((plain_bits(seed, "x", 0, slot) >> 10) + 0.5) / 2**53
    assert drawn == pytest.approx(NormalDist().inv_cdf(share), rel=1e-9, abs=1e-12)


def test_normals_have_mean_0_variance_1_and_the_tails_of_the_normal():
    drawn = random_normals(3, "x", torch.arange(100_000))
    assert abs(float(drawn.mean())) < 5 / 100_000**0.5
    assert abs(float(drawn.var()) - 1) < 5 * (2 / 100_000) ** 0.5
    beyond = int((drawn.abs() > 2.5758).sum())
    assert abs(beyond - 1000) < 5 * 1000**0.5, "1 % lie beyond 2.5758"
