"""What a search costs beside training: whole searches over runs that are finished already, so that nothing trains.

    python benchmarks/search_overhead.py

Prints the seconds of a short and of a long search, and the milliseconds that each further trial took: to ask, compose,
check, find its run done, tell, and write the study.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

RUN = ["data.vocab_size=12", "data.num_sentences=30", "model.width=8", "training.steps=20", "training.evaluations=2"]
SPACE = [
    "training.learning_rate=1e-3,2e-3,5e-3,1e-2,2e-2",
    "training.weight_decay=0,0.1,0.2,0.5,1",
    *RUN,
    "tracking=none",
]


def seconds(folder: Path, *arguments: str) -> float:
    """Return how long a command takes, from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tc_sweeps", "-m", *SPACE, *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=200, help="more trials of the long search than of the short one")
    parser.add_argument("--batch", type=int, default=20, help="trials asked for at once")
    options = parser.parse_args()
    search = ["hydra/sweeper=optuna", "hydra.sweeper.objectives={train/loss: minimize}", "sweep=s"]
    search += [f"hydra.sweeper.batch={options.batch}"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        seconds(folder, "sweep=s")  # all runs that a trial can be
        short = seconds(folder, *search, f"hydra.sweeper.trials={options.batch}")
        (folder / "outputs/s/study.journal").unlink()
        long = seconds(folder, *search, f"hydra.sweeper.trials={options.batch + options.trials}")
    each = (long - short) / options.trials * 1e3
    print(f"{options.batch} trials: {short:.2f} s; {options.batch + options.trials} trials: {long:.2f} s")
    print(f"each further trial: {each:.1f} ms")


if __name__ == "__main__":
    main()
