"""Uploads to Weights & Biases what training left on disk for it: from a node with a network, whenever that is at hand.

`wandb sync` does the uploading, many runs to a process. W&B's own mark of a run that is uploaded (`.wandb.synced`) is
no proof: `wandb sync` leaves it also where the server has refused the history or a file, and when the run has grown
since. So its log is read, and what arrived is kept as `outputs/<sweep>/<run_id>/wandb/uploaded.json`: a run that is
made anew loses it together with the mirror that it speaks of, and a file of W&B only grows, so that its size says
whether it is still the one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from tc_sweeps.config import ConfigError
from tc_sweeps.store import account
from tc_sweeps.store.files import locked, replace_text
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.lease import standing
from tc_sweeps.store.sweep_folder import SweepFolder

__all__ = ["RETRIES", "TIMEOUT_SECONDS", "Synced", "sync_sweep"]

log = logging.getLogger(__name__)

# W&B itself tries again for as long, with pauses of up to a minute; it would do so for ever.
TIMEOUT_SECONDS = 60.0
RETRIES = 3
PAUSE_SECONDS = 2.0  # before the first retry; each further one waits twice as long
RUNS_A_PROCESS = 200  # a start of `wandb sync` costs 1 to 2 s
RUNS_AT_ONCE = 20  # a run is seven requests one after the other, which are mostly waited for
LOOK_SECONDS = 0.1
EMPTY_BYTES = 7  # the head of W&B's file: of a run that was killed before its first row
MOST_NAMED = 3  # runs that share a reason
LONGEST_REASON = 200  # characters: a server may answer with a page

# What `wandb sync` says of a run that was killed: everything up to there has arrived.
_TORN = "ends with an incomplete record"
# What its log says of every answer that is no success: the next try may have been one.
_PASSING = "api: HTTP error"


@dataclass
class Synced:
    """What has become of the runs of a sweep, each in one of these places; as text it is a sentence for the user."""

    uploaded: list[RunFolder] = field(default_factory=list)
    there: list[RunFolder] = field(default_factory=list)  # since an earlier call, and unchanged
    training: list[RunFolder] = field(default_factory=list)
    without: list[RunFolder] = field(default_factory=list)  # not begun, or not mirrored at W&B
    waiting: list[RunFolder] = field(default_factory=list)  # to be uploaded: nobody tried
    failed: dict[Path, str] = field(default_factory=dict)  # the run's folder, and why it was not uploaded
    interrupted: bool = False

    def __str__(self) -> str:
        done = f"{_count(len(self.uploaded), 'run')} uploaded"
        parts = [f"{_count(len(self.waiting), 'run')} to upload" if self.waiting else done]
        if self.there:
            parts.append(f"{len(self.there)} {'was' if len(self.there) == 1 else 'were'} there already")
        if self.training:
            parts.append(f"{len(self.training)} still {'trains' if len(self.training) == 1 else 'train'}")
        if self.without:
            parts.append(f"{len(self.without)} {'has' if len(self.without) == 1 else 'have'} nothing to upload")
        return ", ".join(parts)

    @property
    def complaint(self) -> str | None:
        """One sentence that names what was not uploaded and why, or None where all was."""
        if not self.failed:
            return None
        named = defaultdict(list)
        for path, why in self.failed.items():
            named[why].append(path.name)
        reasons = [f"{_listed(names)} ({why})" for why, names in named.items()]
        number = f"{_count(len(self.failed), 'run')} {'was' if len(self.failed) == 1 else 'were'}"
        return f"{number} not uploaded: {'; '.join(reasons)}. The same command tries again."


def sync_sweep(
    sweep: SweepFolder,
    *,
    timeout: float = TIMEOUT_SECONDS,
    retries: int = RETRIES,
    dry_run: bool = False,
) -> Synced:
    """Upload the runs of a sweep that W&B's server does not have as they are on disk, and return what became of all.

    `wandb sync` is ended where no run arrives for `timeout` seconds, and tried
    again `retries` times, after pauses that double. `dry_run` only says what there is to upload. Ctrl-C ends it as it
    stands: what has arrived counts. Raises `ConfigError` where W&B has no API key.
    """
    if timeout <= 0 or retries < 0:
        raise ConfigError(f"--timeout {timeout:g} must be above 0 seconds, and --retries {retries} at least 0.")
    server = account.server()
    with locked(sweep.path / ".sync"):  # a second call waits, and then finds what the first has uploaded
        synced = _survey(sweep, server)
        if dry_run or not synced.waiting:
            return synced
        if (problem := account.problem(server)) is not None:
            raise ConfigError(f"{problem}: {account.REMEDY}. Nothing was uploaded.")
        waiting, synced.waiting = synced.waiting, []
        uploader = _Uploader(waiting, server, timeout)
        with logging_redirect_tqdm(), uploader.bar:
            try:
                uploader.upload(retries)
            except KeyboardInterrupt:
                synced.interrupted = True
    for run in waiting:
        if run in uploader.arrived:
            synced.uploaded.append(run)
        else:
            synced.failed[run.path] = uploader.reasons[run]
    return synced


# -------------------------------------------------------------------------------------------------------- what is there


def _survey(sweep: SweepFolder, server: str) -> Synced:
    found = Synced()
    for run in sweep.runs():
        file = _wandb_file(run)
        if standing(run)["state"] == "running":
            found.training.append(run)
        elif file is None or file.stat().st_size <= EMPTY_BYTES:
            found.without.append(run)
        elif _is_there(run, file, server):
            found.there.append(run)
        else:
            found.waiting.append(run)
    return found


def _wandb_file(run: RunFolder) -> Path | None:
    """Return what W&B wrote about the latest attempt at a run; a copy of the folder may hold earlier ones, too."""
    files = run.path.glob("wandb/*run-*/run-*.wandb")
    return max(files, key=lambda file: file.parent.name.removeprefix("offline-"), default=None)


def _is_there(run: RunFolder, file: Path, server: str) -> bool:
    """Whether a server has all of a run, from an earlier call or because it was online to its end."""
    try:
        kept = json.loads(_record(run).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return not file.parent.name.startswith("offline-") and _mark(file).exists()
    return bool((kept["file"], kept["bytes"], kept["server"]) == (file.parent.name, file.stat().st_size, server))


def _record(run: RunFolder) -> Path:
    return run.path / "wandb" / "uploaded.json"


def _mark(file: Path) -> Path:
    return file.with_name(f"{file.name}.synced")


# --------------------------------------------------------------------------------------------------------------- upload


class _Uploader:
    """Brings runs to a server, and knows at any moment which have arrived and why the others have not."""

    def __init__(self, runs: Sequence[RunFolder], server: str, timeout: float) -> None:
        self.runs, self.server, self.timeout = runs, server, timeout
        self.arrived: set[RunFolder] = set()
        self.reasons = dict.fromkeys(runs, "it was not tried")
        self.bar: tqdm[Any] = tqdm(
            desc="uploading", total=len(runs), unit=" runs", dynamic_ncols=True, leave=False, disable=None
        )

    def upload(self, retries: int) -> None:
        """Try until every run has arrived, or as often as is allowed."""
        left = self._try(self.runs)
        for retry in range(retries):
            if not left:
                return
            pause, why = PAUSE_SECONDS * 2**retry, self.reasons[left[0]]
            log.warning(
                "%s left (%s); retry %d of %d in %.0f s.", _count(len(left), "run"), why, retry + 1, retries, pause
            )
            time.sleep(pause)
            left = self._try(left)

    def _try(self, runs: Sequence[RunFolder]) -> list[RunFolder]:
        """Give every run to `wandb sync` once; return those that have not arrived."""
        left: list[RunFolder] = []
        for start in range(0, len(runs), RUNS_A_PROCESS):
            batch = runs[start : start + RUNS_A_PROCESS]
            left += (failed := self._sync(batch))
            if len(failed) == len(batch):  # nothing gets through: the next batch would not, either
                rest = runs[start + RUNS_A_PROCESS :]
                self.reasons |= dict.fromkeys(rest, self.reasons[failed[0]])
                return [*left, *rest]
        return left

    def _sync(self, runs: Sequence[RunFolder]) -> list[RunFolder]:
        """Upload runs in a process of `wandb sync`, return those that have not arrived.

        A file that W&B cannot read stops its process before it has uploaded anything: the others go without it.
        """
        unreadable: list[RunFolder] = []
        while runs:
            before = len(self.arrived)
            named = self._run_process(runs)
            left = [run for run in runs if run not in self.arrived]
            if len(self.arrived) > before or not named or len(named) == len(runs):
                return unreadable + left
            unreadable += named
            runs = [run for run in left if run not in named]
        return unreadable

    def _run_process(self, runs: Sequence[RunFolder]) -> list[RunFolder]:
        """Upload runs in one process; return those that it complains about by name, with `reasons` for all."""
        files, sizes = {}, {}
        for run in runs:
            self.reasons[run] = "it is being made anew"
            with suppress(FileNotFoundError):
                if (file := _wandb_file(run)) is not None:
                    sizes[file] = file.stat().st_size
                    files[file] = run
        if not files:
            return []
        for file in files:
            _mark(file).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            said = Path(scratch) / "said"
            with said.open("wb") as output:
                process = _start(files, scratch, output)
            problem = "`wandb sync` ended without it"
            try:
                if not self._watch(process, list(files)):
                    problem = f"{self.server} took no run for {self.timeout:g} s"
            finally:  # also when interrupted
                _kill(process)
                complaints = _Complaints(Path(scratch), said.read_text(encoding="utf-8", errors="replace"), files)
                for file, run in files.items():
                    why = complaints.of(file)
                    if why is None and (_mark(file).exists() or complaints.is_torn(file)):
                        self._keep(run, file, sizes[file])
                    else:
                        _mark(file).unlink(missing_ok=True)  # `wandb sync` by hand would believe it
                        self.reasons[run] = why or complaints.general or problem
                self.bar.n = len(self.arrived)
                self.bar.refresh()
        return [run for file, run in files.items() if complaints.of(file) is not None]

    def _watch(self, process: subprocess.Popen[bytes], files: list[Path]) -> bool:
        """Wait for the end of a process, at most `timeout` seconds from run to run; return whether it ended."""
        last, ended = time.monotonic(), False
        while not ended:
            if time.monotonic() - last > self.timeout:
                return False
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
                ended = True
            missing = [file for file in files if not _mark(file).exists()]
            if len(missing) < len(files):
                self.bar.update(len(files) - len(missing))
                last, files = time.monotonic(), missing
        return True

    def _keep(self, run: RunFolder, file: Path, size: int) -> None:
        """Write down what has arrived; `size` is that of before, since the file may have grown meanwhile."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"file": file.parent.name, "bytes": size, "server": self.server, "at": now}
        replace_text(_record(run), json.dumps(kept), durable=False)
        self.arrived.add(run)


