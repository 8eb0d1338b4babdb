"""Workers as detached actors of a Ray cluster: they outlive the launch that made them."""

from __future__ import annotations

import logging
import os
import pickle
import re
import secrets
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from tc_sweeps.config import ConfigError
from tc_sweeps.sweep.cluster import Submission, Task, WorkerState

__all__ = ["cancel", "require", "submit", "workers"]

log = logging.getLogger(__name__)

NAMESPACE = "tc_sweeps"


def require(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where no cluster answers; see `cluster.Executor`."""
    _connect(settings["address"])


def submit(task: Task, workers: int, settings: Mapping[str, Any], logs: Path) -> tuple[str, str]:
    """Make the actors; return what their names begin with, and the cluster's address. See `cluster.Executor`."""
    address = _connect(settings["address"])
    logs.mkdir(parents=True, exist_ok=True)
    task = replace(task, launch=replace(task.launch, threaded=True))  # Ray's own run in an actor
    options = {key: settings[key] for key in ("num_cpus", "num_gpus", "memory", "resources") if settings.get(key)}
    if not any(_has(node["Resources"], options) for node in ray.nodes() if node["Alive"]):
        log.warning("No node of %s has %s: workers wait until there is one.", address, options)
    identity = secrets.token_hex(4)
    for place in range(workers):
        name = f"{identity}_{place}"
        actor = ray.remote(_worker()).options(name=name, lifetime="detached", **options)
        actor.remote(pickle.dumps(task), str(logs / f"{name}.out"), settings.get("code"))
        ray.get_actor(name)  # returns when the cluster knows of it
    return identity, address


def _worker() -> type:
    """Return the class of the actors, which work on one task and then end.

    Made here, so that Ray sends it as it is: it is what chooses the folder that the package comes from.
    """

    class Worker:
        # The work is the constructor: a call of a method would be lost where the launch leaves before there is room.
        def __init__(self, task: bytes, log: str, code: str | None) -> None:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if code is not None:
                sys.path.insert(0, code)
            try:
                pickle.loads(task)()
            except Exception:  # which the end of the actor would hide
                traceback.print_exc()
            finally:
                ray.actor.exit_actor()

    return Worker


def _has(node: Mapping[str, float], options: Mapping[str, Any]) -> bool:
    """Whether a node with these resources, in Ray's names, could hold a worker with these options of `ray.remote`."""
    wanted = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0), "memory": options.get("memory", 0)}
    return all(node.get(name, 0) >= amount for name, amount in (wanted | options.get("resources", {})).items())


def workers(submission: Submission) -> list[WorkerState] | None:
    """Return which actors are left; see `cluster.Executor`. Ray does not tell those that wait from those that work."""
    try:
        _connect(submission.address)
    except ConfigError:
        return None
    names = set(ray.util.list_named_actors())
    known = [f"{submission.id}_{place}" for place in range(submission.workers)]
    return [WorkerState(name, "ALIVE" if name in names else "ENDED", "", ended=name not in names) for name in known]


def cancel(submission: Submission) -> None:
    """End the actors; see `cluster.Executor`."""
    _connect(submission.address)
    for name in set(ray.util.list_named_actors()) & {f"{submission.id}_{n}" for n in range(submission.workers)}:
        ray.kill(ray.get_actor(name))


def _connect(address: str | None) -> str:
    """Connect to a cluster that runs, and return its address; raises ConfigError where there is none."""
    if ray.is_initialized():
        here = str(ray.get_runtime_context().gcs_address)
        if address in (None, "auto", here):
            return here
        ray.shutdown()
    try:
        _knock(os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address)
        ray.init(address=address or "auto", namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"hydra/launcher=ray: no Ray cluster answers at hydra.launcher.address={address or 'auto'} "
            f"({' '.join(str(error).split())[:200]}); start one with `ray start --head`."
        ) from error
    return str(ray.get_runtime_context().gcs_address)


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens at HOST:PORT, for which Ray would wait for minutes."""
    if place := re.fullmatch(r"([^/]+):(\d+)", address or ""):
        socket.create_connection((place[1], int(place[2])), timeout=10).close()
