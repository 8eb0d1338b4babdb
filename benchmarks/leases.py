"""What a sweep asks of a file system beside training: queueing runs, leases, and looks at where they stand.

    python benchmarks/leases.py --folder /a/shared/folder

Run folders are made as a launch makes them; one worker then takes all leases and gives them back, and the sweep's
standing is read as `tc-sweeps status` and waiting launches do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tc_sweeps.config import resolve
from tc_sweeps.store import Job, SweepFolder, Worker


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="on the file system to measure; default: that of temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        jobs = [Job.of(resolve({"sweep": "leases", "seed": seed}), Path(folder)) for seed in range(options.runs)]
        sweep = SweepFolder(Path(folder, "leases"))

        def timed(what: str, began: float) -> None:
            seconds = time.perf_counter() - began
            print(f"{what}: {seconds:.2f} s, {options.runs / seconds:,.0f} runs a second")

        began = time.perf_counter()
        for job in jobs:
            job.folder.queue(job.config)
        sweep.add_runs([job.folder.run_id for job in jobs], experiment=None, launch="now")
        timed("queueing", began)
        with Worker(sweep.path) as worker:
            began = time.perf_counter()
            claimed = worker.claim([job.folder for job in jobs], wanted=lambda run: not run.done)
            timed("taking leases", began)
            began = time.perf_counter()
            for run in claimed:
                worker.release(run)
            timed("giving them back", began)
        began = time.perf_counter()
        assert not any(job.folder.done for job in jobs)
        timed("one look at what is done", began)
        began = time.perf_counter()
        sweep.standings()
        timed("one status", began)


if __name__ == "__main__":
    main()
