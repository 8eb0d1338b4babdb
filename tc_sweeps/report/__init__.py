"""Tables and figures of a sweep, made from its files alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tc_sweeps.report.artifacts import artifacts_text
from tc_sweeps.report.compare import compare_text
from tc_sweeps.report.frame import find_sweep, left_out, load_curves, load_survival, load_sweep, over_seeds, swept_keys
from tc_sweeps.report.status import all_sweeps, sweep_status
from tc_sweeps.report.table import write_table
from tc_sweeps.report.trials import best_text, best_trials, load_trials
from tc_sweeps.report.where import parse_where

if TYPE_CHECKING:
    from tc_sweeps.report.curves import draw_xy
    from tc_sweeps.report.figures import Drawing, draw_experiment, experiments
    from tc_sweeps.report.html import write_report
    from tc_sweeps.report.scorecard import Scorecard, write_scorecard

__all__ = [
    "Drawing",
    "Scorecard",
    "all_sweeps",
    "artifacts_text",
    "best_text",
    "best_trials",
    "compare_text",
    "draw_experiment",
    "draw_xy",
    "experiments",
    "find_sweep",
    "left_out",
    "load_curves",
    "load_survival",
    "load_sweep",
    "load_trials",
    "over_seeds",
    "parse_where",
    "sweep_status",
    "swept_keys",
    "write_report",
    "write_scorecard",
    "write_table",
]


def __getattr__(name: str) -> Any:
    """Load what draws when it is first asked for: tables need not wait for matplotlib."""
    if name not in __all__:
        raise AttributeError(f"module 'tc_sweeps.report' has no attribute {name!r}")
    homes = {"draw_xy": "curves", "write_report": "html", "Scorecard": "scorecard", "write_scorecard": "scorecard"}
    home = homes.get(name, "figures")
    return getattr(import_module(f"tc_sweeps.report.{home}"), name)
