"""What labelling costs on top of counting: the same evaluations with a truth and without one.

    OMP_NUM_THREADS=1 python benchmarks/labelling.py

A model and its corpus are evaluated as in training (`Counter.evaluate`), once knowing what is true and what is held out
and once knowing neither. Both take turns in one process, and the median of the processor's time is told, so that other
processes count for little. `closed`: every context is labelled, as in a grammar; `open`: those that the truth speaks
of. A tenth of all contexts is trained on, and as many or nine times as many are held out. The limit is 30 % on top.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import pstats
import statistics
import time
from collections.abc import Sequence

import torch

from tc_sweeps.artifacts import Counter
from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import ToyTransformer

LIMIT = 1.3
STACKS = (1, 16)  # members of a stack
WORLDS = (("closed", "all", 0.5), ("open", "truth", 0.5), ("open", "truth", 0.9))  # name, labelled, held out
SIZES = (48, 100, 256)  # tokens


def labelled_corpus(vocab_size: int, labelled: str, held_out: float, seed: int) -> Corpus:
    """Return a corpus of random functional triples: a tenth of all contexts to train on, others held out.

    `held_out`: a share of the triples. `labelled`: "all" or "truth", as in `Corpus`.
    """
    trained = vocab_size**2 // 10
    facts = min(round(trained / (1 - held_out)), vocab_size**2)
    data = {"vocab_size": vocab_size, "num_sentences": facts, "seed": seed}
    truth = build_corpus(resolve({"data": data}).data).sentences
    return Corpus(
        vocab_size=vocab_size,
        sentences=truth[:trained],
        held_out=truth[trained:],
        truth=truth,
        labelled=labelled,  # type: ignore[arg-type]
    )


def sharp_stack(corpora: Sequence[Corpus]) -> ToyTransformer:
    """Return a stack of default models whose weights are scaled up, so that many rows are confident, as if trained."""
    model = ToyTransformer(
        resolve({}).model, vocab_size=corpora[0].vocab_size, max_length=2, seeds=list(range(len(corpora)))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5)
    return model


def counter_of(corpora: Sequence[Corpus]) -> Counter:
    """Return the counter that training on these corpora would use."""
    return Counter(
        corpora,
        order=3,
        threshold=0.5,
        contexts="all",
        memory_mib=256,
        device=torch.device("cpu"),
        sees_multisets=True,
    )


def seconds(counter: Counter, model: ToyTransformer) -> float:
    """Return how much of a processor one evaluation takes."""
    began = time.process_time()
    counter.evaluate(model)
    return time.process_time() - began


def main() -> None:
    """Measure, print, and profile what is above the limit if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each row of the table")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="tokens of the vocabulary")
    parser.add_argument("--stacks", type=int, nargs="+", default=STACKS, help="members of a stack")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes in labelled evaluations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| V | stack | labels | held out | plain, ms | labelled, ms | ratio | repeats |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    ratios = []
    for vocab_size in options.sizes:
        for stack in options.stacks:
            for name, labelled, share in WORLDS:
                corpora = [labelled_corpus(vocab_size, labelled, share, seed) for seed in range(stack)]
                blank = [dataclasses.replace(corpus, truth=None, held_out=None) for corpus in corpora]
                model = sharp_stack(corpora)
                counters = [counter_of(blank), counter_of(corpora)]
                times: list[list[float]] = [[], []]
                for counter in counters:  # what is made once, at the first evaluation of a run
                    counter.evaluate(model)
                until = time.perf_counter() + options.seconds
                while time.perf_counter() < until or len(times[0]) < 5:
                    for place in (0, 1) if len(times[0]) % 2 else (1, 0):
                        times[place].append(seconds(counters[place], model))
                plain, with_labels = (1e3 * statistics.median(measured) for measured in times)
                ratios.append(with_labels / plain)
                held_out = len(corpora[0].held_out) if corpora[0].held_out is not None else 0
                print(
                    f"| {vocab_size} | {stack} | {name} | {held_out:,} | {plain:.2f} | {with_labels:.2f} | "
                    f"{ratios[-1]:.2f} | {len(times[0])} |",
                    flush=True,
                )
                if options.profile:
                    profile(counters[1], model)
    print(f"greatest ratio {max(ratios):.2f}, limit {LIMIT}")


def profile(counter: Counter, model: ToyTransformer, repeats: int = 20) -> None:
    """Print the functions in which labelled evaluations spend most of their time."""
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(repeats):
        counter.evaluate(model)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(12)


if __name__ == "__main__":
    main()
