"""Text from a file, or one sentence that says why there is none."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from tc_sweeps.config import ConfigError
from tc_sweeps.corpus.corpus import Corpus

__all__ = ["read_contexts", "utf8_text"]


def utf8_text(path: Path, *, key: str = "data.path") -> str:
    """Return the contents of a UTF-8 file without its byte order mark, line ends as they are.

    Raises `ConfigError` for a file that cannot be read (`key` names it), and with path and line number for one that is
    not UTF-8.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"{key}={path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: the file is not UTF-8 (byte 0x{content[error.start]:02x}).") from error


def read_contexts(path: Path, corpus: Corpus, *, length: int) -> Tensor:
    """Return the contexts that a file lists, one a line, `length` tokens separated by tabs, [C, m].

    Raises `ConfigError` with path and line number for a line with too few or too many tokens, or one that is none of
    the corpus.
    """
    names = corpus.tokens or [str(token) for token in range(corpus.vocab_size)]
    number = {name: token for token, name in enumerate(names)}
    rows = []
    text = utf8_text(path, key="objective.outside.path")
    for place, line in enumerate(io.StringIO(text), start=1):  # only line ends end a line
        cells = [cell.strip() for cell in line.split("\t")]
        if cells == [""]:
            continue
        unknown = [cell for cell in cells if cell not in number]
        if len(cells) != length or unknown:
            what = f"{unknown[0]!r} is no token of the data" if unknown else f"{len(cells)} tokens"
            raise ConfigError(f"{path}, line {place}: {what}; a context is {length} tokens separated by tabs.")
        rows.append([number[cell] for cell in cells])
    if not rows:
        raise ConfigError(f"{path}, line 1: the file has no contexts.")
    return torch.tensor(rows, dtype=torch.int64)
