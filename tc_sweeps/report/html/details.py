"""What the page tells of single runs: config, command, curves, artifacts and fibers, as far as there is room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tc_sweeps.report.artifacts import short_name
from tc_sweeps.report.command import run_command
from tc_sweeps.report.html.numbers import dumps, numbers, plain
from tc_sweeps.report.html.page import pack
from tc_sweeps.report.kept import surest
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import flat

CHUNK = 150_000  # characters of JSON in a chunk, which is unpacked whole when one of its runs is opened
PACKED_TWICE = 1.02  # a chunk is packed once more with the rest of the page, which hardly makes it larger
LEAST_PROBABILITY = 0.01  # of a fiber's entries that are shown, but for those of the data and the most probable
PROBE = 12  # runs of a kind by which is judged how much room a level takes, before it is tried
ROUGHLY = 1.3  # such a judgement is trusted to be no further off
MOST_EVALUATIONS = 200  # of a run's curves: a picture of one run is not wider
LEAST_THRESHOLDS = 12  # of a survival curve that is thinned
MOST_RIGHT = 10  # last tokens that are right in a context; a closed world may have a hundred


class Details(NamedTuple):
    """The part `details` of the page's data."""

    chunks: list[str]
    of: list[tuple[int, int] | None]  # chunk and place of each run
    left_out: str | None


@dataclass(frozen=True)
class Level:
    """How much is told of runs; `of_all`: not of one run of each group alone."""

    artifacts: int
    contexts: int | None = None  # of fibers; None: all that the run has kept
    tokens: int | None = None
    fibers_of_all: bool = True
    artifacts_of_all: bool = True
    evaluations: int = MOST_EVALUATIONS  # in curves
    evaluations_of_others: int = MOST_EVALUATIONS  # in those of runs that do not stand for their group
    of_all: bool = True

    def left_out(self) -> str | None:
        """Return what the reader misses, as a sentence; None at the fullest level."""
        if self == LEVELS[0]:
            return None
        if not self.artifacts:
            told = (
                f"left out to keep this page small, but for {self.evaluations} points of the curves, config and command"
            )
            return f"Details are {told} of one run of each group."
        whose = {True: "of a run", False: "of one run of each group"}
        artifacts = f"{self.artifacts} artifacts {whose[self.artifacts_of_all]}"
        fibers = f"fibers in {self.contexts} contexts {whose[self.fibers_of_all]}"
        told = f"Details are shortened to keep this page small: at most {artifacts} and {fibers}"
        if not self.of_all:
            return f"{told}; only one run of each group has details."
        if self.evaluations_of_others < self.evaluations:
            told += f", and {self.evaluations_of_others} points in the curves of the others"
        return f"{told}."


LEVELS = (
    Level(artifacts=100),
    Level(artifacts=20, contexts=200, tokens=8),
    Level(artifacts=20, contexts=200, tokens=8, fibers_of_all=False),
    Level(artifacts=20, contexts=50, tokens=8, fibers_of_all=False),
    Level(artifacts=20, contexts=50, tokens=4, fibers_of_all=False, artifacts_of_all=False),
    Level(artifacts=10, contexts=20, tokens=4, fibers_of_all=False, artifacts_of_all=False, evaluations_of_others=10),
    Level(artifacts=10, contexts=20, tokens=4, fibers_of_all=False, artifacts_of_all=False, evaluations_of_others=5),
    Level(artifacts=20, contexts=50, tokens=4, of_all=False),
    Level(artifacts=10, contexts=20, tokens=4, of_all=False),
    Level(artifacts=0, contexts=0, evaluations=10, of_all=False),
)


def details(runs: Sequence[RunFolder], firsts: Sequence[int], room: int) -> Details:
    """Return the details of runs at the fullest level that fits into so many bytes of the page.

    `firsts` are the runs that stand for their groups. Where not even the last level fits, as many of them as do.
    """
    reader = _Reader(runs, frozenset(firsts))
    for level in LEVELS:
        wanted = range(len(runs)) if level.of_all else firsts
        last = level is LEVELS[-1]
        if last or reader.estimate(wanted, level) <= ROUGHLY * room:
            chunks, of = reader.packed(wanted, level, room)
            if last or len(of) == len(wanted):
                break
    left_out = level.left_out()
    if len(of) < len(wanted):
        left_out = f"{left_out} They are there for {len(of):,} of {len(wanted):,} groups."
    return Details(chunks, [of.get(place) for place in range(len(runs))], left_out)


