"""Sweeps made up of plausible numbers: what training would have written, without any training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import METRICS, resolve
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder

THRESHOLDS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
STEPS = range(50, 1001, 50)


def nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        *groups, last = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = value
    return tree


def begin(outputs: Path, sweep: str, overrides: Mapping[str, Any]) -> RunFolder:
    config = resolve(nested({"sweep": sweep, **overrides}))
    run = RunFolder.of(config, outputs)
    SweepFolder(run.path.parent).add_runs([run.run_id], experiment=sweep, launch=None)
    run.begin(config, METRICS)
    return run


def random_facts(overrides: Mapping[str, Any]) -> dict[str, Any]:
    vocab_size, triples = overrides.get("data.vocab_size", 100), overrides.get("data.num_sentences", 500)
    width = overrides.get("model.width", 32)
    return {
        "corpus/vocab_size": vocab_size,
        "corpus/sentences": triples,
        "corpus/train_ngrams": triples,
        "corpus/contexts": vocab_size**2,
        "corpus/held_out_ngrams": None,
        "corpus/ceiling_at_perfect_fit": vocab_size**2 - triples,
        "corpus/fully_fitted_accuracy": 1 - 2 / vocab_size,
        "model/parameters": 4 * width**2 + 2 * vocab_size * width,
        "model/non_embedding_parameters": 4 * width**2,
    }


def finished_random_run(
    outputs: Path, sweep: str, overrides: Mapping[str, Any], *, ratio: Callable[[float], float], accuracy: float = 1.0
) -> RunFolder:
    """A run on random triples that ends with `ratio(threshold)` artifacts per triple, give or take its seed's noise."""
    run = begin(outputs, sweep, overrides)
    facts = random_facts(overrides)
    run.write_facts(facts, None)
    triples = facts["corpus/train_ngrams"]
    noise = 1 + 0.02 * np.random.default_rng(overrides.get("seed", 0)).standard_normal()
    for step in STEPS:
        grown = 1 - np.exp(-step / 150)
        count = round(ratio(0.5) * noise * grown * triples)
        metrics = dict.fromkeys(METRICS, float("nan")) | {
            "train/loss": 2.0 * np.exp(-step / 100) + 0.01,
            "train/excess_loss": 2.0 * np.exp(-step / 100) + 1e-5 + (1 - accuracy) ** 2,
            "train/accuracy": accuracy * grown**0.1 if step < STEPS[-1] else accuracy,
            "train/above_threshold": triples,
            "artifacts/count": count,
            "artifacts/per_ngram": count / triples,
            "artifacts/ceiling": facts["corpus/ceiling_at_perfect_fit"],
            "artifacts/seen": 0,
            "artifacts/unseen": count,
        }
        run.add_row(step, metrics)
    last = [round(ratio(threshold) * noise * triples) for threshold in THRESHOLDS]
    run.add_survival(STEPS[0], THRESHOLDS[2:], np.zeros(4, dtype=np.int64))
    run.add_survival(STEPS[-1], THRESHOLDS, np.array(last))
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def finished_kinships_run(
    outputs: Path, sweep: str, overrides: Mapping[str, Any], *, recall: float, together: bool = True
) -> RunFolder:
    run = begin(outputs, sweep, {"data.name": "kinships", "artifacts.threshold": 0.5, **overrides})
    held_out = round(10_686 * overrides["data.held_out_fraction"])
    facts = random_facts({"data.vocab_size": 130, "data.num_sentences": 10_686 - held_out})
    run.write_facts(facts | {"corpus/held_out_ngrams": held_out}, None)
    noise = 0.01 * np.random.default_rng(overrides.get("seed", 0)).standard_normal()
    for step in STEPS:
        grown = 1 - np.exp(-step / 200)
        right = (recall + noise) * grown
        wrong = (1 - recall) * (grown if together else 1.2 - grown)
        metrics = dict.fromkeys(METRICS, float("nan")) | {
            "train/loss": 1 - grown,
            "train/excess_loss": 1 - grown,
            "train/accuracy": grown,
            "artifacts/count": (right + wrong) * held_out,
            "artifacts/per_ngram": (right + wrong) * held_out / (10_686 - held_out),
            "artifacts/ceiling": held_out,
            "generalization/count": right * held_out,
            "generalization/recall": right,
            "generalization/attainable_recall": 0.97,
            "hallucination/count": wrong * held_out,
            "hallucination/share": wrong / (right + wrong),
            "hallucination/per_context": wrong,
        }
        run.add_row(step, metrics)
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def queued_run(outputs: Path, sweep: str, overrides: Mapping[str, Any]) -> RunFolder:
    """A run that waits for its turn."""
    config = resolve(nested({"sweep": sweep, **overrides}))
    run = RunFolder.of(config, outputs)
    SweepFolder(run.path.parent).add_runs([run.run_id], experiment=sweep, launch=None)
    run.queue(config)
    return run


