"""Where Hydra looks for plugins: it makes no launcher or sweeper of any other module, registered or not.

Hydra imports this in every app of the environment, so nothing heavy is imported here.
"""

from tc_sweeps.sweep import launcher, search, sweeper


class StackedLauncher(launcher.StackedLauncher):
    """`hydra/launcher=stacked`."""


class GridSweeper(sweeper.GridSweeper):
    """`hydra/sweeper=grid`."""


class SearchSweeper(search.SearchSweeper):
    """`hydra/sweeper=optuna`."""
