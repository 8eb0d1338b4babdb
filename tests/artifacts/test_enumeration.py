"""The tables of artifacts and fibers against brute force."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pandas as pd
import pytest
import torch

from tc_sweeps.artifacts import artifact_sample, count_artifacts, enumerate_artifacts, fiber_table, most_confident
from tc_sweeps.artifacts.contexts import Contexts, Sizes
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tests.artifacts.brute_force import brute_force, considered, probabilities, rows_of
from tests.artifacts.worlds import MODELS, labelled_world, random_world, sharp_model


def listed(model: Any, corpus: Corpus, **question: Any) -> pd.DataFrame:
    """Return what is enumerated as one table."""
    return pd.concat(enumerate_artifacts(model, corpus, **question), ignore_index=True)


def by_brute_force(model: Any, corpus: Corpus, threshold: float, order: int, contexts: str) -> list[list[int]]:
    """Return every artifact by sets alone, in lexicographic order."""
    p = probabilities(model, 0, considered(corpus, order, contexts))
    train = rows_of(corpus.sentences, order)
    found = {(*context, token) for context, row in p.items() for token, value in enumerate(row) if value > threshold}
    return [list(ngram) for ngram in sorted(found - train)]


@pytest.mark.parametrize("labelled", ["truth", "all", "list"])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_all_artifacts_with_their_labels(labelled: str, threshold: float) -> None:
    corpus = labelled_world(labelled)
    model = sharp_model([corpus], "attention", seed=0)
    table = most_confident(model, corpus, threshold=threshold, order=3, contexts="all", limit=10_000)
    expected = brute_force(model, 0, corpus, threshold=threshold, order=3, contexts="all")
    assert len(table) == expected["artifacts/count"]
    assert table["label"].value_counts().get("generalization", 0) == expected["generalization/count"]
    assert table["label"].value_counts().get("hallucination", 0) == expected["hallucination/count"]
    assert table["seen"].sum() == expected["artifacts/seen"]
    assert table["probability"].is_monotonic_decreasing
    p = probabilities(model, 0, considered(corpus, 3, "all"))
    for tokens, probability in zip(table["tokens"], table["probability"], strict=True):
        assert probability == pytest.approx(p[tuple(tokens[:-1])][tokens[-1]], rel=1e-12)
        assert tuple(tokens) not in rows_of(corpus.sentences, 3)
    truth = rows_of(corpus.truth, 3)
    for tokens, label, right in zip(table["tokens"], table["label"], table["right"], strict=True):
        assert right == sorted(w[-1] for w in truth if w[:-1] == tuple(tokens[:-1]))
        assert (label == "generalization") == (tokens[-1] in right)
    assert table["right"].map(len).max() > 1
    assert (table["right"].map(len) == 0).any() or labelled == "truth"


def test_where_nothing_says_what_is_true_the_data_say_what_is_right() -> None:
    corpus = random_world(6, 20, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    table = most_confident(model, corpus, threshold=0.3, order=3, contexts="all", limit=1000)
    data = rows_of(corpus.sentences, 3)
    for tokens, right in zip(table["tokens"], table["right"], strict=True):
        assert right == [ngram[-1] for ngram in data if ngram[:-1] == tuple(tokens[:-1])]
    assert (table["right"].map(len) == table["seen"]).all()
    assert table["seen"].any()


@pytest.mark.parametrize("contexts", ["all", "typed"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", MODELS)
@pytest.mark.parametrize("unsupported", [False, True])
def test_every_artifact_is_enumerated_once_and_in_order(
    shape: str, threshold: float, order: int, contexts: str, unsupported: bool
) -> None:
    corpus = random_world(6, 30, 4, seed=1, sampler="uniform")
    model = sharp_model([corpus], shape, seed=5, unsupported=unsupported)
    question = {"threshold": threshold, "order": order, "contexts": contexts}
    table = listed(model, corpus, **question)
    assert table["tokens"].tolist() == by_brute_force(model, corpus, threshold, order, contexts)
    assert len(table) == count_artifacts(model, corpus, **question).count.item() > 0


@pytest.mark.parametrize(
    "world",
    [
        {"name": "kinships", "held_out_fraction": 0.3},
        {"name": "grammar"},
        {"name": "relations", "families": 2, "parents": 2, "children": 1},
        {"name": "modular", "modulus": 7, "noise": 0.2},
        {"name": "latent", "vocab_size": 12, "classes": 3, "num_sentences": 30, "order": 4},
    ],
    ids=lambda world: str(world["name"]),
)
def test_as_many_are_enumerated_as_are_counted_in_every_world(world: dict[str, Any]) -> None:
    corpus = build_corpus(resolve({"data": world}).data)
    model = sharp_model([corpus], "attention", seed=3)
    for order, threshold in itertools.product(range(2, corpus.order + 1), (0.2, 0.5)):
        counted = count_artifacts(model, corpus, order=order, threshold=threshold)
        table = listed(model, corpus, order=order, threshold=threshold)
        assert len(table) == counted.count.item() > 0
        assert table["seen"].sum() == counted.seen.item()
        assert table["tokens"].tolist() == sorted(table["tokens"])


def test_an_ngram_exactly_at_the_threshold_is_no_artifact() -> None:
    corpus = random_world(4, 3, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)  # every probability is 1/4
    assert len(listed(model, corpus, threshold=0.25)) == 0
    assert len(listed(model, corpus, threshold=0.2499999999)) == 4**3 - 3
    assert len(most_confident(model, corpus, threshold=0.25, limit=100)) == 0
    assert len(artifact_sample(model, corpus, threshold=0.25, limit=100, seed=0)) == 0


def test_rows_that_float32_cannot_hold_are_enumerated_too() -> None:
    corpus = random_world(5, 10, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=2).double()
    with torch.no_grad():
        model.get_parameter("embedding").mul_(1e30)
    found = by_brute_force(model, corpus, 0.3, 3, "all")
    assert listed(model, corpus, threshold=0.3)["tokens"].tolist() == found
    assert sorted(most_confident(model, corpus, threshold=0.3, limit=10_000)["tokens"]) == found


@pytest.mark.parametrize("threshold", [0.01, 0.3])
def test_a_stream_in_many_blocks_and_frames_is_in_the_same_order(
    threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = random_world(30, 100, 3, seed=0)
    model = sharp_model([corpus], "everything", seed=0)
    whole = listed(model, corpus, threshold=threshold)
    monkeypatch.setattr(Contexts, "sizes", lambda *_: Sizes(40, 16))
    monkeypatch.setattr("tc_sweeps.artifacts.enumeration._ROWS", 100)
    frames = list(enumerate_artifacts(model, corpus, threshold=threshold))
    assert len(frames) > 5
    assert max(map(len, frames)) <= 100
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)
    # A world with very many answers has short frames.
    closed = dataclasses.replace(corpus, truth=torch.cartesian_prod(*[torch.arange(30)] * 3), labelled="all")
    monkeypatch.setattr("tc_sweeps.artifacts.enumeration._RIGHT_TOKENS", 300)
    assert max(map(len, enumerate_artifacts(model, closed, threshold=0.5))) <= 10


def test_a_limit_keeps_the_most_confident_of_a_stream_in_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_world(30, 100, 3, seed=0)
    model = sharp_model([corpus], "everything", seed=0)
    everything = most_confident(model, corpus, threshold=0.3, limit=10**6)
    assert len(everything) == count_artifacts(model, corpus, threshold=0.3).count.item() > 200
    best = listed(model, corpus, threshold=0.3).sort_values("probability", ascending=False, kind="stable")
    assert everything["tokens"].tolist() == best["tokens"].tolist()
    monkeypatch.setattr(Contexts, "sizes", lambda *_: Sizes(40, 16))
    monkeypatch.setattr("tc_sweeps.artifacts.enumeration._ROWS", 50)
    few = most_confident(model, corpus, threshold=0.3, limit=20)
    pd.testing.assert_frame_equal(few, everything[:20])


def test_which_are_the_most_confident_is_decided_in_float64() -> None:
    """Float32 calls them all certain."""
    corpus = random_world(30, 100, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=7.0)
    best = listed(model, corpus).sort_values("probability", ascending=False, kind="stable", ignore_index=True)
    below = best.index[best["probability"] < 1][0]  # behind those that are certain in float64
    assert (best["probability"][below : below + 20].astype("float32") == 1).all()
    few = most_confident(model, corpus, limit=int(below) + 10)
    pd.testing.assert_frame_equal(few, best[: below + 10])


def test_a_sample_is_drawn_by_seed_and_ngram_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_world(30, 100, 3, seed=0)
    model = sharp_model([corpus], "everything", seed=0)
    everything = listed(model, corpus, threshold=0.3)
    place = {tuple(tokens): row for row, tokens in enumerate(everything["tokens"])}
    first = artifact_sample(model, corpus, threshold=0.3, limit=50, seed=0)
    rows = [place[tuple(tokens)] for tokens in first["tokens"]]
    assert len(set(rows)) == 50
    pd.testing.assert_frame_equal(first, everything.iloc[rows].reset_index(drop=True))
    assert rows == sorted(rows)
    assert (
        artifact_sample(model, corpus, threshold=0.3, limit=50, seed=1)["tokens"].tolist() != first["tokens"].tolist()
    )
    pd.testing.assert_frame_equal(artifact_sample(model, corpus, threshold=0.3, limit=10**6, seed=0), everything)
    monkeypatch.setattr(Contexts, "sizes", lambda *_: Sizes(40, 16))
    monkeypatch.setattr("tc_sweeps.artifacts.enumeration._ROWS", 20)
    pd.testing.assert_frame_equal(artifact_sample(model, corpus, threshold=0.3, limit=50, seed=0), first)
    # At a higher threshold, those that are left of the sample stay in it.
    higher = artifact_sample(model, corpus, threshold=0.6, limit=50, seed=0)["tokens"].map(tuple)
    assert set(first["tokens"][first["probability"] > 0.6].map(tuple)) <= set(higher)


def test_every_artifact_is_as_likely_to_be_sampled() -> None:
    corpus = random_world(8, 20, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    everything = listed(model, corpus, threshold=0.3)
    place = {tuple(tokens): row for row, tokens in enumerate(everything["tokens"])}
    drawn = torch.zeros(len(everything))
    for seed in range(400):
        tokens = artifact_sample(model, corpus, threshold=0.3, limit=10, seed=seed)["tokens"]
        drawn[[place[tuple(ngram)] for ngram in tokens]] += 1
    share = 10 / len(everything)
    variance = 400 * share * (1 - share)
    # About a mean of squared standard normal numbers; the seeds are fixed, so that it is the same every time.
    assert ((drawn - 400 * share) ** 2 / variance).mean() == pytest.approx(1, abs=4 * (2 / len(drawn)) ** 0.5)


def test_among_some_contexts_their_artifacts_are_listed() -> None:
    corpus = random_world(12, 40, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    some = torch.tensor([[5, 1], [3, 3], [0, 11], [5, 1], [11, 2]])
    chosen = set(map(tuple, some.tolist()))
    everything = listed(model, corpus, threshold=0.2)
    expected = everything[everything["tokens"].map(lambda tokens: tuple(tokens[:2]) in chosen)].reset_index(drop=True)
    assert len(expected) == 4
    pd.testing.assert_frame_equal(listed(model, corpus, threshold=0.2, among=some), expected)
    best = expected.sort_values("probability", ascending=False, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(most_confident(model, corpus, threshold=0.2, among=some, limit=3), best[:3])
    sample = artifact_sample(model, corpus, threshold=0.2, among=some, limit=3, seed=0)
    assert set(sample["tokens"].map(tuple)) < set(expected["tokens"].map(tuple))


def test_the_artifacts_of_one_model_are_listed() -> None:
    corpora = [random_world(6, 10, 3, seed=seed) for seed in (0, 1)]
    model = sharp_model(corpora, "attention", seed=0)
    with pytest.raises(ValueError, match="of one model are listed, not those of 2"):
        next(enumerate_artifacts(model, corpora[0]))
    with pytest.raises(ValueError, match="threshold=1"):
        next(enumerate_artifacts(model.member(0), corpora[0], threshold=1))
    with pytest.raises(ValueError, match="order=4"):
        most_confident(model.member(0), corpora[0], limit=1, order=4)
    with pytest.raises(ValueError, match="contexts='al' must be 'all' or 'typed'"):
        most_confident(model.member(0), corpora[0], limit=1, contexts="al")  # type: ignore[arg-type]


def test_a_truth_without_ngrams_of_the_order_has_nothing_right() -> None:
    sentences, truth = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, -1]])
    corpus = Corpus(vocab_size=3, sentences=sentences, truth=truth)
    model = sharp_model([corpus], "attention", seed=0)
    table = most_confident(model, corpus, limit=30, threshold=0.01)
    assert len(table) > 0
    assert all(len(right) == 0 for right in table["right"])


def test_no_artifacts_make_an_empty_table_with_all_columns() -> None:
    corpus = random_world(6, 10, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    tables = [most_confident(model, corpus, limit=10), artifact_sample(model, corpus, limit=10, seed=0)]
    for table in [*tables, *enumerate_artifacts(model, corpus)]:
        assert list(table.columns) == ["tokens", "probability", "label", "seen", "right"]
        assert table.empty
    assert len(list(enumerate_artifacts(model, corpus))) == 1


def test_small_tensors_are_written_whole() -> None:
    corpus = random_world(6, 10, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    table = fiber_table(model, corpus, order=3)
    assert len(table) == 6**3
    assert table["data_count"].sum() == len(corpus.sentences)
    p = probabilities(model, 0, considered(corpus, 3, "all"))
    for context, token, probability in zip(table["context_tokens"], table["token"], table["probability"], strict=True):
        assert probability == pytest.approx(p[tuple(context)][token], rel=1e-12)
    grouped = table.groupby(table["context_tokens"].map(tuple))["probability"].sum()
    assert torch.tensor(grouped.to_numpy()).allclose(torch.ones(36, dtype=torch.float64))


def test_large_tensors_are_sampled_seen_and_unseen_with_the_datas_tokens_first() -> None:
    corpus = random_world(60, 300, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0)
    table = fiber_table(model, corpus, order=3)
    assert len(table) == 200 * 8
    contexts = set(map(tuple, table["context_tokens"]))
    assert len(contexts) == 200
    seen = {tuple(row[:-1]) for row in corpus.sentences.tolist()}
    assert len(contexts & seen) == 100
    firsts = table.groupby(table["context_tokens"].map(tuple)).first()
    assert (firsts.loc[list(contexts & seen), "data_count"] == 1).all()
