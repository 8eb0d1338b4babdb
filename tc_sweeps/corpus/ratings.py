"""Recommendation: users, and the items that they like best by a matrix of low rank; some likes of each are not seen.

Letters: `U` user, `I` item, `R` component, `K` like of a user, `H` held-out one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tc_sweeps.config import RatingsData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.randomness import random_bits, random_normals

__all__ = ["ratings_corpus"]


def ratings_corpus(data: RatingsData) -> Corpus:
    """Return the corpus of pairs (user, item that the user likes): W lists all likes, some of each user are held out.

    Users are the tokens 0..users-1, and items follow them. User u rates item i with sum_r A_ur B_ir, where A and B are
    standard normal numbers that `data.seed` decides, and likes the `likes` items that it rates highest; a smaller rank
    takes the first components of a larger one. A share `held_out_fraction` of the likes of each user is held out, the
    same number of all: every context is seen, in part, and a model is asked to fill in its row. The world is closed:
    what a user does not like is wrong for it. More likes leave those that there were; a larger fraction leaves what was
    held out.

    Example (2 users, 3 items, 2 likes, half of them held out): of the likes (0 2), (0 4), (1 2), (1 3) user 0 may be
    trained with item 4 and user 1 with item 2, and the others be held out.
    """
    liked_UK = _ratings(data).argsort(dim=1, descending=True, stable=True)[:, : data.likes]
    user_UK = torch.arange(data.users)[:, None].expand(-1, data.likes)
    slot_UK = user_UK * data.items + liked_UK
    assert data.seed is not None
    first_UK = random_bits(data.seed, "held out", 0, slot_UK).argsort(dim=1)  # in the order of being held out
    is_held_UK = torch.zeros(data.users, data.likes, dtype=torch.bool)
    is_held_UK.scatter_(1, first_UK[:, : data.held_out], value=True)
    likes_UK2 = torch.stack([user_UK, data.users + liked_UK], dim=2)
    return Corpus(
        vocab_size=data.users + data.items,
        sentences=likes_UK2[~is_held_UK],
        held_out=likes_UK2[is_held_UK] if data.held_out else None,
        truth=likes_UK2.flatten(0, 1),
        labelled="all",
        contexts="typed",
        tokens=(*_names("user", data.users), *_names("item", data.items)),
    )


def _ratings(data: RatingsData) -> Tensor:
    """Return what every user thinks of every item, [U, I]."""
    assert data.seed is not None
    users_RU, items_RI = (
        random_normals(data.seed, f"{name} factor", torch.arange(data.rank * count).view(data.rank, count))
        for name, count in (("user", data.users), ("item", data.items))
    )
    return users_RU.T @ items_RI


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}{place + 1}" for place in range(count)]
