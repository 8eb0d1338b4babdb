"""Prefixes: the rows that a causal model computes, each distinct one once.

What a causal transformer computes at the last token of a prefix depends on that prefix alone, so sentences that begin
alike share rows. A batch of prefixes is a forest: every prefix points to its own prefixes, its ancestors.

Letters: `M` member, `P` prefix, `A` ancestor (place in the prefix), `R` wanted row, `T` target, `B` sentence of a
minibatch, `C` context, `L` place in a sentence, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from tc_sweeps.corpus import Corpus
from tc_sweeps.corpus.randomness import random_integers
from tc_sweeps.corpus.tensor import distinct_rows

__all__ = [
    "Batch",
    "Prefixes",
    "Targets",
    "bucket",
    "full_batch",
    "minibatch",
    "padded_sentences",
    "stack_batches",
]


class _OnDevice:
    """Moves all tensors of a dataclass at once; Lightning asks batches for exactly this."""

    def to(self, *args: object, **kwargs: object) -> _OnDevice:
        moved = {item.name: getattr(self, item.name).to(*args, **kwargs) for item in fields(self)}  # type: ignore[arg-type]
        return type(self)(**moved)


@dataclass(frozen=True, eq=False)
class Prefixes(_OnDevice):
    """A forest of prefixes for every member, and the rows that are wanted of it.

    Example: for the sentences (mouse eats cheese) and (mouse sees fish) the prefixes are 0: (mouse), 1: (mouse eats)
    and 2: (mouse sees); their last tokens are (mouse, eats, sees), their ancestors (0), (0, 1) and (0, 2).
    """

    token_MP: Tensor  # the last token of each prefix
    ancestor_MPA: Tensor  # the prefixes of each prefix, shortest first, itself last; then padding
    length_MP: Tensor  # tokens in each prefix
    wanted_MR: Tensor  # the prefixes whose next-token distribution is wanted

    @classmethod
    def chains(cls, contexts_MCm: Tensor) -> Prefixes:
        """Return the prefixes of every context for itself, nothing shared; the whole contexts are wanted."""
        M, C, m = contexts_MCm.shape
        place_Pm = torch.arange(C * m, device=contexts_MCm.device).view(C, m)
        shorter_Cmm = place_Pm[:, None, :].expand(C, m, m)
        lengths_Cm = torch.arange(1, m + 1, device=contexts_MCm.device).expand(C, m)
        return cls(
            token_MP=contexts_MCm.reshape(M, C * m),
            ancestor_MPA=shorter_Cmm.reshape(1, C * m, m).expand(M, -1, -1),
            length_MP=lengths_Cm.reshape(1, C * m).expand(M, -1),
            wanted_MR=place_Pm[:, -1].expand(M, -1),
        )

    @classmethod
    def product(cls, contexts_MCm: Tensor, token_MB: Tensor) -> Prefixes:
        """Return every context followed by every token, which are wanted in this order, and what leads up to them.

        Nothing is shared between contexts, but what follows a context shares it. Example: for the contexts (0 1) and
        (2 3) and the tokens 4 and 5 the prefixes are 0: (0), 1: (0 1), 2: (2), 3: (2 3), then the wanted 4: (0 1 4),
        5: (0 1 5), 6: (2 3 4) and 7: (2 3 5).
        """
        chains = cls.chains(contexts_MCm)
        (M, C, m), B = contexts_MCm.shape, token_MB.shape[1]
        own_CB1 = C * m + torch.arange(C * B, device=token_MB.device).view(C, B, 1)
        before_CBm = torch.arange(C * m, device=token_MB.device).view(C, 1, m).expand(C, B, m)
        ancestor_Rm = torch.cat([before_CBm, own_CB1], dim=2).flatten(0, 1)
        length_MR = chains.length_MP.new_full((M, C * B), m + 1)
        return cls(
            token_MP=torch.cat([chains.token_MP, token_MB.repeat(1, C)], dim=1),
            ancestor_MPA=torch.cat([F.pad(chains.ancestor_MPA, (0, 1)), ancestor_Rm.expand(M, -1, -1)], dim=1),
            length_MP=torch.cat([chains.length_MP, length_MR], dim=1),
            wanted_MR=own_CB1.flatten().expand(M, -1),
        )

    def and_chains(self, contexts_MCm: Tensor) -> Prefixes:
        """Return these prefixes and those of contexts, which are wanted last."""
        chains, P = Prefixes.chains(contexts_MCm), self.token_MP.shape[1]
        room = self.ancestor_MPA.shape[2] - chains.ancestor_MPA.shape[2]
        return Prefixes(
            token_MP=torch.cat([self.token_MP, chains.token_MP], dim=1),
            ancestor_MPA=torch.cat([self.ancestor_MPA, F.pad(chains.ancestor_MPA + P, (0, room))], dim=1),
            length_MP=torch.cat([self.length_MP, chains.length_MP], dim=1),
            wanted_MR=torch.cat([self.wanted_MR, chains.wanted_MR + P], dim=1),
        )


@dataclass(frozen=True, eq=False)
class Targets(_OnDevice):
    """What should follow the wanted rows, and how much each target weighs in the loss."""

    row_MT: Tensor  # index into the wanted rows
    token_MT: Tensor
    weight_MT: Tensor  # share of the sentences; 0 for padding


@dataclass(frozen=True, eq=False)
class Batch(_OnDevice):
    """Prefixes with their targets."""

    prefixes: Prefixes
    targets: Targets


def full_batch(corpus: Corpus, positions: str) -> Batch:
    """Return every distinct prefix of a corpus once (M = 1), with targets weighed by their counts.

    `positions`: "all" is loss (1) of the paper, every token from the second on; "last" the last token of each sentence.
    """
    sentences_NL = corpus.sentences
    N, L = sentences_NL.shape
    length_N = (sentences_NL >= 0).sum(1)
    prefix_of_NL = torch.full((N, L - 1), -1)
    tokens, ancestors, lengths = [], [], []
    total = 0
    for length in range(1, L):
        longer = torch.nonzero(length_N > length)[:, 0]  # a prefix needs a token after it
        distinct, place, _ = distinct_rows(sentences_NL[longer, :length])
        prefix_of_NL[longer, length - 1] = total + place
        example = torch.zeros(len(distinct), dtype=torch.int64)
        example[place] = longer
        own = total + torch.arange(len(distinct))
        tokens.append(distinct[:, -1])
        ancestors.append(torch.cat([prefix_of_NL[example, :length], own[:, None].expand(-1, L - 1 - length)], dim=1))
        lengths.append(torch.full((len(distinct),), length))
        total += len(distinct)

    last = torch.arange(L - 1) == length_N[:, None] - 2
    trained = (prefix_of_NL >= 0) if positions == "all" else last
    pairs = torch.stack([prefix_of_NL[trained], sentences_NL[:, 1:][trained]], dim=1)
    targets, _, count = distinct_rows(pairs)
    wanted, row = torch.unique(targets[:, 0], return_inverse=True)
    return Batch(
        Prefixes(torch.cat(tokens)[None], torch.cat(ancestors)[None], torch.cat(lengths)[None], wanted[None]),
        Targets(row[None], targets[None, :, 1], (count.double() / N).float()[None]),
    )


def bucket(length: int) -> int:
    """Return the length rounded up to four significant bits and a multiple of 16: at most an eighth more from 128 on.

    Example: 1..16 -> 16, 100 -> 112, 200 -> 208, 600 -> 640, 1000 -> 1024.
    """
    step = max(16, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step


def stack_batches(batches: Sequence[Batch]) -> Batch:
    """Return one batch for a stack of members, padded with rows that weigh nothing.

    Lengths are rounded up to buckets, also for a stack of one: members of one bucket then have the same shapes alone
    and together, without which a matrix product may add up in another order.
    """

    def stacked(tensors: list[Tensor]) -> Tensor:
        longest = bucket(max(tensor.shape[1] for tensor in tensors))
        room = [(0, 0) * (tensor.dim() - 2) + (0, longest - tensor.shape[1]) for tensor in tensors]
        # Zero is a valid padding everywhere: prefix 0 exists, has length >= 1 in front, and weight 0 counts nothing.
        return torch.cat([F.pad(tensor, pad) for tensor, pad in zip(tensors, room, strict=True)])

    prefixes = [batch.prefixes for batch in batches]
    targets = [batch.targets for batch in batches]
    length_MP = stacked([p.length_MP for p in prefixes]).clamp_min(1)
    return Batch(
        Prefixes(
            stacked([p.token_MP for p in prefixes]),
            stacked([p.ancestor_MPA for p in prefixes]),
            length_MP,
            stacked([p.wanted_MR for p in prefixes]),
        ),
        Targets(
            stacked([t.row_MT for t in targets]),
            stacked([t.token_MT for t in targets]),
            stacked([t.weight_MT for t in targets]),
        ),
    )


def padded_sentences(corpora: Sequence[Corpus]) -> tuple[Tensor, Tensor]:
    """Return the sentences of all members, [M, N, L] padded with -1, and how many each has, [M]."""
    longest = max(len(corpus.sentences) for corpus in corpora)
    padded = [F.pad(c.sentences, (0, 0, 0, longest - len(c.sentences)), value=-1) for c in corpora]
    return torch.stack(padded), torch.tensor([len(c.sentences) for c in corpora])


def minibatch(
    sentences_MNL: Tensor,
    count_M: Tensor,
    *,
    seed_M: Tensor,
    step: Tensor | int,
    size: int,
    vocab_size: int,
    positions: str,
) -> Batch:
    """Return `size` sentences per member, drawn uniformly with replacement by (seed, step, slot) on the device.

    Shapes do not depend on what is drawn: all V prefixes of one token, shared by the sentences, then for each longer
    prefix a row of its own.
    """
    M, _, L = sentences_MNL.shape
    device = sentences_MNL.device
    slot_B = torch.arange(size, device=device)
    chosen_MB = random_integers(seed_M[:, None], "minibatch", step, slot_B[None], count_M[:, None])
    sentence_MBL = sentences_MNL.gather(1, chosen_MB[:, :, None].expand(-1, -1, L))
    length_MB = (sentence_MBL >= 0).sum(2)
    token_MBL = sentence_MBL.clamp_min(0)

    # The prefix of sentence b with j + 1 tokens: its first token itself, then V + (j - 1) * B + b.
    rest_BK = vocab_size + torch.arange(L - 2, device=device)[None] * size + slot_B[:, None]
    prefix_MBL = torch.cat([token_MBL[:, :, :1], rest_BK.expand(M, -1, -1)], dim=2)
    first_V = torch.arange(vocab_size, device=device)
    tokens = [first_V.expand(M, -1)] + [token_MBL[:, :, j] for j in range(1, L - 1)]
    ancestors = [first_V[:, None].expand(M, -1, L - 1)] + [prefix_MBL] * (L - 2)
    lengths = [torch.ones_like(first_V)] + [torch.full_like(slot_B, j + 1) for j in range(1, L - 1)]

    if positions == "all":
        wanted_MR = torch.arange(vocab_size + size * (L - 2), device=device).expand(M, -1)
        row_MBL, token_MBL = prefix_MBL, token_MBL[:, :, 1:]
        weight_MBL = (sentence_MBL[:, :, 1:] >= 0) / size
    else:
        end_MB1 = (length_MB - 2).clamp_min(0)[:, :, None]
        wanted_MR = prefix_MBL.gather(2, end_MB1)[:, :, 0]
        row_MBL = slot_B.expand(M, -1)
        token_MBL = token_MBL.gather(2, end_MB1 + 1)[:, :, 0]
        weight_MBL = (length_MB >= 2) / size
    return Batch(
        Prefixes(torch.cat(tokens, 1), torch.cat(ancestors, 1), torch.cat(lengths).expand(M, -1), wanted_MR),
        Targets(row_MBL.flatten(1), token_MBL.flatten(1), weight_MBL.flatten(1)),
    )
