"""Stateless randomness: every draw is a hash of (seed, stream, step, slot).

Nothing has to be saved to resume, the same draw can be made inside a captured graph, and a model draws the same numbers
alone and in a stack. The hash is the finalizer of SplitMix64 (Steele, Lea, Flood 2014) applied to each part in turn.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def _mix(bits: Tensor) -> Tensor:
    """Return SplitMix64's finalizer of 64-bit integers; int64 arithmetic wraps around as unsigned does."""

    def xor_shift(x: Tensor, shift: int) -> Tensor:
        return x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))  # a logical shift of a signed integer

    bits = xor_shift(bits + _GOLDEN, 30) * _MIX1
    return xor_shift(xor_shift(bits, 27) * _MIX2, 31)


def random_bits(seed: Tensor | int, stream: str, step: Tensor | int, slots: Tensor) -> Tensor:
    """Return 63 random bits (a non-negative int64) per slot; `seed`, `step` and `slots` broadcast.

    `stream` names what the draw is for ("contexts", "minibatch", ...), so that two uses never share numbers.
    """

    def on_device(number: Tensor | int) -> Tensor:  # a fill, not a copy: the CPU does not wait for the device
        return number if isinstance(number, Tensor) else torch.full((), number, dtype=torch.int64, device=slots.device)

    bits = _mix(on_device(seed) + zlib.crc32(stream.encode()))
    bits = _mix(bits ^ on_device(step))
    return _mix(bits ^ _mix(slots)) & 0x7FFF_FFFF_FFFF_FFFF


def random_integers(seed: Tensor | int, stream: str, step: Tensor | int, slots: Tensor, high: Tensor | int) -> Tensor:
    """Return one integer in `0..high-1` per slot; the modulo bias is below `high` / 2^63."""
    return random_bits(seed, stream, step, slots) % high


def judged(seed: Tensor | int, head: Tensor, last: Tensor) -> Tensor:
    """Return whether contexts belong to the judge's half: every context with probability 1/2, by the seed alone.

    What is done against hallucinations may be taught on the other half only, so that this one tells what it does
    elsewhere. A context is given as its tokens but the last, [..., m - 1], and its last, [...]; both broadcast. The
    order of all tokens but the last does not matter: one layer without positions reads them as a multiset.
    """
    bits = seed
    for token in head.sort(dim=-1).values.unbind(-1):
        bits = random_bits(bits, "judge", 0, token)
    return random_bits(bits, "judge", 0, last) % 2 == 1


def random_order(seed: int, stream: str, count: int) -> Tensor:
    """Return the indices `0..count-1` in a random order, [count]."""
    return torch.argsort(random_bits(seed, stream, 0, torch.arange(count)), stable=True)


def random_normals(seed: int, stream: str, slots: Tensor) -> Tensor:
    """Return one standard normal number per slot, in float64: the normal quantile of a uniform 53-bit number."""
    uniform = ((random_bits(seed, stream, 0, slots) >> 10).double() + 0.5) / 2**53
    quantile: Tensor = torch.special.ndtri(uniform)
    return quantile
