"""Artifacts: their definition, the exact counters, the callback, and the list of them."""

from tc_sweeps.artifacts.callback import ArtifactCallback, Evaluation
from tc_sweeps.artifacts.counter import ArtifactCounts, Counter, count_artifacts
from tc_sweeps.artifacts.definition import METRICS
from tc_sweeps.artifacts.enumeration import (
    Scope,
    artifact_sample,
    enumerate_artifacts,
    fiber_table,
    most_confident,
)
from tc_sweeps.artifacts.joint import JointArtifacts, JointCounter, joint_artifacts

__all__ = [
    "METRICS",
    "ArtifactCallback",
    "ArtifactCounts",
    "Counter",
    "Evaluation",
    "JointArtifacts",
    "JointCounter",
    "Scope",
    "artifact_sample",
    "count_artifacts",
    "enumerate_artifacts",
    "fiber_table",
    "joint_artifacts",
    "most_confident",
]
