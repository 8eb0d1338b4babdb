"""Facts from a file: any table of tokens, separated by tabs or commas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from tc_sweeps.config import ConfigError, TriplesData
from tc_sweeps.corpus.corpus import Corpus
from tc_sweeps.corpus.facts import Row, facts_corpus
from tc_sweeps.corpus.reading import utf8_text


def triples_corpus(data: TriplesData) -> Corpus:
    """Return the corpus of a file of facts; see `facts_corpus` for what is held out.

    Raises `ConfigError` with path and line number for a file that is missing, empty, not UTF-8, or has a line with too
    few or too many columns or an empty one. Duplicate lines are kept and counted: they weigh twice in D^n.
    """
    assert data.path is not None
    assert data.order is not None
    assert data.seed is not None
    rows = read_rows(Path(data.path), data)
    repeated = len(rows) - len(set(rows))
    remark = f"{data.path}: {repeated} of {len(rows)} lines repeat another line; each is counted as often as it occurs."
    return facts_corpus(
        rows,
        order=data.order,
        seed=data.seed,
        held_out_fraction=data.held_out_fraction,
        num_sentences=data.num_sentences,
        contexts="all",
        remarks=[remark] if repeated else [],
    )


def read_rows(path: Path, data: TriplesData) -> list[Row]:
    """Return the chosen columns of every line."""
    assert data.order is not None
    assert data.delimiter is not None
    lines = _parse(path, data.delimiter)
    header: list[str] | None = next(lines, (0, None))[1] if data.header else None
    width = len(header) if header else None
    columns: list[int] | None = None
    rows: list[Row] = []
    for number, cells in lines:
        if width is None:
            width = len(cells) if data.columns else data.order
        if columns is None:
            columns = _positions(path, data, header, width)
        if len(cells) != width:
            raise ConfigError(f"{path}, line {number}: {len(cells)} columns where {width} are expected.")
        row = tuple(cells[column] for column in columns)
        if "" in row:
            raise ConfigError(f"{path}, line {number}: column {columns[row.index('')]} is empty.")
        rows.append(row)
    if not rows:
        raise ConfigError(f"{path}, line 1: the file has no sentences.")
    if len({token for row in rows for token in row}) < 2:
        raise ConfigError(
            f"{path}, line 1: the file has only one distinct token, {rows[0][0]!r}; at least 2 are needed."
        )
    return rows


def _parse(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every line that is not blank."""
    # Only line ends end a line: Python's own splitlines knows other characters that may stand in a token.
    lines = io.StringIO(utf8_text(path), newline="")
    # Quotes mean something in a CSV file only; a token of a TSV file may begin with one.
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}.") from error


def _positions(path: Path, data: TriplesData, header: list[str] | None, width: int) -> list[int]:
    """Return the positions of `data.columns`, or all of them."""
    if data.columns is None:
        if width != data.order:
            raise ConfigError(f"{path}, line 1: {width} columns where data.order={data.order}; choose data.columns.")
        return list(range(width))
    positions = []
    for column in data.columns:
        if isinstance(column, int):
            if not 0 <= column < width:
                raise ConfigError(f"{path}, line 1: data.columns={column} is not a position in 0..{width - 1}.")
            positions.append(column)
        elif header is None or header.count(column) != 1:
            names = ", ".join(header or [])
            raise ConfigError(f"{path}, line 1: data.columns={column} must name one column of the header: {names}.")
        else:
            positions.append(header.index(column))
    if len(set(positions)) < len(positions):
        raise ConfigError(f"{path}, line 1: data.columns={data.columns} names a column twice.")
    return positions