@dataclass(frozen=True)
class _Reader:
    """Reads the details of runs, what every level has of them once."""

    runs: Sequence[RunFolder]
    firsts: frozenset[int]
    always: dict[int, dict[str, Any]] = field(default_factory=dict)

    def estimate(self, wanted: Sequence[int], level: Level) -> float:
        """Return how many bytes of the page the details of runs take, judged by a few of each kind.

        Those that stand for their groups may be told more of.
        """
        size = 0.0
        for kind in (True, False):
            alike = [run for run in wanted if (run in self.firsts) == kind]
            some = [alike[place] for place in spread(len(alike), PROBE)]
            size += sum(_size(_packed(part)) for part in self._parts(some, level)) * len(alike) / max(1, len(some))
        return size

    def packed(self, wanted: Sequence[int], level: Level, room: float) -> tuple[list[str], dict[int, tuple[int, int]]]:
        """Return the chunks of a level that fit, and in which one and where in it each run stands."""
        chunks: list[str] = []
        of: dict[int, tuple[int, int]] = {}
        for part in self._parts(wanted, level):
            chunk = _packed(part)
            room -= _size(chunk)
            if room < 0:
                break
            of |= {run: (len(chunks), place) for place, run in enumerate(part)}
            chunks.append(chunk)
        return chunks, of

    def _parts(self, wanted: Iterable[int], level: Level) -> Iterator[dict[int, str]]:
        """Yield the details of runs, by their place among all, in parts as large as a chunk."""
        part: dict[int, str] = {}
        size = 0
        for run in wanted:
            if run not in self.always:
                self.always[run] = _always(self.runs[run])
            part[run] = dumps(_detail(self.runs[run], self.always[run], level, first=run in self.firsts))
            size += len(part[run])
            if size >= CHUNK:
                yield part
                part, size = {}, 0
        if part:
            yield part


def _packed(part: Mapping[int, str]) -> str:
    return pack(f"[{','.join(part.values())}]".encode())


def _size(chunk: str) -> float:
    """Return how many bytes of the page a chunk takes."""
    return PACKED_TWICE * (len(chunk) + 3)


# ------------------------------------------------------------------------------------------------------------- one run


def detail(run: RunFolder, level: Level = LEVELS[0]) -> dict[str, Any]:
    """Return what the page tells of one run at a level."""
    return _detail(run, _always(run), level, first=True)


def _always(run: RunFolder) -> dict[str, Any]:
    """Return the part that every level has."""
    config = run.read_config()
    names, values = run.read_evaluations()
    kept = values[spread(len(values), MOST_EVALUATIONS)]
    curves = {name: numbers(kept[:, place]) for place, name in enumerate(names) if not np.isnan(kept[:, place]).all()}
    told: dict[str, Any] = {
        "config": {key: plain(value) for key, value in flat(config).items()},
        "command": run_command(config),
        "curves": {"step": [], **curves},
    }
    thresholds, counts = read_survival(run)
    if len(thresholds):
        told["survival"] = {"threshold": numbers(thresholds), "count": numbers(counts)}
    return told


def _detail(run: RunFolder, always: Mapping[str, Any], level: Level, *, first: bool) -> dict[str, Any]:
    """Return what is told of a run; `first`: it stands for its group."""
    told = dict(always)
    evaluations, most = len(always["curves"]["step"]), level.evaluations if first else level.evaluations_of_others
    if evaluations > most:
        told["curves"] = _thinned(always["curves"], evaluations, most)
        if "survival" in told:
            told["survival"] = _thinned(told["survival"], len(told["survival"]["count"]), LEAST_THRESHOLDS)
    listed = _artifacts(run, level.artifacts) if level.artifacts and (first or level.artifacts_of_all) else None
    table = read_parquet(run, "fibers") if level.contexts != 0 and (first or level.fibers_of_all) else None
    shown = None if table is None or not len(table) else _fibers(table, run, level)
    return {**told, "vocabulary": _vocabulary(run, listed, shown), "artifacts": listed, "fibers": shown}


def _thinned(columns: Mapping[str, Sequence[Any]], rows: int, most: int) -> dict[str, list[Any]]:
    kept = spread(rows, most)
    return {name: [values[place] for place in kept] for name, values in columns.items()}


