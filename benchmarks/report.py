"""How large the report of a sweep is, and how long it takes: sweeps of made-up numbers, without any training.

    python benchmarks/report.py --runs 1000 10000

Prints for each number of runs the bytes of report.html and of its parts, the seconds that it took to write (in a
process of its own, with its imports), and the peak of its memory. Runs have 20 evaluations, 1,000 artifacts by name, a
survival curve, and fibers in 200 contexts; with `--whole` all fibers of a small vocabulary.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tc_sweeps.config import METRICS, resolve
from tc_sweeps.store import run_id
from tc_sweeps.store.sweep_folder import SweepFolder

STEPS = range(50, 1001, 50)
THRESHOLDS = 1 / (1 + np.exp(-np.linspace(-4.6, 9.2, 55)))
WIDTHS = (8, 16, 32, 64, 128)
UNDEFINED = ("count_low", "count_high", "restored", "abstention", "spectra")  # of runs that ask for none of them
MEASURE = """
import json, resource, sys, time
began = time.perf_counter()
from tc_sweeps.report import write_report
path = write_report(sys.argv[1]).path
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"path": str(path), "seconds": time.perf_counter() - began, "MiB": used}))
"""


def make_sweep(folder: Path, runs: int, *, seeds: int = 5, whole: bool = False) -> None:
    """Write a sweep of kinship runs: widths by weight decays, `seeds` runs of each."""
    folder.mkdir(parents=True)
    names = []
    for number in range(runs):
        rng = np.random.default_rng(number)
        group = number // seeds
        overrides: dict[str, Any] = {
            "sweep": folder.name,
            "seed": number % seeds,
            "data": {"name": "latent", "vocab_size": 24, "num_sentences": 100} if whole else {"name": "latent"},
            "model": {"width": WIDTHS[group % len(WIDTHS)]},
            "training": {"weight_decay": 0.001 * (group // len(WIDTHS))},
            "tracking": {"mode": "none"},
        }
        config = resolve(overrides)
        run = folder / run_id(config)
        run.mkdir()
        names.append(run.name)
        (run / "config.yaml").write_text(yaml.dump(asdict(config), sort_keys=False, Dumper=yaml.CSafeDumper))
        state = {"state": "finished", "reason": None, "step": 1000, "attempt": 1, "seconds_per_step": 0.01}
        (run / "status.json").write_text(json.dumps(state))
        (run / "facts.json").write_text(json.dumps(facts(config.model.width, 24 if whole else 64)))
        (run / "metrics.csv").write_text(metrics(rng))
        for name, table in tables(rng, 24 if whole else 64, whole=whole).items():
            table.to_parquet(run / f"{name}.parquet", index=False)
    SweepFolder(folder).add_runs(names, experiment=None, launch=None)


def facts(width: int, vocab_size: int) -> dict[str, Any]:
    """Return what is known of a run before it trains."""
    return {
        "corpus/vocab_size": vocab_size,
        "corpus/sentences": 400,
        "corpus/train_ngrams": 400,
        "corpus/contexts": vocab_size**2,
        "corpus/held_out_ngrams": 1024,
        "corpus/fully_fitted_accuracy": 1 - 2 / vocab_size,
        "model/parameters": 4 * width**2 + 2 * vocab_size * width,
        "model/non_embedding_parameters": 4 * width**2,
        "code_version": "0.1.0",
    }


def metrics(rng: np.random.Generator) -> str:
    """Return a metrics.csv in which every number is another one, in whole numbers or with all their digits."""
    lines = [",".join(["step", *METRICS])]
    for step in STEPS:
        grown = 1 - np.exp(-step / 200)
        row = [str(step)]
        for name in METRICS:
            noisy = float(grown * rng.uniform(0.9, 1.1))
            if any(part in name for part in UNDEFINED):
                row.append("")
            elif name.endswith("doubtful_share"):  # some rows of thousands
                row.append(repr(round(noisy / 400, 4)))
            elif name.endswith(("count", "ceiling", "seen", "diagonal", "above_threshold")):
                row.append(str(round(4000 * noisy)))
            else:
                row.append(repr(noisy))
        lines.append(",".join(row))
    return "\n".join(lines) + "\n"


def tables(rng: np.random.Generator, vocab_size: int, *, whole: bool) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that has finished."""
    counts = np.sort(rng.integers(0, 4000, len(THRESHOLDS)))[::-1]
    listed = 1000
    artifacts = pd.DataFrame(
        {
            "tokens": rng.integers(0, vocab_size, (listed, 3)).tolist(),
            "probability": np.sort(1 - 0.5 * rng.random(listed) ** 2)[::-1],
            "label": rng.choice(["generalization", "hallucination"], listed),
            "seen": rng.random(listed) < 0.2,
            "right": rng.integers(0, vocab_size, (listed, 1)).tolist(),
        }
    )
    contexts, tokens = (vocab_size**2, vocab_size) if whole else (200, 8)
    first, second = np.divmod(np.arange(contexts) if whole else rng.permutation(vocab_size**2)[:contexts], vocab_size)
    said = np.concatenate([rng.dirichlet(np.full(tokens, 0.2)) for _ in range(contexts)])
    fibers = pd.DataFrame(
        {
            "context_tokens": np.repeat(np.stack([first, second], axis=1), tokens, axis=0).tolist(),
            "token": np.tile(np.arange(tokens), contexts) if whole else rng.integers(0, vocab_size, contexts * tokens),
            "data_count": (rng.random(contexts * tokens) < 0.02).astype(int),
            "probability": said,
        }
    )
    survival = pd.DataFrame({"step": STEPS[-1], "threshold": THRESHOLDS, "count": counts})
    return {"artifacts": artifacts, "fibers": fibers, "survival": survival}


def measure(sweep: Path) -> str:
    """Return a line on the report of a sweep: its size, the seconds that it took, its memory, what it leaves out."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(sweep)], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    text = Path(told["path"]).read_text(encoding="utf-8")
    sizes = {name: len(found[1]) for name in ("data", "library") if (found := re.search(f'id="{name}">([^<]*)', text))}
    data = json.loads(gzip.decompress(base64.b64decode(re.search('id="data">([^<]*)', text)[1])))
    chunks, detailed = sum(map(len, data["details"]["chunks"])), sum(map(bool, data["details"]["of"]))
    parts = f"{sizes['library']:,} of them plotly and {chunks:,} details of {detailed:,} runs"
    return f"{len(text):,} bytes, {parts}; {told['seconds']:.1f} s, {told['MiB']:.0f} MiB. {data['left_out'] or ''}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each group")
    parser.add_argument("--whole", action="store_true", help="all fibers of a small vocabulary")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="make the sweeps here, or take those that are there"
    )
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        for runs in options.runs:
            sweep = (options.keep or Path(temporary)) / f"made_{runs}_{options.seeds}{'_whole' * options.whole}"
            began = time.perf_counter()
            if not sweep.exists():
                make_sweep(sweep, runs, seeds=options.seeds, whole=options.whole)
            made = time.perf_counter() - began
            print(f"{runs:,} runs (made in {made:.0f} s): {measure(sweep.resolve())}", flush=True)


if __name__ == "__main__":
    main()
