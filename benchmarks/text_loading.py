"""How long a large text takes to become a corpus, and how much memory.

    python benchmarks/text_loading.py                 words and bpe, 10 MB
    python benchmarks/text_loading.py --megabytes 1   does it still work?

The text is made of the sources of Python's standard library, which every machine has: their lines in the order of the
files, with comments and docstrings, as many as are needed; where the library is shorter, its lines once more in another
order. Every measurement is a fresh process on one core, whose seconds of CPU say how long an idle machine takes. Peak
memory is that of the process; torch and the other libraries take what is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

# Runs in the measured process: argv is the text and the tokenizer.
MEASURED = """
import json, resource, sys, time
import torch
from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

libraries, start, used = peak(), time.perf_counter(), time.process_time()
data = resolve({"data": {"name": "text", "path": sys.argv[1], "tokenizer": sys.argv[2]}}).data
corpus = build_corpus(data)
seconds, used = time.perf_counter() - start, time.process_time() - used
print(json.dumps({
    "tokenizer": sys.argv[2],
    "seconds": round(seconds, 1),
    "seconds of CPU": round(used, 1),
    "peak, MiB": peak(),
    "of which libraries": libraries,
    "V": corpus.vocab_size,
    "sentences": len(corpus.sentences),
    "distinct n-grams of W": len(corpus.truth),
    "held out": len(corpus.held_out),
}))
"""


def main() -> None:
    """Print a table with a row per tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--tokenizers", nargs="+", choices=["words", "bpe"], default=["words", "bpe"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.txt"
        path.write_bytes(text_of(int(arguments.megabytes * 1_000_000)).encode())
        rows = [measured(path, tokenizer) for tokenizer in arguments.tokenizers]
    print(f"{arguments.megabytes:g} MB of the sources of Python {sys.version.split()[0]}, one core")
    print("| " + " | ".join(rows[0]) + " |")
    print("| --- |" + " ---: |" * (len(rows[0]) - 1))
    for row in rows:
        print("| " + " | ".join(f"{v:,}" if isinstance(v, int | float) else v for v in row.values()) + " |")


def text_of(size: int) -> str:
    """Return about `size` bytes of the standard library's sources."""
    lines: list[str] = []
    length = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "test", "tests"} & set(path.parts):
            continue
        found = path.read_bytes().decode("utf-8", "ignore").splitlines(keepends=True)
        lines += found
        length += sum(map(len, found))
        if length >= size:
            break
    shuffled = random.Random(0)
    original = list(lines)
    while length < size:  # a small library: its lines once more, in another order
        shuffled.shuffle(original)
        lines += original
        length += sum(map(len, original))
    return "".join(lines)[:size]


def measured(path: Path, tokenizer: str) -> dict[str, str | int | float]:
    """Return what one process that builds the corpus took."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", MEASURED, str(path), tokenizer]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
