"""The mirror of one run at Weights & Biases; the local files of the run are the truth.

W&B writes into the run's folder, `outputs/<sweep>/<run_id>/wandb/`, and needs neither account nor network for it. No
state of W&B can stop a run: an online mirror falls back to offline, a broken one goes dark, and either is said once.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tc_sweeps.config import Config
from tc_sweeps.store.folder import RunFolder

if TYPE_CHECKING:
    import wandb

__all__ = ["Mirror", "open_mirror"]

log = logging.getLogger(__name__)

# A server that can be reached answers within 2 s; more than this an unreachable one shall not cost, once per process.
INIT_SECONDS = 10.0
# The rows of a run are uploaded while it trains; what is left takes 1 s. What a dead server leaves behind lies on disk.
FINISH_SECONDS = 30.0
# W&B's own 15 s would lose everything of a short run that is killed.
FLUSH_SECONDS = 1.0

_stays_offline = False  # set by the first failure to reach the server; holds for the rest of the process


class Mirror:
    """What a run shows outside of its folder; this one shows nothing (`tracking.mode=none`)."""

    def log(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Show the metrics of one evaluation; undefined ones are left out."""

    def log_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        """Show the number of artifacts above each threshold.

        Call it before `log` for the same step: the curve waits for the metrics and enters the history in their row, so
        that every evaluation has one row and no step comes twice. Where no metrics follow it gets a row at `step`.
        """

    def summarize(self, facts: Mapping[str, float | int | None]) -> None:
        """Show facts about the run as a whole, such as the sizes of corpus and model; undefined ones are left out."""

    def finish(self, state: str) -> None:
        """Close the mirror; a run in any state but `finished` shows as failed."""


def open_mirror(config: Config, folder: RunFolder, *, job_type: str) -> Mirror:
    """Return the mirror of a run that starts anew, as `tracking.mode` asks.

    What an earlier attempt left in the run's `wandb/` is removed, so that no step is shown twice.
    """
    _forget(folder)
    if config.tracking.mode == "none":
        return Mirror()
    try:
        return _WandbMirror(_open_run(config, folder, job_type), folder.path)
    except Exception as error:
        _tell(folder.path, error)
        return Mirror()


class _WandbMirror(Mirror):
    """Shows a run at W&B, until W&B fails."""

    def __init__(self, run: wandb.Run, path: Path) -> None:
        self._run: wandb.Run | None = run
        self._path = path

    def log(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        row = {"step": step, **_defined(metrics)}
        self._attempt(lambda run: run.log(row))

    def log_survival(self, step: int, thresholds: np.ndarray, counts: np.ndarray) -> None:
        import wandb

        rows: list[Iterable[float]] = [
            [float(threshold), int(count)] for threshold, count in zip(thresholds, counts, strict=True)
        ]
        table = wandb.Table(columns=["threshold", "count"], data=rows)

        def show(run: wandb.Run) -> None:
            # A table that is bound already is uploaded as a file of its run. W&B would else make an artifact of it,
            # and ask the server for leave while the training waits: 19 s where the server is gone.
            table.bind_to_run(run, "survival", step)  # type: ignore[no-untyped-call]
            run.log({"step": step, "survival": table}, commit=False)

        self._attempt(show)

    def summarize(self, facts: Mapping[str, float | int | None]) -> None:
        # The config holds what was chosen, the summary what came of it.
        self._attempt(lambda run: run.summary.update(_defined(facts)))

    def finish(self, state: str) -> None:
        self._attempt(lambda run: _finish(run, self._path, 0 if state == "finished" else 1))
        self._run = None

    def _attempt(self, action: Callable[[wandb.Run], object]) -> None:
        """Let W&B act; when it fails, say so and leave it alone from then on."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            self._run = None
            _tell(self._path, error)


# ------------------------------------------------------------------------------------------------- opening and closing


def _open_run(config: Config, folder: RunFolder, job_type: str) -> wandb.Run:
    """Return the W&B run that the config asks for: an offline one also where the server cannot be reached."""
    import wandb

    if config.tracking.mode == "online" and not _stays_offline:
        try:
            _prepare("online")
            if wandb.login(prompt=False, verify=False):  # whoever trains in a terminal is not asked for a key either
                return _init(config, folder, job_type, "online")
            _stay_offline("no API key is configured, and `wandb login` would store one")
        except (wandb.errors.CommError, TimeoutError) as error:
            _stay_offline(_first_line(error))
            wandb.teardown(exit_code=1)  # its service would hold the id of the run that could not be opened
            _forget(folder)
    _prepare("offline")
    return _init(config, folder, job_type, "offline")


def _prepare(mode: Literal["online", "offline"]) -> None:
    """Set what holds for all W&B runs of the process; it goes before the surroundings (such as `WANDB_MODE`)."""
    import wandb

    # W&B reports on its own use, also offline: a run without a network shall not look for one.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wandb.setup(
        wandb.Settings(
            mode=mode,
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=FLUSH_SECONDS,
            # A sweep opens thousands of runs: nothing is gathered that every run of it shares, nothing is printed.
            console="off",
            quiet=True,
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_viewer=True,  # a question of its own to the server, with 5 s of its own
            x_save_requirements=False,
            symlink=False,
        )
    )


def _init(config: Config, folder: RunFolder, job_type: str, mode: Literal["online", "offline"]) -> wandb.Run:
    import wandb

    run = wandb.init(
        reinit="create_new",  # the members of a stack are open at once
        id=f"{folder.sweep}-{folder.run_id}",
        name=folder.run_id,
        group=folder.sweep,
        job_type=job_type,
        tags=[config.data.name, config.objective.positions],
        project=config.tracking.project,
        entity=config.tracking.entity,
        config={"run_id": folder.run_id, **asdict(config)},
        dir=str(folder.path.resolve()),  # W&B's service stands where its first run stood
        mode=mode,
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")  # W&B counts rows; the axis of every figure is the optimizer's step
    return run


def _finish(run: wandb.Run, path: Path, exit_code: int) -> None:
    if _stays_offline and not run.offline:
        return  # the server is gone: the members of a stack wait for it together, when the process ends
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        _stay_offline(f"the last rows of {path} were not taken within {FINISH_SECONDS:.0f} s")


def _forget(folder: RunFolder) -> None:
    """Remove what W&B wrote about an earlier attempt at the run."""
    shutil.rmtree(folder.path / "wandb", ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------- failure


def _stay_offline(reason: str) -> None:
    """Keep the rest of the process offline and say why, once."""
    global _stays_offline
    if not _stays_offline:
        log.warning("W&B goes on offline for the rest of this process: %s.", reason)
    _stays_offline = True


def _tell(path: Path, error: Exception) -> None:
    """Say that a mirror went dark because of an error while W&B acted.

    Whatever the error, no run is stopped for the sake of its mirror; W&B's own have no base class in common.
    """
    named = f"{type(error).__name__}: {_first_line(error)}"
    log.warning("%s is no longer mirrored at W&B (%s); its local files are complete.", path, named)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".:")


def _defined(values: Mapping[str, float | int | None]) -> dict[str, float | int]:
    return {name: value for name, value in values.items() if value is not None}
