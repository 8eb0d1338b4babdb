"""Sweeps made up of plausible numbers: what training would have written, without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tc_sweeps.config import KinshipsData, resolve
from tc_sweeps.config import key as config_key
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder

METRICS = [
    *("train/loss", "train/excess_loss", "train/accuracy", "train/above_threshold", "test/loss", "test/accuracy"),
    *("artifacts/count", "artifacts/per_ngram", "artifacts/ceiling", "artifacts/seen", "artifacts/unseen"),
    *("artifacts/diagonal", "artifacts/unseen_confident_rate", "artifacts/labelled_share", "generalization/count"),
    *("generalization/recall", "generalization/attainable_recall", "hallucination/count"),
    *("hallucination/per_ngram", "hallucination/share", "hallucination/per_context"),
]
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


@dataclass
class Contradicted(KinshipsData):
    """A world of the tests' own, whose training data may contradict its hallucinations."""

    name: str = config_key("contradicted")
    contradictions: float = config_key(0.0)


def finished_run(
    outputs: Path, sweep: str, overrides: Mapping[str, Any], evaluations: Mapping[int, Mapping[str, float]]
) -> RunFolder:
    """A run with the metrics of each evaluation given by step; those that are not named are undefined."""
    run = begin(outputs, sweep, overrides)
    run.write_facts(random_facts({}), None)
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
