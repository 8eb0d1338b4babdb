"""The engine of a sweep: what is finished stays, what is missing is packed into stacks and trained by workers.

A worker is a process that goes through the stacks, claims those of their runs that nobody else trains, and trains them.
Several launches of one sweep share its work that way, and each returns the whole table.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from tc_sweeps.config import Config, ConfigError, RunFailed
from tc_sweeps.store import OUTPUTS, Checkpoints, RunFolder, SweepFolder, Worker, drain

if TYPE_CHECKING:
    from tc_sweeps.sweep.packing import Packed, Stack

__all__ = ["Launch", "RunFailed", "train_sweeps"]

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at runs whose worker was killed, each with half the memory
POLL_SECONDS = 0.5  # between looks at runs that another launch trains


@dataclass(frozen=True)
class Launch:
    """How runs are launched: the keys of `hydra.launcher`, and what the records say of the launch."""

    workers: int | None = None
    memory_mib: int | None = None
    retry_failed: bool = False
    experiment: str | None = None
    started: str | None = None  # names the multirun in plan.json; None for a single run
    command: str | None = None  # what was typed to start the multirun


Outcome = dict[str, float] | RunFailed


def train_sweeps(configs: Sequence[Config], launch: Launch, *, outputs: Path = OUTPUTS) -> list[Outcome]:
    """Train every run that is missing; return for each of `configs` its final metrics, or why it failed.

    Finished runs are left alone, and so are failed ones unless `retry_failed`. torch is imported only if there is
    something to train. Errors of the system, such as a full disk, stop the launch and are raised.
    """
    sweeps: dict[Path, dict[str, Config]] = {}
    folders = [RunFolder.of(config, outputs) for config in configs]
    for config, folder in zip(configs, folders, strict=True):
        sweeps.setdefault(folder.path.parent, {})[folder.run_id] = config
    for path, runs in sweeps.items():
        SweepFolder(path).add_runs(
            list(runs), experiment=launch.experiment, launch=launch.started, command=launch.command
        )
        for run_id, config in runs.items():
            folder = RunFolder(path / run_id)
            if launch.retry_failed and folder.status["state"] == "failed":
                folder.set_state("queued")
            folder.queue(config)
    for path, runs in sweeps.items():
        _Sweep(path, launch, outputs).train(list(runs.values()))
    return [_outcome(folder) for folder in folders]


def _outcome(folder: RunFolder) -> Outcome:
    return folder.read_last() if folder.finished else RunFailed(f"{folder.path}: {folder.status['reason']}.")


class _Sweep:
    """The missing runs of one sweep, and how they get trained."""

    def __init__(self, path: Path, launch: Launch, outputs: Path) -> None:
        self.path, self.launch, self.outputs = path, launch, outputs

    def train(self, configs: Sequence[Config]) -> None:
        """Train until every run is finished or failed, by this launch or another."""
        for attempt in range(ATTEMPTS):
            missing = [config for config in configs if not self._is_done(self._folder(config))]
            if attempt == 0 and len(configs) > 1:
                log.info("%s: %d runs, %d to train", self.path, len(configs), len(missing))
            if not missing:
                return
            packed = self._pack(missing, attempt)
            if packed.workers > 1 and not self._supervise(packed):
                continue  # a worker was killed
            self.work(packed.stacks, waits=True)
        for config in missing:
            folder = self._folder(config)
            if not self._is_done(folder):
                folder.set_state("failed", reason=f"its worker was killed {ATTEMPTS} times; memory may have run out")

    def work(self, stacks: Sequence[Stack], *, slot: int = 0, waits: bool) -> None:
        """Go through the stacks and train what nobody else does; `waits`: until others have trained the rest."""
        with Worker(self.path) as worker:
            while True:
                for number, stack in enumerate(stacks, 1):
                    configs = {self._folder(config).run_id: config for config in stack.configs}
                    folders = [self._folder(config) for config in stack.configs]
                    claimed = worker.claim(folders, wanted=lambda folder: not self._is_done(folder))
                    if not claimed:
                        continue
                    title = f"stack {number}/{len(stacks)}" if len(stacks) > 1 else self.path.name
                    for alike in self._alike(claimed):
                        self._train_stack([configs[folder.run_id] for folder in alike], worker, title, slot)
                    for folder in claimed:
                        worker.release(folder)
                unfinished = [f.run_id for s in stacks for c in s.configs if not self._is_done(f := self._folder(c))]
                if not unfinished or not waits:
                    break
                time.sleep(POLL_SECONDS)
            every = SweepFolder(self.path).runs(every=True)  # a smaller plan forgets no checkpoint of a larger one
            Checkpoints(self.path).prune([run.run_id for run in every if not self._is_done(run)])

    def _folder(self, config: Config) -> RunFolder:
        return RunFolder.of(config, self.outputs)

    @staticmethod
    def _is_done(folder: RunFolder) -> bool:
        return folder.status["state"] in ("finished", "failed")

    def _pack(self, configs: Sequence[Config], attempt: int) -> Packed:
        import torch

        from tc_sweeps.sweep.packing import pack
        from tc_sweeps.train import device_of

        on_cpu = [device_of(config).type for config in configs].count("cpu") > 0
        devices = _cores() if on_cpu else torch.cuda.device_count()
        memory = self.launch.memory_mib
        if memory is not None:
            memory_bytes = memory << 20
        else:
            memory_bytes = _free_memory() // 2 if on_cpu else devices * torch.cuda.mem_get_info()[0] * 3 // 4
        torch.set_num_threads(1)  # what forks has no threads
        return pack(
            configs,
            workers=self.launch.workers,
            devices=devices,
            memory_bytes=memory_bytes >> attempt,
            on_cpu=on_cpu,
        )

    def _alike(self, folders: Sequence[RunFolder]) -> list[list[RunFolder]]:
        """Return the runs of a stack grouped by the step at which their checkpoints stand."""
        saved = Checkpoints(self.path).find()
        groups: dict[int, list[RunFolder]] = {}
        for folder in folders:
            step = saved[folder.run_id].step if folder.run_id in saved else 0
            groups.setdefault(step, []).append(folder)
        return list(groups.values())

    def _train_stack(self, configs: Sequence[Config], worker: Worker, title: str, slot: int) -> None:
        """Train claimed runs as one stack; what goes wrong stands in their status, and the sweep goes on."""
        from tc_sweeps.train import is_out_of_memory, train

        began, made = time.monotonic(), 0
        steps = sum(config.training.steps for config in configs)
        with tqdm(
            total=steps, desc=title, unit="step", unit_scale=True, position=slot, leave=False, disable=None
        ) as bar:

            def progress(member_steps: int, running: int) -> None:
                nonlocal made
                made += member_steps
                bar.set_postfix_str(f"{len(configs) - running} of {len(configs)} runs done", refresh=False)
                bar.update(member_steps)

            job_type = self.launch.experiment or configs[0].data.name
            try:
                train(configs, outputs=self.outputs, job_type=job_type, worker=worker, progress=progress)
            except OSError:
                raise
            except Exception as error:
                if not is_out_of_memory(error):
                    log.exception("%s: %d runs failed", title, len(configs))
                elif len(configs) == 1:
                    self._folder(configs[0]).set_state("failed", reason=f"out of memory: {error}")
                else:
                    log.warning("%s: out of memory; its %d runs go on as two stacks", title, len(configs))
                    for half in (configs[::2], configs[1::2]):
                        self._train_stack(half, worker, title, slot)
                return
        if len(configs) > 1:
            seconds = time.monotonic() - began
            rate = f"{made / seconds:,.0f} member-steps per second"
            log.info("%s: %d runs in %.1f s, %s", title, len(configs), seconds, rate)

    # ------------------------------------------------------------------------------------------------------- workers

    def _supervise(self, packed: Packed) -> bool:
        """Have the stacks trained by worker processes; return False where one was killed."""
        import torch

        # A fork starts at once; CUDA does not survive one, and outside of Linux nobody vouches for it.
        forks = sys.platform == "linux" and not torch.cuda.is_available()
        context = multiprocessing.get_context("fork" if forks else "spawn")
        workers = []
        for slot in range(packed.workers):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(  # type: ignore[attr-defined]
                target=_be_worker, args=(self, packed.stacks, slot, writer)
            )
            process.start()
            writer.close()
            workers.append((process, reader))
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            for process, _ in workers:
                process.join()
        except BaseException:
            for process, _ in workers:
                process.terminate()
            for process, _ in workers:
                process.join()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
        errors = [error for _, reader in workers if (error := _received(reader)) is not None]
        if errors:
            raise errors[0]
        killed = [process.exitcode for process, _ in workers if process.exitcode != 0]
        for code in killed:
            log.warning("A worker was killed (exit code %s; -9 is often for want of memory); its runs go on.", code)
        return not killed


def _received(reader: Connection) -> BaseException | None:
    try:
        return reader.recv()  # type: ignore[no-any-return]
    except EOFError:
        return None


def _be_worker(sweep: _Sweep, stacks: Sequence[Stack], slot: int, errors: Connection) -> None:
    """What a worker process does."""
    import torch

    signal.signal(signal.SIGTERM, _interrupt)
    # Where it was spawned; a fork has what Hydra set up.
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())
    try:
        sweep.work(stacks, slot=slot, waits=False)
    except (KeyboardInterrupt, OSError, ConfigError) as error:
        errors.send(error)
    finally:
        drain()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


def _cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    path = Path("/proc/meminfo")
    if path.exists():
        available = next(line for line in path.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(available.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
