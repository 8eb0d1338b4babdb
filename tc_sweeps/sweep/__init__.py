"""Sweeps: composing and validating jobs, and training a whole multirun as stacks. Registers the plugins with Hydra."""

from tc_sweeps.sweep.engine import Launch, RunFailed, train_sweeps
from tc_sweeps.sweep.launcher import StackedLauncher
from tc_sweeps.sweep.sweeper import GridSweeper, SweepFailed

__all__ = ["GridSweeper", "Launch", "RunFailed", "StackedLauncher", "SweepFailed", "train_sweeps"]
