"""The engine of a sweep: what is finished stays, what is missing is packed into stacks and trained by workers.

A worker is a process that goes through the stacks, claims those of their runs that nobody else trains, and trains them.
Several launches of one sweep share its work that way, and each returns what became of its own runs.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TypedDict

from tc_sweeps.config import Config, ConfigError, RunFailed
from tc_sweeps.store import OUTPUTS, Checkpoints, Job, RunFolder, SweepFolder, Worker, drain, forget_dead, was_held_by
from tc_sweeps.sweep.packing import Packed, Stack, capacity, pack
from tc_sweeps.sweep.screen import Display, Screen, Sender, listen

__all__ = [
    "COMMAND",
    "LAUNCH",
    "Launch",
    "LocalSweep",
    "cores",
    "interrupt",
    "packed",
    "polling",
    "runs_at_once",
    "train_sweeps",
]

log = logging.getLogger(__name__)

# Of the environment: when a command was started, and what was typed. Jobs in other processes inherit both.
LAUNCH, COMMAND = "TC_SWEEPS_LAUNCH", "TC_SWEEPS_COMMAND"

EXECUTORS = ("local", "slurm", "ray")
ATTEMPTS = 3  # at runs whose worker was killed, each with half the memory
POLL_SECONDS, MOST_POLL_SECONDS = 0.5, 60.0  # between looks at runs that another launch trains


@dataclass(frozen=True)
class Launch:
    """How runs are launched: the keys of `hydra.launcher`, and what the records say of the launch."""

    workers: int | None = None
    memory_mib: int | None = None
    retry_failed: bool = False
    executor: str = "local"
    wait: bool = True  # for the results of another machine
    scheduler: Mapping[str, Any] = field(default_factory=dict)  # what a scheduler is told, by its own words
    machines: int = 1  # that share the work, each with so many workers
    # Names the workers of a submission: each may be stopped by its scheduler, and one stays until all runs are done.
    crew: str | None = None
    cores: int | None = None  # that a scheduler has given to each; null: those that this process may use
    stop_seconds: int = 15  # that a worker which is asked to stop by SIGUSR2 may take to its next evaluation
    threaded: bool = False  # the process that launches has threads, and a fork would copy what they hold
    experiment: str | None = None
    name: str | None = None  # of the multirun in plan.json; None for a single run
    command: str | None = None  # what was typed to start the multirun

    @classmethod
    def of(cls, launcher: Mapping[str, Any], **records: Any) -> Launch:
        """Return the launch that the keys of `hydra.launcher` mean; those of other launchers are left out."""
        known = ("workers", "memory_mib", "retry_failed", "executor", "wait")
        given = {name: launcher[name] for name in known if name in launcher}
        if "executor" in given:
            records["scheduler"] = {k: v for k, v in launcher.items() if k not in (*known, "_target_")}
        return cls(**given, **records)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for what cannot be launched."""
        if self.executor not in EXECUTORS:
            raise ConfigError(f"hydra.launcher.executor={self.executor} must be one of {', '.join(EXECUTORS)}.")
        if self.executor == "local" and not self.wait:
            raise ConfigError("hydra.launcher.wait=false is for work on a cluster: add hydra/launcher=slurm or ray.")
        for key in ("workers", "memory_mib"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{key}={value} must be at least 1.")


Outcome = dict[str, float] | RunFailed


def train_sweeps(configs: Sequence[Config], launch: Launch, *, outputs: Path = OUTPUTS) -> list[Outcome]:
    """Train every run that is missing; return for each of `configs` its final metrics, or why it failed.

    Finished runs are left alone, and so are failed ones unless `retry_failed`. torch is imported only if there is
    something to train. Errors of the system, such as a full disk, stop the launch and are raised.
    """
    jobs = [Job.of(config, outputs) for config in configs]
    sweeps: dict[Path, dict[str, Job]] = {}
    for job in jobs:
        sweeps.setdefault(job.folder.path.parent, {})[job.folder.run_id] = job
    for path, runs in sweeps.items():
        SweepFolder(path).add_runs(list(runs), experiment=launch.experiment, launch=launch.name, command=launch.command)
        for job in runs.values():
            if launch.retry_failed and job.folder.status["state"] == "failed":
                job.folder.set_state("queued")
            job.folder.unprune()
            job.folder.queue(job.config)
    for path, runs in sweeps.items():
        if launch.executor == "local":
            LocalSweep(path, launch).train(list(runs.values()))
        else:
            from tc_sweeps.sweep.cluster import train_elsewhere

            train_elsewhere(path, list(runs.values()), launch)
    return [_outcome(job.folder, launch) for job in jobs]


def _outcome(folder: RunFolder, launch: Launch) -> Outcome:
    if folder.finished:
        return folder.read_last()
    if not launch.wait and not folder.done:
        return {}
    reason = folder.status["reason"] or "it did not finish"
    return RunFailed(f"{folder.path}: {reason.rstrip('.')}.")


def packed(jobs: Sequence[Job], launch: Launch, *, attempt: int = 0) -> Packed:
    """Return the stacks in which the devices of this machine train runs; imports torch.

    `attempt`: as in `pack`.
    """
    import torch

    from tc_sweeps.sweep.measure import measure

    room = _room([job.config for job in jobs], launch)
    torch.set_num_threads(1)  # what forks has no threads
    if launch.machines == 1:
        return pack(jobs, measure, workers=launch.workers, attempt=attempt, **room)
    workers = launch.workers or room["devices"]
    room["memory_bytes"] *= launch.machines
    plan = pack(jobs, measure, workers=workers * launch.machines, attempt=attempt, **room)
    return replace(plan, workers=min(workers, plan.workers))


@cache
def _say_that_artifacts_are_estimated(sweep: Path, ngrams: int) -> None:  # noqa: ARG001, it is said once for each
    log.info(
        "Artifacts are estimated, with 95 %% intervals: %.1e n-grams of one run are more than artifacts.exact_ngrams; "
        "raise it to count them anyway.",
        ngrams,
    )


def runs_at_once(config: Config, launch: Launch) -> int:
    """Return how many runs like this one train at once: as many as fill a stack for every worker; imports torch."""
    from tc_sweeps.sweep.measure import measure

    return capacity(measure(config), workers=launch.workers, **_room([config], launch))


class _Room(TypedDict):
    """What runs are packed into."""

    devices: int
    memory_bytes: int
    on_cpu: bool


def _room(configs: Sequence[Config], launch: Launch) -> _Room:
    import torch

    from tc_sweeps.train import device_of

    on_cpu = any(device_of(config).type == "cpu" for config in configs)
    devices = launch.cores or cores() if on_cpu else torch.cuda.device_count()
    if launch.memory_mib is not None:
        memory_bytes = launch.memory_mib << 20
    elif on_cpu:
        memory_bytes = _free_memory() // 2
    else:  # of the devices that are used: a stack is on one of them
        memory_bytes = min(launch.workers or devices, devices) * torch.cuda.mem_get_info()[0] * 3 // 4
    return _Room(devices=devices, memory_bytes=memory_bytes, on_cpu=on_cpu)


@dataclass(frozen=True)
class _Claimed:
    """Runs of a stack that a worker has the leases of, and where it shows how far they are."""

    jobs: Sequence[Job]
    title: str
    worker: Worker
    display: Display
    slot: int


class LocalSweep:
    """The missing runs of one sweep, and how this machine trains them."""

    def __init__(self, path: Path, launch: Launch) -> None:
        self.path, self.launch = path, launch
        self._processes: list[BaseProcess] = []
        self._pids: list[int] = []  # of all processes that ever worked
        self._stop = StopRequest(launch.stop_seconds)

    def stop(self, number: int) -> None:
        """Have the workers write checkpoints, give their runs back and end; returns when they have.

        `number`: SIGUSR2 where there are `stop_seconds` to do it in, SIGTERM where the scheduler will end them itself.
        """
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)
        for process in self._processes:
            process.join()

    def train(self, jobs: Sequence[Job]) -> None:
        """Train until every run is finished or failed, by this launch or another."""
        for attempt in range(ATTEMPTS):
            missing = [job for job in jobs if not job.folder.done]
            forget_dead(job.folder for job in jobs)
            if attempt == 0 and len(jobs) > 1:
                log.info("%s: %d runs, %d to train", self.path, len(jobs), len(missing))
            elif attempt == 0 and not missing:
                log.info("%s was trained before", jobs[0].folder.path)
            if not missing:
                return
            plan = packed(missing, self.launch, attempt=attempt)
            if len(missing) > 1:
                most = max(len(stack.jobs) for stack in plan.stacks)
                runs = f"{most} run{'s' * (most != 1)}"
                log.info("Stacks: %d, of up to %s. Workers: %d.", len(plan.stacks), runs, plan.workers)
            if plan.estimated:
                _say_that_artifacts_are_estimated(self.path, plan.estimated)
            with Screen() as screen:
                if self.launch.crew is not None:  # in processes of their own, which can be stopped
                    if self._supervise(plan, screen, wait=True):
                        return
                    continue
                if plan.workers > 1 and not self._supervise(plan, screen, wait=False):
                    continue  # a worker was killed
                self.work(plan.stacks, screen, wait=True)
        lost = [job.folder for job in missing if was_held_by(job.folder, self._pids)]
        with Worker(self.path) as worker:  # what was in training when its worker was killed, and nobody else took up
            for folder in worker.claim(lost, wanted=lambda folder: folder.status["state"] == "running"):
                folder.set_state("failed", reason=f"its worker was killed {ATTEMPTS} times; memory may have run out")

    def work(self, stacks: Sequence[Stack], display: Display, *, slot: int = 0, wait: bool) -> None:
        """Go through the stacks and train what nobody else does; `wait`: until others have trained the rest.

        Of a crew only one worker waits, so that the others do not keep the machines that they were given.
        """
        with Worker(self.path) as worker:
            while True:
                looks = time.monotonic()
                for number, stack in enumerate(stacks, 1):
                    claimed = worker.claim([job.folder for job in stack.jobs], wanted=lambda run: not run.done)
                    if not claimed:
                        continue
                    title = f"stack {number}/{len(stacks)}" if len(stacks) > 1 else self.path.name
                    mine = [job for job in stack.jobs if job.folder in claimed]
                    self._train(_Claimed(mine, title, worker, display, slot))
                    for folder in claimed:
                        worker.release(folder)
                    Checkpoints(self.path).prune()
                    looks = time.monotonic()
                if not wait or all(job.folder.done for stack in stacks for job in stack.jobs):
                    return
                if self.launch.crew is not None and not worker.keep_watch(self.launch.crew):
                    log.info("Nobody needs this worker any more: others train what is left.")
                    return
                self._stop.sleep(polling(looks))

    def listen_for_signals(self) -> None:
        """In a worker's process: stop orderly, with a checkpoint first where a scheduler gives the time for it."""
        signal.signal(signal.SIGTERM, self._stop.ask if self.launch.crew else interrupt)
        if self.launch.crew:
            signal.signal(signal.SIGUSR2, self._stop.ask)

    def _train(self, stack: _Claimed) -> None:
        """Train claimed runs as one stack, or as two where memory does not hold one."""
        if self._fits(stack):
            return
        gc.collect()  # of the stack that was too large nothing is in use any more
        rest = [job for job in stack.jobs if not job.folder.done]
        log.warning("%s: out of memory; %d runs go on as two stacks", stack.title, len(rest))
        for half in (rest[::2], rest[1::2]):
            if half:
                self._train(replace(stack, jobs=half))

    def _fits(self, stack: _Claimed) -> bool:
        """Train claimed runs as one stack; return False where several runs are too many for the memory.

        What else goes wrong stands in their status, and the sweep goes on.
        """
        from tc_sweeps.train import is_out_of_memory, train

        jobs, title = stack.jobs, stack.title
        began, all_made = time.monotonic(), 0

        def progress(made: int, left: int, running: int) -> None:
            nonlocal all_made
            all_made += made
            note = f"{len(jobs) - running} of {len(jobs)} runs done" if len(jobs) > 1 else ""
            stack.display.show(stack.slot, title, made, left, note)

        job_type = self.launch.experiment or jobs[0].config.data.name
        try:
            train(jobs, job_type=job_type, worker=stack.worker, progress=progress, stop=self._stop.asked)
        except OSError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                log.exception("%s: %d runs failed", title, len(jobs))
            elif len(jobs) > 1:
                return False
            else:
                jobs[0].folder.set_state("failed", reason=f"out of memory: {error}")
            return True
        finally:
            stack.display.clear(stack.slot)
        if len(jobs) > 1:
            seconds = time.monotonic() - began
            rate = f"{all_made / seconds:,.0f} member-steps per second"
            log.info("%s: %d runs in %.1f s, %s", title, len(jobs), seconds, rate)
        return True

    # ------------------------------------------------------------------------------------------------------- workers

    def _supervise(self, plan: Packed, screen: Screen, *, wait: bool) -> bool:
        """Have the stacks trained by worker processes; return False where one was killed. `wait`: as for `work`."""
        context = multiprocessing.get_context("spawn" if self.launch.threaded else _start_method())
        workers = self._processes = []
        pipes: list[Connection] = []
        try:
            for slot in range(plan.workers):
                pipe, theirs = context.Pipe(duplex=False)
                process = context.Process(  # type: ignore[attr-defined]
                    target=_be_worker,
                    args=(self.path, self.launch, plan.stacks, slot, wait, theirs, logging.root.level),
                )
                process.start()
                workers.append(process)
                assert process.pid is not None
                self._pids.append(process.pid)
                pipes.append(pipe)
                theirs.close()
            errors = listen(pipes, screen)
        except BaseException:
            for process in workers:
                process.terminate()
            for pipe in pipes:  # whoever says more must not wait for a listener
                while os.read(pipe.fileno(), 1 << 16):
                    pass
            raise
        finally:
            for process in workers:
                process.join()
        if errors:
            raise errors[0]
        killed = [process.exitcode for process in workers if process.exitcode != 0]
        for code in killed:
            log.warning("A worker was killed (exit code %s; -9 is often for want of memory); its runs go on.", code)
        return not killed


