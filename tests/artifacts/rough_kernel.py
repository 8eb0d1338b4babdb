"""What stands in for the fused kernel where there is no CUDA device: as wrong as its margin lets it be."""

from __future__ import annotations

import torch
from torch import Tensor


def rough_lse_and_max(query_M1RK: Tensor, key_M1VK: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `lse_and_max` does, of inner products that are off by almost all that tensor cores may lose.

    3 * 2^-24 of the sum of the terms' sizes for each term, in a direction that differs from entry to entry.
    """
    query, key = query_M1RK.double(), key_M1VK.double()
    terms = int((key != 0).flatten(0, 2).any(0).sum())
    size_M1RV = query.abs() @ key.abs().mT
    direction_M1RV = torch.rand(size_M1RV.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    score_M1RV = query @ key.mT + direction_M1RV * 3 * 2.0**-24 * terms * size_M1RV
    score_M1RV = score_M1RV.float()
    return score_M1RV.logsumexp(-1), score_M1RV.amax(-1)
