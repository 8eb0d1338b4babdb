"""The records of runs: identity, folders and the mirror at Weights & Biases. Knows no tensors."""

from tc_sweeps.store.files import locked
from tc_sweeps.store.folder import OUTPUTS, RunFolder
from tc_sweeps.store.identity import run_id
from tc_sweeps.store.sweep_folder import SweepFolder
from tc_sweeps.store.tracking import Mirror, open_mirror

__all__ = ["OUTPUTS", "Mirror", "RunFolder", "SweepFolder", "locked", "open_mirror", "run_id"]
