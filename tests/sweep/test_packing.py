"""Which runs share a stack, how large stacks are, and what is trained first."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tc_sweeps.config import Config, resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.store import Job, RunFolder
from tc_sweeps.sweep import packing
from tc_sweeps.sweep.measure import measure
from tc_sweeps.sweep.packing import Packed, pack
from tc_sweeps.train import stack_key

GIB = 1 << 30


def job(config: Config) -> Job:
    return Job(config, RunFolder(Path("nowhere")))


def jobs(**axes: list[object]) -> list[Job]:
    """The product of axes: data__num_sentences=[40, 90] is data.num_sentences=40,90."""
    made = []
    for values in product(*axes.values()):
        tree: dict[str, dict[str, object]] = {"data": {"vocab_size": 20, "num_sentences": 90}}
        for name, value in zip(axes, values, strict=True):
            group, _, key = name.partition("__")
            tree.setdefault(group, {})
            if key:
                tree[group][key] = value
            else:
                tree[group] = value  # type: ignore[assignment]
        made.append(job(resolve(tree)))
    return made


def packed(runs: list[Job], *, workers: int = 1, memory_bytes: int = GIB, attempt: int = 0) -> Packed:
    return pack(runs, measure, workers=workers, devices=2, memory_bytes=memory_bytes, on_cpu=True, attempt=attempt)


def sizes(plan: Packed) -> list[int]:
    return [len(stack.jobs) for stack in plan.stacks]


def test_seeds_rates_and_decays_share_a_stack() -> None:
    runs = jobs(seed=[0, 1, 2], training__learning_rate=[0.01, 0.1], training__weight_decay=[0.0, 1.0])
    assert sizes(packed(runs)) == [12]


def test_runs_that_are_counted_and_runs_that_are_estimated_do_not() -> None:
    """The two runs have batches of one shape, and 7,220 and 8,000 n-grams with typed contexts."""
    for limit, stacks, estimated in ((1e5, [2], 0), (7500, [1, 1], 8000), (10, [2], 8000)):
        artifacts = {"contexts": "typed", "exact_ngrams": limit, "sampling": {"contexts": 100}}
        plan = packed(jobs(seed=[0, 1], data__num_sentences=[64], artifacts=[artifacts]))
        assert sizes(plan) == stacks, limit
        assert plan.estimated == estimated


def test_shapes_and_shared_settings_do_not() -> None:
    axes: dict[str, list[object]] = {
        "data__num_sentences": [40, 90],
        "model__width": [8, 16],
        "training__steps": [100, 200],
        "artifacts__threshold": [0.5, 0.7],
    }
    for name, values in axes.items():
        assert sizes(packed(jobs(**{name: values}, seed=[0]))) == [1, 1]


def test_corpora_of_one_bucket_share_a_stack() -> None:
    runs = jobs(data__num_sentences=[89, 90, 91], seed=[0])
    assert sizes(packed(runs)) == [3]


def test_the_longest_comes_first_and_every_worker_has_its_share() -> None:
    runs = jobs(training__steps=[100, 1000], seed=[0, 1, 2, 3])
    plan = packed(runs, workers=2)
    assert plan.workers == 2
    assert [stack.jobs[0].config.training.steps for stack in plan.stacks] == [1000, 1000, 100]
    assert sizes(plan) == [2, 2, 4]


def test_memory_bounds_a_stack() -> None:
    runs = jobs(seed=list(range(8)))
    assert sizes(packed(runs)) == [8]
    assert sizes(packed(runs, memory_bytes=1)) == [1] * 8


def test_after_a_killed_worker_stacks_are_smaller_whatever_bounded_them(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = jobs(seed=list(range(16)))
    monkeypatch.setattr(packing, "CPU_BYTES", 8 * measure(runs[0].config).bytes)  # of all the memory
    assert [sizes(packed(runs, attempt=attempt)) for attempt in (0, 1, 2)] == [[8] * 2, [4] * 4, [2] * 8]


def test_little_work_is_left_to_one_worker() -> None:
    runs = jobs(seed=[0, 1])
    assert pack(runs, measure, workers=None, devices=2, memory_bytes=GIB, on_cpu=True).workers == 1
    many = jobs(seed=list(range(200)))
    assert pack(many, measure, workers=None, devices=2, memory_bytes=GIB, on_cpu=True).workers == 2
    assert pack(runs, measure, workers=None, devices=2, memory_bytes=GIB, on_cpu=False).workers == 2


def test_as_many_workers_as_asked_for() -> None:
    runs = jobs(seed=list(range(6)))
    assert packed(runs, workers=3).workers == 3
    assert packed(runs, workers=9).workers == 6  # no more than stacks


def test_a_corpus_that_cannot_be_built_stands_alone() -> None:
    bad = job(resolve({"data": {"name": "triples", "path": "nowhere.tsv"}}))
    assert sorted(sizes(packed([*jobs(seed=[0, 1]), bad]))) == [1, 2]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from([30, 60]), st.sampled_from([8, 16])), unique=True),
    st.integers(1, 4),
    st.integers(1, 1 << 24),
)
def test_every_run_is_in_exactly_one_stack_of_its_kind(
    drawn: list[tuple[int, int, int]], workers: int, memory: int
) -> None:
    runs = [
        job(resolve({"seed": seed, "data": {"vocab_size": 20, "num_sentences": n}, "model": {"width": width}}))
        for seed, n, width in drawn
    ]
    if not runs:
        return
    plan = packed(runs, workers=workers, memory_bytes=memory)
    together = [run for stack in plan.stacks for run in stack.jobs]
    assert sorted(map(id, together)) == sorted(map(id, runs))
    for stack in plan.stacks:
        assert len({stack_key(run.config, build_corpus(run.config.data)) for run in stack.jobs}) == 1
    costs = [stack.cost for stack in plan.stacks]
    assert costs == sorted(costs, reverse=True)
