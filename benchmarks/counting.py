"""How fast artifacts are counted: against an eager softmax, against PyKEEN, and against the machine's own ceiling.

    python benchmarks/counting.py --threads 1 --write       # the table of README.md, on an idle machine
    python benchmarks/counting.py --settings 256x32 1024x32x64 --repeats 1
    python benchmarks/counting.py --device cuda --write     # the same on a GPU, by both engines

A setting VxWIDTH[xMEMBERS] is a stack of models with V tokens. All V^3 n-grams are counted up to V = 1024; beyond, and
of stacks, those of as many first tokens as make 2^30 n-grams in all (on a GPU 2^34). Each setting is a process of its
own, in which these take turns, and the least time of each is told:

- `counter`: `Counter.evaluate`, end to end: the hidden states, the count, rows in doubt, the survival curve from 1/2
  on, losses, accuracy and labels; by `artifacts.engine=chunked`, and on a GPU in a row of its own by `flex`;
- `eager`: what one writes without it, frozen here: softmax over chunks of 4,096 contexts, compared with the threshold;
  nothing is decided in float64. `eager, best` is the chunk among several that is fastest;
- `PyKEEN`: `consume_scores` over the same number of (head, relation, tail) scores of a DistMult model of this width, a
  consumer that counts those above a bar. No softmax is taken. (On a CPU, where the extra `kg` is installed, up to
  V = 512; once.)
- `ceiling`: the product of float32 matrices and the powers of 2 of all entries alone, in memory that is taken once.

Memory is the peak of the process, or of the device, above what was held before the count.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tc_sweeps.artifacts import Counter
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus
from tc_sweeps.model import ToyTransformer

README = Path(__file__).parent / "README.md"
SETTINGS = (
    *("256x32", "512x32", "1024x32", "1024x64", "1024x128", "2048x32", "4096x64", "8192x64"),
    *("256x32x64", "1024x32x64"),
)
# Of each vocabulary widths that a tensor core likes, and stacks.
CUDA_SETTINGS = tuple(
    f"{vocab_size}x{shape}" for vocab_size in (256, 512, 1024, 2048, 4096, 8192) for shape in (32, 64, 128, "32x64")
)
ENTRIES = {"cpu": 2**30, "cuda": 2**34}
PIECE_ENTRIES = {"cpu": 2**21, "cuda": 2**26}  # of the ceiling's products, as many as the counter's
MEMORY_MIB = {"cpu": 256, "cuda": 4096}
ENGINES = {"cpu": ["chunked"], "cuda": ["chunked", "flex"]}
THRESHOLD = 0.5
CHUNKS = {"cpu": (512, 1024, 4096), "cuda": (4096, 16384, 65536)}
FROZEN_CHUNK = 4096


def corpus_of(vocab_size: int, firsts: int, seed: int) -> Corpus:
    """Return random functional triples of `firsts` first tokens: five a token, as in the default run, or one if few."""
    generator = torch.Generator().manual_seed(seed)
    last = torch.arange(vocab_size)
    every = torch.stack([last % firsts, last], dim=1)  # so that each token is seen in its place
    drawn = torch.randperm(firsts * vocab_size, generator=generator)[: max(0, 5 * firsts - vocab_size)]
    contexts = torch.cat([every, torch.stack([drawn // vocab_size, drawn % vocab_size], dim=1)]).unique(dim=0)
    answers = torch.randint(vocab_size, (len(contexts), 1), generator=generator)
    return Corpus(vocab_size=vocab_size, sentences=torch.cat([contexts, answers], dim=1), judge_seed=seed)


def stack_of(vocab_size: int, width: int, members: int) -> ToyTransformer:
    """Return untrained models whose weights are scaled up, so that many rows are confident, as if trained."""
    config = resolve({"model": {"width": width}}).model
    model = ToyTransformer(config, vocab_size=vocab_size, max_length=2, seeds=list(range(members)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    return model


@torch.no_grad()
def eager(model: ToyTransformer, contexts_Cm: torch.Tensor, chunk: int) -> torch.Tensor:
    """Return how many n-grams over some contexts are above the threshold, by a softmax over chunks of them, [M]."""
    matrix_MDV = model.unembedding_matrix()
    above_M = torch.zeros(model.num_members, dtype=torch.int64, device=matrix_MDV.device)
    for part_Cm in contexts_Cm.split(max(1, chunk // model.num_members)):
        hidden_MCD = model.last_hidden(part_Cm.expand(model.num_members, -1, -1))
        above_M += (torch.softmax(hidden_MCD @ matrix_MDV, dim=-1) > THRESHOLD).sum((1, 2))
    return above_M


@torch.no_grad()
def ceiling(model: ToyTransformer, rows: int, chunk: int) -> None:
    """Compute the products and the powers that a count of so many rows of each member needs."""
    matrix_MDV = model.unembedding_matrix().contiguous()
    M, D, V = matrix_MDV.shape
    hidden_MCD = torch.randn(M, chunk, D, device=matrix_MDV.device)
    logits_MCV = torch.empty(M, chunk, V, device=matrix_MDV.device)
    for _ in range(rows // chunk):
        torch.matmul(hidden_MCD, matrix_MDV, out=logits_MCV)
        logits_MCV.clamp_(-60, 0).exp2_()


def pykeen_scores(vocab_size: int, firsts: int, width: int) -> Callable[[], object]:
    """Return what scores `vocab_size` heads, `firsts` relations and as many tails as heads."""
    from pykeen.models import DistMult
    from pykeen.predict import AllPredictionDataset, ScoreConsumer, consume_scores
    from pykeen.triples import CoreTriplesFactory

    class Above(ScoreConsumer):
        count = 0

        def __call__(self, batch: torch.Tensor, target: object, scores: torch.Tensor) -> None:  # noqa: ARG002
            self.count += int((scores > THRESHOLD).sum())

    triples = torch.tensor([[0, 0, 0]])
    factory = CoreTriplesFactory(triples, num_entities=vocab_size, num_relations=firsts)
    model = DistMult(triples_factory=factory, embedding_dim=width)
    dataset = AllPredictionDataset(num_entities=vocab_size, num_relations=firsts, target="tail")
    return lambda: consume_scores(model, dataset, Above(), batch_size=1024)


def measure(setting: str, *, engine: str, threads: int, repeats: int, device: str) -> dict[str, float | str | None]:
    """Return what one setting takes with one engine, measured in this process."""
    torch.set_num_threads(threads)
    vocab_size, width, members = [*map(int, setting.split("x")), 1][:3]
    firsts = max(1, min(vocab_size, ENTRIES[device] // (members * vocab_size**2)))
    corpora = [corpus_of(vocab_size, firsts, seed) for seed in range(members)]
    model = stack_of(vocab_size, width, members).to(device)
    on = torch.device(device)

    def counter(corpora: list[Corpus]) -> Counter:
        return Counter(
            corpora,
            order=3,
            threshold=THRESHOLD,
            contexts="typed",
            memory_mib=MEMORY_MIB[device],
            device=on,
            engine=engine,
        )

    small = [corpus_of(vocab_size, 1, seed) for seed in range(members)]
    counter(small).evaluate(model)  # what the libraries take at their first use
    counted = counter(corpora)
    before = held(on)
    row = counted.evaluate(model).rows[0]
    memory = peak(on) - before
    contexts_Cm = torch.cartesian_prod(torch.arange(firsts), torch.arange(vocab_size)).to(on)
    found = int(eager(model, contexts_Cm, FROZEN_CHUNK)[0]) - row["train/above_threshold"]  # type: ignore[operator]
    near = 1e-3 * row["artifacts/count"]  # type: ignore[operator]
    if abs(found - row["artifacts/count"]) > near:  # type: ignore[operator]
        raise SystemExit(f"{setting}: counted {row['artifacts/count']} artifacts, eagerly {found}.")
    rows = len(contexts_Cm)
    piece = max(1, min(rows, PIECE_ENTRIES[device] // (members * vocab_size)))
    variants: dict[str, Callable[[], object]] = {
        "counter": lambda: counted.evaluate(model),
        "ceiling": lambda: ceiling(model, rows, piece),
    }
    variants |= {f"eager {chunk}": lambda chunk=chunk: eager(model, contexts_Cm, chunk) for chunk in CHUNKS[device]}  # type: ignore[misc]
    least = {name: seconds(run, on) for name, run in variants.items()}
    for _ in range(repeats - 1):
        for name, run in variants.items():
            least[name] = min(least[name], seconds(run, on))
    pykeen = None
    if device == "cpu" and members == 1 and vocab_size <= 512 and importlib.util.find_spec("pykeen"):
        pykeen = seconds(pykeen_scores(vocab_size, firsts, width), on)
    best = min(least[f"eager {chunk}"] for chunk in CHUNKS[device])
    return {
        "setting": setting if engine == "chunked" else f"{setting}x{engine}",
        "n-grams": members * firsts * vocab_size**2,
        "seconds": least["counter"],
        "MiB": memory,
        "eager": least[f"eager {FROZEN_CHUNK}"] / least["counter"],
        "eager, best": best / least["counter"],
        "PyKEEN": pykeen and pykeen / least["counter"],
        "of the ceiling": least["ceiling"] / least["counter"],
        "in doubt": row["artifacts/doubtful_share"],
    }


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return how long something takes, all that it asks of the device included."""
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def held(device: torch.device) -> float:
    """Return the memory that is held now, of the device or of the process, in MiB; the peak begins anew on a device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak(device: torch.device) -> float:
    """Return the most memory that was held so far, of the device or of the process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(measured: list[dict[str, float]]) -> str:
    """Return the table in Markdown."""
    names = ["V, width, members", "n-grams", "seconds", "n-grams/s", "MiB", "eager / ours", "eager, best / ours"]
    names += ["PyKEEN / ours", "of the ceiling", "rows in doubt"]
    lines = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    for row in measured:
        cells = [
            str(row["setting"]).replace("x", ", "),
            f"{row['n-grams']:.2g}",
            f"{row['seconds']:.3g}",
            f"{row['n-grams'] / row['seconds']:.2g}",
            f"{row['MiB']:.0f}",
            f"{row['eager']:.1f}",
            f"{row['eager, best']:.1f}",
            "" if row["PyKEEN"] is None else f"{row['PyKEEN']:.0f}",
            f"{100 * row['of the ceiling']:.0f} %",
            f"{100 * row['in doubt']:.2g} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure each setting in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", metavar="VxWIDTH[xMEMBERS]")
    parser.add_argument("--engines", nargs="+", choices=["chunked", "flex"], help="by default those of the device")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--write", action="store_true", help="replace the table of this device and threads in README.md"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        [engine], setting = chosen.engines, chosen.measure
        asked = {"threads": chosen.threads, "repeats": chosen.repeats, "device": chosen.device}
        print(json.dumps(measure(setting, engine=engine, **asked)))
        return
    load = os.getloadavg()[0]
    measured, failed = [], []
    settings = chosen.settings or (CUDA_SETTINGS if chosen.device == "cuda" else SETTINGS)
    for setting, engine in itertools.product(settings, chosen.engines or ENGINES[chosen.device]):
        command = [sys.executable, __file__, "--measure", setting, "--engines", engine]
        command += ["--threads", str(chosen.threads), "--repeats", str(chosen.repeats), "--device", chosen.device]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["nothing was said"])[-1]
            failed.append(f"{setting} with engine {engine} failed: {reason}")
            print(failed[-1], flush=True)
            continue
        measured.append(json.loads(done.stdout.splitlines()[-1]))
        print(table(measured[-1:]).splitlines()[-1], flush=True)
    on = torch.cuda.get_device_name() if chosen.device == "cuda" else processor()
    threads = "" if chosen.device == "cuda" else f", {chosen.threads} thread{'s'[: chosen.threads > 1]}"
    command = " ".join(["python benchmarks/counting.py", *sys.argv[1:]])
    head = f"{datetime.date.today()}, {on}{threads}, torch {torch.__version__}, load {load:.1f} before:\n`{command}`"
    text = "\n\n".join([head, table(measured), *failed])
    print(f"\n{text}")
    if chosen.write:
        name = f"counting {chosen.device}{'' if chosen.device == 'cuda' else f' {chosen.threads}'}"
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = README.read_text().split(begin)
        _, after = rest.split(end)
        README.write_text(f"{before}{begin}{text}\n{end}{after}")
    if failed:
        raise SystemExit(f"{len(failed)} of the settings failed.")


def processor() -> str:
    """Return what this machine calls its processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
