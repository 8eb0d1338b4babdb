"""Lists of artifacts that are longer than what is read of them at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tc_sweeps.config import METRICS
from tc_sweeps.report import artifacts_text, kept
from tc_sweeps.report.html import details
from tc_sweeps.store.folder import RunFolder
from tests.report import made

LABELS = np.array(["generalization", "hallucination", "unlabelled"])


def finished(outputs: Path, overrides: dict[str, Any], *, rows: int, parts: int, count: int) -> RunFolder:
    """A run with so many artifacts, of which so many rows are kept; there are ties of probabilities."""
    run = made.begin(outputs, "s", overrides)
    run.write_facts(made.random_facts({}), None)
    generator = np.random.default_rng(0)

    def part(size: int) -> pd.DataFrame:
        tokens = generator.integers(100, size=(size, 3))
        return pd.DataFrame(
            {
                "tokens": tokens.tolist(),
                "probability": generator.integers(500, 1000, size=size) / 1000,
                "label": LABELS[generator.integers(3, size=size)],
                "seen": tokens[:, 0] < 50,
                "right": [[int(first)] * (first % 3) for first in tokens[:, 0]],
            }
        )

    run.write_parts("artifacts", (part(rows // parts) for _ in range(parts)))
    run.add_row(1000, dict.fromkeys(METRICS, float("nan")) | {"artifacts/count": count})
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def ranked(run: RunFolder) -> pd.DataFrame:
    table = run.read_table("artifacts").sort_values("probability", ascending=False, kind="stable", ignore_index=True)
    return table.assign(rank=range(1, len(table) + 1), tokens=table["tokens"].map(tuple))


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("most", [1, 20, 300, 10_000])
def test_the_surest_and_their_ranks_are_those_of_the_whole_table(outputs: Path, parts: int, most: int) -> None:
    run = finished(outputs, {}, rows=3500, parts=parts, count=3500)
    everything = ranked(run)
    filters = {
        None: everything,
        (lambda table: kept.with_labels(table, ["hallucination", "unlabelled"])): everything[
            everything["label"] != "generalization"
        ],
        (lambda table: kept.with_token(table, 7)): everything[everything["tokens"].map(lambda tokens: 7 in tokens)],
    }
    for meant, expected in filters.items():
        found = kept.surest(run, most, meant)
        assert (found.meant, found.kept) == (len(expected), 3500)
        assert [tuple(tokens) for tokens in found.table["tokens"].to_pylist()] == expected["tokens"].tolist()[:most]
        assert kept.ranks(run, found).tolist() == expected["rank"].tolist()[:most]
    assert kept.labels(run) == everything["label"].value_counts().to_dict()


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("top-k", "Kept by name are the 90 most confident: "),
        ("sample", "Kept by name is a sample of 90 of 1,234,567 artifacts: "),
    ],
)
def test_what_is_kept_of_more_is_said(outputs: Path, keep: str, said: str) -> None:
    run = finished(outputs, {"artifacts.keep": keep, "artifacts.kept": 90}, rows=90, parts=1, count=1_234_567)
    totals = ranked(run)["label"].value_counts()
    numbers = f"{totals['generalization']} generalizations, {totals['hallucination']} hallucinations and "
    text = artifacts_text(run.path, top=5)
    assert f"\n{said}{numbers}{totals['unlabelled']} unlabelled.\n" in text
    assert "\nShown: the first 5 of 90.\n" in text
    assert details.detail(run)["artifacts"]["kept"] == 90


def test_a_sample_that_holds_them_all_is_no_sample(outputs: Path) -> None:
    run = finished(outputs, {"artifacts.keep": "sample"}, rows=90, parts=1, count=90)
    assert "All are kept by name." in artifacts_text(run.path, top=5)


READ = """
import sys
from pathlib import Path
import pyarrow as pa
from tc_sweeps.report import artifacts_text
from tc_sweeps.report.html import details
from tc_sweeps.store.folder import RunFolder
artifacts_text(sys.argv[1], top=10)
artifacts_text(sys.argv[1], top=10, labels=["hallucination"], containing="7")
details.detail(RunFolder(Path(sys.argv[1])))
print(pa.default_memory_pool().max_memory())
"""


def test_of_a_long_list_little_is_in_memory(outputs: Path) -> None:
    run = finished(outputs, {"artifacts.keep": "all"}, rows=400_000, parts=40, count=400_000)
    done = subprocess.run([sys.executable, "-c", READ, run.path], stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) < pq.read_table(run.path / "artifacts.parquet").nbytes / 8
