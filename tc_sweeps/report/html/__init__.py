"""One HTML page about one sweep or several, which reads without a network and without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tc_sweeps.report.frame import Sweep
from tc_sweeps.report.html.page import page
from tc_sweeps.report.html.payload import gather
from tc_sweeps.report.where import Where, name_where
from tc_sweeps.store.files import replace_text

__all__ = ["write_report"]

# What a mail takes and a browser opens at once; thousands of runs take more, in their table alone. What does not fit is
# left out, and the page says so.
LEAST_BYTES, BYTES_PER_RUN, MOST_BYTES = 5_000_000, 1_000, 10_000_000


class Report(NamedTuple):
    """The file of a report, and what its numbers do not hold as its reader should know: a sentence or two, or none."""

    path: Path
    unfinished: str


def write_report(sweeps: Sweep | Sequence[Sweep], *, where: Where | None = None) -> Report:
    """Write the report of a sweep, or of several into the folder of the first one.

    It is one file, `report.html`, with everything in it: means over seeds against every axis, curves over training,
    survival curves, a table of all runs and the details of those that fit into 5 MB (of some thousand runs 10 MB).
    Sweeps are named as in `find_sweep`, and a report of several has the others in its name. `where` chooses runs as in
    `load_sweep`, in every sweep; the file then has it in its name too. Runs need not have finished. Raises
    `ConfigError` where there is no such sweep, no run in any, or none that is chosen.
    """
    gathered = gather([sweeps] if isinstance(sweeps, Sweep) else sweeps, where)
    room = min(max(LEAST_BYTES, BYTES_PER_RUN * len(gathered.runs)), MOST_BYTES)
    empty = page(gathered.title, gathered.sweeps, "")
    text = page(gathered.title, gathered.sweeps, gathered.payload(room - len(empty.encode())))
    others = "".join(f"+{sweep['name']}" for sweep in gathered.sweeps[1:])
    path = gathered.folder.path / f"report{others}{name_where(where, every=gathered.folder.every)}.html"
    replace_text(path, text)
    return Report(path, gathered.unfinished())
