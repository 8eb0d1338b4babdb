"""Artifacts: their definition, the counters, exact and sampled, the callback, and the list of them."""

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
from tc_sweeps.artifacts.joint import JointArtifacts, JointCounter, epsilon_of, joint_artifacts
from tc_sweeps.artifacts.sampling import SampledCounter

__all__ = [
    "METRICS",
    "ArtifactCallback",
    "ArtifactCounts",
    "Counter",
    "Evaluation",
    "JointArtifacts",
    "JointCounter",
    "SampledCounter",
    "Scope",
    "artifact_sample",
    "count_artifacts",
    "enumerate_artifacts",
    "epsilon_of",
    "fiber_table",
    "joint_artifacts",
    "most_confident",
]