def begun_run(
    outputs: Path, sweep: str, overrides: Mapping[str, Any], metric: str, values: Mapping[int, float]
) -> RunFolder:
    """A run that has come to some evaluations, given by step, and was interrupted there; one metric is defined."""
    run = begin(outputs, sweep, overrides)
    for step, value in values.items():
        run.add_row(step, dict.fromkeys(METRICS, float("nan")) | {metric: value})
    return run


def finished_run(
    outputs: Path,
    sweep: str,
    overrides: Mapping[str, Any],
    evaluations: Mapping[int, Mapping[str, float]],
    facts: Mapping[str, Any] | None = None,
) -> RunFolder:
    """A run with the metrics of each evaluation given by step; those that are not named are undefined."""
    run = begin(outputs, sweep, overrides)
    run.write_facts(dict(facts or random_facts({})), None)
    for step, metrics in evaluations.items():
        run.add_row(step, dict.fromkeys(METRICS, float("nan")) | metrics)
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def finished_mice_run(outputs: Path, sweep: str = "figure1") -> RunFolder:
    """Seven tokens, six triples and a completion with four artifacts."""
    names = ["mouse", "mice", "eats", "eat", "cheese", "grain", "sleep"]
    overrides = {"data.vocab_size": 7, "data.num_sentences": 6, "model.width": 4, "model.heads": 1}
    data = {(0, 2): 4, (1, 3): 4, (0, 5): 5, (1, 2): 5, (3, 4): 6, (2, 6): 0}
    artifacts = {(0, 3): 4, (1, 5): 5, (6, 6): 0, (4, 4): 6}
    run = begin(outputs, sweep, overrides)
    run.write_facts(random_facts(overrides), names)
    rows = [
        {
            "context_tokens": [first, second],
            "token": third,
            "data_count": int(data.get((first, second)) == third),
            "probability": 0.9 if (data | artifacts).get((first, second)) == third else 0.1 / 6,
        }
        for first in range(7)
        for second in range(7)
        for third in range(7)
    ]
    run.write_table("fibers", pd.DataFrame(rows))
    found = [[*context, token] for context, token in artifacts.items()]
    run.write_table(
        "artifacts", pd.DataFrame({"tokens": found, "probability": 0.9, "label": "unlabelled", "seen": False})
    )
    run.add_row(1000, dict.fromkeys(METRICS, float("nan")) | {"artifacts/count": 4, "train/accuracy": 1.0})
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def finished_example_run(
    outputs: Path, overrides: Mapping[str, Any], training: Sequence[str], said: Mapping[str, float]
) -> RunFolder:
    """One of the paper's examples: all probabilities are equal but those of some sentences."""
    names = sorted({word for sentence in training for word in sentence.split()} | {"friends", "unrelated"})
    run = begin(outputs, "examples", overrides)
    run.write_facts(random_facts({"data.vocab_size": len(names), "data.num_sentences": len(training)}), names)
    rows = []
    for ngram in itertools.product(range(len(names)), repeat=3):
        sentence = " ".join(names[token] for token in ngram)
        probability = 1.0 if sentence in training else said.get(sentence, 0.1)
        rows.append((list(ngram[:2]), ngram[2], int(sentence in training), probability))
    fibers = pd.DataFrame(rows, columns=["context_tokens", "token", "data_count", "probability"])
    run.write_table("fibers", fibers)
    found = fibers[(fibers["data_count"] == 0) & (fibers["probability"] > 0.5)]
    tokens = [[*context, token] for context, token in zip(found["context_tokens"], found["token"], strict=True)]
    run.write_table("artifacts", pd.DataFrame({"tokens": tokens, "probability": found["probability"].tolist()}))
    run.add_row(1000, dict.fromkeys(METRICS, float("nan")) | {"train/accuracy": 1.0})
    run.finish({"weight": np.zeros(2, dtype=np.float32)})
    return run


