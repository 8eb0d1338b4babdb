"""What a multirun would do: its runs, what is done of them, how they would stack, and how long that takes.

Nothing is trained and no torch imported, so what depends on corpora is estimated from configs; times come from finished
runs of the same shape, whichever sweep they belong to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from tc_sweeps.config import Config, data_file, leaves
from tc_sweeps.report.frame import swept_keys, together
from tc_sweeps.store import OUTPUTS, Job
from tc_sweeps.store.folder import has_diverged
from tc_sweeps.sweep.engine import Launch, cores
from tc_sweeps.sweep.packing import CPU_BYTES, Load, Packed, load, pack

__all__ = ["Shape", "Time", "Times", "past_times", "plan_text", "shape_of", "values_of"]

DONE = ("finished", "failed")
STATES = {"queued": "new", "finished": "finished", "failed": "failed", "running": "running", "interrupted": "begun"}
MOST_VALUES = 12  # of an axis in one line

Shape = str  # what runs have in common that take equally long for a step
# What makes no step longer. Evaluations do: few and many steps for each are different shapes.
# A model's name is told by its keys, and tables from before there were two have none.
_SHAPELESS = {
    "data.seed",
    "data.noise",
    "training.steps",
    "training.evaluations",
    "training.warmup_steps",
    "model.name",
}
_CHOSEN = ("data.", "model.")  # groups whose keys depend on what is chosen
_SHAPING = [
    name
    for name, _, metadata in leaves(Config())
    if metadata["identity"] and not metadata["per_member"] and not name.startswith(_CHOSEN) and name not in _SHAPELESS
]


class Time(NamedTuple):
    """What a step of a run takes of a device."""

    seconds: float  # the mean
    runs: int  # how many were measured


Times = Mapping[Shape, Time]


def plan_text(jobs: Sequence[Job], times: Times, launch: Launch, *, command: str, measured: bool = False) -> str:
    """Return as text what launching these runs would do, on the cores of this CPU.

    `times`: what a step took in runs of their shapes, or in a calibration where it was `measured`. `command`: what
    starts them.
    """
    runs = list({job.folder.path: job for job in jobs}.values())
    states = {job.folder.path: job.folder.status["state"] for job in runs}
    missing = [job for job in runs if states[job.folder.path] not in DONE]
    counts = Counter(STATES[state] for state in states.values())
    names = ", ".join(dict.fromkeys(job.config.sweep for job in runs))
    same = f" ({len(jobs)} jobs, of which some are the same run)" if len(jobs) > len(runs) else ""
    said = ", ".join(f"{counts[name]:,} {name}" for name in STATES.values() if counts[name])
    lines = [f"{names}: {_count(len(runs), 'run')}{same}: {said}", *_axes([job.config for job in runs])]
    if missing:
        memory_bytes = cores() * CPU_BYTES if launch.memory_mib is None else launch.memory_mib << 20
        packed = pack(
            missing, _estimate, workers=launch.workers, devices=cores(), memory_bytes=memory_bytes, on_cpu=True
        )
        lines += [_stacks(packed), _device_time([job.config for job in missing], times, packed.workers, measured)]
    again = any(job.folder.status["state"] == "failed" and not has_diverged(job.folder.status) for job in runs)
    retry = " hydra.launcher.retry_failed=true" if again and not missing else ""
    if missing or retry:
        lines.append(f"To {'try again what failed' if retry else 'start it'}: {command}{retry}")
    return "\n".join(lines)


def shape_of(values: Mapping[str, Any]) -> Shape:
    """Return the shape of a run by its config's values under dotted keys; what is missing counts as null."""
    chosen = [name for name in sorted(values) if name.startswith(_CHOSEN) and name not in _SHAPELESS]
    found = {name: _plain(values.get(name)) for name in [*_SHAPING, *chosen]}
    found["steps per evaluation"] = int(values["training.steps"]) // int(values["training.evaluations"])
    return json.dumps({name: value for name, value in found.items() if value is not None}, sort_keys=True)


def values_of(config: Config) -> dict[str, Any]:
    """Return the values of a config by dotted key."""
    return {name: value for name, value, _ in leaves(config)}


def past_times(outputs: Path = OUTPUTS) -> dict[Shape, Time]:
    """Return what a step took in the finished runs of all sweeps, by their shape."""
    taken: dict[Shape, list[float]] = {}
    for path in sorted(outputs.glob("*/results.parquet")):
        names = pq.read_schema(path).names
        if "seconds_per_step" not in names:
            continue
        config = [name for name in names if "/" not in name and name != "reason"]
        for row in pd.read_parquet(path, columns=config).to_dict("records"):
            if row["state"] == "finished" and row["seconds_per_step"] == row["seconds_per_step"]:
                taken.setdefault(shape_of({str(k): v for k, v in row.items()}), []).append(row["seconds_per_step"])
    return {shape: Time(sum(seconds) / len(seconds), len(seconds)) for shape, seconds in taken.items()}


