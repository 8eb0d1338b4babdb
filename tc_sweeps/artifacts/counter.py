"""Counts the artifacts of a stack of models exactly, and labels them where the world has a truth.

Subtraction identity: artifacts = #{p > tau} over the considered contexts - #{distinct training n-grams with p > tau}.
The first number comes from the stream over all contexts, the second from reading those of the data in float64, and
labels from both.

Letters: `M` member, `T` threshold, `C` known context, `Q` known n-gram, `V` vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from tc_sweeps.artifacts.contexts import Contexts, Sizes, may_wait
from tc_sweeps.artifacts.definition import (
    EXACT_THRESHOLDS,
    accuracy_cap,
    check_contexts,
    check_order,
    check_threshold,
    most_tokens,
    survival_thresholds,
)
from tc_sweeps.artifacts.labels import Labels, known
from tc_sweeps.artifacts.listing import Known, Listing, Reading, loss_listing
from tc_sweeps.artifacts.mining import surest
from tc_sweeps.artifacts.screen import constants
from tc_sweeps.artifacts.stream import Totals, count_above, stream
from tc_sweeps.artifacts.watching import Observed
from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.tensor import distinct_rows
from tc_sweeps.model import CountedModel, loss_floor, trained_tensors

__all__ = [
    "ArtifactCounts",
    "Beside",
    "Counter",
    "Evaluated",
    "Row",
    "Values",
    "asked_for",
    "count_artifacts",
    "in_float64",
    "sum_in_order",
]

Values = dict[str, Tensor]
Beside = Callable[[CountedModel], Values]  # told of a stack in float64 by metric name, [M]
Row = dict[str, float | int | None]


@dataclass(frozen=True, eq=False)
class ArtifactCounts:
    """Artifacts of every member, on the CPU; `count = seen + unseen`, and `diagonal` overlaps both.

    Artifacts in seen contexts are failures on the training fibers (section 3.2 of the paper); those in unseen contexts
    fill the blank space around them, which is what the paper explains.
    """

    count: Tensor  # [M]
    seen: Tensor  # [M], in contexts of the data
    unseen: Tensor  # [M]
    diagonal: Tensor  # [M], in contexts whose tokens are all equal; 0 for n = 2
    ceiling: Tensor  # [M], no model with these training probabilities can have more
    survival: Tensor  # [M, T], N(tau)
    survival_thresholds: Tensor  # [T] in float64; [M, T] where members have their own


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a stack, on the host."""

    rows: list[Row]  # per member, by metric name; None where a denominator is empty
    thresholds: np.ndarray  # [T], of the survival curve: those that are at least 1/2, or all; [M, T] by joint measure
    survival: np.ndarray  # [M, T], N(tau)
    carried: dict[str, list[float]]  # what came along from the device, per member


class _Above:
    """How many n-grams are above the threshold, of those with a flag in the order of `Labels`."""

    def __init__(self, reading: Reading, observed: Observed, threshold: float) -> None:
        self._above_MC = torch.cat([reading.above_MC, observed.above_MC], dim=1)
        self._is_above_MQ = torch.cat([reading.p_MQ > threshold, observed.is_above_MQ], dim=1)

    def contexts(self, flag_MC: Tensor) -> Tensor:
        """Return how many n-grams of flagged contexts are above the threshold, known or not, [M]."""
        return torch.where(flag_MC, self._above_MC, 0).sum(1)

    def ngrams(self, flag_MQ: Tensor) -> Tensor:
        """Return how many flagged n-grams are above the threshold, [M]."""
        return (self._is_above_MQ & flag_MQ).sum(1)


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the considered contexts: all of them, or the judge's half."""

    total_M: Tensor  # how many they are
    above_M: Tensor  # n-grams in them above the threshold
    abstained_M: Tensor  # the unseen ones of them with the unsupported token above it
    context_MC: Tensor  # which of the known contexts belong to it
    ngram_MQ: Tensor  # which of the known n-grams


def in_float64(model: CountedModel) -> CountedModel:
    """Return a copy of a model with its weights in float64, exactly those at hand."""
    assert isinstance(model, nn.Module)
    return cast(CountedModel, copy.deepcopy(model).double().requires_grad_(False))


