"""tc_sweeps: counts generalizations and hallucinations of toy transformers as artifacts of tensor completion."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tc_sweeps.load import load_run
    from tc_sweeps.report import load_sweep

__all__ = ["load_run", "load_sweep"]

_HOME = {"load_run": "tc_sweeps.load", "load_sweep": "tc_sweeps.report"}


def __getattr__(name: str) -> Any:
    """Load `load_run` (which needs torch) and `load_sweep` when they are first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'tc_sweeps' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