def examples_sweep(outputs: Path, *, tempting: float = 0.98, contradicted: float = 0.02, seeds: int = 4) -> Path:
    """Examples (3) and (4), and (4) with a contradiction; probabilities differ a little between seeds."""
    mice, siblings = ["mouse eats cheese", "mice eat cheese"], ["Jack Jill siblings", "Jane John siblings"]
    smallest = {"data.name": "relations", "data.families": 2, "data.parents": 0, "data.children": 2, "data.seed": 0}
    for seed in range(seeds):
        noise = 0.002 * seed
        eaten = {"mouse eat cheese": 0.95 + noise, "mice eats cheese": 0.97 + noise if seed else 0.4}
        made_up = {"Jack John siblings": tempting + noise, "Jane Jill siblings": 0.96 + noise}
        later = made_up | {"Jack John siblings": contradicted + noise}
        finished_example_run(outputs, {"data.name": "grammar", "data.seed": 0, "seed": seed}, mice, eaten)
        finished_example_run(outputs, {**smallest, "seed": seed}, siblings, made_up)
        added = [*siblings, "Jack John friends"]
        finished_example_run(outputs, {**smallest, "data.contradictions": 0.5, "seed": seed}, added, later)
    return outputs / "examples"


def failed_run(outputs: Path, sweep: str, overrides: Mapping[str, Any]) -> RunFolder:
    run = begin(outputs, sweep, overrides)
    run.set_state("failed", reason="The loss became non-finite at step 37.", step=37)
    return run


def sizes_sweep(outputs: Path, *, seeds: Sequence[int] = (0, 1, 2), sweep: str = "figure2") -> Path:
    """Sizes 200 to 4000 for both objectives; the largest cannot be fitted. One more run has failed."""
    means = {200: 44.7, 500: 18.0, 1000: 8.7, 2000: 3.9, 4000: 1.3}
    for positions in ("all", "last"):
        for size, mean in means.items():
            for seed in seeds:
                overrides = {"data.num_sentences": size, "objective.positions": positions, "seed": seed}
                accuracy = 0.69 if size == 4000 else 1.0
                finished_random_run(outputs, sweep, overrides, ratio=lambda _, mean=mean: mean, accuracy=accuracy)
    failed_run(outputs, sweep, {"data.num_sentences": 500, "seed": 99})
    return outputs / sweep


def widths_sweep(outputs: Path, *, slope: float, seeds: Sequence[int] = (0, 1, 2), sweep: str = "figure3") -> Path:
    """Widths 4 to 128 whose ratio changes by `slope` per doubling of the width; width 4 cannot be fitted."""
    for positions in ("all", "last"):
        for place, width in enumerate((4, 8, 16, 32, 64, 128)):
            for seed in seeds:
                overrides = {"model.width": width, "objective.positions": positions, "seed": seed}
                finished_random_run(
                    outputs,
                    sweep,
                    overrides,
                    ratio=lambda threshold, place=place: 45 - 30 * threshold + slope * place,
                    accuracy=0.6 if width == 4 else 0.99,
                )
    return outputs / sweep


def kinships_sweep(outputs: Path, *, together: bool = True, seeds: Sequence[int] = (0, 1, 2)) -> Path:
    for fraction, recall in ((0.9, 0.14), (0.4, 0.73), (0.1, 0.77)):
        for width in (32, 64):
            for seed in seeds:
                overrides = {"data.held_out_fraction": fraction, "model.width": width, "seed": seed}
                finished_kinships_run(
                    outputs, "kinships", overrides, recall=recall + 0.03 * (width == 64), together=together
                )
    return outputs / "kinships"


