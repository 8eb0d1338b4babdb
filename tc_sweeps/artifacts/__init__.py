"""Artifacts: their definition, the exact counters, the callback, and which ones a model is surest of."""

from tc_sweeps.artifacts.callback import ArtifactCallback, Evaluation
from tc_sweeps.artifacts.counter import ArtifactCounts, Counter, count_artifacts
from tc_sweeps.artifacts.definition import METRICS
from tc_sweeps.artifacts.enumeration import fiber_table, most_confident
from tc_sweeps.artifacts.joint import JointArtifacts, JointCounter, joint_artifacts

__all__ = [
    "METRICS",
    "ArtifactCallback",
    "ArtifactCounts",
    "Counter",
    "Evaluation",
    "JointArtifacts",
    "JointCounter",
    "count_artifacts",
    "fiber_table",
    "joint_artifacts",
    "most_confident",
]