def _plain(value: Any) -> Any:
    """Return a value as the config has it: a table keeps whole numbers beside nulls as floats, and lists as text."""
    if value is None or value != value:
        return None
    if isinstance(value, list | tuple):
        return json.dumps(list(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------------------------------------------------------- parts


def _axes(configs: Sequence[Config]) -> list[str]:
    """Return one line for each config key by which the runs differ, the seed last; keys that go along share one.

    Where exclusions or blocks leave combinations of these values out, a last line says how many there are.
    """
    rows = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in values_of(config).items()}
        for config in configs
    ]
    frame = pd.DataFrame(rows)
    keys = swept_keys(frame)
    keys += ["seed"] if len({config.seed for config in configs}) > 1 else []
    axes = together(frame, keys)
    width = max((len(", ".join(axis)) for axis in axes), default=0)
    lines, combinations = [], 1
    for axis in axes:
        values = list(dict.fromkeys(tuple(row.get(key) for key in axis) for row in rows))
        combinations *= len(values)
        shown = ", ".join(map(_spelled, values[:MOST_VALUES]))
        more = f", ... ({len(values)} values)" if len(values) > MOST_VALUES else ""
        lines.append(f"  {', '.join(axis).ljust(width)}  {shown}{more}")
    if combinations > len(rows):
        lines.append(f"  {len(rows):,} of the {combinations:,} combinations of these values")
    return lines


def _spelled(values: Sequence[Any]) -> str:
    """Return `8`, or `(8, 0.02)` for keys that go along with each other."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _stacks(packed: Packed) -> str:
    """Return how the runs would stack, as far as configs tell."""
    most = max(len(stack.jobs) for stack in packed.stacks)
    return (
        f"Stacks on a CPU, about: {len(packed.stacks)}, of up to {_count(most, 'run')}, "
        f"on {_count(packed.workers, 'worker')}"
    )


def _device_time(configs: Sequence[Config], times: Times, workers: int, measured: bool) -> str:
    """Return how long the runs would take by the times of others like them, or as a calibration has `measured`."""
    known, unknown, seconds, like = 0, 0, 0.0, 0
    seen: set[Shape] = set()
    for config in configs:
        shape = shape_of(values_of(config))
        if shape not in times:
            unknown += 1
            continue
        known += 1
        seconds += config.training.steps * times[shape].seconds
        like += 0 if shape in seen else times[shape].runs
        seen.add(shape)
    if not known and measured:
        return "Device-minutes: not known, since these runs fail in their first steps"
    if not known:
        return "Device-minutes: not known, since no run of these shapes has finished yet; --calibrate measures them"
    unit, spell = ("minutes", _minutes) if seconds >= 60 else ("seconds", "{:.2g}".format)
    source = "measured just now" if measured else f"as {_count(like, 'run')} like them took"
    text = f"Device-{unit}, about: {spell(seconds)} for {_count(known, 'run')}, {source}"
    if workers > 1:
        text += f"; over {workers} workers {spell(seconds / workers)}"
    if unknown:
        why = "which fail in their first steps" if measured else "of other shapes; --calibrate measures them"
        text += f". Not known for {unknown}, {why}"
    return text


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 6000 else f"{seconds / 60:,.0f}"


def _estimate(config: Config) -> Load:
    """Return what a run takes as far as its config tells; distinct prefixes are as many as there can be."""
    sentences, V = _sizes(config)
    order, batch = config.data.order, config.training.batch_size
    assert order is not None
    assert config.artifacts.order is not None
    if batch is None:
        by_length = [min(sentences, V**length) for length in range(1, order)]
        prefixes = sum(by_length)
        wanted = prefixes if config.objective.positions == "all" else by_length[-1]
    else:
        prefixes = V + batch * (order - 2)
        wanted = prefixes if config.objective.positions == "all" else batch
    contexts = V ** (config.artifacts.order - 1)
    if config.objective.outside.method != "none":
        outside = round(config.objective.outside.share * contexts / 2)
        outside = outside if batch is None else max(1, round(outside * batch / sentences))
        prefixes, wanted = prefixes + outside * (order - 1), wanted + outside
    shape = shape_of(values_of(config))
    return load(
        config, (shape, config.training.steps), prefixes=prefixes, wanted=wanted, vocab_size=V, contexts=contexts
    )


def _sizes(config: Config) -> tuple[int, int]:
    """Return about how many training sentences and tokens a run has."""
    if (told := config.data.sizes()) is not None:
        return told
    values = values_of(config)
    path = data_file("kinships.tsv") if config.data.name == "kinships" else values.get("data.path")
    if config.data.name == "text":
        lines, words = _words_of(str(path)), int(values["data.vocab_size"])  # a window begins at every word, about
    elif path:
        lines, words = _file_sizes(path)
    else:
        lines, words = 10_000, 200  # a graph that is not looked at: one of the small ones
    left = lines * (1 - (values.get("data.held_out_fraction") or 0.0))
    return int(values.get("data.num_sentences") or left) or 1, words


@cache
def _file_sizes(path: str) -> tuple[int, int]:
    """Return how many lines and different words a file has."""
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()  # training is the judge
    return len(lines), len({word for line in lines for word in line.replace(",", "\t").split("\t")})


@cache
def _words_of(path: str) -> int:
    """Return how many words a file has between white space."""
    return len(Path(path).read_bytes().split())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