def count_artifacts(
    model: CountedModel,
    corpora: Corpus | Sequence[Corpus],
    *,
    threshold: float = 0.5,
    order: int | None = None,
    contexts: Literal["all", "typed"] | None = None,
    full_survival: bool = False,
    memory_mib: int = 256,
    engine: Literal["auto", "reference", "chunked", "flex"] = "auto",
) -> ArtifactCounts:
    """Count the n-grams with P(t_n | context) > threshold and D^n = 0, for every member of a stack.

    `corpora`: one corpus, or one per member. `order`: n, by default that of the corpus. `contexts`: those considered,
    by default the corpus's choice. The survival curve covers thresholds >= 1/2, with `full_survival` all from .01 on.
    `engine`: `reference` reads every row in float64, `chunked` and `auto` in float32 first, `flex` (CUDA only) by a
    fused kernel that has no logits in memory; the counts are the same; N(tau) between the exact thresholds, and the
    loss on what is held out, may differ by the rounding of what reads first.
    Raises ValueError for a threshold outside (0, 1) or below 1e-30, an order outside 2..order of the corpus, and other
    words than these.
    """
    corpora, order = asked_for(model, corpora, order)
    check_threshold(threshold)
    check_contexts(contexts)
    if engine not in ("auto", "reference", "chunked", "flex"):
        raise ValueError(f"engine={engine!r} must be 'auto', 'reference', 'chunked' or 'flex'.")
    counter = Counter(
        corpora,
        order=order,
        threshold=threshold,
        contexts=contexts or corpora[0].contexts,
        memory_mib=memory_mib,
        engine=engine,
        device=model.unembedding_matrix().device,
    )
    return counter.count(model, full_survival=full_survival)


def asked_for(model: CountedModel, corpora: Corpus | Sequence[Corpus], order: int | None) -> tuple[list[Corpus], int]:
    """Return one corpus per member, and the order: that of the corpora where None is given.

    Raises ValueError for an order outside 2..order of the corpus, and for another number of corpora than of members.
    """
    corpora = [corpora] if isinstance(corpora, Corpus) else list(corpora)
    check_order(corpora[0], order)
    if len(corpora) != model.num_members:
        raise ValueError(f"{len(corpora)} corpora for a stack of {model.num_members} models: give one per member.")
    return corpora, order or corpora[0].order


