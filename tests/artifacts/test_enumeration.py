"""The tables of artifacts and fibers against brute force."""

from __future__ import annotations

import pytest
import torch

from tc_sweeps.artifacts import count_artifacts, fiber_table, most_confident
from tests.artifacts.brute_force import brute_force, considered, probabilities, rows_of
from tests.artifacts.worlds import labelled_world, random_world, sharp_model


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


def test_a_limit_keeps_the_most_confident_of_a_stream_in_many_chunks() -> None:
    corpus = random_world(30, 100, 3, seed=0)
    model = sharp_model([corpus], "everything", seed=0)
    everything = most_confident(model, corpus, threshold=0.3, order=3, contexts="all", limit=10**6)
    few = most_confident(model, corpus, threshold=0.3, order=3, contexts="all", limit=20, memory_mib=1)
    assert len(everything) == count_artifacts(model, corpus, threshold=0.3).count.item() > 200
    assert few["tokens"].tolist() == everything["tokens"].tolist()[:20]


def test_no_artifacts_make_an_empty_table_with_all_columns() -> None:
    corpus = random_world(6, 10, 3, seed=0)
    model = sharp_model([corpus], "attention", seed=0, sharpness=0.0)
    table = most_confident(model, corpus, threshold=0.5, order=3, contexts="all", limit=10)
    assert list(table.columns) == ["tokens", "probability", "label", "seen", "right"]
    assert table.empty


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
