"""The contexts that are known by name: training, true, held-out, labelled and diagonal ones, read in float64.

Everything that needs to know which n-gram it looks at is read here, exactly; the stream over all contexts
(`tc_sweeps.artifacts.stream`) then needs no membership test at all.

Letters: `M` member, `C` listed context, `Q` listed n-gram, `n` order, `V` vocabulary, `U` the vocabulary and the
unsupported token, where a model has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tc_sweeps.artifacts.contexts import CountedModel, chunks
from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.corpus import truncated
from tc_sweeps.corpus.tensor import distinct_rows, find_rows

__all__ = ["Listing", "Reading", "label_listing", "loss_listing"]

# Rows come in multiples of this: a product of matrices adds up its last odd rows in another order, and which rows these
# are would depend on the stack that a member is in.
_TILE = 16


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model says at the listed places, in float64."""

    p_MQ: Tensor  # probability of each listed n-gram's last token
    log_p_MQ: Tensor
    is_top_MQ: Tensor  # whether it is the most probable token
    above_MC: Tensor  # tokens of each listed context with a probability above the threshold
    abstains_MC: Tensor  # whether that of the unsupported token is above it


class Listing:
    """Contexts and n-grams of every member, with flags; padding has every flag false and every weight zero."""

    def __init__(
        self,
        contexts: Sequence[Tensor],  # per member [C, n-1], distinct
        ngrams: Sequence[Tensor],  # per member [Q, n], their contexts among the listed ones
        context_flags: Sequence[dict[str, Tensor]],
        ngram_flags: Sequence[dict[str, Tensor]],
        device: torch.device,
    ) -> None:
        def padded(rows: Sequence[Tensor]) -> Tensor:
            table = pad_sequence(list(rows), batch_first=True)
            return F.pad(table, (0, 0) * (table.dim() - 2) + (0, -table.shape[1] % _TILE)).to(device)

        self.context_MCn = padded(contexts)
        self.place_MQ = padded([find_rows(q[:, :-1], c) for q, c in zip(ngrams, contexts, strict=True)])
        self.token_MQ = padded([q[:, -1] for q in ngrams])
        self.context_flag = {name: padded([flags[name] for flags in context_flags]) for name in context_flags[0]}
        self.ngram_flag = {name: padded([flags[name] for flags in ngram_flags]) for name in ngram_flags[0]}

    def read(self, model: CountedModel, threshold: float, rows_at_once: int) -> Reading:
        """Return what a float64 model says; no synchronisation.

        `rows_at_once` is the stream's: a row takes three times as much here, in float64.
        """
        p_MQ = torch.zeros(self.token_MQ.shape, dtype=torch.float64, device=self.token_MQ.device)
        log_p_MQ, is_top_MQ = torch.zeros_like(p_MQ), torch.zeros_like(p_MQ, dtype=torch.bool)
        above, abstains = [], []
        for first, beyond in chunks(self.context_MCn.shape[1] // _TILE, max(1, rows_at_once // 3 // _TILE)):
            begin, end = first * _TILE, beyond * _TILE
            logits_MCU = model.last_hidden(self.context_MCn[:, begin:end]) @ model.unembedding_matrix()
            probability_MCU = torch.softmax(logits_MCU, dim=-1)
            above.append((probability_MCU[..., : model.vocab_size] > threshold).sum(-1))
            abstains.append((probability_MCU[..., model.vocab_size :] > threshold).any(-1))
            top_MC1 = logits_MCU.argmax(-1, keepdim=True)
            # log sum exp l, from the greatest probability, which never underflows.
            log_sum_MC = (logits_MCU.gather(2, top_MC1) - probability_MCU.gather(2, top_MC1).log())[..., 0]
            inside_MQ = (self.place_MQ >= begin) & (self.place_MQ < end)
            place_MQ = torch.where(inside_MQ, self.place_MQ - begin, 0)
            flat_MQ = place_MQ * logits_MCU.shape[-1] + self.token_MQ
            # Every n-gram is inside exactly one chunk, so that adding up over the chunks collects the values.
            p_MQ += torch.where(inside_MQ, probability_MCU.flatten(1).gather(1, flat_MQ), 0.0)
            said_MQ = logits_MCU.flatten(1).gather(1, flat_MQ) - log_sum_MC.gather(1, place_MQ)
            log_p_MQ += torch.where(inside_MQ, said_MQ, 0.0)
            is_top_MQ |= inside_MQ & (top_MC1[..., 0].gather(1, place_MQ) == self.token_MQ)
        return Reading(p_MQ, log_p_MQ, is_top_MQ, torch.cat(above, dim=1), torch.cat(abstains, dim=1))


def label_listing(
    corpora: Sequence[Corpus],
    order: int,
    places: Sequence[list[Tensor]],
    trained: Sequence[DataTensor | None],
    device: torch.device,
) -> Listing:
    """Return the listing that labels artifacts of an order, and knows what its n-grams weigh in the loss.

    Context flags: `considered`, `seen`, `diagonal`, `labelled` (unless all are), `judged`. N-gram flags: `train`,
    `true`, `held_out`, `replaced` (by noise), and those of their contexts as `in_considered`, `in_seen` and so on; and
    `weight`, as in `loss_listing`.
    """
    contexts, ngrams, context_flags, ngram_flags = [], [], [], []
    for corpus, place, tensor in zip(corpora, places, trained, strict=True):
        data = corpus.tensor(order)
        none = data.ngrams_Gn[:0]
        truth = corpus.truth_ngrams(order)
        held_out = corpus.held_out_ngrams(order)
        labels = corpus.labelled_contexts(order)
        labelled = labels if isinstance(labels, Tensor) else none[:, :-1]
        everywhere = place[0]
        for tokens in place[1:]:
            everywhere = everywhere[torch.isin(everywhere, tokens)]
        diagonal = everywhere[:, None].expand(-1, order - 1) if order > 2 else none[:, :-1]
        known = distinct_rows(torch.cat([part for part in (data.ngrams_Gn, truth, held_out) if part is not None]))[0]
        listed = distinct_rows(torch.cat([data.contexts_Cn, known[:, :-1], labelled, diagonal]))[0]
        of_context = {
            "considered": torch.stack([torch.isin(listed[:, i], place[i]) for i in range(order - 1)]).all(0),
            "seen": find_rows(listed, data.contexts_Cn) >= 0,
            "diagonal": find_rows(listed, diagonal) >= 0,
            "labelled": find_rows(listed, labelled) >= 0,
            "judged": corpus.judged(listed),
        }
        of_context["labelled"] &= of_context["considered"]  # an artifact is counted in considered contexts only
        in_place = find_rows(known[:, :-1], listed)
        contexts.append(listed)
        ngrams.append(known)
        context_flags.append(of_context)
        ngram_flags.append(
            {
                "train": find_rows(known, data.ngrams_Gn) >= 0,
                "true": find_rows(known, none if truth is None else truth) >= 0,
                "held_out": find_rows(known, none if held_out is None else held_out) >= 0,
                "replaced": find_rows(known, none if corpus.replaced is None else truncated(corpus.replaced, order))
                >= 0,
                "weight": _weights(known, tensor, corpus),
            }
            | {f"in_{name}": flag[in_place] for name, flag in of_context.items()}
        )
    return Listing(contexts, ngrams, context_flags, ngram_flags, device)


def loss_listing(
    corpora: Sequence[Corpus], order: int, trained: Sequence[DataTensor | None], device: torch.device
) -> Listing:
    """Return the listing of one order of loss (2): its n-grams with their `weight`, counts per sentence.

    A member that trains nothing of this order has None: it lists one n-gram that weighs nothing.
    """
    nothing = torch.zeros(1, order, dtype=torch.int64)
    ngrams = [nothing if t is None else t.ngrams_Gn for t in trained]
    contexts = [nothing[:, :-1] if t is None else t.contexts_Cn for t in trained]
    weights = [_weights(*of_member) for of_member in zip(ngrams, trained, corpora, strict=True)]
    return Listing(contexts, ngrams, [{} for _ in trained], [{"weight": weight} for weight in weights], device)


def _weights(ngrams_Qn: Tensor, trained: DataTensor | None, corpus: Corpus) -> Tensor:
    """Return what each n-gram weighs in loss (2): how often it is trained per sentence, [Q] in float64."""
    if trained is None:
        return torch.zeros(len(ngrams_Qn), dtype=torch.float64)
    place_Q = find_rows(ngrams_Qn, trained.ngrams_Gn)
    return torch.where(place_Q >= 0, trained.count_G[place_Q], 0).double() / len(corpus.sentences)
