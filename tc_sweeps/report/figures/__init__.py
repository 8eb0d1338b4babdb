"""The paper's figures from a sweep's files: one module per experiment, of the same name.

Each has a `CLAIM`, what the paper says; `draw`, the figure of it; and `verdict`, what the runs at hand say about it.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import NamedTuple

from tc_sweeps.config import ConfigError
from tc_sweeps.report.frame import find_sweep, nearest
from tc_sweeps.report.style import save
from tc_sweeps.report.trials import is_search


class Drawing(NamedTuple):
    """A figure that was drawn: its files, what the paper claims and what these runs say."""

    paths: list[Path]
    claim: str
    verdict: str

    def __str__(self) -> str:
        paths = "\n         ".join(map(str, self.paths))
        return f"Claim:   {self.claim}\nVerdict: {self.verdict}\nWritten: {paths}"


def experiments() -> list[str]:
    """Return the names of the experiments that have a figure of their own."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def draw_experiment(sweep: str | Path, experiment: str | None = None) -> Drawing:
    """Draw an experiment's figure from a sweep's runs into `<sweep>/figures/<experiment>.png` and `.pdf`.

    Without `experiment`, the one that the sweep was launched as, or that has its name; a search has a figure of its
    own. Raises `ConfigError` where there is no such sweep or experiment, or where no run has what the figure shows.
    """
    folder = find_sweep(sweep)
    path = folder.path
    if experiment is None:
        experiment = "search" if is_search(path) else folder.plan["experiment"] or path.name
    if experiment not in experiments():
        raise ConfigError(f"There is no figure '{experiment}'; did you mean '{nearest(experiment, experiments())}'?")
    module = importlib.import_module(f"{__name__}.{experiment}")
    paths = save(module.draw(path), path / "figures" / experiment)
    return Drawing(paths, module.CLAIM, module.verdict(path))
