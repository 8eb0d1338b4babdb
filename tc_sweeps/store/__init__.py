"""The records of runs: identity, folders, leases, checkpoints and the mirror at Weights & Biases. Knows no tensors."""

from tc_sweeps.store.checkpoints import Checkpoints, Saved
from tc_sweeps.store.folder import OUTPUTS, Job, RunFolder
from tc_sweeps.store.identity import code_version, run_id
from tc_sweeps.store.lease import Worker, forget_dead, is_alive, standing, was_held_by
from tc_sweeps.store.sweep_folder import SweepFolder
from tc_sweeps.store.tracking import Mirror, drain, open_mirror

__all__ = [
    "OUTPUTS",
    "Checkpoints",
    "Job",
    "Mirror",
    "RunFolder",
    "Saved",
    "SweepFolder",
    "Worker",
    "code_version",
    "drain",
    "forget_dead",
    "is_alive",
    "open_mirror",
    "run_id",
    "standing",
    "was_held_by",
]
