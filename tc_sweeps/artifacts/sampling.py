"""Estimates the artifacts of a stack of models where the contexts are too many to be counted.

Contexts that are known by name (those that the data shows, labelled ones, those of held-out n-grams, the diagonal) are
few and read exactly; so are all numbers that speak of these alone. The blank rest is cut into strata, each a product of
tokens per place, and contexts are drawn from each. V^(n-1) is never in memory and never passed over.

A draw is a hash of (seed, stratum, slot), so the same contexts are drawn at every evaluation where the strata and what
is drawn from each are the same, as they always are with `uniform`: a curve over training is smoother than with contexts
drawn anew, since two points differ by what the model has learnt and not by what was asked; all points of it are off to
the same side, though.

Letters: `M` member, `H` stratum, `C` context, `K` known context, `T` threshold, `S` token at a place, `n` tokens of a
context, `V` vocabulary, `U` the vocabulary and any unsupported token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import TILE, Contexts, Sizes, chunks
from tc_sweeps.artifacts.counter import Counter, Row, Values, in_float64
from tc_sweeps.artifacts.intervals import interval
from tc_sweeps.artifacts.labels import Labels
from tc_sweeps.artifacts.listing import Reading
from tc_sweeps.artifacts.screen import constants
from tc_sweeps.artifacts.stream import Totals
from tc_sweeps.artifacts.watching import Observed
from tc_sweeps.config import Sampling
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.randomness import judged, random_integers, random_order
from tc_sweeps.model import CountedModel

__all__ = ["SampledCounter"]

_PILOT = 16  # one in so many contexts is drawn to see where the others should be
# Of what may be drawn, where a budget of time or an error that is small enough may end it before.
_LOOKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
_SUREST = (1 / 16, 1 / 4, 1 / 2, 1)  # the last tokens after which a model is surest, up to such a share of them
_FEW = 1 << 20  # contexts that are gone through once to see whose they are; a half of more is one within .1 %
_BEYOND = 1 << 62  # no context has this number


# ------------------------------------------------------------------------------------------------------------- strata


@dataclass(frozen=True, eq=False)
class _Cut:
    """The considered contexts of every member cut into strata: at each place the tokens from an offset on."""

    table_MnS: Tensor  # the tokens of each place in the order in which they are cut; V for padding
    offset_MHn: Tensor
    size_MHn: Tensor
    contexts_MH: Tensor  # the product of the sizes


def _cut(order: Sequence[Sequence[Tensor]], parts: Sequence[Sequence[Sequence[tuple[int, int]]]], pad: int) -> _Cut:
    """Return the cut of members' tokens, in `order` by place, into `parts`: per stratum and place (begin, end)."""
    begin_end = torch.tensor(parts)  # [M, H, n, 2]
    table = torch.full((len(order), len(order[0]), max(len(t) for tokens in order for t in tokens)), pad)
    for member, tokens_n in enumerate(order):
        for place, tokens in enumerate(tokens_n):
            table[member, place, : len(tokens)] = tokens
    size_MHn = begin_end[..., 1] - begin_end[..., 0]
    contexts = [[math.prod(end - begin for begin, end in stratum) for stratum in member] for member in parts]
    return _Cut(table, begin_end[..., 0], size_MHn, torch.tensor(contexts))


def _whole(places: list[Tensor]) -> list[list[tuple[int, int]]]:
    """Return one stratum of all contexts."""
    return [[(0, len(tokens)) for tokens in places]]


def _by_first_unseen(places: list[Tensor], seen: list[int]) -> list[list[tuple[int, int]]]:
    """Return strata by the first place whose token the data never has there; `seen` tokens come first at a place.

    Example: with two tokens seen of three at either place the strata are seen seen (2 * 2 contexts), seen unseen
    (2 * 1) and unseen anything (1 * 3).
    """
    n = len(places)
    strata = []
    for first_unseen in range(n, -1, -1):
        before = [(0, seen[place]) for place in range(first_unseen)]
        there = [(seen[place], len(places[place])) for place in range(first_unseen, min(first_unseen + 1, n))]
        after = [(0, len(places[place])) for place in range(first_unseen + 1, n)]
        strata.append(before + there + after)
    return strata


