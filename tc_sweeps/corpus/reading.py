"""Text from a file, or one sentence that says why there is none."""

from __future__ import annotations

from pathlib import Path

from tc_sweeps.config import ConfigError

__all__ = ["utf8_text"]


def utf8_text(path: Path) -> str:
    """Return the contents of a UTF-8 file without its byte order mark, line ends as they are.

    Raises `ConfigError` for a file that cannot be read, and with path and line number for one that is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"data.path={path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: the file is not UTF-8 (byte 0x{content[error.start]:02x}).") from error
