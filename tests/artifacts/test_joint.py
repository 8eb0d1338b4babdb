"""Joint artifacts against brute force over all sentences, and against sentences that are drawn from the model."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.artifacts import METRICS, Counter, JointArtifacts, JointCounter, joint, joint_artifacts
from tc_sweeps.artifacts.contexts import chunks
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.listing import TILE
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import ToyTransformer
from tests.artifacts.brute_force import Ngram, assert_rows_equal, probabilities, rows_of
from tests.artifacts.worlds import MODELS, labelled_world, random_world, sharp_model

CPU = torch.device("cpu")
NEAR = 1e-12  # rows of other batches may differ in their last bits


def counter(corpora: list[Corpus], **chosen: object) -> JointCounter:
    asked = {"order": corpora[0].order, "epsilon": None, "memory_mib": 256, "device": CPU} | chosen
    return JointCounter(corpora, **asked)  # type: ignore[arg-type]


def every_prefix(model: ToyTransformer, member: int, corpus: Corpus, order: int) -> list[dict[Ngram, float]]:
    """The joint probability of all V^l prefixes of l = 1..order tokens, one factor after the other."""
    V, firsts = corpus.vocab_size, corpus.sentences[:, 0].tolist()
    levels = [{(token,): firsts.count(token) / len(firsts) for token in range(V)}]
    for length in range(1, order):
        rows = probabilities(model, member, list(itertools.product(range(V), repeat=length)))
        levels.append({(*c, t): levels[-1][c] * p for c, row in rows.items() for t, p in enumerate(row)})
    return levels


def found(artifacts: JointArtifacts, member: int) -> dict[Ngram, float]:
    table = artifacts.tables[member]
    return dict(zip(map(tuple, table["tokens"]), table["probability"], strict=True))


def assert_equals_brute_force(artifacts: JointArtifacts, model: ToyTransformer, corpora: list[Corpus]) -> None:
    order = len(artifacts.tables[0]["tokens"].iloc[0]) if len(artifacts.tables[0]) else corpora[0].order
    for member, corpus in enumerate(corpora):
        epsilon = artifacts.epsilon[member].item()
        levels = every_prefix(model, member, corpus, order)
        train = rows_of(corpus.sentences, order)
        said = found(artifacts, member)
        sure = {g for g, p in levels[-1].items() if abs(p / epsilon - 1) > NEAR}
        assert said.keys() & sure == {g for g in sure - train if levels[-1][g] > epsilon}
        assert artifacts.count[member].item() == len(said)
        for ngram, p in said.items():
            assert p == pytest.approx(levels[-1][ngram], rel=1e-12)
        near = len(levels[-1]) - len(sure)
        trained = sum(levels[-1][g] > epsilon for g in train)
        assert abs(artifacts.train_above[member].item() - trained) <= near
        certificate = artifacts.certificate
        assert certificate.complete_M[member]
        room = math.ceil(1 / Fraction(epsilon)) - 1
        for level, prefixes in enumerate(levels):
            above = [p for p in prefixes.values() if p > epsilon]
            doubtful = sum(abs(p / epsilon - 1) <= NEAR for p in prefixes.values())
            assert abs(certificate.kept_ML[member, level].item() - len(above)) <= doubtful
            assert certificate.kept_ML[member, level].item() <= room
            if not doubtful:
                assert certificate.mass_ML[member, level].item() == pytest.approx(sum(above), rel=1e-12)
        assert certificate.left_out_M[member].item() <= epsilon


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sharpness=st.floats(0.3, 8),
    epsilon=st.none() | st.floats(0.001, 0.6) | st.sampled_from([1 / 7, 0.25, 1 / 49]),
    order=st.integers(2, 4),
    shape=st.sampled_from(list(MODELS)),
    unsupported=st.booleans(),
    members=st.integers(1, 2),
)
def test_all_sentences_above_epsilon_and_no_others(
    seed: int, sharpness: float, epsilon: float | None, order: int, shape: str, unsupported: bool, members: int
) -> None:
    sizes = (7, 25)[:members]
    sampler = "uniform" if order == 2 else "functional"
    corpora = [random_world(5, min(size, 20), order, seed=seed + size, sampler=sampler) for size in sizes]
    model = sharp_model(corpora, shape, seed=seed, sharpness=sharpness, unsupported=unsupported)
    assert_equals_brute_force(joint_artifacts(model, corpora, epsilon=epsilon), model, corpora)


def test_many_chunks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    corpora = [random_world(12, size, 3, seed=size) for size in (40, 90)]
    model = sharp_model(corpora, "everything", seed=3, sharpness=1.5)
    at_once = joint_artifacts(model, corpora, epsilon=1e-3)
    assert_equals_brute_force(at_once, model, corpora)
    monkeypatch.setattr(JointCounter, "_prefixes_at_once", lambda *_: 1)
    in_pieces = joint_artifacts(model, corpora, epsilon=1e-3)
    assert at_once.certificate.kept_ML[:, 1].min() > 4 * TILE, "no piece holds all prefixes"
    for one, other in zip(at_once.tables, in_pieces.tables, strict=True):
        assert one.equals(other)


@pytest.mark.parametrize("order", [2, 3])
def test_lower_orders_take_the_first_tokens_of_sentences_of_any_length(order: int) -> None:
    sentences = torch.tensor([[0, 1, 2, 3], [0, 1, 2, -1], [0, 1, -1, -1], [3, 2, 1, 0], [2, -1, -1, -1]])
    corpus = Corpus(vocab_size=4, sentences=sentences)
    model = sharp_model([corpus], "attention", seed=1, sharpness=2)
    artifacts = joint_artifacts(model, corpus, order=order, epsilon=0.01)
    assert artifacts.count.item() > 0
    assert_equals_brute_force(artifacts, model, [corpus])
    assert joint_artifacts(model, corpus, order=order).epsilon.item() == 0.1, "half of one in five sentences"


# ------------------------------------------------------------------------------------------------- exactly at epsilon


def even_corpus(vocab_size: int) -> Corpus:
    """Every token begins one sentence."""
    token = torch.arange(vocab_size)
    return Corpus(vocab_size=vocab_size, sentences=torch.stack([token, token, token], dim=1))


def test_a_sentence_exactly_at_epsilon_is_no_artifact() -> None:
    """With all weights zero every sentence has 1/V^3, which float64 holds for V = 4; P > 1/V^3 is false."""
    corpus = even_corpus(4)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    at = joint_artifacts(model, corpus, epsilon=1 / 64)
    assert at.count.item() == at.train_above.item() == 0
    assert at.certificate.kept_ML.tolist() == [[4, 16, 0]]
    assert at.certificate.left_out_M.item() == 1 / 64
    assert at.certificate.complete_M.item()
    below = joint_artifacts(model, corpus, epsilon=math.nextafter(1 / 64, 0))
    assert (below.count.item(), below.train_above.item()) == (60, 4)
    assert below.certificate.kept_ML.tolist() == [[4, 16, 64]], "as many as have room"
    assert below.certificate.mass_ML.tolist() == [[1, 1, 1]]


def test_a_prefix_exactly_at_epsilon_does_not_go_on() -> None:
    corpus = even_corpus(4)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    assert joint_artifacts(model, corpus, epsilon=1 / 16).certificate.kept_ML.tolist() == [[4, 0, 0]]
    assert joint_artifacts(model, corpus, epsilon=1 / 4).certificate.kept_ML.tolist() == [[0, 0, 0]]


def test_the_probability_of_each_artifact_as_epsilon_leaves_it_and_what_is_less_out() -> None:
    corpus = random_world(6, 20, 3, seed=0)
    model = sharp_model([corpus], "everything", seed=0, sharpness=1.5)
    everything = found(joint_artifacts(model, corpus), 0)
    assert len(everything) > 10
    for epsilon in everything.values():
        expected = {ngram for ngram, p in everything.items() if p > epsilon}
        assert found(joint_artifacts(model, corpus, epsilon=epsilon), 0).keys() == expected


def all_chunks_but_the_last(total: int, size: int) -> list[tuple[int, int]]:
    return [*chunks(total, size)][: -1 if total > 2 else None]


def rows_of_the_first_chunk(
    prefix_MPm: torch.Tensor, p_MP: torch.Tensor, member_K: torch.Tensor, row_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return prefix_MPm[member_K, row_K % TILE], p_MP[member_K, row_K % TILE]


@pytest.mark.parametrize(("part", "wrong"), [("chunks", all_chunks_but_the_last), ("_rows", rows_of_the_first_chunk)])
def test_a_search_that_drops_a_chunk_or_takes_wrong_prefixes_is_not_certified(
    part: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpora = [random_world(12, size, 3, seed=size) for size in (40, 90)]
    model = sharp_model(corpora, "everything", seed=3, sharpness=1.5, unsupported=True)
    monkeypatch.setattr(JointCounter, "_prefixes_at_once", lambda *_: 1)
    right = joint_artifacts(model, corpora, epsilon=1e-3).certificate
    assert right.complete_M.all()
    assert right.lost_M.max() < 1e-14
    monkeypatch.setattr(joint, part, wrong)
    found = joint_artifacts(model, corpora, epsilon=1e-3).certificate
    assert not found.complete_M.any()
    assert (found.left_out_M <= 1e-3).all(), "what was looked at does not show it"


def test_nothing_is_certified_of_a_model_that_says_nan() -> None:
    corpora = [random_world(6, 20, 3, seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    alone = joint_artifacts(model.member(0), corpora[0])
    with torch.no_grad():
        model.get_parameter("embedding")[1] = math.nan
    both = joint_artifacts(model, corpora)
    assert both.certificate.complete_M.tolist() == [True, False]
    assert both.count.tolist() == [alone.count.item(), 0]
    rows = counter(corpora).evaluate(model).rows
    assert rows[0] == counter(corpora[:1]).evaluate(model.member(0)).rows[0]


# --------------------------------------------------------------------------------------------------------- by sampling


def test_sentences_drawn_from_a_model_occur_as_often_as_said() -> None:
    """At 40^4 = 2.6 million sentences: how often each was drawn lies within six standard deviations of what is said."""
    corpus = random_world(40, 200, 4, seed=0)
    model = sharp_model([corpus], "everything", seed=0, sharpness=2.2)
    artifacts = joint_artifacts(model, corpus)
    epsilon, said = artifacts.epsilon.item(), found(artifacts, 0)
    assert len(said) > 30
    doubles, generator, draws = in_float64(model), torch.Generator().manual_seed(0), 200_000
    drawn = corpus.sentences[torch.randint(len(corpus.sentences), (draws,), generator=generator), :1]
    for _ in range(3):
        contexts, place = torch.unique(drawn, dim=0, return_inverse=True)
        rows = torch.softmax((doubles.last_hidden(contexts[None]) @ doubles.unembedding_matrix())[0], dim=-1)
        uniform = torch.rand(draws, 1, generator=generator, dtype=torch.float64)
        tokens = (rows.cumsum(1)[place] < uniform).sum(1).clamp_max(39)
        drawn = torch.cat([drawn, tokens[:, None]], dim=1)
    ngrams, counts = torch.unique(drawn, dim=0, return_counts=True)
    count_of = dict(zip(map(tuple, ngrams.tolist()), counts.tolist(), strict=True))
    for ngram, p in said.items():
        assert abs(count_of.get(ngram, 0) - draws * p) < 6 * math.sqrt(draws * p * (1 - p)), ngram
    train = rows_of(corpus.sentences, 4)
    others = [n for ngram, n in count_of.items() if ngram not in said and ngram not in train]
    assert max(others) < draws * epsilon + 6 * math.sqrt(draws * epsilon)
    listed = sum(n for ngram, n in count_of.items() if ngram in said)
    share = sum(said.values())
    assert abs(listed - draws * share) < 6 * math.sqrt(draws * share * (1 - share))


# ------------------------------------------------------------------------------------------------- what a run is told


def brute_row(model: ToyTransformer, member: int, corpus: Corpus, epsilon: float, order: int) -> dict[str, object]:
    """Every number of an evaluation that is of joint probabilities, by sets."""
    p = every_prefix(model, member, corpus, order)[-1]
    train, truth, held_out = (rows_of(t, order) for t in (corpus.sentences, corpus.truth, corpus.held_out))
    held_out -= train
    artifacts = {g for g, value in p.items() if value > epsilon} - train
    seen = {g[:-1] for g in train}
    trained = sum(p[g] > epsilon for g in train)
    if isinstance(corpus.labelled, torch.Tensor):
        labelled = {tuple(c[: order - 1]) for c in corpus.labelled.tolist()}
    else:
        labelled = {g[:-1] for g in (p if corpus.labelled == "all" else truth)}

    def ratio(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    def judge(ngrams: set[Ngram]) -> set[Ngram]:
        return {g for g in ngrams if corpus.judged(torch.tensor([g[:-1]])).item()}

    row: dict[str, object] = {
        "train/above_threshold": trained,
        "artifacts/count": len(artifacts),
        "artifacts/per_ngram": len(artifacts) / len(train),
        "artifacts/ceiling": min(math.ceil(1 / Fraction(epsilon)) - 1, corpus.vocab_size**order) - trained,
        "artifacts/seen": sum(g[:-1] in seen for g in artifacts),
        "artifacts/unseen": sum(g[:-1] not in seen for g in artifacts),
        "artifacts/diagonal": sum(len(set(g[:-1])) == 1 for g in artifacts) if order > 2 else None,
        "artifacts/unseen_confident_rate": None,
        "judge/artifacts/count": len(judge(artifacts)),
    }
    if corpus.truth is None:
        return row
    firsts = corpus.sentences[:, 0].tolist()
    attainable = 0
    for token in {g[0] for g in held_out}:
        room = math.ceil(Fraction(firsts.count(token) / len(firsts)) / Fraction(epsilon)) - 1
        attainable += min(max(room, 0), sum(g[0] == token for g in held_out))
    right = artifacts & truth
    wrong = {g for g in artifacts - truth if g[:-1] in labelled}
    for prefix, part in (("", lambda ngrams: ngrams), ("judge/", judge)):
        row |= {
            f"{prefix}generalization/count": len(part(right)),
            f"{prefix}generalization/recall": ratio(len(part(held_out & artifacts)), len(part(held_out))),
            f"{prefix}hallucination/count": len(part(wrong)),
            f"{prefix}hallucination/share": ratio(len(part(wrong)), len(part(right)) + len(part(wrong))),
            f"{prefix}hallucination/per_context": None,
        }
    return row | {
        "artifacts/labelled_share": ratio(len(right) + len(wrong), len(artifacts)),
        "generalization/attainable_recall": ratio(attainable, len(held_out)),
        "generalization/restored": None
        if corpus.replaced is None
        else len(artifacts & rows_of(corpus.replaced, order)),
        "hallucination/per_ngram": len(wrong) / len(train),
    }


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize(
    ("labelled", "unsupported"), [("truth", False), ("all", False), ("list", False), ("truth", True)]
)
def test_every_metric_of_joint_probabilities_equals_brute_force_and_the_others_are_as_ever(
    labelled: str, unsupported: bool, shape: str, order: int
) -> None:
    corpora = [labelled_world(labelled, order=4, seed=seed, vocab_size=5) for seed in (0, 1, 2)]
    model = sharp_model(corpora, shape, seed=5, sharpness=1.5, unsupported=unsupported)
    epsilon = 0.3 / 5**order
    asked = {"order": order, "memory_mib": 256, "device": CPU}
    conditional = Counter(corpora, threshold=0.5, contexts="all", **asked).evaluate(model)  # type: ignore[arg-type]
    evaluated = counter(corpora, order=order, epsilon=epsilon).evaluate(model)
    tables = joint_artifacts(model, corpora, order=order, epsilon=epsilon).tables
    for member, corpus in enumerate(corpora):
        row, expected = evaluated.rows[member], brute_row(model, member, corpus, epsilon, order)
        assert min(expected["generalization/count"], expected["hallucination/count"]) > 0
        assert_rows_equal(row, expected)
        as_ever = ("train/loss", "train/excess_loss", "train/accuracy", "test/loss", "test/accuracy")
        assert_rows_equal(row, {name: conditional.rows[member][name] for name in as_ever})
        assert set(row) <= set(METRICS)
        assert set(row) == set(conditional.rows[member]), "what has no meaning is there and empty"
        assert ("abstention/rate" in row) == unsupported
        labels = tables[member]["label"].value_counts()
        assert labels.get("generalization", 0) == row["generalization/count"]
        assert labels.get("hallucination", 0) == row["hallucination/count"]
        assert tables[member]["seen"].sum() == row["artifacts/seen"]


def test_originals_that_noise_replaced_are_restored() -> None:
    data = {"name": "latent", "vocab_size": 9, "classes": 3, "num_sentences": 30, "noise": 0.3}
    corpora = [build_corpus(resolve({"data": {**data, "seed": seed}}).data) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=5, sharpness=1.0)
    rows = counter(corpora, epsilon=1e-3).evaluate(model).rows
    for member, corpus in enumerate(corpora):
        expected = brute_row(model, member, corpus, 1e-3, 3)
        assert expected["generalization/restored"] > 0
        assert_rows_equal(rows[member], expected)


def test_the_survival_curve_counts_artifacts_above_larger_epsilons() -> None:
    corpora = [random_world(8, size, 3, seed=size) for size in (20, 50)]
    model = sharp_model(corpora, "attention", seed=0, sharpness=2)
    evaluated = counter(corpora).evaluate(model)
    assert evaluated.thresholds.shape == evaluated.survival.shape
    for member, corpus in enumerate(corpora):
        thresholds = evaluated.thresholds[member]
        assert thresholds[0] == 1 / (2 * len(corpus.sentences))
        assert (thresholds[1:] / thresholds[:-1]) == pytest.approx(thresholds[1] / thresholds[0])
        assert thresholds[-1] < 1 <= thresholds[-1] * thresholds[1] / thresholds[0] * (1 + 1e-12)
        table = joint_artifacts(model, corpora).tables[member]
        expected = [int((table["probability"] > epsilon).sum()) for epsilon in thresholds]
        assert evaluated.survival[member].tolist() == expected
        assert expected[0] > expected[10] > 0


@pytest.mark.parametrize("order", [2, 3])
def test_counts_alone_are_those_of_an_evaluation(order: int) -> None:
    corpora = [random_world(8, size, 3, seed=size) for size in (20, 50)]
    model = sharp_model(corpora, "attention", seed=0, sharpness=2)
    measured = counter(corpora, order=order)
    counts, evaluated = measured.count(model, full_survival=True), measured.evaluate(model)
    for name in ("count", "seen", "unseen", "ceiling", "diagonal"):
        told = [row[f"artifacts/{name}"] or 0 for row in evaluated.rows]
        assert getattr(counts, name).tolist() == told, name
    assert counts.count.tolist() == joint_artifacts(model, corpora, order=order).count.tolist()
    assert counts.survival.tolist() == evaluated.survival.tolist()
    assert counts.survival_thresholds.tolist() == evaluated.thresholds.tolist()


@pytest.mark.parametrize("shape", MODELS)
def test_a_member_of_a_stack_has_its_own_numbers_bit_for_bit(shape: str) -> None:
    corpora = [random_world(30, size, 3, seed=size) for size in (20, 147, 400)]
    labelled = [labelled_world("truth", seed=seed, vocab_size=12) for seed in (0, 1, 2)]
    labelled[1] = dataclasses.replace(labelled[1], sentences=labelled[1].sentences[::3])
    for stack in (corpora, labelled):
        model = sharp_model(stack, shape, seed=0, sharpness=1.7)
        together, listed = counter(stack, memory_mib=1).evaluate(model), joint_artifacts(model, stack)
        for member, corpus in enumerate(stack):
            solo = model.member(member)
            alone = counter([corpus], memory_mib=1).evaluate(solo)
            assert together.rows[member] == alone.rows[0]
            assert alone.rows[0]["artifacts/count"] > 0
            assert together.survival[member].tolist() == alone.survival[0].tolist()
            own = joint_artifacts(solo, corpus)
            assert listed.tables[member].equals(own.tables[0])
            assert torch.equal(listed.certificate.mass_ML[member], own.certificate.mass_ML[0])
            assert torch.equal(listed.certificate.left_out_M[member], own.certificate.left_out_M[0])
            assert torch.equal(listed.certificate.left_out_ML[member], own.certificate.left_out_ML[0])


def test_members_whose_numbers_nobody_reads_are_not_searched() -> None:
    corpora = [random_world(8, 20, 3, seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    rows = counter(corpora).evaluate(model, running_M=torch.tensor([True, False])).rows
    assert rows[0]["artifacts/count"] > 0
    assert rows[1]["artifacts/count"] == 0


def test_the_ceiling_at_perfect_fit_is_that_of_a_model_that_says_the_data() -> None:
    """Each of N distinct sentences has 1/N then, above 1/(2N), and as many more would have room, but one."""
    facts = counter([random_world(20, 60, 3, seed=0)]).facts(0)
    assert facts["corpus/epsilon"] == 1 / 120
    assert facts["corpus/ceiling_at_perfect_fit"] == math.ceil(1 / Fraction(1 / 120)) - 1 - 60
    tiny = counter([even_corpus(2)], epsilon=1e-6).facts(0)
    assert tiny["corpus/ceiling_at_perfect_fit"] == 2**3 - 2, "there are no more sentences"


def test_a_perfect_fit_says_of_what_goes_on_after_a_prefix_what_longer_sentences_say() -> None:
    """After (0 1) nothing but 2 was ever learnt, however many sentences end there; so (0 1 2) has 1, and 4 fit."""
    sentences = torch.tensor([[0, 1, 2]] + 9 * [[0, 1, -1]])
    facts = counter([Corpus(vocab_size=3, sentences=sentences)], epsilon=0.2).facts(0)
    assert facts["corpus/ceiling_at_perfect_fit"] == 4 - 1


@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 4), min_size=5, max_size=40))
def test_what_a_perfect_fit_says_is_the_product_of_the_shares(seed: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    sentences = torch.randint(3, (len(lengths), 4), generator=generator)
    sentences[0] = 0
    for sentence, length in zip(sentences[1:], lengths[1:], strict=True):
        sentence[length:] = -1
    rows = [tuple(token for token in row if token >= 0) for row in sentences.tolist()]
    corpus = Corpus(vocab_size=3, sentences=sentences)
    for order in (2, 3, 4):
        said = joint._said_by_data(corpus, order).tolist()
        for ngram, p in zip(corpus.tensor(order).ngrams_Gn.tolist(), said, strict=True):
            expected = Fraction(1)
            for length in range(1, order + 1):
                begun = [row for row in rows if len(row) >= length and row[: length - 1] == tuple(ngram[: length - 1])]
                expected *= Fraction(sum(row[:length] == tuple(ngram[:length]) for row in begun), len(begun))
            assert p == pytest.approx(float(expected), rel=1e-12)


# ------------------------------------------------------------------------------------------------------- bad questions


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    corpus = even_corpus(3)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        joint_artifacts(sharp_model([corpus], "attention", seed=0), corpus, epsilon=epsilon)


def test_orders_and_corpora_that_do_not_fit_are_refused() -> None:
    corpus = even_corpus(3)
    model = sharp_model([corpus], "attention", seed=0)
    with pytest.raises(ValueError, match="order=4 must lie between 2 and 3"):
        joint_artifacts(model, corpus, order=4)
    with pytest.raises(ValueError, match="2 corpora for a stack of 1 models"):
        joint_artifacts(model, [corpus, corpus])
