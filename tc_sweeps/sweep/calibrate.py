"""How long a step takes here: some steps of each shape are trained and timed, in a folder that is removed."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tc_sweeps.config import Config
from tc_sweeps.store import Job
from tc_sweeps.sweep.engine import Launch, packed
from tc_sweeps.sweep.plan import DONE, Shape, Time, shape_of, values_of
from tc_sweeps.train import train

__all__ = ["calibrate"]


def calibrate(jobs: Sequence[Job], launch: Launch) -> dict[Shape, Time]:
    """Return what a step takes in the largest stack of each shape that is not done, as a launch would train it here.

    Left out are shapes whose runs fail before they have made three blocks of steps.
    """
    missing = [job for job in jobs if job.folder.status["state"] not in DONE]
    if not missing:
        return {}
    times: dict[Shape, Time] = {}
    for stack in sorted(packed(missing, launch).stacks, key=lambda stack: -len(stack.jobs)):
        configs = [job.config for job in stack.jobs]
        # Runs of one stack may differ in data, which are different shapes where data are read back from a table.
        shapes = {shape_of(values_of(config)) for config in configs} - times.keys()
        seconds = _seconds_per_step(configs) if shapes else None
        if seconds is not None:
            times |= dict.fromkeys(shapes, Time(seconds, len(configs)))
    return times


def _seconds_per_step(configs: Sequence[Config]) -> float | None:
    """Train three blocks of steps; the second is like all others, and the third has the tables of the end as well."""
    steps = configs[0].training.steps
    block = max(1, steps // configs[0].training.evaluations)
    told: list[float] = []
    with TemporaryDirectory() as folder:
        jobs = []
        for config in configs:
            short = copy.deepcopy(config)
            short.training.steps, short.training.evaluations, short.training.spacing = 3 * block, 3, "even"
            short.training.target_excess_loss, short.tracking.mode = None, "none"
            jobs.append(Job.of(short, Path(folder)))
        train(jobs, progress=lambda *_: told.append(time.monotonic()))
    if len(told) < 4:
        return None
    _, first, second, third = told
    end = max(0.0, (third - second) - (second - first))
    return ((second - first) / block + end / steps) / len(configs)
