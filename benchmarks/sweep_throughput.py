"""Whole sweeps against the clock: stacks of models against one model at a time.

    python benchmarks/sweep_throughput.py                          all tables (tens of minutes on two cores)
    python benchmarks/sweep_throughput.py --settings small --write one table, also into benchmarks/README.md
    python benchmarks/sweep_throughput.py --steps 20 --runs-scale 0.1      does it still work?

benchmarks/README.md says what is compared and how. Every measurement is a fresh process in a fresh folder, start-up
included. A variant that fails, and counts that differ between our own variants, end the benchmark before any table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
CORES = len(os.sched_getaffinity(0))

VARIANTS = {
    "stacked": ["hydra/launcher=stacked"],
    "basic": ["hydra/launcher=basic", "hydra/sweeper=basic"],
    "joblib": ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={CORES}", "hydra/sweeper=basic"],
    "plain": [],  # benchmarks/plain_lightning.py, once per run
}
SAMPLED = {"plain": 8}  # runs measured of a variant that is slow and whose time is that of one run times their number
LONG = 300  # seconds; a variant that takes longer is measured once
POLL = 0.2  # seconds between two looks at the memory of a process and its children


# ---------------------------------------------------------------------------------------------------------- what is run


@dataclass(frozen=True)
class Sweep:
    """The runs of one table: every corpus size with every seed."""

    width: int
    vocab_size: int
    sentences: tuple[int, ...]
    seeds: int
    steps: int = 1000
    evaluations: int = 20

    @property
    def runs(self) -> int:
        """The number of runs."""
        return len(self.sentences) * self.seeds

    def sampled(self, runs: int) -> Sweep:
        """Return the same sweep with about so many runs, as many of each size, at least one and no more than now."""
        return replace(self, seeds=min(self.seeds, max(1, runs // len(self.sentences))))

    def with_steps(self, steps: int) -> Sweep:
        """Return the same sweep with other steps, and the most evaluations up to 20 that divide them."""
        return replace(self, steps=steps, evaluations=max(n for n in range(1, 21) if steps % n == 0))

    def overrides(self) -> list[str]:
        """Return what `python -m tc_sweeps -m` is asked for."""
        return [
            f"model.width={self.width}",
            f"data.vocab_size={self.vocab_size}",
            f"training.steps={self.steps}",
            f"training.evaluations={self.evaluations}",
            f"data.num_sentences={','.join(map(str, self.sentences))}",
            f"seed=range(0,{self.seeds})",
            "tracking=offline",
        ]

    def describe(self) -> str:
        """Return the words that stand over the table."""
        sizes = ", ".join(map(str, self.sentences))
        return (
            f"{self.runs} runs: width {self.width}, V = {self.vocab_size}, N = {sizes} ({self.seeds} each), "
            f"{self.steps} steps, {self.evaluations} evaluations, W&B offline"
        )


SWEEPS = {
    "small": Sweep(width=16, vocab_size=64, sentences=(100, 200), seeds=48),
    "medium": Sweep(width=32, vocab_size=100, sentences=(125, 250, 500, 1000), seeds=12),
}
MODEL = Sweep(width=32, vocab_size=100, sentences=(500,), seeds=1)  # the model of the two tables below
STACKS = (1, 8, 64, 512, 1000)
SPLITS = (1, 16)  # alone, and about as many as the launcher packs
CPU_MEMBER_STEPS = 60_000  # a stack on the CPU makes no more of them: a minute at 1 ms each
TABLES = [*SWEEPS, "stacks", "split"]


# ------------------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Process:
    """What a process did."""

    seconds: float
    peak_mib: float  # greatest sum of the resident memory of the process and its children
    output: str
    began: float  # seconds since the epoch


def measure(command: Sequence[str], folder: Path) -> Process:
    """Run a command in a folder to its end; raises RuntimeError with the end of its output where it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "HYDRA_FULL_ERROR"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment["WANDB_ERROR_REPORTING"] = "false"  # W&B reports on its own use, also offline
    with tempfile.TemporaryFile("w+") as output:
        began, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        peak = 0.0
        try:
            while True:
                try:
                    process.wait(POLL)
                    break
                except subprocess.TimeoutExpired:
                    peak = max(peak, _resident_mib(process.pid))
        finally:
            process.kill()
        seconds = time.perf_counter() - clock
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}:\n{text[-3000:]}")
    return Process(seconds, peak, text, began)