def _start(files: Iterable[Path], scratch: str, output: Any) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    # Its log, which would else lie where the user stands; no reports on its own use.
    environment |= {"WANDB_DIR": scratch, "WANDB_ERROR_REPORTING": "false"}
    options = ["--include-online", "--include-synced", "-n", str(RUNS_AT_ONCE)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "wandb", "sync", *options, *(str(file.resolve()) for file in files)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # its end is ours to decide, together with that of W&B's service
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Complaints:
    """What `wandb sync` found wrong, from what it printed and from its log."""

    def __init__(self, scratch: Path, said: str, files: Iterable[Path]) -> None:
        self._logged: dict[str, str] = {}  # by name of the file
        for entry in _log_entries(scratch):
            if entry["level"].startswith("ERROR") and entry["msg"] != _PASSING and "sync_path" in entry:
                why = ": ".join(str(entry[name]) for name in ("msg", "error") if name in entry)
                self._logged.setdefault(Path(entry["sync_path"]).name, _shortened(why))
        lines = re.findall(r"^(?:wandb: ERROR|Error:) (\S.*)", said, flags=re.MULTILINE)
        ids = {file: file.stem.removeprefix("run-") for file in files}
        self._said = {file: [line for line in lines if name in line] for file, name in ids.items()}
        self._general = [line for line in lines if not any(name in line for name in ids.values())]

    def of(self, file: Path) -> str | None:
        """Return what is wrong with a run, None where nothing was said about it."""
        said = [_shortened(why) for why in self._said[file] if _TORN not in why]
        return self._logged.get(file.name) or next(iter(said), None)

    def is_torn(self, file: Path) -> bool:
        """Whether the run was killed while W&B wrote: what there is of it was uploaded."""
        return any(_TORN in why for why in self._said[file])

    @property
    def general(self) -> str | None:
        """The last word about no run in particular."""
        return _shortened(self._general[-1]) if self._general else None


def _log_entries(scratch: Path) -> Iterator[dict[str, Any]]:
    for file in scratch.glob("wandb/logs/debug-sync*.log"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):  # the last one, of a process that was ended
                yield json.loads(line)


def _shortened(why: str) -> str:
    return (why if len(why) <= LONGEST_REASON else f"{why[:LONGEST_REASON]} ...").rstrip(". ")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return " and ".join(", ".join([*names[:MOST_NAMED], *more]).rsplit(", ", 1))
