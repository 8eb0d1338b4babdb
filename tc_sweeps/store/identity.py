"""Which runs are the same run: the identity of a resolved config."""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tc_sweeps.config import Config, ConfigError, leaves


def run_id(config: Config) -> str:
    """Return the 16 hex digits that name a run: a hash over everything that can change its result.

    The hash covers every resolved key except those marked `identity=False` in the schema (where the run is kept, how it
    is tracked, on which device and in how much memory it is counted), with the contents of an input file in place of
    its path and with the version of the world's generator. A key at its documented absent value does not enter.
    """
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity(config: Config) -> dict[str, Any]:
    """Return what `run_id` hashes, by dotted key."""
    entering = {
        name: _digest(name, value) if metadata["file"] else value
        for name, value, metadata in leaves(config)
        if metadata["identity"] and value != metadata["absent"]
    }
    entering["data.generator"] = config.data.generator
    return entering


def _digest(name: str, path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ConfigError(f"{name}={path} cannot be read: {getattr(error, 'strerror', error)}.") from error


@cache
def code_version() -> str:
    """Return the version of this package, with the commit of its checkout where it is one, and whether that is edited.

    As in `0.1.0+48f2496` or `0.1.0+48f2496.edited`. It is recorded with every attempt at a run and is not part of the
    identity: a fixed bug does not make the runs before it other runs.
    """
    here = Path(__file__).parents[2]
    installed = version("tc-sweeps")
    snapshot = here / ".code_version"  # beside a copy of the package that work in a queue uses
    if snapshot.exists():
        return snapshot.read_text(encoding="utf-8")
    if not (here / ".git").exists():
        return installed
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        edited = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git here, or not its owner
        return installed
    return f"{installed}+{commit.stdout.strip()}" + (".edited" if edited.stdout.strip() else "")
