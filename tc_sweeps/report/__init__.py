"""Tables and figures of a sweep, made from its files alone."""

from tc_sweeps.report.curves import draw_xy
from tc_sweeps.report.figures import Drawing, draw_experiment, experiments
from tc_sweeps.report.frame import load_curves, load_survival, load_sweep, over_seeds, swept_keys
from tc_sweeps.report.table import write_table

__all__ = [
    "Drawing",
    "draw_experiment",
    "draw_xy",
    "experiments",
    "load_curves",
    "load_survival",
    "load_sweep",
    "over_seeds",
    "swept_keys",
    "write_table",
]
