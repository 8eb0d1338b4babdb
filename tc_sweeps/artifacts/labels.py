"""What truth and data say of contexts and n-grams, so that artifacts have labels.

Where the data shows a context it is read in float64 (`tc_sweeps.artifacts.listing`), elsewhere the stream watches what
is known (`tc_sweeps.artifacts.watching`). Either way nothing needs a membership test.

Letters: `M` member, `C` known context, `Q` known n-gram, `n` order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tc_sweeps.artifacts.contexts import Contexts, Sizes
from tc_sweeps.artifacts.listing import Known, Listing, weights
from tc_sweeps.artifacts.watching import Layout, watch
from tc_sweeps.corpus import Corpus, DataTensor
from tc_sweeps.corpus.tensor import distinct_rows, find_rows

__all__ = ["Labels", "known"]


class Labels:
    """What is known of all members: the flags of what is listed, then of what is watched, [M, C] and [M, Q].

    Listed are the contexts that the data shows, and the others that are wanted by name: the diagonal ones and those
    that are not considered, which the stream does not pass.
    """

    def __init__(
        self, of_members: Sequence[Known], considered: Contexts, sizes: Sizes, *, streamed: bool = True
    ) -> None:
        """`sizes`: in which `considered` will be streamed; where nothing is, all that is known is listed."""
        device = considered.total_M.device
        listed, watched = zip(*(_split(member, streamed=streamed) for member in of_members), strict=True)
        self.listing = Listing(listed, device)
        self.watched = watch(
            considered,
            sizes,
            [member.contexts_Cn for member in watched],
            [member.ngrams_Qn for member in watched],
            [member.ngram_flag["held_out"] for member in watched],
        )

        def joined(flag_MK: Tensor, layout: Layout, flag_K: Sequence[Tensor]) -> Tensor:
            return torch.cat([flag_MK, layout.arranged(flag_K, device)], dim=1)

        self.context_flag = {
            name: joined(flag_MC, self.watched.contexts, [member.context_flag[name] for member in watched])
            for name, flag_MC in self.listing.context_flag.items()
        }
        self.ngram_flag = {
            name: joined(flag_MQ, self.watched.ngrams, [member.ngram_flag[name] for member in watched])
            for name, flag_MQ in self.listing.ngram_flag.items()
            if name != "weight"
        }


def known(corpus: Corpus, order: int, places: list[Tensor], trained: DataTensor | None) -> Known:
    """Return what labels the artifacts of an order, and what the n-grams weigh in the loss.

    Context flags: `considered`, `seen`, `diagonal`, `labelled` (unless all are), `judged`. N-gram flags: `train`,
    `true`, `held_out`, `replaced` (by noise), and those of their contexts as `in_considered`, `in_seen` and so on; and
    `weight`, as in `loss_listing`.
    """
    data = corpus.tensor(order)
    none = data.ngrams_Gn[:0]
    truth = corpus.truth_ngrams(order)
    held_out = corpus.held_out_ngrams(order)
    replaced = corpus.replaced_ngrams(order)
    labels = corpus.labelled_contexts(order)
    labelled = labels if isinstance(labels, Tensor) else none[:, :-1]
    everywhere = places[0]
    for tokens in places[1:]:
        everywhere = everywhere[torch.isin(everywhere, tokens)]
    diagonal = everywhere[:, None].expand(-1, order - 1) if order > 2 else none[:, :-1]
    ngrams = distinct_rows(torch.cat([part for part in (data.ngrams_Gn, truth, held_out) if part is not None]))[0]
    contexts = distinct_rows(torch.cat([data.contexts_Cn, ngrams[:, :-1], labelled, diagonal]))[0]
    of_context = {
        "considered": torch.stack([torch.isin(contexts[:, i], places[i]) for i in range(order - 1)]).all(0),
        "seen": find_rows(contexts, data.contexts_Cn) >= 0,
        "diagonal": find_rows(contexts, diagonal) >= 0,
        "labelled": find_rows(contexts, labelled) >= 0,
        "judged": corpus.judged(contexts),
    }
    of_context["labelled"] &= of_context["considered"]  # an artifact is counted in considered contexts only
    place_Q = find_rows(ngrams[:, :-1], contexts)
    of_ngram = {
        "train": find_rows(ngrams, data.ngrams_Gn) >= 0,
        "true": find_rows(ngrams, none if truth is None else truth) >= 0,
        "held_out": find_rows(ngrams, none if held_out is None else held_out) >= 0,
        "replaced": find_rows(ngrams, none if replaced is None else replaced) >= 0,
        "weight": weights(ngrams, trained, corpus),
    }
    of_ngram |= {f"in_{name}": flag[place_Q] for name, flag in of_context.items()}
    return Known(contexts, ngrams, of_context, of_ngram)


def _split(member: Known, *, streamed: bool) -> tuple[Known, Known]:
    """Return what is listed and what is watched: of what is not `streamed`, nothing."""
    of_context, of_ngram = member.context_flag, member.ngram_flag
    is_listed_C = of_context["seen"] | of_context["diagonal"] | ~of_context["considered"]
    is_listed_Q = of_ngram["in_seen"] | of_ngram["in_diagonal"] | ~of_ngram["in_considered"]
    if not streamed:
        is_listed_C, is_listed_Q = torch.ones_like(is_listed_C), torch.ones_like(is_listed_Q)
    # Of other contexts only those are asked for that are labelled one by one.
    return member.part(is_listed_C, is_listed_Q), member.part(~is_listed_C & of_context["labelled"], ~is_listed_Q)
