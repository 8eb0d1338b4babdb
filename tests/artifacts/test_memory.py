"""Counting a billion n-grams takes bounded memory."""

from __future__ import annotations

import subprocess
import sys

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