def _start_method() -> Literal["fork", "spawn"]:
    """Return how workers start: a fork at once, but CUDA does not survive one, and outside of Linux nobody vouches."""
    import torch

    return "fork" if sys.platform == "linux" and not torch.cuda.is_available() else "spawn"


def _be_worker(
    path: Path, launch: Launch, stacks: Sequence[Stack], slot: int, wait: bool, pipe: Connection, level: int
) -> None:
    """What a worker process does."""
    import torch

    sweep = LocalSweep(path, launch)
    sweep.listen_for_signals()
    sender = Sender(pipe)
    logging.root.handlers = [sender]
    logging.root.setLevel(level)
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()
    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())
    try:
        sweep.work(stacks, sender, slot=slot, wait=wait)
    except (KeyboardInterrupt, OSError, ConfigError) as error:
        sender.fail(error)
    except Exception as error:  # a bug: with its traceback in the log, as one line where the launch is told
        log.exception("A worker failed")
        sender.fail(RuntimeError(f"{type(error).__name__}: {error}"))
    finally:
        drain()


def interrupt(*_: object) -> None:
    """Do on a signal as on Ctrl-C: what is in training ends orderly, and its runs can be continued."""
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)


class StopRequest:
    """Whether somebody has asked a worker to stop, which it does at its next evaluation."""

    def __init__(self, seconds: int) -> None:
        """`seconds`: that it may take to its next evaluation, where it is asked by SIGUSR2."""
        self._event = threading.Event()
        self._seconds = seconds

    def ask(self, number: int, _: object) -> None:
        """Ask, as a handler of signals; a worker that has no evaluation in time is interrupted all the same."""
        if not self._event.is_set():
            self._event.set()
            if number == signal.SIGUSR2:
                signal.signal(signal.SIGALRM, interrupt)
                signal.alarm(self._seconds)

    def asked(self) -> bool:
        """Whether somebody has asked."""
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        """Sleep, unless somebody asks; raises KeyboardInterrupt then."""
        if self._event.wait(seconds):
            raise KeyboardInterrupt


def polling(began: float) -> float:
    """Return how many seconds to sleep before the next look at files, so that looks take a twentieth of the time.

    `began`: when the last look began, on the monotonic clock.
    """
    return min(max(POLL_SECONDS, 20 * (time.monotonic() - began)), MOST_POLL_SECONDS)


def cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    path = Path("/proc/meminfo")
    if path.exists():
        available = next(line for line in path.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(available.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
