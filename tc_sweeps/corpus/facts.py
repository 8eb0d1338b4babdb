"""From a list of facts to a corpus: tokens are numbered, whole contexts are held out, the rest is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tc_sweeps.config import ConfigError
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_order
from tc_sweeps.corpus.tensor import distinct_rows

Row = tuple[str, ...]


def facts_corpus(
    rows: Sequence[Row],
    *,
    order: int,
    seed: int,
    held_out_fraction: float,
    num_sentences: int | None,
    contexts: Literal["all", "typed"],
    remarks: Sequence[str] = (),
) -> Corpus:
    """Return the corpus of facts that all are true: W = training + held out.

    Tokens are numbered column by column in the order of their first appearance, so that people come before relations in
    (subject, object, relation). `held_out_fraction` is a share of the distinct contexts; a context is held out with all
    its facts. `num_sentences` of the remaining rows are trained on (None: all, in their order). Which ones depends on
    the seed alone: a larger fraction holds out a superset, a larger number trains on a superset.

    Raises `ConfigError` where fewer rows remain than are asked for, or none.

    Example: of (a b x), (a c y), (b c x) with a third held out, all facts of one of the three contexts (a b), (a c),
    (b c) are kept from training; x stays in the vocabulary even where it only occurs there.
    """
    names = list(dict.fromkeys(row[place] for place in range(order) for row in rows))
    number = {name: token for token, name in enumerate(names)}
    facts = torch.tensor([[number[token] for token in row[:order]] for row in rows], dtype=torch.int64)

    rest, held_out = split_facts(facts, seed=seed, held_out_fraction=held_out_fraction, num_sentences=num_sentences)
    return Corpus(
        vocab_size=len(names),
        sentences=rest,
        held_out=held_out if len(held_out) else None,
        truth=distinct_rows(torch.cat([rest, held_out]))[0],
        contexts=contexts,
        tokens=tuple(names),
        remarks=tuple(remarks),
    )


def split_facts(
    facts_Kn: Tensor, *, seed: int, held_out_fraction: float, num_sentences: int | None
) -> tuple[Tensor, Tensor]:
    """Return the facts to train on, [N, n], and the distinct ones that are held out, [K, n], possibly none.

    A share of the distinct contexts is held out, each with all its facts; of the rest `num_sentences` are trained on
    (None: all, in their order). Which ones depends on the seed alone: a larger fraction holds out a superset, a larger
    number trains on a superset. Raises `ConfigError` where fewer remain than are asked for, or none.
    """
    distinct_contexts, context_of, _ = distinct_rows(facts_Kn[:, :-1])
    count = round(held_out_fraction * len(distinct_contexts))
    if held_out_fraction > 0 and count == 0:
        raise ConfigError(
            f"data.held_out_fraction={held_out_fraction} of {len(distinct_contexts)} contexts rounds to none; raise it "
            "or set it to 0."
        )
    is_held_out = torch.zeros(len(distinct_contexts), dtype=torch.bool)
    is_held_out[random_order(seed, "held out", len(distinct_contexts))[:count]] = True
    rest = facts_Kn[~is_held_out[context_of]]
    if num_sentences is not None:
        if num_sentences > len(rest):
            raise ConfigError(
                f"data.num_sentences={num_sentences} is more than the {len(rest)} sentences that are not held out; "
                "lower it or data.held_out_fraction."
            )
        rest = rest[random_order(seed, "training", len(rest))[:num_sentences]]
    if len(rest) == 0:
        raise ConfigError(f"data.held_out_fraction={held_out_fraction} leaves no sentence to train on; lower it.")
    return rest, distinct_rows(facts_Kn[is_held_out[context_of]])[0]
