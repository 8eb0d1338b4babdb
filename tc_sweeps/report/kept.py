"""The artifacts that a run keeps by name, of which there may be many more than fit into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tc_sweeps.store.folder import RunFolder

Mask = Callable[[pa.Table], np.ndarray]  # which rows of a table are meant


class Surest(NamedTuple):
    """The most confident of the artifacts that are kept, or of some of them."""

    table: pa.Table  # most confident first; equal ones as they stand in the file
    row: np.ndarray  # where in the file each of them stands
    meant: int  # how many there are of those that are meant
    kept: int  # how many the run keeps


def keeps_sample(config: Mapping[str, Any]) -> bool:
    """Whether a run keeps a sample of its artifacts, by its config; runs of older versions keep the most confident."""
    return bool(config["artifacts"].get("keep") == "sample")


def surest(run: RunFolder, most: int, meant: Mask | None = None) -> Surest:
    """Return at most so many artifacts of a run, the most confident of those that are meant (all of them if None).

    Raises FileNotFoundError where the run has no list of artifacts.
    """
    file = _open(run)
    table, row = file.schema_arrow.empty_table(), np.empty(0, dtype=int)
    total = begin = 0
    for group, probability in _probabilities(file):
        rows, place = None, np.arange(len(probability))
        if meant is not None:
            rows = file.read_row_group(group, use_threads=False)
            place = np.flatnonzero(meant(rows))
        total += len(place)
        if len(row) == most:  # an equal one that stands further down does not enter
            place = place[probability[place] > table["probability"][-1].as_py()]
        place = np.sort(place[np.argsort(-probability[place], kind="stable")[:most]])
        if len(place):
            rows = file.read_row_group(group, use_threads=False) if rows is None else rows
            table = pa.concat_tables([table, rows.take(place)])
            row = np.r_[row, begin + place]
            best = np.argsort(-table["probability"].to_numpy(), kind="stable")[:most]
            table, row = table.take(best).combine_chunks(), row[best]
        begin += len(probability)
    return Surest(table, row, total, begin)


def ranks(run: RunFolder, listed: Surest) -> np.ndarray:
    """Return the places of artifacts among all that a run keeps, the most confident the first."""
    if listed.meant == listed.kept:
        return 1 + np.arange(len(listed.row))
    asked, rank = listed.table["probability"].to_numpy(), np.ones(len(listed.row), dtype=int)
    begin = 0
    for _, probability in _probabilities(_open(run)):
        rank += len(probability) - np.searchsorted(np.sort(probability), asked, side="right")
        # Of equal ones those that stand before: of this group, or all of it.
        for value in np.intersect1d(asked, probability):
            equal = asked == value
            rank[equal] += np.searchsorted(begin + np.flatnonzero(probability == value), listed.row[equal])
        begin += len(probability)
    return rank


def labels(run: RunFolder) -> Counter[str]:
    """Return how many of the artifacts that a run keeps have each label."""
    file = _open(run)
    found: Counter[str] = Counter()
    for group in range(file.num_row_groups):
        for part in pc.value_counts(file.read_row_group(group, ["label"], use_threads=False)["label"]).to_pylist():
            found[part["values"]] += part["counts"]
    return found


def with_labels(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Return which artifacts have one of these labels."""
    return np.asarray(pc.is_in(table["label"], pa.array(names, pa.string())))


def with_token(table: pa.Table, token: int) -> np.ndarray:
    """Return which artifacts have a token."""
    tokens = table["tokens"].combine_chunks()
    found = np.zeros(len(table), dtype=bool)
    found[np.asarray(pc.list_parent_indices(tokens))[np.asarray(pc.list_flatten(tokens)) == token]] = True
    return found


def _open(run: RunFolder) -> pq.ParquetFile:
    return pq.ParquetFile(run.path / "artifacts.parquet")


def _probabilities(file: pq.ParquetFile) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the row groups of a list of artifacts, and the probabilities in each."""
    for group in range(file.num_row_groups):
        yield group, file.read_row_group(group, ["probability"], use_threads=False)["probability"].to_numpy()