def _resident_mib(root: int) -> float:
    """Return the resident memory of a process and all that descends from it; shared pages count in each."""
    children: dict[int, list[int]] = defaultdict(list)
    pages: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children[int(after_name[1])].append(int(stat.parent.name))
        pages[int(stat.parent.name)] = int(after_name[21])
    family, total = [root], 0
    while family:
        pid = family.pop()
        family += children[pid]
        total += pages.get(pid, 0)
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Measured:
    """All measurements of one variant of one sweep."""

    variant: str
    sweep: Sweep  # as it was measured: sampled, or whole
    whole_runs: int
    seconds: list[float] = field(default_factory=list)  # for all runs, scaled where only some were measured
    peak_mib: float = 0.0
    results: pd.DataFrame = field(default_factory=pd.DataFrame)  # one row per run measured

    @property
    def best(self) -> float:
        """The least of the times: what else the machine does can only lengthen them."""
        return min(self.seconds)

    @property
    def scale(self) -> float:
        """All runs over those measured."""
        return self.whole_runs / self.sweep.runs

    def measure_once(self) -> None:
        """Run the variant in a fresh folder and add what it took."""
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            (self._measure_plain if self.variant == "plain" else self._measure_launcher)(Path(name))

    def _measure_launcher(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tc_sweeps", "-m", "sweep=benchmark"]
        process = measure([*command, *VARIANTS[self.variant], *self.sweep.overrides()], folder)
        outputs = folder / "outputs/benchmark"
        start_up = min(path.stat().st_mtime for path in outputs.glob("*/config.yaml")) - process.began
        self._add(process.seconds, process.peak_mib, start_up)  # the start-up is one, however many runs there are
        self.results = pd.read_parquet(outputs / "results.parquet")

    def _measure_plain(self, folder: Path) -> None:
        seconds, peak, rows = 0.0, 0.0, []
        for size in self.sweep.sentences:
            for seed in range(self.sweep.seeds):
                chosen = {
                    "seed": seed,
                    "sentences": size,
                    "vocab-size": self.sweep.vocab_size,
                    "width": self.sweep.width,
                    "steps": self.sweep.steps,
                    "evaluations": self.sweep.evaluations,
                }
                options = [word for key, value in chosen.items() for word in (f"--{key}", str(value))]
                process = measure([sys.executable, str(HERE / "plain_lightning.py"), *options], folder)
                seconds, peak = seconds + process.seconds, max(peak, process.peak_mib)
                [numbers] = [line for line in process.output.splitlines() if line.startswith('{"')]
                rows.append(json.loads(numbers))
        self._add(seconds, peak, start_up=0.0)
        self.results = pd.DataFrame(rows)

    def _add(self, seconds: float, peak_mib: float, start_up: float) -> None:
        self.seconds.append(start_up + (seconds - start_up) * self.scale)
        self.peak_mib = max(self.peak_mib, peak_mib)


def compare(sweep: Sweep, asked: argparse.Namespace) -> list[Measured]:
    """Measure all variants in turn, forwards and backwards, and check that they trained the same models."""
    measured = []
    for variant in asked.variants:
        runs = asked.sample or SAMPLED.get(variant, sweep.runs) if variant in ("joblib", "plain") else sweep.runs
        measured.append(Measured(variant, sweep if asked.full else sweep.sampled(runs), sweep.runs))
    for repeat in range(asked.repeats):
        for one in measured if repeat % 2 == 0 else reversed(measured):
            if one.seconds and one.seconds[0] / one.scale > LONG:
                continue
            one.measure_once()
            say(f"  {one.variant}: {one.seconds[-1]:.1f} s for {one.whole_runs} runs, {one.sweep.runs} measured")
    check_agreement(measured)
    return measured


def check_agreement(measured: Sequence[Measured]) -> None:
    """Raise SystemExit unless all our runs are finished and, on the CPU, count alike whoever launched them.

    The variant `plain` has random numbers of its own; the table shows its mean beside the others'.
    """
    ours = {one.variant: one.results.set_index("run_id") for one in measured if one.variant != "plain"}
    wrong = []
    for one in measured:
        if one.variant == "plain":
            continue
        frame = ours[one.variant]
        if len(frame) != one.sweep.runs:
            wrong.append(f"{one.variant}: {len(frame)} runs in results.parquet where {one.sweep.runs} were asked for")
        wrong += [
            f"{one.variant}: {run_id} is {state}" for run_id, state in frame["state"].items() if state != "finished"
        ]
    reference = "basic" if "basic" in ours else next(iter(ours), None)
    for variant, frame in ours.items():
        assert reference is not None
        common = frame.index.intersection(ours[reference].index)
        if len(common) < min(len(frame), len(ours[reference])):
            wrong.append(f"{variant}: its run ids are not those of {reference}")
        counts, expected = (f.loc[common, "artifacts/count"] for f in (frame, ours[reference]))
        different = common[counts != expected]
        if len(different) and gpu_name():  # a stack equals its members alone within a tolerance there
            greatest = (counts - expected).abs().max()
            say(f"  {variant}: {len(different)} of {len(common)} counts differ, by {greatest} at most")
        elif len(different):
            wrong += [f"{variant}: {i} counts {counts[i]}, {reference} {expected[i]}" for i in different]
    if wrong:
        raise SystemExit("The variants do not agree, no table is written:\n" + "\n".join(wrong))


def sweep_table(measured: Sequence[Measured]) -> str:
    """Return the table of one sweep, a row per variant; times are compared with the first variant's."""
    first = measured[0]
    rows = []
    for one in measured:
        sampled = f"{one.sweep.runs} of {one.whole_runs} measured, scaled"
        per_triple = one.results["artifacts/per_ngram"].mean()
        rows.append(
            {
                "variant": one.variant,
                "runs": str(one.whole_runs) if one.scale == 1 else sampled,
                "seconds, best": f"{one.best:,.1f}",
                "all": ", ".join(f"{seconds:,.1f}" for seconds in one.seconds),
                f"time / {first.variant}": f"{one.best / first.best:.2f}",
                "member-steps/s": f"{one.whole_runs * one.sweep.steps / one.best:,.0f}",
                "peak memory, MiB": f"{one.peak_mib:,.0f}",
                "artifacts per triple": f"{per_triple:.2f}",
            }
        )
    return markdown(rows)


# ------------------------------------------------------------------------------------------------- inside one process


def stacks_table(asked: argparse.Namespace) -> str:
    """Return member-steps per second in training alone for stacks of several sizes, a fresh process each."""
    rows = []
    for members in scaled_sizes(STACKS, asked):
        steps = asked.steps or (MODEL.steps if gpu_name() else min(MODEL.steps, max(20, CPU_MEMBER_STEPS // members)))
        asked_of_it = asdict(replace(MODEL, seeds=members, steps=steps))
        process, numbers = measure_inside("--train-stack", asked_of_it)
        rows.append(
            {
                "members": str(members),
                "steps": str(steps),
                "seconds in training": f"{numbers['seconds']:.2f}",
                "member-steps/s": f"{numbers['member_steps'] / numbers['seconds']:,.0f}",
                "peak memory, MiB": f"{process.peak_mib:,.0f}",
            }
        )
        say(f"  {rows[-1]}")
    return markdown(rows)


def split_table(asked: argparse.Namespace) -> str:
    """Return what a member costs, part by part, in a stack of one and in a larger one."""
    rows = []
    for members in scaled_sizes(SPLITS, asked):
        sweep = replace(MODEL, seeds=members)
        sweep = sweep.with_steps(asked.steps) if asked.steps else sweep
        process, numbers = measure_inside("--split", asdict(sweep))
        numbers["end"] = process.seconds - sum(numbers.values())
        row = {"members": str(members), "steps": str(sweep.steps)}
        row |= {part: f"{seconds / members:.3f}" for part, seconds in numbers.items()}
        rows.append(row | {"all": f"{process.seconds / members:.3f}"})
        say(f"  {rows[-1]}")
    return markdown(rows)


def scaled_sizes(sizes: Sequence[int], asked: argparse.Namespace) -> list[int]:
    """Return the stack sizes that are asked for, increasing."""
    return sorted({max(1, round(size * asked.runs_scale)) for size in sizes})


def measure_inside(mode: str, sweep: dict[str, Any]) -> tuple[Process, dict[str, float]]:
    """Run this script in one of its two hidden modes, which print their numbers last."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        command = [sys.executable, str(Path(__file__).resolve()), mode, json.dumps(sweep), "--began", str(time.time())]
        process = measure(command, Path(name))
    return process, json.loads(process.output.strip().splitlines()[-1])


def composed(sweep: Sweep, **other: Any) -> list[Any]:
    """Return the resolved configs of a sweep of one size."""
    from tc_sweeps.config import resolve

    return [
        resolve(
            {
                "sweep": "benchmark",
                "seed": seed,
                "data": {"vocab_size": sweep.vocab_size, "num_sentences": sweep.sentences[0]},
                "model": {"width": sweep.width},
                "training": {"steps": sweep.steps, "evaluations": sweep.evaluations},
                **other,
            }
        )
        for seed in range(sweep.seeds)
    ]


def train_stack(sweep: Sweep) -> dict[str, float]:
    """Train one stack without counting or recording; returns the seconds and the member-steps of all blocks but one.

    A fifth of the steps are a block; the first one warms up.
    """
    import pytorch_lightning as pl
    import torch

    from tc_sweeps.corpus import build_corpus
    from tc_sweeps.model import CorpusModule, StackModule, ToyTransformer

    torch.set_num_threads(1)  # as a worker does
    blocks = min(5, sweep.steps)
    configs = composed(replace(sweep, evaluations=blocks))
    corpora = [build_corpus(config.data) for config in configs]
    seeds = [config.seed for config in configs]
    model = ToyTransformer(configs[0].model, vocab_size=sweep.vocab_size, max_length=2, seeds=seeds)
    module = StackModule(model, configs)
    marks: list[tuple[int, float]] = []

    class Mark(pl.Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks.append((module.step, time.perf_counter()))

    began = time.perf_counter()
    trainer = pl.Trainer(
        devices=1,
        max_epochs=blocks,
        callbacks=[Mark()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, CorpusModule(corpora, configs))
    (first, warm), (last, end) = marks[0] if blocks > 1 else (0, began), marks[-1]
    return {"seconds": end - warm, "member_steps": float((last - first) * sweep.seeds)}


class Parts:
    """Seconds spent in each part of a process; what a part calls of another part counts there alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open = ["rest"]
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Credit the time since the last change to the innermost part."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Credit what happens inside to a part."""
        self.stop()
        self._open.append(name)
        try:
            yield
        finally:
            self.stop()
            self._open.pop()

    def wrap(self, part: str, owner: Any, *names: str) -> None:
        """Time functions of a module or methods of a class; a name that is not there is an AttributeError."""
        for name in names:
            setattr(owner, name, self._timed(part, getattr(owner, name)))

    def _timed(self, part: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(inner)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return inner(*arguments, **named)

        return timed


def split(sweep: Sweep, began: float) -> dict[str, float]:
    """Train one stack with everything on and return the seconds of each part.

    The package has no timers of its own, so its functions are wrapped from outside: the only place that knows names.
    """
    from tc_sweeps import train
    from tc_sweeps.artifacts import Counter
    from tc_sweeps.model import StackModule
    from tc_sweeps.store import Job, Mirror, RunFolder

    configs = composed(sweep, tracking={"mode": "offline"})
    start_up = time.time() - began
    parts = Parts()
    parts.wrap("corpora", train, "build_corpus", "make_counter")
    parts.wrap("compute", StackModule, "training_step")
    parts.wrap("counting", Counter, "evaluate")
    parts.wrap("last tables", train, "most_confident", "fiber_table")
    writers = ("begin", "write_facts", "add_row", "add_survival", "save_survival", "write_parts", "set_state", "finish")
    parts.wrap("files", RunFolder, *writers)
    parts.wrap("W&B", train, "open_mirror")
    for mirror in Mirror.__subclasses__():
        parts.wrap("W&B", mirror, "log", "log_survival", "summarize", "finish")
    results = train.train([Job.of(config) for config in configs])
    parts.stop()
    unfinished = [result for result in results if result.state != "finished"]
    if unfinished:
        raise SystemExit(f"{len(unfinished)} runs did not finish: {unfinished[0]}")
    order = ["corpora", "compute", "counting", "last tables", "files", "W&B", "rest"]
    return {"start-up": start_up} | {part: parts.seconds[part] for part in order}


# --------------------------------------------------------------------------------------------------------------- saying


def say(text: str) -> None:
    """Tell how far it is, beside the tables on standard output."""
    print(text, file=sys.stderr, flush=True)


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Return a Markdown table; all columns but the first are set to the right."""
    head = list(rows[0])
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *[list(row.values()) for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def gpu_name() -> str:
    """Return the name of the first CUDA device, or nothing; asked of another process, so that this one stays small."""
    question = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
    done = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def machine() -> str:
    """Return the words about device and versions that stand over every table."""
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    processor = named.group(1).strip() if named else "an unnamed processor"
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "pytorch-lightning", "wandb")
    )
    device = f"{gpu_name()}, {processor}" if gpu_name() else processor
    return f"{device}, {CORES} cores, {versions}"


def write(table: str, text: str) -> None:
    """Put a table between its markers in the README; raises SystemExit where they are missing."""
    begin, end = f"<!-- {table} -->", f"<!-- /{table} -->"
    page = README.read_text(encoding="utf-8")
    if begin not in page or end not in page:
        raise SystemExit(f"{README} has no markers {begin} and {end}.")
    before, after = page[: page.index(begin)], page[page.index(end) :]
    README.write_text(f"{before}{begin}\n{text}\n{after}", encoding="utf-8")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--settings", nargs="+", choices=TABLES, default=TABLES, help="the tables to make")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--sample", type=int, metavar="K", help="measure about K runs of joblib and plain and scale up")
    parser.add_argument("--full", action="store_true", help="measure all runs of all variants (plain: 8 by default)")
    parser.add_argument("--repeats", type=int, default=2, help=f"of the variants that take less than {LONG} s")
    parser.add_argument("--steps", type=int, help="optimizer steps, in all tables")
    parser.add_argument("--runs-scale", type=float, default=1.0, metavar="F", help="a share of the runs and members")
    parser.add_argument("--write", action="store_true", help="also write the tables into benchmarks/README.md")
    for hidden in ("--train-stack", "--split", "--began"):  # the modes of `measure_inside`
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Make the tables that are asked for, one after the other."""
    asked = parse(arguments)
    if asked.train_stack:
        print(json.dumps(train_stack(Sweep(**json.loads(asked.train_stack)))))
        return
    if asked.split:
        print(json.dumps(split(Sweep(**json.loads(asked.split)), float(asked.began))))
        return
    asked.variants = [variant for variant in VARIANTS if variant in asked.variants]
    command = shlex.join(["python", "benchmarks/sweep_throughput.py", *arguments])
    load = os.getloadavg()[0]  # of others: nothing of ours has run yet
    # Whoever is measured first shall not be the one that reads the libraries from the disk.
    subprocess.run([sys.executable, "-c", "import hydra, pytorch_lightning, torch, wandb"], check=True)
    for name in asked.settings:
        say(f"{name} ...")
        if name in SWEEPS:
            sweep = SWEEPS[name]
            sweep = replace(sweep, seeds=max(1, round(sweep.seeds * asked.runs_scale)))
            sweep = sweep.with_steps(asked.steps) if asked.steps else sweep
            title, table = sweep.describe(), sweep_table(compare(sweep, asked))
        else:
            unit = "member-steps per second in training" if name == "stacks" else "seconds per member"
            title = f"{unit.capitalize()}, width {MODEL.width}, V = {MODEL.vocab_size}, N = {MODEL.sentences[0]}"
            table = stacks_table(asked) if name == "stacks" else split_table(asked)
        text = f"{title}. {datetime.now(UTC):%Y-%m-%d}, {machine()}, load {load:.1f} before:\n`{command}`\n\n{table}"
        print(f"## {name}\n\n{text}\n", flush=True)
        if asked.write:
            write(name, text)


if __name__ == "__main__":
    main(sys.argv[1:])
