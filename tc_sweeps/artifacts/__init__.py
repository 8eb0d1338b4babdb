"""Artifacts: their definition, the counters, exact and sampled, the callback, and which ones a model is surest of."""

from tc_sweeps.artifacts.callback import ArtifactCallback, Evaluation
from tc_sweeps.artifacts.counter import ArtifactCounts, Counter, count_artifacts
from tc_sweeps.artifacts.definition import METRICS
from tc_sweeps.artifacts.enumeration import fiber_table, most_confident
from tc_sweeps.artifacts.sampling import SampledCounter

__all__ = [
    "METRICS",
    "ArtifactCallback",
    "ArtifactCounts",
    "Counter",
    "Evaluation",
    "SampledCounter",
    "count_artifacts",
    "fiber_table",
    "most_confident",
]
