"""Every number of an evaluation by brute force: float64 probabilities of all n-grams, Python sets, no identity used."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch

from tc_sweeps.corpus import Corpus
from tc_sweeps.model import StackModel

Ngram = tuple[int, ...]


def rows_of(tensor: torch.Tensor | None, order: int) -> set[Ngram]:
    if tensor is None:
        return set()
    return {tuple(row[:order]) for row in tensor.tolist() if row[order - 1] >= 0}


def considered(corpus: Corpus, order: int, contexts: str) -> list[Ngram]:
    if contexts == "all":
        return list(itertools.product(range(corpus.vocab_size), repeat=order - 1))
    known = rows_of(corpus.sentences, order) | rows_of(corpus.truth, order)
    return list(itertools.product(*(sorted({ngram[i] for ngram in known}) for i in range(order - 1))))


def probabilities(model: StackModel, member: int, contexts: list[Ngram]) -> dict[Ngram, list[float]]:
    doubles = model.member(member).double()
    rows = doubles.probabilities(torch.tensor(contexts))
    return dict(zip(contexts, rows.tolist(), strict=True))


def brute_force(
    model: StackModel,
    member: int,
    corpus: Corpus,
    *,
    threshold: float,
    order: int,
    contexts: str,
    positions: str = "all",
) -> dict[str, float | int | None]:
    places = considered(corpus, order, contexts)
    train = rows_of(corpus.sentences, order)
    truth = rows_of(corpus.truth, order)
    held_out = rows_of(corpus.held_out, order) - train
    listed = {ngram[:-1] for ngram in train | truth | held_out}
    p = probabilities(model, member, sorted(set(places) | listed))
    has_unsupported = "unsupported" in dict(model.named_parameters())
    above = {(*c, t) for c in places for t, value in enumerate(p[c]) if value > threshold}
    artifacts = above - train
    seen_contexts = {ngram[:-1] for ngram in train}
    trained_above = sum(p[g[:-1]][g[-1]] > threshold for g in train)
    most = min(math.ceil(1 / Fraction(threshold)) - 1, corpus.vocab_size)
    unseen_contexts = [c for c in places if c not in seen_contexts]

    def ratio(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    def is_top(g: Ngram) -> bool:
        row = p[g[:-1]]
        return row.index(max(row)) == g[-1] and not (has_unsupported and abstains(model, member, g[:-1]) > max(row))

    numbers: dict[str, float | int | None] = {
        "train/accuracy": ratio(sum(map(is_top, train)), len(train)),
        "train/above_threshold": trained_above,
        "artifacts/count": len(artifacts),
        "artifacts/per_ngram": ratio(len(artifacts), len(train)),
        "artifacts/ceiling": most * len(places) - trained_above,
        "artifacts/seen": sum(a[:-1] in seen_contexts for a in artifacts),
        "artifacts/unseen": sum(a[:-1] not in seen_contexts for a in artifacts),
        "artifacts/diagonal": sum(len(set(a[:-1])) == 1 for a in artifacts) if order > 2 else None,
        "artifacts/unseen_confident_rate": ratio(
            sum(max(p[c]) > threshold for c in unseen_contexts), len(unseen_contexts)
        ),
        "train/loss": direct_loss(model, member, corpus, positions),
    }
    judged = {c for c in places if corpus.judged(torch.tensor([c])).item()}
    numbers["judge/artifacts/count"] = sum(a[:-1] in judged for a in artifacts)
    if has_unsupported:
        abstained = [c for c in unseen_contexts if abstains(model, member, c) > threshold]
        judged_unseen = [c for c in unseen_contexts if c in judged]
        numbers["abstention/rate"] = ratio(len(abstained), len(unseen_contexts))
        numbers["judge/abstention/rate"] = ratio(sum(c in judged for c in abstained), len(judged_unseen))
    if corpus.truth is None:
        return numbers
    if isinstance(corpus.labelled, torch.Tensor):
        labelled = {tuple(c[: order - 1]) for c in corpus.labelled.tolist()}
    else:
        labelled = set(places) if corpus.labelled == "all" else {w[:-1] for w in truth}
    right = artifacts & truth
    wrong = {a for a in artifacts - truth if a[:-1] in labelled}
    blank = [c for c in places if c in labelled and c not in seen_contexts]
    per_context: dict[Ngram, int] = {}
    for g in held_out:
        per_context[g[:-1]] = per_context.get(g[:-1], 0) + 1
    judged_right, judged_wrong = ({a for a in part if a[:-1] in judged} for part in (right, wrong))
    judged_held_out = {g for g in held_out if corpus.judged(torch.tensor([g[:-1]])).item()}
    judged_blank = [c for c in blank if c in judged]
    numbers |= {
        "judge/generalization/count": len(judged_right),
        "judge/generalization/recall": ratio(len(judged_held_out & artifacts), len(judged_held_out)),
        "judge/hallucination/count": len(judged_wrong),
        "judge/hallucination/share": ratio(len(judged_wrong), len(judged_right) + len(judged_wrong)),
        "judge/hallucination/per_context": ratio(
            sum(a[:-1] not in seen_contexts for a in judged_wrong), len(judged_blank)
        ),
    }
    if corpus.replaced is not None:
        numbers["generalization/restored"] = len(artifacts & rows_of(corpus.replaced, order))
    return numbers | {
        "test/loss": ratio(-sum(log_probability(model, member, g) for g in held_out), len(held_out)),
        "test/accuracy": ratio(sum(map(is_top, held_out)), len(held_out)),
        "artifacts/labelled_share": ratio(len(right) + len(wrong), len(artifacts)),
        "generalization/count": len(right),
        "generalization/recall": ratio(len(held_out & artifacts), len(held_out)),
        "generalization/attainable_recall": ratio(sum(min(most, k) for k in per_context.values()), len(held_out)),
        "hallucination/count": len(wrong),
        "hallucination/per_ngram": ratio(len(wrong), len(train)),
        "hallucination/share": ratio(len(wrong), len(right) + len(wrong)),
        "hallucination/per_context": ratio(sum(a[:-1] not in seen_contexts for a in wrong), len(blank)),
    }


def assert_rows_equal(row: dict[str, object], expected: dict[str, object]) -> None:
    for name, value in expected.items():
        if isinstance(value, float):
            assert row[name] == pytest.approx(value, rel=1e-5 if name == "test/loss" else 1e-9), name
        else:
            assert row[name] == value, name


def abstains(model: StackModel, member: int, context: Ngram) -> float:
    """Return the probability of the unsupported token."""
    doubles = model.member(member).double()
    logits = doubles.last_hidden(torch.tensor([[context]])) @ doubles.unembedding_matrix()
    return torch.softmax(logits, dim=-1)[0, 0, -1].item()


def log_probability(model: StackModel, member: int, ngram: Ngram) -> float:
    """Return log P(last token | context), which is finite also where the probability itself is 0 in float64."""
    doubles = model.member(member).double()
    logits = doubles.last_hidden(torch.tensor([[ngram[:-1]]])) @ doubles.unembedding_matrix()
    return torch.log_softmax(logits, dim=-1)[0, 0, ngram[-1]].item()


def direct_loss(model: StackModel, member: int, corpus: Corpus, positions: str) -> float:
    """Equation (1), sentence by sentence."""
    doubles = model.member(member).double()
    total = 0.0
    for sentence in corpus.sentences.tolist():
        tokens = [t for t in sentence if t >= 0]
        for end in range(1, len(tokens)) if positions == "all" else [len(tokens) - 1]:
            logits = doubles.last_hidden(torch.tensor([[tokens[:end]]])) @ doubles.unembedding_matrix()
            total -= torch.log_softmax(logits, dim=-1)[0, 0, tokens[end]].item()  # a probability may underflow
    return total / len(corpus.sentences)