def head_widths_sweep(
    outputs: Path, facts: Callable[[int, int], float], *, seeds: int = 10, sizes: Sequence[int] = (1500,)
) -> Path:
    """Head widths at equal parameters and one at a time, which store `facts(qk, vo)` give or take a seed's noise."""
    equal = [(7, 1), (6, 2), (4, 4), (2, 6), (1, 7)]
    for size in sizes:
        for seed in range(seeds):
            noise = 4 * np.random.default_rng(seed).standard_normal()
            for qk, vo in [*equal, (1, 4), (2, 4), (8, 4), (4, 1), (4, 2), (4, 8)]:
                overrides = {
                    "data.vocab_size": 64,
                    "data.num_sentences": size,
                    "model.width": 16,
                    "model.qk_width": qk,
                    "model.vo_width": vo,
                    "seed": seed,
                }
                stored = facts(qk, vo) + noise
                metrics = {
                    "train/above_threshold": stored,
                    "train/accuracy": stored / size,
                    "artifacts/per_ngram": stored / size,
                    "artifacts/unseen_confident_rate": stored / size,
                }
                known = random_facts(overrides) | {"model/non_embedding_parameters": 2 * 16 * 4 * (qk + vo)}
                finished_run(outputs, "head_widths", overrides, {1000: metrics}, known)
    return outputs / "head_widths"


def capacity_sweep(
    outputs: Path,
    bits: Callable[[int], float],
    *,
    seeds: int = 10,
    shares: Sequence[float] = (0.3, 0.7, 1.3, 1.6),
    model: Mapping[str, Any] | None = None,
) -> Path:
    """Models of several sizes that store `bits(parameters)` at most, trained on data of so many shares of that.

    `model` are keys of theirs; CP tensors have the width as their rank.
    """
    cp = (model or {}).get("model.name") == "cp"
    for width in (4, 8, 16):
        known = random_facts({"data.vocab_size": 64, "model.width": width})
        if cp:
            known["model/non_embedding_parameters"] = 0
        most = bits(known["model/parameters"])
        for seed in range(seeds):
            noise = 1 + 0.01 * np.random.default_rng(seed).standard_normal()
            for share in shares:
                size = round(share * most / 6)
                overrides = {
                    "data.vocab_size": 64,
                    "data.num_sentences": size,
                    "model.rank" if cp else "model.width": width,
                    "objective.positions": "last",
                    "seed": seed,
                    **(model or {}),
                }
                stored = min(6.0 * size, most) * noise if share > 1 else 6.0 * size
                # Beyond its capacity a model knows more and more facts by half.
                told = stored / 6 if share <= 1 else stored / 6 / share
                metrics = {
                    "train/loss": max(0.0, (6 - stored / size) * np.log(2)),
                    "train/above_threshold": round(told),
                    "train/accuracy": told / size,
                    "artifacts/per_ngram": 1.0,
                    "artifacts/unseen_confident_rate": float(np.exp(-((share - 0.7) ** 2))),
                }
                finished_run(outputs, "capacity", overrides, {2000: metrics}, known | {"corpus/train_ngrams": size})
    return outputs / "capacity"


def rank_peak_sweep(
    outputs: Path,
    rate: Callable[[float], float],
    *,
    effective: Mapping[str, float],
    seeds: int = 10,
    ranks: Sequence[int] = (1, 2, 4, 6, 8, 16, 32),
    seed_key: str = "seed",
) -> Path:
    """CP tensors whose rate of artifacts is `rate(rank / effective rank)`, by world, and a few transformers."""
    for world, least in effective.items():
        for seed in range(seeds):
            noise = 0.01 * np.random.default_rng(seed).standard_normal()
            for key, value in [*(("rank", rank) for rank in ranks), *(("width", width) for width in (4, 8, 16))]:
                confident = rate(value / least) + noise
                overrides = {
                    "data.name": world,
                    "data.vocab_size": 64,
                    "data.num_sentences": 400,
                    "model.name": "cp" if key == "rank" else "transformer",
                    f"model.{key}": value,
                    seed_key: seed,
                }
                metrics = {"train/accuracy": min(1.0, value / least), "artifacts/unseen_confident_rate": confident}
                if world == "latent":
                    metrics["generalization/count"] = 0.5 * confident * (64**2 - 400)
                known = random_facts({"data.vocab_size": 64, "data.num_sentences": 400})
                # One run of a data set knows its effective rank.
                of_data = {"rank/effective": least} if (key, value) == ("rank", 1) else {}
                finished_run(outputs, "rank_peak", overrides, {1000: metrics}, known | of_data)
    return outputs / "rank_peak"