def _by_last(places: list[Tensor]) -> list[list[tuple[int, int]]]:
    """Return strata by the last token, those after which the model is surest first: _SUREST of all."""
    tokens = len(places[-1])
    ends = [0, *(math.ceil(share * tokens) for share in _SUREST)]
    heads = [(0, len(place)) for place in places[:-1]]
    return [[*heads, span] for span in pairwise(ends)]


@dataclass(frozen=True, eq=False)
class _Strata:
    """The strata without the known contexts: their blank contexts are numbered through, one stratum after the other.

    Numbers of contexts go through the strata too, known ones among them.
    """

    cut: _Cut
    first_MH: Tensor  # the number of each stratum's first context
    blanks_before_MK: Tensor  # of the known contexts in the order of their numbers: how many blank ones come before
    blank_MH: Tensor  # how many there are in each stratum
    blank_first_MH: Tensor

    @classmethod
    def of(cls, cut: _Cut, known_MKn: Tensor, is_known_MK: Tensor, vocab_size: int) -> _Strata:
        """Return the strata without known contexts; no synchronisation."""
        M, n, S = cut.table_MnS.shape
        rank_MnV = torch.zeros(M, n, vocab_size + 1, dtype=torch.int64, device=cut.table_MnS.device)
        rank_MnV.scatter_(2, cut.table_MnS, torch.arange(S, device=rank_MnV.device).expand(M, n, -1))
        rank_MKn = rank_MnV.gather(2, known_MKn.transpose(1, 2)).transpose(1, 2)
        inside_MKHn = rank_MKn[:, :, None] - cut.offset_MHn[:, None]
        is_in_MKH = ((inside_MKHn >= 0) & (inside_MKHn < cut.size_MHn[:, None])).all(-1)
        stratum_MK = is_in_MKH.long().argmax(-1)
        size_MKn = _of_stratum(cut.size_MHn, stratum_MK)
        inside_MKn = rank_MKn - _of_stratum(cut.offset_MHn, stratum_MK)
        first_MH = cut.contexts_MH.cumsum(1) - cut.contexts_MH
        number_MK = torch.zeros_like(stratum_MK)
        for size_MK, digit_MK in zip(size_MKn.unbind(-1), inside_MKn.unbind(-1), strict=True):
            number_MK = number_MK * size_MK + digit_MK
        number_MK = torch.where(is_known_MK, number_MK + first_MH.gather(1, stratum_MK), _BEYOND).sort(dim=1).values
        known_MH = torch.zeros_like(first_MH).scatter_add_(1, stratum_MK, is_known_MK.long())
        blank_MH = cut.contexts_MH - known_MH
        return cls(
            cut=cut,
            first_MH=first_MH,
            blanks_before_MK=number_MK - torch.arange(number_MK.shape[1], device=number_MK.device),
            blank_MH=blank_MH,
            blank_first_MH=blank_MH.cumsum(1) - blank_MH,
        )

    def draw(self, drawn_MH: Tensor, slot_C: Tensor, seed_M: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        """Return the contexts in some slots, [M, C, n], and their strata, [M, C]; H where a slot is beyond the last.

        A stratum's blank contexts, turned by lot as on a wheel, are cut into as many pieces of equal size, up to one
        context, as are `drawn_MH`, and one is drawn from each: none twice, any as likely as another, and all of them
        where as many are drawn as there are. The estimate of a mean varies no more than with draws that may repeat. No
        synchronisation.
        """
        H = drawn_MH.shape[1]
        end_MH = drawn_MH.cumsum(1)
        beyond_MC = (slot_C[None, :, None] >= end_MH[:, None]).sum(-1)
        stratum_MC = beyond_MC.clamp_max(H - 1)
        drawn_MC = drawn_MH.gather(1, stratum_MC).clamp_min(1)
        blank_MC = self.blank_MH.gather(1, stratum_MC)
        place_MC = slot_C - (end_MH - drawn_MH).gather(1, stratum_MC)
        each_MC, left_MC = blank_MC // drawn_MC, blank_MC % drawn_MC
        begin_MC, end_MC = (p * each_MC + p * left_MC // drawn_MC for p in (place_MC, place_MC + 1))
        size_MC = (end_MC - begin_MC).clamp_min(1)
        inside_MC = random_integers(seed_M[:, None], stream, stratum_MC, place_MC, size_MC)
        turn_MC = random_integers(seed_M[:, None], f"{stream}, turn", 0, stratum_MC, blank_MC.clamp_min(1))
        index_MC = (begin_MC + inside_MC + turn_MC) % blank_MC.clamp_min(1)
        blank_number_MC = self.blank_first_MH.gather(1, stratum_MC) + index_MC
        number_MC = blank_number_MC + torch.searchsorted(self.blanks_before_MK, blank_number_MC, right=True)
        rest_MC = number_MC - self.first_MH.gather(1, stratum_MC)
        size_MCn = _of_stratum(self.cut.size_MHn, stratum_MC).clamp_min(1)
        offset_MCn = _of_stratum(self.cut.offset_MHn, stratum_MC)
        tokens = []
        for place in reversed(range(size_MCn.shape[2])):
            index_MC = offset_MCn[..., place] + rest_MC % size_MCn[..., place]
            tokens.append(self.cut.table_MnS[:, place].gather(1, index_MC.clamp(0, self.cut.table_MnS.shape[2] - 1)))
            rest_MC = rest_MC // size_MCn[..., place]
        is_drawn_MC = beyond_MC < H
        return torch.where(is_drawn_MC[..., None], torch.stack(tokens[::-1], dim=-1), 0), beyond_MC


def _of_stratum(value_MHn: Tensor, stratum_MC: Tensor) -> Tensor:
    """Return what strata have, [M, H, n], for each context, [M, C, n]."""
    return value_MHn.gather(1, stratum_MC[..., None].expand(-1, -1, value_MHn.shape[2]))


def _allocated(share_MH: Tensor, blank_MH: Tensor, total: int) -> Tensor:
    """Return how many contexts are drawn from each stratum, [M, H]: by its share, at least one, and at most `total`."""
    exists_MH = (blank_MH > 0).long()
    free_M1 = total - exists_MH.sum(1, keepdim=True)
    return torch.minimum(exists_MH + (share_MH * free_M1).floor().long(), blank_MH)


def _shares(value_MH: Tensor) -> Tensor:
    """Return each stratum's share of a member's sum, [M, H]."""
    return value_MH / _added(value_MH).clamp_min(torch.finfo(torch.float64).tiny)[:, None]


# ------------------------------------------------------------------------------------------------------------- tallies


class _Tally:
    """What was read of some contexts, added up per stratum: int64, [M, H] or [M, H, T], on the device."""

    def __init__(
        self, members: int, strata: int, thresholds: Sequence[float], threshold: float, seed_M: Tensor
    ) -> None:
        self._thresholds, self._threshold, self.seed_M, self._strata = tuple(thresholds), threshold, seed_M, strata
        self._low = [t for t in thresholds if t < 0.5]
        self._low_T = seed_M.new_zeros(members, len(self._low), strata + 1)  # the last is for what does not count
        self._high = constants(tuple(t for t in thresholds if t >= 0.5), seed_M.device)
        self._top = seed_M.new_zeros(members, (strata + 1) * (len(self._high) + 1))
        names = ("drawn", "above", "square", "confident", "abstained", "judged", "judged_above", "judged_abstained")
        self._sum = {name: seed_M.new_zeros(members, strata + 1) for name in names}

    def __getitem__(self, name: str) -> Tensor:
        """Return one sum over the contexts of each stratum, [M, H].

        `drawn`: how many they are; `above`: n-grams above the threshold, and `square`: the sum of their squares;
        `confident`: contexts with any; `abstained`: those with the unsupported token above it; `judged`,
        `judged_above` and `judged_abstained`: the same in the judge's half.
        """
        return self._sum[name][:, : self._strata]

    def above(self, threshold: float) -> Tensor:
        """Return how many n-grams are above one of the thresholds, [M, H]."""
        if threshold < 0.5:
            return self._low_T[:, self._low.index(threshold), : self._strata]
        top_MHT = self._top.view(len(self._top), self._strata + 1, -1)[:, : self._strata]
        return top_MHT[..., self._thresholds.index(threshold) - len(self._low) + 1 :].sum(-1)

    def read(self, model: CountedModel, context_MCn: Tensor, stratum_MC: Tensor) -> None:
        """Add contexts, as a float64 model answers them; those of stratum H do not count. No synchronisation."""
        probability_MCU = torch.softmax(model.last_hidden(context_MCn) @ model.unembedding_matrix(), dim=-1)
        probability_MCV = probability_MCU[..., : model.vocab_size]
        above_MC = (probability_MCV > self._threshold).sum(-1)
        abstains_MC = (probability_MCU[..., model.vocab_size :] > self._threshold).any(-1)
        is_judged_MC = judged(self.seed_M[:, None], context_MCn[..., :-1], context_MCn[..., -1])
        for name, value_MC in (
            ("drawn", torch.ones_like(above_MC)),
            ("above", above_MC),
            ("square", above_MC**2),
            ("confident", above_MC > 0),
            ("abstained", abstains_MC),
            ("judged", is_judged_MC),
            ("judged_above", above_MC * is_judged_MC),
            ("judged_abstained", abstains_MC & is_judged_MC),
        ):
            self._sum[name].scatter_add_(1, stratum_MC, value_MC.long())
        for place, t in enumerate(self._low):
            self._low_T[:, place].scatter_add_(1, stratum_MC, (probability_MCV > t).sum(-1))
        # From 1/2 on a row's greatest probability is all that counts: how many thresholds it is above.
        passed_MC = torch.bucketize(probability_MCV.amax(-1).nan_to_num(0.0), self._high)
        self._top.scatter_add_(1, stratum_MC * (len(self._high) + 1) + passed_MC, torch.ones_like(passed_MC))


# ------------------------------------------------------------------------------------------------------------- counter


class SampledCounter(Counter):
    """A counter that estimates what all contexts together have, and counts what is known by name.

    Every number is that of `Counter` where all blank contexts are read: where `sampling.contexts` are as many.
    """

    def __init__(self, corpora: Sequence[Corpus], *, sampling: Sampling, seeds: Sequence[int], **counted: Any) -> None:
        """`seeds`: one per member, of its draws. `counted`: as for `Counter`."""
        super().__init__(corpora, **counted)
        device = self.contexts.total_M.device
        self._sampling = sampling
        self.seed_M = torch.tensor(seeds, device=device)
        places = self._places
        tokens = places
        parts = [_whole(member) for member in places]
        if sampling.method == "importance":
            parts = [_by_last(member) for member in places]
        elif sampling.method == "stratified":
            is_seen = [self._seen_in_place(corpus, member) for corpus, member in zip(corpora, places, strict=True)]
            tokens = [
                [torch.cat([t[s], t[~s]]) for t, s in zip(member, seen, strict=True)]
                for member, seen in zip(places, is_seen, strict=True)
            ]
            seen_in_place = [[int(s.sum()) for s in seen] for seen in is_seen]
            parts = [_by_first_unseen(*pair) for pair in zip(places, seen_in_place, strict=True)]
        cut = _cut(tokens, parts, self.vocab_size)
        self._cut = _Cut(**{name: value.to(device) for name, value in vars(cut).items()})
        self._strata_count = len(parts[0])
        known = [int(member.context_flag["considered"].sum()) for member in self._known]
        blanks = [total - listed for total, listed in zip(self.contexts.totals, known, strict=True)]
        self._is_complete_M1 = torch.tensor([blank <= sampling.contexts for blank in blanks], device=device)[:, None]
        self._pilot = max(sampling.contexts // _PILOT, 2 * self._strata_count) if self._strata_count > 1 else 0
        self._slots = min(max(blanks), sampling.contexts)

    def _seen_in_place(self, corpus: Corpus, places: list[Tensor]) -> list[Tensor]:
        seen = corpus.tensor(self.order).contexts_Cn
        return [torch.isin(tokens, seen[:, place]) for place, tokens in enumerate(places)]

    def looked_at(self, model: CountedModel) -> Tensor:
        """Return the considered contexts of a stack of one that are known or may be drawn, [C, n-1], on the CPU.

        That is all of them also where a budget of time or an error that is small enough ends the drawing before.
        """
        doubles = in_float64(model)
        strata, drawn_MH = self._plan(doubles)
        slot_C = self._slot_list(self._slots)
        known_Kn, is_known_K = (value[0] for value in self._known_contexts)
        looked_at = [known_Kn[is_known_K].cpu()]
        for begin, end in self._pieces(doubles, len(slot_C)):
            context_1Cn, stratum_1C = strata.draw(drawn_MH, slot_C[begin:end], self.seed_M, "sampled contexts")
            looked_at.append(context_1Cn[0, stratum_1C[0] < self._strata_count].cpu())
        return torch.cat(looked_at)

    # -------------------------------------------------------------------------------------------------- on the device

    def _labels(self, model: CountedModel) -> Labels:  # noqa: ARG002
        return self._listed

    @cached_property
    def _listed(self) -> Labels:
        """All that is known, read one by one."""
        return Labels(self._known, self.contexts, Sizes(self.contexts.total, self.contexts.total), streamed=False)

    @property
    def _known_contexts(self) -> tuple[Tensor, Tensor]:
        """What is listed, [M, K, n-1], and whether it is a known context that is considered."""
        listing = self._listed.listing
        return listing.context_MCn, listing.context_flag["considered"]

    def _strata(self, model: CountedModel) -> _Strata:
        if self._sampling.method != "importance":
            return self._fixed_strata
        return _Strata.of(self._by_sureness(model), *self._known_contexts, self.vocab_size)

    @cached_property
    def _fixed_strata(self) -> _Strata:
        return _Strata.of(self._cut, *self._known_contexts, self.vocab_size)

    def _by_sureness(self, model: CountedModel) -> _Cut:
        """Return the cut with the last tokens in the order of the surest probability after each of them alone."""
        token_V = torch.arange(self.vocab_size + -self.vocab_size % TILE, device=self.seed_M.device)
        context_MV1 = (token_V % self.vocab_size).expand(model.num_members, -1)[..., None]
        sureness = []
        for begin, end in self._pieces(model, len(token_V)):
            logits_MCU = model.last_hidden(context_MV1[:, begin:end]) @ model.unembedding_matrix()
            sureness.append(torch.softmax(logits_MCU, dim=-1)[..., : self.vocab_size].amax(-1).nan_to_num(0.0))
        sureness_MV = torch.cat(sureness, dim=1)[:, : self.vocab_size]
        sureness_MV = torch.cat([sureness_MV, torch.full_like(sureness_MV[:, :1], -1.0)], dim=1)  # padding is last
        table_MnS = self._cut.table_MnS.clone()
        last_MS = table_MnS[:, -1]
        surest_MS = sureness_MV.gather(1, last_MS).argsort(dim=1, descending=True, stable=True)
        table_MnS[:, -1] = last_MS.gather(1, surest_MS)
        return _Cut(table_MnS, self._cut.offset_MHn, self._cut.size_MHn, self._cut.contexts_MH)

    def _pieces(self, model: CountedModel, rows: int) -> Iterator[tuple[int, int]]:
        """Yield (begin, end) of pieces of rows, a multiple of a tile, that memory holds in float64."""
        for first, beyond in chunks(rows // TILE, max(1, self._sizes(model).piece // 3 // TILE)):
            yield first * TILE, beyond * TILE

    def _tally(self, strata: int, thresholds: Sequence[float]) -> _Tally:
        return _Tally(len(self.corpora), strata, thresholds, self.threshold, self._judge_seed_M)

    def _read_drawn(
        self,
        model: CountedModel,
        tally: _Tally,
        strata: _Strata,
        drawn_MH: Tensor,
        slot_C: Tensor,
        stream: str,
        open_M: Tensor,
    ) -> None:
        """Read the contexts in some slots, of members that are still open."""
        for begin, end in self._pieces(model, len(slot_C)):
            context_MCn, stratum_MC = strata.draw(drawn_MH, slot_C[begin:end], self.seed_M, stream)
            tally.read(model, context_MCn, torch.where(open_M[:, None], stratum_MC, self._strata_count))

    def _plan(self, model: CountedModel) -> tuple[_Strata, Tensor]:
        """Return the strata, and how many contexts are drawn from each, [M, H].

        All where the budget has room for them. Else half in a way that no pilot can spoil: by the strata's sizes, with
        importance evenly, which is many of the few contexts that end on a token after which the model is sure, so that
        no context weighs more than 2 or 4 times what it would without strata. The other half as Neyman (1934) has it,
        in proportion to a stratum's size and to the standard deviation in it of the number of artifacts of a context,
        as a pilot sees it. The pilot's draws say nothing but this, so that given them the others are drawn as with
        numbers that were fixed before; what these draws are worth, `_spread` tells.
        """
        strata = self._strata(model)
        blank_MH = strata.blank_MH
        size_MH = _shares(blank_MH.double())
        if self._strata_count == 1:
            drawn_MH = _allocated(size_MH, blank_MH, self._sampling.contexts)
        else:
            is_importance = self._sampling.method == "importance"
            base_MH = _shares((blank_MH > 0).double()) if is_importance else size_MH
            pilot = self._tally(self._strata_count, [self.threshold])
            drawn_MH = _allocated(base_MH, blank_MH, self._pilot)
            everyone_M = torch.ones_like(self._closed_M)
            self._read_drawn(model, pilot, strata, drawn_MH, self._slot_list(self._pilot), "pilot", everyone_M)
            # Half an artifact more than was met: a stratum without any in the pilot is not one without any.
            drawn, mean_MH = pilot["drawn"] + 1, (pilot["above"] + 0.5) / (pilot["drawn"] + 1)
            deviation_MH = ((pilot["square"] + 0.5) / drawn - mean_MH**2).clamp_min(0).sqrt()
            neyman_MH = _shares(blank_MH * deviation_MH)
            share_MH = (base_MH + neyman_MH) / 2
            drawn_MH = _allocated(share_MH, blank_MH, self._sampling.contexts - self._pilot)
        return strata, torch.where(self._is_complete_M1, blank_MH, drawn_MH)

    def _slot_list(self, slots: int) -> Tensor:
        """Return the slots 0 to `slots` - 1 and, up to whole tiles, some that nothing is drawn for."""
        return torch.arange(slots + -slots % TILE, device=self.seed_M.device)

    @cached_property
    def _rounds(self) -> list[Tensor]:
        """The slots in the order in which they are read, cut where somebody looks whether it is enough.

        Those of a round are a random part of all, and so of each stratum. Which they are does not depend on the stack.
        """
        sampling = self._sampling
        if sampling.seconds is None and sampling.relative_error is None:
            return [self._slot_list(self._slots)]
        order = random_order(0, "rounds", sampling.contexts)
        ends = [0, *(math.ceil(look * sampling.contexts) for look in _LOOKS)]
        rounds = []
        for begin, end in pairwise(ends):
            slots = order[begin:end][order[begin:end] < self._slots].sort().values
            nothing = torch.full((-len(slots) % TILE,), sampling.contexts)
            rounds.append(torch.cat([slots, nothing]).to(self.seed_M.device))
        return rounds

    def _totals(
        self, model: CountedModel, reading: Reading, read_M: Tensor, thresholds: Sequence[float]
    ) -> tuple[Totals, Observed]:
        """Return the totals over all considered contexts; nothing is observed beyond what is listed.

        One synchronisation for each look at what has been drawn so far, none where nobody looks.
        """
        began = time.monotonic()
        known_MKn, is_known_MK = self._known_contexts
        known = self._tally(1, thresholds)
        for begin, end in self._pieces(model, known_MKn.shape[1]):
            known.read(model, known_MKn[:, begin:end], (~is_known_MK[:, begin:end]).long())
        strata, drawn_MH = self._plan(model)
        sampled = self._tally(self._strata_count, thresholds)
        train_MQ = self._listed.listing.ngram_flag["train"]
        counted_M = known["above"][:, 0] - ((reading.p_MQ > self.threshold) & train_MQ).sum(1)
        open_M = read_M
        for slot_C in self._rounds:
            self._read_drawn(model, sampled, strata, drawn_MH, slot_C, "sampled contexts", open_M)
            if slot_C is self._rounds[-1]:
                break
            open_M = open_M & ~self._is_enough(counted_M, self._spread(strata, sampled), began, read_M)
            if not open_M.any():
                break

        def total(known_M1: Tensor, sampled_MH: Tensor) -> Tensor:
            # Told as a whole number, as counts are: what is lost is less than the weight of one artifact that was met.
            return known_M1[:, 0] + _expanded(strata, sampled, sampled_MH).round().long()

        # Of the judge's half more or fewer contexts may have been drawn than it is a part of all.
        judged_M = _expanded(strata, sampled, sampled["judged"])
        expected_M = torch.where(self._is_complete_M1[:, 0], judged_M, self._judged_M - known["judged"][:, 0])
        of_judged_M = torch.where(judged_M > 0, expected_M / judged_M, 0.0)

        def judged_total(name: str) -> Tensor:
            return known[name][:, 0] + (_expanded(strata, sampled, sampled[name]) * of_judged_M).round().long()

        totals = Totals(
            above_MT=torch.stack([total(known.above(t), sampled.above(t)) for t in thresholds], dim=1),
            doubtful_M=torch.zeros_like(self.seed_M),
            spread=self._spread(strata, sampled),
            confident_M=total(known["confident"], sampled["confident"]),
            abstained_M=total(known["abstained"], sampled["abstained"]),
            judged_M=judged_total("judged"),
            judged_above_M=judged_total("judged_above"),
            judged_abstained_M=judged_total("judged_abstained"),
        )
        return totals, Observed.of(self._listed.watched, 1)

    @cached_property
    def _judged_M(self) -> Tensor:
        """How many of the considered contexts are the judge's: half of them, but for chance where they are few."""
        judged_M = (self.contexts.total_M / 2).round().long()
        for member, places in enumerate(self._places):
            if self.contexts.totals[member] <= _FEW:
                blocks = Contexts([places], judged_M.device).blocks(1 << 16)
                seed_1 = self._judge_seed_M[member, None]
                judged_M[member] = torch.stack([block.judged(seed_1).sum() for block in blocks]).sum()
        return judged_M

    def _spread(self, strata: _Strata, sampled: _Tally) -> Values:
        """Return what the interval of the number of artifacts in blank contexts needs, [M] each; see `interval`.

        A stratum of which n of N contexts were read has the variance N^2 S^2 / n, that of draws that may repeat, and 0
        where all were read. One is drawn from each of n pieces, and where the contexts of a piece differ as much as all
        do (an artifact at every other one) what was read says nothing of the rest: no share n / N may be taken off.
        Of several strata S^2 has the divisor n - 1; one draw tells no variance, so that it is taken to be that of all
        draws together. Of a single stratum it is n, as in the interval of Clopper and Pearson.

        An artifact that was not met weighs w = -1 / log(1 - n / N), so that with none among n contexts of N there are
        at most w log(40) with 95 % on two sides: (1 - n / N)^(w log 40) = 1/40.
        """
        drawn_MH, blank_MH = sampled["drawn"].double(), strata.blank_MH.double()
        some_MH = drawn_MH.clamp_min(1)
        variance_MH = _variance(sampled["above"], sampled["square"], drawn_MH)
        if self._strata_count > 1:
            together = (_added(value)[:, None] for value in (sampled["above"], sampled["square"], drawn_MH))
            unbiased_MH = variance_MH * drawn_MH / (drawn_MH - 1).clamp_min(1)
            variance_MH = torch.where(drawn_MH > 1, unbiased_MH, _variance(*together))
        part_MH = drawn_MH / blank_MH.clamp_min(1)
        weight_MH = torch.where(drawn_MH > 0, -1 / torch.log1p(-part_MH), blank_MH)  # 0 where all were read
        weight_MH = torch.where(blank_MH > 0, weight_MH, 0.0)
        variance_M = _added(torch.where(part_MH < 1, blank_MH**2 * variance_MH / some_MH, 0.0))
        return {
            "blank_estimate": _expanded(strata, sampled, sampled["above"]),
            "blank_variance": variance_M,
            "blank_weight": self.most_tokens * weight_MH.amax(1),
            "blank_room": self.most_tokens * _added(blank_MH),
        }

    def _is_enough(self, counted_M: Tensor, spread: Values, began: float, read_M: Tensor) -> Tensor:
        """Return whether no more is to be drawn, [M]: a synchronisation. `read_M`: who shares the time."""
        sampling = self._sampling
        numbers = torch.stack([counted_M.double(), *spread.values(), read_M.double()], dim=1).tolist()
        if sampling.seconds is not None and time.monotonic() - began > sampling.seconds * sum(m[-1] for m in numbers):
            return torch.ones_like(read_M)
        enough = [False] * len(numbers)
        if sampling.relative_error is not None:
            for member, (counted, estimate, *rest, _) in enumerate(numbers):
                low, high = interval(estimate, *rest)
                enough[member] = (high - low) / 2 <= sampling.relative_error * (counted + estimate)
        return torch.tensor(enough, device=read_M.device)

    # ---------------------------------------------------------------------------------------------------- on the host

    def _row(self, member: int, v: dict[str, float], *, abstains: bool) -> Row:
        """Return the metrics of one member, with the interval of the number of artifacts."""
        row = super()._row(member, v, abstains=abstains)
        count, estimate = row["artifacts/count"], v["blank_estimate"]
        assert count is not None
        low, high = interval(estimate, v["blank_variance"], v["blank_weight"], v["blank_room"])
        known = count - round(estimate)
        return row | {
            "artifacts/count_low": known + math.floor(low),
            "artifacts/count_high": known + math.ceil(high),
            "artifacts/doubtful_share": None,  # nothing is screened
        }


def _added(value_MH: Tensor) -> Tensor:
    """Return the sum over strata, [M], added one after the other, as in every stack."""
    total_M = torch.zeros_like(value_MH[:, 0])
    for value_M in value_MH.unbind(1):
        total_M = total_M + value_M
    return total_M


def _variance(sum_MH: Tensor, square_MH: Tensor, drawn_MH: Tensor) -> Tensor:
    """Return the mean squared distance from the mean, [M, H], of numbers with this sum and sum of squares."""
    some_MH = drawn_MH.clamp_min(1)
    return (square_MH / some_MH - (sum_MH / some_MH) ** 2).clamp_min(0)


def _expanded(strata: _Strata, sampled: _Tally, value_MH: Tensor) -> Tensor:
    """Return what all blank contexts have if they are as those drawn from their stratum, [M] in float64."""
    return _added(strata.blank_MH.double() * value_MH / sampled["drawn"].clamp_min(1))
