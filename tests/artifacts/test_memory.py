"""Counting a billion n-grams and listing a million artifacts take bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource
import torch
from tc_sweeps.artifacts import count_artifacts
from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import ToyTransformer
config = resolve({"data": {"vocab_size": 1000, "num_sentences": 5000}})
corpus = build_corpus(config.data)
model = ToyTransformer(config.model, vocab_size=1000, max_length=2, seeds=[0])
count_artifacts(model, corpus, order=2)  # what the libraries take at their first use
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count_artifacts(model, corpus, full_survival=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_billion_ngrams_in_less_than_a_gibibyte() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1024


LIST = """
import itertools
import resource
import sys
from pathlib import Path
import torch
from tc_sweeps.artifacts import enumerate_artifacts
from tc_sweeps.config import resolve
from tc_sweeps.corpus import build_corpus
from tc_sweeps.model import ToyTransformer
from tc_sweeps.store import RunFolder
config = resolve({"data": {"vocab_size": 300, "num_sentences": 1500}})
corpus = build_corpus(config.data)
model = ToyTransformer(config.model, vocab_size=300, max_length=2, seeds=[0])
with torch.no_grad():
    for parameter in model.parameters():
        parameter.mul_(2)
folder = RunFolder(Path(sys.argv[1]))
def listed():
    return enumerate_artifacts(model, corpus, threshold=0.01, memory_mib=16)
folder.write_parts("artifacts", itertools.islice(listed(), 2))  # what the libraries and two parts take
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder.write_parts("artifacts", listed())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, len(folder.read_table("artifacts")))
"""


@pytest.mark.slow
def test_a_million_artifacts_are_written_in_the_memory_of_a_few(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIST, tmp_path], stdout=subprocess.PIPE, text=True, check=True)
    more, rows = map(int, done.stdout.split())
    assert rows > 10**6
    assert more < 32
