"""Contexts and n-grams that are known by name, and how those that the data shows are read: one by one, in float64.

Letters: `M` member, `C` listed context, `Q` listed n-gram, `n` order, `V` vocabulary, `U` the vocabulary and the
unsupported token, where a model has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tc_sweeps.artifacts.contexts import TILE, chunks
from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.tensor import find_rows
from tc_sweeps.model import CountedModel

__all__ = ["Known", "Listing", "Reading", "loss_listing", "weights"]


@dataclass(frozen=True, eq=False)
class Known:
    """Contexts and n-grams of one member, with what is known of them."""

    contexts_Cn: Tensor  # distinct
    ngrams_Qn: Tensor
    context_flag: dict[str, Tensor]  # [C] each
    ngram_flag: dict[str, Tensor]  # [Q] each

    def part(self, context_C: Tensor, ngram_Q: Tensor) -> Known:
        """Return what is known of some of the contexts and n-grams, those of two masks."""
        return Known(
            self.contexts_Cn[context_C],
            self.ngrams_Qn[ngram_Q],
            {name: flag[context_C] for name, flag in self.context_flag.items()},
            {name: flag[ngram_Q] for name, flag in self.ngram_flag.items()},
        )


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

    def __init__(self, of_members: Sequence[Known], device: torch.device) -> None:
        """The contexts of all n-grams must be among those listed."""

        def padded(rows: Sequence[Tensor], fill: int = 0) -> Tensor:
            table = pad_sequence(list(rows), batch_first=True, padding_value=fill)
            return F.pad(table, (0, 0) * (table.dim() - 2) + (0, -table.shape[1] % TILE), value=fill).to(device)

        first = of_members[0]
        self.context_MCn = padded([known.contexts_Cn for known in of_members])
        place_MQ = padded(
            [find_rows(known.ngrams_Qn[:, :-1], known.contexts_Cn) for known in of_members],
            fill=self.context_MCn.shape[1] - 1,
        )
        # Of the n-grams up to each the last context, and from each on the first: on the host, as sizes depend on them.
        self._last_Q = np.maximum.accumulate(place_MQ.cpu().amax(0).numpy())
        self._first_Q = np.minimum.accumulate(place_MQ.cpu().amin(0).numpy()[::-1])[::-1]
        self.place_MQ = place_MQ
        self.token_MQ = padded([known.ngrams_Qn[:, -1] for known in of_members])
        self.context_flag = {n: padded([known.context_flag[n] for known in of_members]) for n in first.context_flag}
        self.ngram_flag = {n: padded([known.ngram_flag[n] for known in of_members]) for n in first.ngram_flag}

    def _span(self, begin: int, end: int) -> slice:
        """Return where the n-grams of the contexts `begin..end-1` are: few others, since both are in one order."""
        return slice(int(np.searchsorted(self._last_Q, begin)), int(np.searchsorted(self._first_Q, end)))

    def read(self, model: CountedModel, threshold: float, rows_at_once: int) -> Reading:
        """Return what a float64 model says; no synchronisation.

        `rows_at_once` is the stream's: a row takes three times as much here, in float64.
        """
        p_MQ = torch.zeros(self.token_MQ.shape, dtype=torch.float64, device=self.token_MQ.device)
        log_p_MQ, is_top_MQ = torch.zeros_like(p_MQ), torch.zeros_like(p_MQ, dtype=torch.bool)
        above_MC = torch.zeros(self.context_MCn.shape[:2], dtype=torch.int64, device=p_MQ.device)
        abstains_MC = torch.zeros_like(above_MC, dtype=torch.bool)
        for first, beyond in chunks(self.context_MCn.shape[1] // TILE, max(1, rows_at_once // 3 // TILE)):
            begin, end = first * TILE, beyond * TILE
            logits_MCU = model.last_hidden(self.context_MCn[:, begin:end]) @ model.unembedding_matrix()
            probability_MCU = torch.softmax(logits_MCU, dim=-1)
            above_MC[:, begin:end] = (probability_MCU[..., : model.vocab_size] > threshold).sum(-1)
            abstains_MC[:, begin:end] = (probability_MCU[..., model.vocab_size :] > threshold).any(-1)
            top_MC1 = logits_MCU.argmax(-1, keepdim=True)
            # log sum exp l, from the greatest probability, which never underflows.
            log_sum_MC = (logits_MCU.gather(2, top_MC1) - probability_MCU.gather(2, top_MC1).log())[..., 0]
            span = self._span(begin, end)
            place_MQ = self.place_MQ[:, span]
            inside_MQ = (place_MQ >= begin) & (place_MQ < end)
            place_MQ = torch.where(inside_MQ, place_MQ - begin, 0)
            flat_MQ = place_MQ * logits_MCU.shape[-1] + self.token_MQ[:, span]
            # Every n-gram is inside exactly one chunk, so that adding up over the chunks collects the values.
            p_MQ[:, span] += torch.where(inside_MQ, probability_MCU.flatten(1).gather(1, flat_MQ), 0.0)
            said_MQ = logits_MCU.flatten(1).gather(1, flat_MQ) - log_sum_MC.gather(1, place_MQ)
            log_p_MQ[:, span] += torch.where(inside_MQ, said_MQ, 0.0)
            is_top_MQ[:, span] |= inside_MQ & (top_MC1[..., 0].gather(1, place_MQ) == self.token_MQ[:, span])
        return Reading(p_MQ, log_p_MQ, is_top_MQ, above_MC, abstains_MC)


def loss_listing(
    corpora: Sequence[Corpus], order: int, trained: Sequence[DataTensor | None], device: torch.device
) -> Listing:
    """Return the listing of one order of loss (2): its n-grams with their `weight`, counts per sentence.

    A member that trains nothing of this order has None: it lists one n-gram that weighs nothing.
    """
    nothing = torch.zeros(1, order, dtype=torch.int64)
    of_members = []
    for corpus, tensor in zip(corpora, trained, strict=True):
        ngrams, contexts = (nothing, nothing[:, :-1]) if tensor is None else (tensor.ngrams_Gn, tensor.contexts_Cn)
        of_members.append(Known(contexts, ngrams, {}, {"weight": weights(ngrams, tensor, corpus)}))
    return Listing(of_members, device)


def weights(ngrams_Qn: Tensor, trained: DataTensor | None, corpus: Corpus) -> Tensor:
    """Return what each n-gram weighs in loss (2): how often it is trained per sentence, [Q] in float64."""
    if trained is None:
        return torch.zeros(len(ngrams_Qn), dtype=torch.float64)
    place_Q = find_rows(ngrams_Qn, trained.ngrams_Gn)
    return torch.where(place_Q >= 0, trained.count_G[place_Q], 0).double() / len(corpus.sentences)