def _vocabulary(
    run: RunFolder, artifacts: Mapping[str, Any] | None, fibers: Mapping[str, Any] | None
) -> list[str] | None:
    """Return the tokens' names, empty for those that are nowhere shown; None where tokens are numbers."""
    names = run.read_vocabulary()
    if names is None or (fibers and fibers["whole"]):
        return names and list(map(short_name, names))
    rows = [*(artifacts or {"tokens": []})["tokens"], *(artifacts or {"right": []})["right"]]
    rows += [*(fibers or {"contexts": []})["contexts"], *(fibers or {"tokens": []})["tokens"]]
    shown = {token for row in rows for token in row}
    return [short_name(name) if token in shown else "" for token, name in enumerate(names)]


def _artifacts(run: RunFolder, most: int) -> dict[str, Any] | None:
    """Return the most confident artifacts, and of how many that the run keeps by name.

    Of what is right in a context at most ten tokens, and how many there are. None where the run has no such list.
    """
    try:
        found = surest(run, most)
    except FileNotFoundError:
        return None
    columns = found.table.to_pydict()
    right = columns.get("right") or [[] for _ in columns["tokens"]]  # runs of older versions have no such column
    return {
        "tokens": columns["tokens"],
        "probability": numbers(np.array(columns["probability"], dtype=float)),
        "label": columns.get("label") or ["unlabelled" for _ in columns["tokens"]],
        "seen": columns.get("seen") or [False for _ in columns["tokens"]],
        "right": [tokens[:MOST_RIGHT] for tokens in right],
        "right_count": [len(tokens) for tokens in right],
        "kept": found.kept,
    }


def _fibers(table: pa.Table, run: RunFolder, level: Level) -> dict[str, Any]:
    """Return fibers, entries below one percent that the data do not have left out.

    Of more contexts than there is room for, as many of the data as of others, evenly spread.
    """
    tokens = table["token"].to_numpy()
    count, probability = table["data_count"].to_numpy(), table["probability"].to_numpy()
    context = table["context_tokens"].combine_chunks().flatten().to_numpy().reshape(len(tokens), -1)
    begins = np.flatnonzero(np.r_[True, (context[1:] != context[:-1]).any(axis=1)])
    ends = np.r_[begins[1:], len(tokens)]
    order, vocab_size = context.shape[1] + 1, int(run.read_facts()["corpus/vocab_size"] or 0)
    whole = len(tokens) == vocab_size**order
    chosen = np.arange(len(begins))
    if level.contexts is not None and len(begins) > level.contexts:
        of_data = np.add.reduceat(count, begins) > 0
        known, blank = chosen[of_data], chosen[~of_data]
        half = max(level.contexts // 2, level.contexts - len(blank))
        known = known[spread(len(known), half)]
        chosen = np.sort(np.r_[known, blank[spread(len(blank), level.contexts - len(known))]])
        whole = False
    rows = []
    for begin, end in zip(begins[chosen], ends[chosen], strict=True):
        best = begin + np.argsort(-(2 * (count[begin:end] > 0) + probability[begin:end]), kind="stable")[: level.tokens]
        keep = (count[best] > 0) | (probability[best] >= LEAST_PROBABILITY)
        keep[:1] = True
        rows.append(best[keep])
    return {
        "whole": bool(whole),
        "vocab_size": vocab_size,
        "order": order,
        "contexts": context[begins[chosen]].tolist(),
        "tokens": [tokens[row].tolist() for row in rows],
        "count": [count[row].tolist() for row in rows],
        "probability": [numbers(probability[row]) for row in rows],
    }


# ---------------------------------------------------------------------------------------------------------------- files


def spread(total: int, most: int) -> np.ndarray:
    """Return at most `most` indices spread evenly over `0..total-1`, the last among them."""
    if total <= most:
        return np.arange(total)
    return np.linspace(total - 1, 0, most).round().astype(int)[::-1]


def read_survival(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return a run's survival curve at its last evaluation: thresholds and the artifacts above each, or nothing."""
    table = read_parquet(run, "survival")
    if table is None or not len(table):
        return np.empty(0), np.empty(0)
    step = table["step"].to_numpy()
    last = step == step.max()
    return table["threshold"].to_numpy()[last], table["count"].to_numpy()[last]


def read_parquet(run: RunFolder, name: str) -> pa.Table | None:
    """Return `<name>.parquet` of a run, or None where there is none; faster than pandas reads it."""
    try:
        return pq.ParquetFile(run.path / f"{name}.parquet").read(use_threads=False)
    except FileNotFoundError:
        return None
