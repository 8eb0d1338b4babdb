"""The paper's figures from a sweep's files: one module per experiment, of the same name.

Each has a `CLAIM`, what the paper says; `draw`, the figure of it; and `verdict`, what the runs at hand say about it:
those that a filter chooses, as in `load_sweep`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tc_sweeps.config import ConfigError
from tc_sweeps.report.frame import (
    Sweep,
    experiments,
    figure_command,
    find_sweep,
    hint,
    left_out,
    listed,
    load_sweep,
    own_figure,
)
from tc_sweeps.report.style import caption, save
from tc_sweeps.report.where import Where, name_where, spell_where


class Drawing(NamedTuple):
    """A figure that was drawn: its files, what the paper claims and what these runs say."""

    paths: list[Path]
    claim: str
    verdict: str
    runs: str = ""  # the filter that chose them, as one would type it
    left_out: str = ""  # those of them that have not finished, in a sentence

    def __str__(self) -> str:
        paths = "\n         ".join(map(str, self.paths))
        chosen = "; ".join(filter(None, [f"those with {self.runs}" if self.runs else "", self.left_out]))
        runs = f"Runs:    {chosen}\n" if chosen else ""
        return f"{runs}Claim:   {self.claim}\nVerdict: {self.verdict}\nWritten: {paths}"


__all__ = ["Drawing", "draw_experiment", "experiments", "figure_module"]


def draw_experiment(sweep: Sweep, experiment: str | None = None, *, where: Where | None = None) -> Drawing:
    """Draw an experiment's figure from a sweep's runs into `<sweep>/figures/<experiment>.png` and `.pdf`.

    Without `experiment`, the one that the sweep was launched as, or that has its name; a search has a figure of its
    own. `where` chooses runs as in `load_sweep`; the files then have it in their names. Raises `ConfigError` where
    there is no such sweep or experiment, or where no run has what the figure shows.
    """
    folder = find_sweep(sweep)
    path = folder.path
    if experiment is None:
        experiment = own_figure(folder)
        if experiment is None:
            example = figure_command(path, load_sweep(folder, where=where))
            raise ConfigError(
                f"The sweep '{path.name}' is of no experiment that has a figure: "
                f"say what to draw with --x KEY --y METRIC, as in: {example}"
            )
    if experiment not in experiments():
        known = f"there are {listed(experiments())}"
        raise ConfigError(f"There is no figure '{experiment}'{hint(experiment, experiments(), known)}")
    module = figure_module(experiment)
    figure = module.draw(folder, where)
    without = "" if experiment == "search" else left_out(folder, where)  # a search tells of all its trials itself
    caption(figure, without)
    paths = save(figure, path / "figures" / f"{experiment}{name_where(where, every=folder.every)}")
    return Drawing(paths, module.CLAIM, module.verdict(folder, where), spell_where(where), without)


def figure_module(experiment: str) -> ModuleType:
    """Return the module that draws an experiment's figure: its `CLAIM`, `draw` and `verdict`."""
    return importlib.import_module(f"{__name__}.{experiment}")
