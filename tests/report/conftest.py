"""What every test of the report stands on: an empty outputs/ and no network."""

from __future__ import annotations

import socket
from pathlib import Path

import made
import pytest

from tc_sweeps.config import WORLDS


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("The report reads files only.")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs/ folder where the user stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    return Path("outputs")


@pytest.fixture
def contradicted(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a second world with a truth, which has the key data.contradictions."""
    monkeypatch.setitem(WORLDS, "contradicted", made.Contradicted)
    return "contradicted"
