"""What is taught outside the data: which contexts, what it adds to the loss, and its gradient."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.config import Config, ConfigError, resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import Outside, ToyTransformer, batch_shape
from tc_sweeps.model.outside import (
    chosen_contexts,
    outside_gradient,
    outside_loss,
    outside_remarks,
    teachable,
    teachable_count,
)

METHODS = ("unsupported", "unlikelihood", "hinge")
SMALL = {"vocab_size": 9, "num_sentences": 20}


def config(outside: dict, data: dict | None = None, **other: dict) -> Config:
    return resolve({"data": data or SMALL, "objective": {"outside": {"method": "unsupported", **outside}}, **other})


def rows(contexts: torch.Tensor) -> set[tuple[int, ...]]:
    found = [tuple(row) for row in contexts.tolist()]
    assert len(set(found)) == len(found), "no context twice"
    return set(found)


def all_teachable(made: Config) -> set[tuple[int, ...]]:
    return rows(torch.cat(list(teachable(build_corpus(made.data), made))))


# ---------------------------------------------------------------------------------------------------------- the loss


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(METHODS),
    st.integers(0, 10**6),
    st.floats(0.1, 30),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6)),
)
def test_the_gradient_in_the_logits_is_that_of_the_loss(method, seed, sharpness, shape):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(shape, generator=generator, dtype=torch.float64) * sharpness).requires_grad_()
    weight = torch.rand(shape[:2], generator=generator, dtype=torch.float64)
    [wanted] = torch.autograd.grad(outside_loss(logits, weight, method).sum(), [logits])
    found = outside_gradient(logits.detach(), weight, method)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)


def test_the_loss_is_what_its_words_say():
    logits = torch.tensor([[[1.0, 2.0, 0.5], [3.0, 0.0, 0.0]]], dtype=torch.float64)
    weight = torch.tensor([[0.25, 2.0]], dtype=torch.float64)
    first, second = torch.softmax(logits[0], dim=-1)
    said = {
        "unsupported": 0.25 * -math.log(first[2]) + 2 * -math.log(second[2]),
        "unlikelihood": 0.25 * -math.log(1 - first[1]) + 2 * -math.log(1 - second[0]),
        "hinge": 0.25 * (first[1].item() - 0.5) + 2 * (second[0].item() - 0.5),
    }
    assert first[1] > 0.5
    for method, wanted in said.items():
        assert outside_loss(logits, weight, method).item() == pytest.approx(wanted, rel=1e-12)
    assert outside_loss(logits * 0, weight, "hinge").item() == 0, "nothing below 1/2 is penalized"
    assert outside_gradient(logits * 0, weight, "hinge").abs().max() == 0


def test_the_gradient_stays_exact_where_a_prediction_is_certain():
    """At p = 1 but for rounding, 1 - p is 0 in float32, and its logarithm infinite."""
    logits = torch.tensor([[[200.0, 0.0, -1.0]]])
    gradient = outside_gradient(logits, torch.ones(1, 1), "unlikelihood")[0, 0]
    share = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(gradient, torch.tensor([1.0, -share, share - 1]))


# ---------------------------------------------------------------------------------------------------- which contexts


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 99), st.integers(2, 4), st.sampled_from(["all", "typed"]), st.sampled_from(["random", "misplaced"])
)
def test_what_may_be_taught_on_is_what_sets_say(seed, order, contexts, kind):
    data = {"vocab_size": 6, "num_sentences": 4, "order": order, "seed": seed}
    made = config({"contexts": kind}, data, artifacts={"contexts": contexts})
    corpus = build_corpus(made.data)
    sentences = corpus.sentences.tolist()
    seen = {tuple(sentence[:-1]) for sentence in sentences}
    at = [{sentence[place] for sentence in sentences} for place in range(order - 1)]
    places = [range(6)] * (order - 1) if contexts == "all" else at
    wanted = {context for context in itertools.product(*places) if context not in seen}
    wanted = {context for context in wanted if not corpus.judged(torch.tensor([context])).item()}
    if kind == "misplaced":
        wanted = {c for c in wanted if any(token not in tokens for token, tokens in zip(c, at, strict=True))}
    assert all_teachable(made) == wanted


def test_a_larger_share_is_a_superset_and_seeds_choose_others():
    chosen = {}
    for share in (0.1, 0.5, 1.0):
        made = config({"share": share})
        corpus = build_corpus(made.data)
        chosen[share] = rows(chosen_contexts(corpus, made, teachable_count(corpus, made)))
        assert len(chosen[share]) == round(share * len(all_teachable(made)))
    assert chosen[0.1] < chosen[0.5] < chosen[1.0] == all_teachable(config({}))
    other = config({"share": 0.1}, SMALL | {"seed": 5})
    assert rows(chosen_contexts(build_corpus(other.data), other, len(chosen[0.1]))) != chosen[0.1]


def test_chunks_of_contexts_change_nothing(monkeypatch):
    made = config({"share": 0.3})
    corpus = build_corpus(made.data)
    whole = chosen_contexts(corpus, made, 9)
    monkeypatch.setattr("tc_sweeps.model.outside._CHUNK", 7)
    assert torch.equal(chosen_contexts(corpus, made, 9), whole)


def test_contexts_of_a_file(tmp_path: Path):
    facts = tmp_path / "facts.tsv"
    facts.write_text("mouse\teats\tcheese\nmice\teat\tcheese\n")
    listed = tmp_path / "contexts.tsv"
    pairs = list(itertools.product(["mouse", "mice", "eats", "eat", "cheese"], repeat=2))
    listed.write_text("".join(f"{first}\t{second}\n" for first, second in pairs + pairs[:3]) + "\n")
    data = {"name": "triples", "path": str(facts)}
    made = config({"contexts": "file", "path": str(listed), "share": 1.0}, data)
    everything = config({"share": 1.0}, data)
    assert all_teachable(made) == all_teachable(everything)
    listed.write_text("mouse\tmouse\ncheese\tcheese\neat\teat\nmouse\teats\n")
    assert all_teachable(made) == all_teachable(everything) & {(0, 0), (4, 4), (3, 3), (0, 1)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mouse\tmouse\nmouse\n", "line 2: 1 tokens; a context is 2 tokens separated by tabs"),
        ("mouse\tdog\n", "line 1: 'dog' is no token of the data"),
        ("\n", "line 1: the file has no contexts"),
        (
            "mouse\teats\n",
            r"Of the 1 contexts in .*tsv 1 are in the data and 0 in .*: objective.outside.share=0.1 of 0 is",
        ),
    ],
)
def test_files_that_cannot_be_taught(tmp_path: Path, text, sentence):
    (tmp_path / "facts.tsv").write_text("mouse\teats\tcheese\n")
    (tmp_path / "contexts.tsv").write_text(text)
    data = {"name": "triples", "path": str(tmp_path / "facts.tsv")}
    made = config({"contexts": "file", "path": str(tmp_path / "contexts.tsv")}, data)
    with pytest.raises(ConfigError, match=sentence):
        teachable_count(build_corpus(made.data), made)


def test_a_user_is_told_how_many_of_the_listed_contexts_are_taught(tmp_path: Path):
    (tmp_path / "facts.tsv").write_text("mouse\teats\tcheese\n")
    (tmp_path / "contexts.tsv").write_text("mouse\teats\nmouse\tmouse\neats\teats\ncheese\tcheese\neats\tmouse\n")
    data = {"name": "triples", "path": str(tmp_path / "facts.tsv")}
    made = config({"contexts": "file", "path": str(tmp_path / "contexts.tsv"), "share": 1.0}, data)
    corpus = build_corpus(made.data)
    judged = int(corpus.judged(torch.tensor([[0, 0], [1, 1], [2, 2], [1, 0]])).sum())
    [remark] = outside_remarks(corpus, made)
    assert "Of the 5 contexts" in remark
    assert f"1 are in the data and {judged} in the judge's half" in remark
    assert remark.endswith(f"{4 - judged} are taught.")
    assert outside_remarks(corpus, config({"share": 1.0}, data)) == []


def test_a_file_that_is_not_there(tmp_path: Path):
    made = config({"contexts": "file", "path": str(tmp_path / "none.tsv")})
    with pytest.raises(ConfigError, match=r"objective.outside.path=.*none.tsv cannot be read: No such file"):
        teachable_count(build_corpus(made.data), made)


# -------------------------------------------------------------------------------------------------------- in a stack


def test_slots_hold_what_is_taught_and_the_rest_weighs_nothing():
    configs = [config({"share": share, "weight": weight}) for share, weight in ((0.2, 1.0), (0.5, 3.0))]
    corpora = [build_corpus(made.data) for made in configs]
    outside = Outside(corpora, configs)
    for m, (made, corpus) in enumerate(zip(configs, corpora, strict=True)):
        count = teachable_count(corpus, made)
        weight = outside.weights()[m]
        assert torch.equal(outside.context_MKm[m, :count], chosen_contexts(corpus, made, count))
        assert (weight[:count] == made.objective.outside.weight / 20).all()
        assert (weight[count:] == 0).all()
    assert batch_shape(corpora[0], config({"method": "none"}))[3:] == (0, 0)
    assert batch_shape(corpora[0], configs[0])[3:] == (16, 16)


def test_mined_contexts_are_taught_in_parts_as_they_come():
    made = config({"share": 1.0, "contexts": "mined"})
    corpora = [build_corpus(made.data)] * 2
    outside = Outside(corpora, [made] * 2)
    count = outside.counts[0]
    assert (outside.weights() == 0).all()
    parts = [outside.due(evaluation, 5) for evaluation in range(1, 5)]
    assert sum(part[0] for part in parts) == count
    assert max(part[0] for part in parts) - min(part[0] for part in parts) <= 1
    contexts = torch.cartesian_prod(torch.arange(9), torch.arange(9)).expand(2, -1, -1)
    outside.teach(contexts[:, :4], torch.tensor([3, 0]))
    outside.teach(contexts[:, 10:12], torch.tensor([2, 1]))
    assert outside.length_M.tolist() == [5, 1]
    assert torch.equal(outside.context_MKm[0, :5], contexts[0, [0, 1, 2, 10, 11]])
    assert torch.equal(outside.context_MKm[1, :1], contexts[1, [10]])
    assert (outside.weights() > 0).sum(1).tolist() == [5, 1]
    outside.teach(contexts, torch.tensor([81, 81]))
    assert outside.length_M.tolist() == [outside.context_MKm.shape[1]] * 2, "no more than there is room for"


def test_a_minibatch_weighs_what_it_stands_for():
    made = config({"share": 0.5}, training={"batch_size": 10})
    outside = Outside([build_corpus(made.data)], [made])
    wanted = outside.weights().sum().item()
    times: dict[tuple[int, ...], int] = {}
    for step in range(400):
        contexts, weights = outside.drawn(outside.rows, seed_M=torch.tensor([3]), step=torch.tensor(step))
        assert contexts.shape[:2] == weights.shape == (1, outside.rows)
        assert weights.sum().item() == pytest.approx(wanted)
        for context in map(tuple, contexts[0].tolist()):
            times[context] = times.get(context, 0) + 1
    assert set(times) == rows(outside.context_MKm[0, : outside.counts[0]])
    mean = 400 * outside.rows / len(times)
    assert all(abs(count - mean) < 5 * mean**0.5 for count in times.values())


def test_the_other_weights_are_the_same_with_and_without_an_unsupported_token():
    made = resolve({"model": {"width": 8, "heads": 2}})
    plain, abstaining = (
        ToyTransformer(made.model, vocab_size=7, max_length=2, seeds=[3], unsupported=unsupported)
        for unsupported in (False, True)
    )
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, dict(abstaining.named_parameters())[name])
    contexts = torch.tensor([[1, 2], [3, 3]])
    p = abstaining.double().probabilities(contexts)
    logits = abstaining.last_hidden(contexts[None]) @ abstaining.unembedding_matrix()
    assert p.shape == (2, 7)
    torch.testing.assert_close(1 - p.sum(1), torch.softmax(logits, dim=-1)[0, :, -1])
    assert plain.num_parameters(embedding=False) == abstaining.num_parameters(embedding=False)
    assert abstaining.num_parameters(embedding=True) - plain.num_parameters(embedding=True) == 8


def test_the_judges_half_and_a_model_that_reads_multisets():
    """One layer without positions reads (a, b, c) as (b, a, c): both are the judge's or neither is."""
    made = config({"share": 1.0}, {"vocab_size": 6, "num_sentences": 20, "order": 4})
    corpus = build_corpus(made.data)
    everything = torch.cartesian_prod(*[torch.arange(6)] * 3)
    assert torch.equal(corpus.judged(everything), corpus.judged(everything[:, [1, 0, 2]]))
    assert not corpus.judged(torch.cat(list(teachable(corpus, made)))).any()


def test_a_taught_context_weighs_as_a_sentence_that_is_trained_once():
    """Also where some sentences are repeated, and with them the number that the loss is a mean over."""
    made = resolve(
        {"data": SMALL, "objective": {"replay": 0.5, "replay_times": 4, "outside": {"method": "unsupported"}}}
    )
    corpus = build_corpus(made.data)
    assert Outside([corpus], [made]).weights().max().item() == pytest.approx(1 / (20 + 10 * 3))
