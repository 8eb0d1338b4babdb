"""What spectra cost: the same training with `rank.spectra=true` and without.

    OMP_NUM_THREADS=1 python benchmarks/spectra.py

The default run (width 32, 1000 steps, 20 evaluations, five triples a token, `tracking=none`), alone and as a stack of
runs, is trained from the first step to the last file with spectra and without. Both take turns in one process, and the
median of the processor's time is told, so that other processes count for little. The limit is 10 % on top at V = 100.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import torch

from tc_sweeps.config import resolve
from tc_sweeps.store import Job
from tc_sweeps.train import train

LIMIT = 1.1
SETTINGS = ("100", "100x8", "200")  # V, or V times the runs of a stack


def seconds(vocab_size: int, runs: int, steps: int, *, spectra: bool) -> float:
    """Return how much of a processor the training of a stack takes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        values = {
            "data": {"vocab_size": vocab_size, "num_sentences": 5 * vocab_size},
            "training": {"steps": steps, "accelerator": "cpu"},
            "tracking": {"mode": "none"},
            "rank": {"spectra": spectra},
        }
        jobs = [Job.of(resolve(values | {"seed": seed}), Path("outputs")) for seed in range(runs)]
        began = time.process_time()
        results = train(jobs)
        taken = time.process_time() - began
    assert all(result.state == "finished" for result in results)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="V, or VxRUNS for a stack")
    parser.add_argument("--repeats", type=int, default=5, help="trainings with and without, each")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| V | runs | without, s | with, s | ratio | repeats |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for setting in options.settings:
        vocab_size, runs = (int(number) for number in f"{setting}x1".split("x")[:2])
        times: dict[bool, list[float]] = {False: [], True: []}
        for spectra in times:  # what is made once in a process
            seconds(vocab_size, 1, 20, spectra=spectra)
        for repeat in range(options.repeats):
            for spectra in (False, True) if repeat % 2 else (True, False):
                times[spectra].append(seconds(vocab_size, runs, options.steps, spectra=spectra))
        without, with_spectra = (statistics.median(times[spectra]) for spectra in (False, True))
        ratio = with_spectra / without
        print(
            f"| {vocab_size} | {runs} | {without:.2f} | {with_spectra:.2f} | {ratio:.2f} | {len(times[True])} |",
            flush=True,
        )
    print(f"limit {LIMIT} at V = 100")


if __name__ == "__main__":
    main()
