"""Which runs train together: stacks of equal shape, as large as pays and fits, the longest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tc_sweeps.config import Config, CPConfig, TransformerConfig
from tc_sweeps.store import Job

__all__ = ["Load", "Packed", "Stack", "capacity", "load", "pack"]

# Activations and gradients that a stack holds at most on a CPU: beyond the cache, more members are no faster.
CPU_BYTES = 64 << 20
# About five seconds on one core; with less to do for each, another process does not pay.
WORTH_A_WORKER = 1.5e9
# What `rank.effective` takes for each row and token: four searches of about a second for 200 rows of 32 tokens.
EFFECTIVE_RANK = 150_000


@dataclass(frozen=True)
class Load:
    """What one run takes."""

    kind: object  # equal for runs that can share a stack
    cost: float  # arithmetic, up to a constant factor
    bytes: int  # of tensors while it trains
    estimated: int = 0  # n-grams, where they are too many to be counted


@dataclass(frozen=True)
class Stack:
    """Runs that train together."""

    jobs: list[Job]
    cost: float  # arithmetic, up to a constant factor


@dataclass(frozen=True)
class Packed:
    """The stacks of a sweep, most costly first, and how many workers they keep busy."""

    stacks: list[Stack]
    workers: int
    estimated: int  # n-grams of one run, at most, where they are too many to be counted; else 0


@dataclass
class _Kind:
    """The runs of one kind."""

    load: Load  # of one run
    jobs: list[Job] = field(default_factory=list)


def pack(
    jobs: Sequence[Job],
    measure: Callable[[Config], Load],
    *,
    workers: int | None,
    devices: int,
    memory_bytes: int,
    on_cpu: bool,
    attempt: int = 0,
) -> Packed:
    """Return all runs in stacks, none of several runs above its worker's share of work and memory.

    `workers`: how many there shall be; None for as many as pay, at most one for each of the `devices`. `attempt`: how
    often workers were killed over these runs; each time a stack takes half the memory.
    """
    kinds: dict[object, _Kind] = {}
    estimated = 0
    for job in jobs:
        found = measure(job.config)
        estimated = max(estimated, found.estimated)
        kinds.setdefault(found.kind, _Kind(found)).jobs.append(job)
    total = sum(kind.load.cost * len(kind.jobs) for kind in kinds.values())
    if workers is None:
        workers = max(1, min(devices, int(total / WORTH_A_WORKER) if on_cpu else devices))
    limit = _stack_bytes(memory_bytes, workers, on_cpu) >> attempt
    stacks = []
    for kind in kinds.values():
        most = max(1, min(limit // kind.load.bytes, math.ceil(total / workers / kind.load.cost)))
        pieces = math.ceil(len(kind.jobs) / most)
        if pieces > 1:  # a multiple of the workers, so that none is left alone with the last stack
            pieces = min(len(kind.jobs), math.ceil(pieces / workers) * workers)
        for piece in range(pieces):  # of equal size, up to one run
            members = kind.jobs[piece::pieces]
            stacks.append(Stack(members, kind.load.cost * len(members)))
    return Packed(sorted(stacks, key=lambda stack: -stack.cost), min(workers, len(stacks)), estimated)


def capacity(run: Load, *, workers: int | None, devices: int, memory_bytes: int, on_cpu: bool) -> int:
    """Return how many runs like this one fill a stack for every worker (None: for every device)."""
    workers = workers or devices
    return workers * max(1, _stack_bytes(memory_bytes, workers, on_cpu) // run.bytes)


def _stack_bytes(memory_bytes: int, workers: int, on_cpu: bool) -> int:
    """Return what the stack of one worker may take."""
    return min(memory_bytes // workers, CPU_BYTES) if on_cpu else memory_bytes // workers


def load(config: Config, kind: object, *, prefixes: int, wanted: int, vocab_size: int, contexts: int) -> Load:
    """Return what a run takes whose batch has so many `prefixes` and `wanted` rows and that counts so many contexts."""
    training, V = config.training, vocab_size
    held, parameters = _sizes(config, vocab_size)
    cost = training.steps * (wanted * V + prefixes * held) + training.evaluations * contexts * (V + held)
    cost += EFFECTIVE_RANK * wanted * V * config.rank.effective
    return Load(kind, cost, 4 * (4 * wanted * V + 3 * prefixes * held + 8 * parameters))


def _sizes(config: Config, vocab_size: int) -> tuple[int, int]:
    """Return about how many numbers a model holds for a prefix, besides its logits, and how many parameters it has."""
    model, order = config.model, config.data.order
    if isinstance(model, CPConfig):
        assert order is not None
        return 2 * (order - 1) * model.rank, order * vocab_size * model.rank
    assert isinstance(model, TransformerConfig)
    D, inner = model.width, 2 * model.mlp_width
    return model.layers * (12 * D + inner), 2 * vocab_size * D + model.layers * D * (4 * D + inner)
