"""How long the search for an effective rank takes, and the facts of a run with `rank.effective=true`.

    OMP_NUM_THREADS=1 python benchmarks/effective_rank.py

Seconds are those of one core's work, so that other processes count for little. The last lines are data sets of
`experiment=claim_c`, one of each of its worlds: what four searches take, and what they come to for all its runs on two
cores. The limits are 20 s for 1,000 random triples of 64 tokens on two cores, and about 1 s for 200 of 32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from tc_sweeps.config import resolve
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.rank import effective_rank, rank_facts

SETS: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "latent, 8 classes": {"name": "latent", "classes": 8},
    "low_rank, rank 4": {"name": "low_rank", "rank": 4},
}
SIZES = ((200, 32), (1000, 64))  # triples and tokens
CLAIM_C: dict[str, dict[str, Any]] = {
    **{f"latent, {classes} classes": {"name": "latent", "classes": classes} for classes in (2, 4, 8, 16)},
    **{f"latent, noise {noise}": {"name": "latent", "classes": 4, "noise": noise} for noise in (0.1, 0.3)},
    **{f"low_rank, rank {rank}": {"name": "low_rank", "rank": rank} for rank in (1, 2, 4, 8)},
    "modular": {"name": "modular", "modulus": 16},
}
RUNS = 550  # of experiment=claim_c


def corpus_of(world: dict[str, Any], triples: int, tokens: int, seed: int = 0) -> Corpus:
    """Return so many training triples of a world, and 90 held-out ones where it has a truth."""
    data = world | {"num_sentences": triples, "seed": seed}
    if world["name"] != "modular":
        data["vocab_size"] = tokens
    if world["name"] != "random":
        data["held_out_fraction"] = 90 / tokens**2
    return build_corpus(resolve({"data": data}).data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--triples", type=int, nargs="+", default=[size for size, _ in SIZES])
    parser.add_argument("--worlds", type=int, default=len(CLAIM_C), help="of claim_c")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| data | triples | V | seconds | rank | stable | consistent |")
    print("| --- | ---: | ---: | ---: | ---: | --- | --- |")
    for triples, tokens in SIZES:
        for name, world in SETS.items() if triples in options.triples else ():
            began = time.process_time()
            found = effective_rank(corpus_of(world, triples, tokens))
            seconds = time.process_time() - began
            shares = ", ".join(f"{rank}: {share:.2f}" for rank, share in found.consistent.items())
            print(f"| {name} | {triples:,} | {tokens} | {seconds:.1f} | {found.rank} | {found.is_stable} | {shares} |")
    taken = []
    for name, world in list(CLAIM_C.items())[: options.worlds]:
        began = time.process_time()
        facts = rank_facts(corpus_of(world, 150, 16), order=3, seed=0)
        taken.append(time.process_time() - began)
        ranks = ", ".join(str(facts[fact]) for fact in list(facts)[:4])
        print(f"| claim_c: {name} | 150 | 16 | {taken[-1]:.1f} | {ranks} | | alone, with test, shuffled, random |")
    if taken:
        mean = sum(taken) / len(taken)
        print(f"claim_c: {mean:.1f} s a data set, {RUNS * mean / 120:.0f} minutes for {RUNS} on two cores")


if __name__ == "__main__":
    main()
