"""What the sweeper itself says of jobs that failed: what nobody else has on record, each reason once."""

from __future__ import annotations

import pytest
from hydra.core.utils import JobReturn, JobStatus

from tc_sweeps.config import RunFailed, SweepFailed
from tc_sweeps.sweep.sweeper import _raise_failures


def failed(override: str, error: Exception) -> JobReturn:
    job = JobReturn(overrides=[override], status=JobStatus.FAILED)
    job.return_value = error
    return job


def test_each_reason_is_said_once_and_recorded_ones_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [failed(f"seed={seed}", ValueError("no such thing")) for seed in range(100)]
    recorded = failed("seed=100", RunFailed("outputs/s/1: the loss was not finite."))
    with pytest.raises(SweepFailed, match="101 of 101 jobs failed"):
        _raise_failures([*broken, recorded])
    assert capsys.readouterr().err == "seed=0 and 99 more: no such thing\n"
