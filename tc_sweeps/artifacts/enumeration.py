"""Which artifacts a model holds: the most confident ones by name, and fibers of its completion beside the data's.

Letters: `C` context, `K` candidate, `n` order, `V` vocabulary, `U` the vocabulary and the unsupported token,
where a model has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Block, Contexts, CountedModel, chunks
from tc_sweeps.artifacts.counter import in_float64
from tc_sweeps.artifacts.screen import Operand, screened_logits
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.tensor import distinct_rows, find_rows

__all__ = ["fiber_table", "most_confident"]


def most_confident(
    model: CountedModel,
    corpus: Corpus,
    *,
    threshold: float,
    order: int,
    contexts: Literal["all", "typed"],
    limit: int,
    memory_mib: int = 256,
    among: Tensor | None = None,
) -> pd.DataFrame:
    """Return the artifacts of a stack of one with the greatest probability, at most `limit`, most confident first.

    They are those in all considered contexts, or in some `among` these, [C, n-1].

    Columns: `tokens` (the n-gram), `probability` (of its last token, float64), `label` (generalization, hallucination
    or unlabelled), `seen` (whether its context is in the data), `right` (the last tokens that W has in its context, or
    D^n where the world defines no W; possibly none). With at most `limit` artifacts the table is complete; of more,
    float32 decides which are kept.
    """
    doubles = in_float64(model)
    data = corpus.tensor(order)
    numbered = Contexts([corpus.places(order, contexts)], doubles.unembedding_matrix().device)
    operand = Operand.of(doubles.unembedding_matrix())
    bar = -math.log(threshold)
    kept = torch.empty(0, order, dtype=torch.int64)
    confidence = torch.empty(0)
    rows_at_once = numbered.sizes(doubles, memory_mib << 20).piece
    for hidden_1CD, context_of in _visited(doubles, numbered, among, rows_at_once):
        logits_1CU, error_1C = screened_logits(hidden_1CD, operand, bar)
        log_p_CV = torch.log_softmax(logits_1CU.mul_(math.log(2)), dim=-1)[0, :, : doubles.vocab_size]
        # Whatever may be above the threshold, rows that float32 cannot hold among it; float64 decides below.
        row_K, token_K = torch.nonzero(~(log_p_CV <= -bar - error_1C[0, :, None]), as_tuple=True)
        found = torch.cat([context_of(row_K), token_K[:, None]], dim=1).cpu()
        novel = find_rows(found, data.ngrams_Gn) < 0
        kept = torch.cat([kept, found[novel]])
        confidence = torch.cat([confidence, log_p_CV[row_K, token_K].cpu()[novel]])
        if len(kept) > 2 * limit:
            best = confidence.topk(limit).indices
            kept, confidence = kept[best], confidence[best]
    kept = distinct_rows(kept)[0]  # in lexicographic order, which is also that of equal probabilities below
    probability_K = _probabilities(doubles, kept)
    best = torch.argsort(probability_K, descending=True, stable=True)
    best = best[probability_K[best] > threshold][:limit]
    kept, probability_K = kept[best], probability_K[best]
    return pd.DataFrame(
        {
            "tokens": kept.tolist(),
            "probability": probability_K.tolist(),
            "label": _labels(corpus, kept, order),
            "seen": (find_rows(kept[:, :-1], data.contexts_Cn) >= 0).tolist(),
            "right": _right(corpus, kept[:, :-1], order),
        }
    )


def _visited(
    model: CountedModel, considered: Contexts, among: Tensor | None, rows_at_once: int
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Yield the hidden states of contexts, [1, C, D], and what tells the contexts of rows; all, or `among` these."""
    if among is None:
        for block in considered.blocks(rows_at_once):
            yield block.hidden(model), partial(_of_block, considered, block)
        return
    for begin, end in chunks(len(among), rows_at_once):
        listed = among[begin:end].to(considered.total_M.device)
        yield model.last_hidden(listed[None]), listed.__getitem__


def _of_block(considered: Contexts, block: Block, row_K: Tensor) -> Tensor:
    return considered.decode(block.number_C[None, row_K])[0]