class Counter:
    """Everything about the corpora that counting needs, made once and kept on the device."""

    def __init__(
        self,
        corpora: Sequence[Corpus],
        *,
        order: int,
        threshold: float,
        contexts: Literal["all", "typed"],
        memory_mib: int,
        device: torch.device,
        engine: str = "auto",
        positions: str = "all",
        sees_multisets: bool = False,
    ) -> None:
        """`engine`: as in `count_artifacts`. `positions`: of the objective, for the loss. `sees_multisets`: as in
        `accuracy_cap`.
        """
        self._screened_in = torch.float64 if engine == "reference" else torch.float32
        self._fused = engine == "flex"
        self.corpora = list(corpora)
        self.order = order
        self.threshold = threshold
        self.vocab_size = max(corpus.vocab_size for corpus in corpora)
        self.thresholds = survival_thresholds(threshold)
        self.most_tokens = most_tokens(threshold, self.vocab_size)
        self._memory_bytes = memory_mib << 20
        self._places = [corpus.places(order, contexts) for corpus in corpora]
        self.contexts = Contexts(self._places, device)
        # The data tensors of the loss by order; a member has none of an order where it has no such sentences.
        tensors = [{tensor.order: tensor for tensor in trained_tensors(corpus, positions)} for corpus in corpora]
        self._trained = {n: [member.get(n) for member in tensors] for n in sorted({n for t in tensors for n in t})}
        # Rows of a member that may be in doubt: a second count costs more than room, all of which a device reads.
        self._buffer = 32 + self.contexts.total // (100 if may_wait(device) else 1000)
        self._trained_of_order = self._trained.get(order, [None] * len(corpora))
        self._laid_out: tuple[Sizes, Labels] | None = None
        self._positions = positions
        self._judge_seed_M = torch.tensor([corpus.judge_seed for corpus in corpora], device=device)
        self._closed_M = torch.tensor([isinstance(c.labelled_contexts(order), str) for c in corpora], device=device)
        self._has_truth = [corpus.truth is not None for corpus in corpora]
        self._attainable = [self._attainable_recall(corpus) for corpus in corpora]
        self._caps = [accuracy_cap(corpus, order, sees_multisets=sees_multisets) for corpus in corpora]

    # ----------------------------------------------------------------------------------------------------- evaluating

    def count(
        self, model: CountedModel, *, running_M: Tensor | None = None, full_survival: bool = False
    ) -> ArtifactCounts:
        """Return the artifact counts of a stack; `running_M` as for `evaluate`."""
        doubles = in_float64(model)
        reading = self._read(doubles)
        read_M = torch.isfinite(self._losses_of(doubles, reading)["train/loss"])
        if running_M is not None:
            read_M &= running_M
        values = self._on_host(lambda: self._values(doubles, reading, read_M, full_survival=full_survival))
        chosen = self._survival_thresholds(full=full_survival)
        return ArtifactCounts(
            **{name: values[f"artifacts/{name}"].long() for name in ("count", "seen", "unseen", "diagonal", "ceiling")},
            survival=values["survival"].long(),
            survival_thresholds=torch.tensor(chosen, dtype=torch.float64),
        )

    def evaluate(
        self,
        model: CountedModel,
        *,
        running_M: Tensor | None = None,
        full_survival: bool = False,
        beside: Beside | None = None,
        **carried_M: Tensor,
    ) -> Evaluated:
        """Return everything that is logged at an evaluation; with `full_survival` the whole survival curve.

        `running_M`: False for members whose numbers nobody reads; theirs are not exact, since of a model that has
        diverged every row is in doubt.
        `beside`: what else is told of the models; it enters the rows, NaN as an empty cell.
        `carried_M`: values of the device that should come along to the host, so that nobody else has to synchronise.
        """
        doubles = in_float64(model)
        reading = self._read(doubles)
        losses = self._losses_of(doubles, reading)
        read_M = torch.isfinite(losses["train/loss"])
        if running_M is not None:
            read_M &= running_M

        @cache
        def told() -> Values:
            return {} if beside is None else beside(doubles)

        values = self._on_host(
            lambda: self._values(doubles, reading, read_M, full_survival=full_survival) | losses | carried_M | told()
        )
        carried = {name: values.pop(name).tolist() for name in carried_M}
        others = {name: values.pop(name).tolist() for name in told()}
        survival = values.pop("survival").long().numpy()
        abstains = model.unembedding_matrix().shape[-1] > model.vocab_size
        rows = [
            self._row(m, {k: v[m].item() for k, v in values.items()}, abstains=abstains)
            | {name: None if math.isnan(value[m]) else value[m] for name, value in others.items()}
            for m in range(len(self.corpora))
        ]
        return Evaluated(rows, self._survival_thresholds(full=full_survival), survival, carried)

    def surest(self, model: CountedModel, count: int, *, taught_MKm: Tensor, length_M: Tensor) -> Tensor:
        """Return contexts that may be taught on and are not yet, those first in which a model is surest, [M, J, m].

        See `surest`; J = `count`, or fewer where no member has as many contexts. `taught_MKm`: those that are taught,
        the first `length_M` of each member. No synchronisation.
        """
        listing = self._listing(model)
        return surest(
            in_float64(model),
            self.contexts,
            count,
            seen_MCn=listing.context_MCn,
            is_seen_MC=listing.context_flag["seen"],
            taught_MKm=taught_MKm,
            length_M=length_M,
            judge_seed_M=self._judge_seed_M,
            rows_at_once=self._sizes(model).piece,
        )

    def facts(self, member: int) -> Row:
        """Return what is known of a member's corpus before anything is trained, by the names of the results table."""
        corpus, order = self.corpora[member], self.order
        data = corpus.tensor(order)
        held_out = corpus.held_out_ngrams(order)
        reachable = int((data.empirical_G > self.threshold).sum())
        return {
            "corpus/vocab_size": corpus.vocab_size,
            "corpus/sentences": len(corpus.sentences),
            "corpus/train_ngrams": len(data.ngrams_Gn),
            "corpus/contexts": self.contexts.totals[member],
            "corpus/held_out_ngrams": None if held_out is None else len(held_out),
            "corpus/replaced_ngrams": 0 if corpus.replaced is None else len(corpus.replaced),
            "corpus/ceiling_at_perfect_fit": self.most_tokens * self.contexts.totals[member] - reachable,
            "corpus/fully_fitted_accuracy": self._caps[member] - 2 / corpus.vocab_size,
        }

    # -------------------------------------------------------------------------------------------------- on the device

    @cached_property
    def _known(self) -> list[Known]:
        parts = zip(self.corpora, self._places, self._trained_of_order, strict=True)
        return [known(corpus, self.order, places, trained) for corpus, places, trained in parts]

    def _labels(self, model: CountedModel) -> Labels:
        """Return what is known, laid out for the blocks in which a model is streamed."""
        sizes = self._sizes(model)
        if self._laid_out is None or self._laid_out[0] != sizes:
            self._laid_out = sizes, Labels(self._known, self.contexts, sizes)
        return self._laid_out[1]

    def _listing(self, model: CountedModel) -> Listing:
        """Return what is read in float64 at every evaluation: the training n-grams, with what they weigh, and more."""
        return self._labels(model).listing

    def _read(self, model: CountedModel) -> Reading:
        return self._listing(model).read(model, self.threshold, self._sizes(model).piece)

    def _sizes(self, model: CountedModel) -> Sizes:
        itemsize = self._screened_in.itemsize
        return self.contexts.sizes(model, self._memory_bytes, itemsize=itemsize, fused=self._fused)

    def _on_host(self, compute: Callable[[], Values]) -> Values:
        """Run `compute` and bring its values to the CPU in one transfer, the only synchronisation.

        Where more rows were in doubt than the buffer holds, once more with a larger one, which is kept: the further a
        model is trained, the longer its hidden states, and the more rows are in doubt.
        """
        while True:
            values = compute()
            columns = [value.double().view(len(value), -1) for value in values.values()]
            host = torch.cat(columns, dim=1).cpu()
            parts = dict(zip(values, torch.split(host, [column.shape[1] for column in columns], dim=1), strict=True))
            needed = int(parts["doubtful"].max())
            if needed <= self._buffer:
                return {name: part if name == "survival" else part[:, 0] for name, part in parts.items()}
            self._buffer = min(needed + needed // 2, self.contexts.total)

    def _survival_thresholds(self, *, full: bool) -> np.ndarray:
        return self.thresholds if full else self.thresholds[self.thresholds >= 0.5]

    def _values(self, model: CountedModel, reading: Reading, read_M: Tensor, *, full_survival: bool) -> Values:
        """Return every count, [M] or [M, T], on the device; exact for members that will be read."""
        survived = self._survival_thresholds(full=full_survival)
        streamed = np.unique([*survived, self.threshold])
        labels = self._labels(model)
        totals, observed = self._totals(model, reading, read_M, streamed.tolist())
        context, ngram = labels.context_flag, labels.ngram_flag
        listed = labels.listing.context_flag
        train_p_MQ = torch.where(labels.listing.ngram_flag["train"], reading.p_MQ, 0.0)
        trained_MT = count_above(train_p_MQ, constants(tuple(survived.tolist()), train_p_MQ.device))
        above_M = totals.above_MT[:, int(np.searchsorted(streamed, self.threshold))]
        above = _Above(reading, observed, self.threshold)
        train_M = above.ngrams(ngram["train"])
        seen_M = above.contexts(context["seen"]) - train_M
        unseen_M = above_M - above.contexts(context["seen"])
        values = {
            "train/above_threshold": train_M,
            "artifacts/seen": seen_M,
            "artifacts/unseen": unseen_M,
            "artifacts/diagonal": above.contexts(context["diagonal"])
            - above.ngrams(ngram["train"] & ngram["in_diagonal"]),
            "artifacts/ceiling": self.most_tokens * self.contexts.total_M - train_M,
            # What was streamed ends with the curve's thresholds; a slice makes no copy, for which the CPU would wait.
            # Between the exact thresholds a training n-gram may be above one in float64, and not in what is streamed.
            "survival": (totals.above_MT[:, -len(survived) :] - trained_MT).clamp_min(0),
            "doubtful": totals.doubtful_M,
            "screened": self.contexts.total_M,
            "confident_unseen": totals.confident_M - ((reading.above_MC > 0) & listed["seen"]).sum(1),
        }
        held_out_MQ = ngram["held_out"]
        log_p_MQ = torch.cat([reading.log_p_MQ, observed.log_p_MQ], dim=1)
        is_top_MQ = torch.cat([reading.is_top_MQ, observed.is_top_MQ], dim=1)
        values |= {
            "held_out_loss": 0.0 - torch.where(held_out_MQ, log_p_MQ, 0.0).sum(1),
            "restored": above.ngrams(ngram["replaced"] & ~ngram["train"]),
            "held_out_top": (is_top_MQ & held_out_MQ).sum(1),
        }
        everywhere = _Part(
            total_M=self.contexts.total_M,
            above_M=above_M,
            abstained_M=totals.abstained_M - (reading.abstains_MC & listed["seen"]).sum(1),
            context_MC=torch.ones_like(context["judged"]),
            ngram_MQ=torch.ones_like(ngram["in_judged"]),
        )
        judged = _Part(
            total_M=totals.judged_M,
            above_M=totals.judged_above_M,
            abstained_M=totals.judged_abstained_M - (reading.abstains_MC & listed["seen"] & listed["judged"]).sum(1),
            context_MC=context["judged"],
            ngram_MQ=ngram["in_judged"],
        )
        judge = {f"judge/{name}": value for name, value in self._labelled(labels, above, judged).items()}
        return values | self._labelled(labels, above, everywhere) | judge | totals.spread

    def _totals(
        self,
        model: CountedModel,
        reading: Reading,  # noqa: ARG002 (an estimate builds on it)
        read_M: Tensor,
        thresholds: Sequence[float],
    ) -> tuple[Totals, Observed]:
        """Return the totals over all considered contexts, and what was seen of those that are watched."""
        return stream(
            model,
            self.contexts,
            thresholds=thresholds,
            exact=EXACT_THRESHOLDS,
            threshold=self.threshold,
            buffer=self._buffer,
            decided_M=read_M,
            judge_seed_M=self._judge_seed_M,
            watched=self._labels(model).watched,
            screened_in=self._screened_in,
            fused=self._fused,
        )

    def _labelled(self, labels: Labels, above: _Above, part: _Part) -> Values:
        """Return what the artifacts in a part of the contexts are: generalizations, hallucinations, abstentions.

        In labelled contexts: hallucinations = #{p > tau} - #{n-grams of W or D^n with p > tau}; a training n-gram is
        never an artifact, also where noise has put it outside W.
        """
        context = {name: flag_MC & part.context_MC for name, flag_MC in labels.context_flag.items()}
        ngram = {name: flag_MQ & part.ngram_MQ for name, flag_MQ in labels.ngram_flag.items()}
        novel_MQ = ngram["true"] & ~ngram["train"]
        known_MQ = ngram["true"] | ngram["train"]
        listed_M = above.contexts(context["labelled"]) - above.ngrams(known_MQ & ngram["in_labelled"])
        everywhere_M = part.above_M - above.ngrams(known_MQ & ngram["in_considered"])
        blank_MC = context["labelled"] & context["considered"] & ~context["seen"]
        blank_MQ = novel_MQ & ngram["in_considered"] & ~ngram["in_seen"]
        listed_blank_M = above.contexts(blank_MC) - above.ngrams(blank_MQ & ngram["in_labelled"])
        everywhere_blank_M = part.above_M - above.contexts(context["seen"]) - above.ngrams(blank_MQ)
        unseen_M = part.total_M - context["seen"].sum(1)
        return {
            "artifacts/count": part.above_M - above.ngrams(ngram["train"]),
            "generalization/count": above.ngrams(novel_MQ),
            "hallucination/count": torch.where(self._closed_M, everywhere_M, listed_M),
            "hallucinations_blank": torch.where(self._closed_M, everywhere_blank_M, listed_blank_M),
            "contexts_blank": torch.where(self._closed_M, unseen_M, blank_MC.sum(1)),
            "contexts_unseen": unseen_M,
            "abstained": part.abstained_M,
            "held_out": ngram["held_out"].sum(1),
            "held_out_above": above.ngrams(ngram["held_out"]),
        }

    @cached_property
    def _losses(self) -> list[Listing]:
        """The trained n-grams of the orders that the labels do not speak of."""
        device = self.contexts.total_M.device
        others = [(order, tensors) for order, tensors in self._trained.items() if order != self.order]
        return [loss_listing(self.corpora, order, tensors, device) for order, tensors in others]

    @cached_property
    def _floor_M(self) -> Tensor:
        floors = [loss_floor(corpus, self._positions) for corpus in self.corpora]
        return torch.tensor(floors, dtype=torch.float64, device=self.contexts.total_M.device)

    def _losses_of(self, model: CountedModel, reading: Reading) -> Values:
        """Return the loss over the trained positions, equation (2), and the accuracy."""
        flag = self._listing(model).ngram_flag
        loss_M = -sum_in_order(flag["weight"] * reading.log_p_MQ)
        for listing in self._losses:
            log_p_MQ = listing.read(model, self.threshold, self._sizes(model).piece).log_p_MQ
            loss_M -= sum_in_order(listing.ngram_flag["weight"] * log_p_MQ)
        train_MQ = flag["train"]
        return {
            "train/loss": loss_M,
            "train/excess_loss": loss_M - self._floor_M,
            "train/accuracy": (reading.is_top_MQ & train_MQ).sum(1).double() / train_MQ.sum(1),
            "train_ngrams": train_MQ.sum(1),
        }

    # ---------------------------------------------------------------------------------------------------- on the host

    def _row(self, member: int, v: dict[str, float], *, abstains: bool) -> Row:
        """Return the metrics of one member; an empty denominator is None. `abstains`: whether the model can."""

        def ratio(part: float, whole: float) -> float | None:
            return part / whole if whole else None

        # Of logits in float32, and told as such: further digits would depend on the blocks of the stream.
        test_loss = ratio(v["held_out_loss"], v["held_out"])

        def labelled(prefix: str) -> Row:
            def of(name: str) -> float:
                return v[f"{prefix}{name}"]

            right, wrong = of("generalization/count"), of("hallucination/count")
            named: Row = {
                "generalization/count": int(right),
                "generalization/recall": ratio(of("held_out_above"), of("held_out")),
                "hallucination/count": int(wrong),
                "hallucination/share": ratio(wrong, right + wrong),
                "hallucination/per_context": ratio(of("hallucinations_blank"), of("contexts_blank")),
            }
            return {f"{prefix}{name}": value for name, value in named.items()}

        row: Row = {k: v[k] for k in ("train/loss", "train/excess_loss", "train/accuracy")}
        counted = ("count", "ceiling", "seen", "unseen", "diagonal")
        row |= {f"artifacts/{name}": int(v[f"artifacts/{name}"]) for name in counted}
        row["artifacts/doubtful_share"] = ratio(v["doubtful"], v["screened"])
        row["train/above_threshold"] = int(v["train/above_threshold"])
        row["artifacts/per_ngram"] = ratio(v["artifacts/count"], v["train_ngrams"])
        row["artifacts/unseen_confident_rate"] = ratio(v["confident_unseen"], v["contexts_unseen"])
        if self.order == 2:
            row["artifacts/diagonal"] = None
        row["judge/artifacts/count"] = int(v["judge/artifacts/count"])
        if abstains:
            for prefix in ("", "judge/"):
                row[f"{prefix}abstention/rate"] = ratio(v[f"{prefix}abstained"], v[f"{prefix}contexts_unseen"])
        if not self._has_truth[member]:
            return row
        right_or_wrong = v["generalization/count"] + v["hallucination/count"]
        return (
            row
            | labelled("")
            | labelled("judge/")
            | {
                "test/loss": None if test_loss is None else float(np.float32(test_loss)),
                "test/accuracy": ratio(v["held_out_top"], v["held_out"]),
                "artifacts/labelled_share": ratio(right_or_wrong, v["artifacts/count"]),
                "generalization/attainable_recall": self._attainable[member],
                "generalization/restored": int(v["restored"]) if self.corpora[member].replaced is not None else None,
                "hallucination/per_ngram": ratio(v["hallucination/count"], v["train_ngrams"]),
            }
        )

    def _attainable_recall(self, corpus: Corpus) -> float | None:
        """Return the recall that the threshold leaves room for: sum over contexts of min(K, held-out n-grams in it)."""
        held_out = corpus.held_out_ngrams(self.order)
        if held_out is None or len(held_out) == 0:
            return None
        _, _, answers = distinct_rows(held_out[:, :-1])
        return int(answers.clamp_max(self.most_tokens).sum()) / len(held_out)


def sum_in_order(value_MQ: Tensor) -> Tensor:
    """Return the sum of each member's values, [M], added one after the other.

    `sum` groups its terms by how many there are, so that the zeros of a member that is padded would change its last
    bits. The CPU accumulates in order, where zeros at the end change nothing.
    """
    return value_MQ.cumsum(1)[:, -1]