def fiber_table(
    model: CountedModel, corpus: Corpus, *, order: int, entries: int = 50_000, contexts: int = 200, tokens: int = 8
) -> pd.DataFrame:
    """Return fibers of the completion of a stack of one beside those of the data.

    Columns: `context_tokens`, `token`, `data_count` (the entry of D^n), `probability`. All V^n entries where these are
    at most `entries`; else up to `contexts` contexts, half of them seen, the rest held out and blank in equal parts as
    far as there are any, with `tokens` tokens each: those of the data first, then the most probable.
    """
    doubles = in_float64(model)
    device = doubles.unembedding_matrix().device
    data, V = corpus.tensor(order), corpus.vocab_size
    everything = V**order <= entries
    if everything:
        chosen = Contexts([[torch.arange(V)] * (order - 1)], device).decode(
            torch.arange(V ** (order - 1), device=device)[None]
        )[0]
    else:
        chosen = _sample_of_contexts(corpus, order, contexts).to(device)
    p_CU = torch.softmax(doubles.last_hidden(chosen[None]) @ doubles.unembedding_matrix(), dim=-1)[0].cpu()
    p_CV = p_CU[:, :V]
    count_CV = data.fibers(chosen.cpu())
    width = V if everything else min(tokens, V)
    # Data first (a count beats any probability), then by probability; within all entries the order of the tokens.
    token_CK = torch.arange(V).expand(len(chosen), -1) if everything else (2 * count_CV + p_CV).topk(width).indices
    return pd.DataFrame(
        {
            "context_tokens": chosen.cpu().repeat_interleave(width, dim=0).tolist(),
            "token": token_CK.flatten().tolist(),
            "data_count": count_CV.gather(1, token_CK).flatten().tolist(),
            "probability": p_CV.gather(1, token_CK).flatten().tolist(),
        }
    )


def _sample_of_contexts(corpus: Corpus, order: int, count: int) -> Tensor:
    """Return distinct contexts: half evenly spread over the seen ones, the rest over held-out and other unseen ones."""
    seen = corpus.tensor(order).contexts_Cn
    held_out = corpus.held_out_ngrams(order)
    places = corpus.places(order, corpus.contexts)
    numbered = Contexts([places], torch.device("cpu"))
    anywhere = numbered.decode(_spread(numbered.total, 4 * count)[None])[0]
    known = seen[_spread(len(seen), count // 2)]
    hidden = seen[:0] if held_out is None else distinct_rows(held_out[:, :-1])[0]
    hidden = hidden[find_rows(hidden, seen) < 0]
    hidden = hidden[_spread(len(hidden), count // 4)]
    blank = anywhere[(find_rows(anywhere, seen) < 0) & (find_rows(anywhere, hidden) < 0)]
    return torch.cat([known, hidden, blank[_spread(len(blank), count - len(known) - len(hidden))]])


def _spread(total: int, count: int) -> Tensor:
    """Return at most `count` indices spread evenly over `0..total-1`."""
    return torch.linspace(0, max(total - 1, 0), min(count, total), dtype=torch.float64).round().long()


def _probabilities(model: CountedModel, ngrams_Kn: Tensor) -> Tensor:
    """Return P(t_n | context) of n-grams in float64, [K] on the CPU."""
    device = model.unembedding_matrix().device
    parts = []
    for begin, end in chunks(len(ngrams_Kn), 4096):
        ngrams = ngrams_Kn[begin:end].to(device)
        logits_1KU = model.last_hidden(ngrams[None, :, :-1]) @ model.unembedding_matrix()
        parts.append(torch.softmax(logits_1KU, dim=-1)[0].gather(1, ngrams[:, -1:])[:, 0].cpu())
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)


def _labels(corpus: Corpus, ngrams_Kn: Tensor, order: int) -> list[str]:
    """Return generalization, hallucination or unlabelled for each artifact."""
    truth, labelled = corpus.truth_ngrams(order), corpus.labelled_contexts(order)
    if truth is None or labelled is None:
        return ["unlabelled"] * len(ngrams_Kn)
    true_K = find_rows(ngrams_Kn, truth) >= 0
    everywhere = torch.ones(len(ngrams_Kn), dtype=torch.bool)
    spoken_K = everywhere if isinstance(labelled, str) else find_rows(ngrams_Kn[:, :-1], labelled) >= 0
    return [
        "generalization" if true else "hallucination" if spoken else "unlabelled"
        for true, spoken in zip(true_K.tolist(), spoken_K.tolist(), strict=True)
    ]


def _right(corpus: Corpus, contexts_Kn: Tensor, order: int) -> list[list[int]]:
    """Return the last tokens that the truth has in each context, or the data where nothing says what is true.

    Example: of W = (a b x), (a b y), (b c x) the contexts (a b), (c a) have [x, y] and [].
    """
    known = corpus.truth_ngrams(order)
    ngrams_Gn = corpus.tensor(order).ngrams_Gn if known is None else known  # sorted: a context's n-grams lie together
    contexts, _, count_C = distinct_rows(ngrams_Gn[:, :-1])
    end_C, token_G = count_C.cumsum(0), ngrams_Gn[:, -1].tolist()
    place_K = find_rows(contexts_Kn, contexts)
    spans = zip((end_C - count_C)[place_K].tolist(), end_C[place_K].tolist(), strict=True)
    return [
        token_G[begin:end] if found else [] for found, (begin, end) in zip((place_K >= 0).tolist(), spans, strict=True)
    ]
