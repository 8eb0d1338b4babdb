"""One run, from config to numbers: the path that everything else hangs on.

config -> `Corpus` -> `ToyTransformer` (a stack of M) -> `StackModule` (loss, optimizer) -> `ArtifactCallback` (counts
on the device at each evaluation) -> one row of numbers per member -> local files and W&B. A single run is a stack of 1.
"""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from tqdm import tqdm

from tc_sweeps.artifacts import METRICS, ArtifactCallback, Counter, Evaluation, fiber_table, most_confident
from tc_sweeps.config import Config, ConfigError
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import CorpusModule, StackModule, ToyTransformer
from tc_sweeps.store import OUTPUTS, Mirror, RunFolder, open_mirror

__all__ = ["Result", "train"]

log = logging.getLogger(__name__)

MOST_CONFIDENT = 10_000  # artifacts kept by name; a table of that many is 200 kB


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: RunFolder
    state: str
    reason: str | None


def train(configs: Sequence[Config], *, outputs: Path = OUTPUTS, job_type: str = "run") -> list[Result]:
    """Train resolved configs of one shape as a stack and return how each ended.

    Everything about a run lies in its folder, `outputs/<sweep>/<run_id>/`, from before the first step. An exception
    marks the members that have not finished as failed, an interrupt as interrupted, and is raised on.
    """
    folders = [RunFolder.of(config, outputs) for config in configs]
    try:
        for folder, config in zip(folders, configs, strict=True):
            folder.begin(config, METRICS)
        corpora = [build_corpus(config.data) for config in configs]
        device = _device(configs[0].training.accelerator)
        model = ToyTransformer(
            configs[0].model,
            vocab_size=corpora[0].vocab_size,
            max_length=corpora[0].order - 1,
            seeds=[config.seed for config in configs],
        )
        counter = make_counter(configs, corpora, device)
        with ExitStack() as open_records:
            records = [
                open_records.enter_context(_Record(config, folder, corpus, model, counter, member, job_type))
                for member, (config, folder, corpus) in enumerate(zip(configs, folders, corpora, strict=True))
            ]
            trainer = _trainer(
                configs[0],
                device,
                ArtifactCallback(counter, lambda evaluation: records[evaluation.member].add(evaluation)),
            )
            trainer.fit(StackModule(model, configs), CorpusModule(corpora, configs[0]))
    except (KeyboardInterrupt, SystemExit) as interrupt:  # Lightning turns both signals into a SystemExit
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and ignores any further Ctrl-C
        _end(folders, "interrupted", "interrupted by a signal; the same command starts the run anew")
        raise KeyboardInterrupt from interrupt
    except Exception as error:
        _end(folders, "failed", f"{type(error).__name__}: {error}")
        raise
    return [Result(folder, folder.status["state"], folder.status["reason"]) for folder in folders]


def _end(folders: Sequence[RunFolder], state: str, reason: str) -> None:
    for folder in folders:
        if folder.status["state"] == "running":
            folder.set_state(state, reason=reason)


def make_counter(configs: Sequence[Config], corpora: Sequence[Corpus], device: torch.device) -> Counter:
    """Return the counter that the configs of a stack ask for."""
    first = configs[0]
    return Counter(
        corpora,
        **_counted(first),
        threshold=first.artifacts.threshold,
        memory_mib=first.artifacts.memory_mib,
        device=device,
        positions=first.objective.positions,
        sees_multisets=first.model.layers == 1 and not first.model.positions,
    )


class _Counted(TypedDict):
    order: int
    contexts: Literal["all", "typed"]


def _counted(config: Config) -> _Counted:
    """Return what a resolved config counts over."""
    assert config.artifacts.order is not None
    return {
        "order": config.artifacts.order,
        "contexts": cast(Literal["all", "typed"], config.artifacts.contexts),
    }


def _device(accelerator: str) -> torch.device:
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ConfigError("training.accelerator=cuda, but this machine has no CUDA device: use auto or cpu.")
    return torch.device("cuda" if accelerator == "cuda" or (accelerator == "auto" and available) else "cpu")


def _trainer(config: Config, device: torch.device, callback: ArtifactCallback) -> pl.Trainer:
    """Return a Lightning trainer whose epoch is one evaluation interval; the store logs and keeps, not Lightning."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Lightning's advice on loaders and optimizers does not fit: one batch lies on the device, AdamW is our own.
    warnings.filterwarnings("ignore", message=".*(many workers|will run with no optimizer|LeafSpec).*")
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=config.training.evaluations,
        callbacks=[callback],
        plugins=[LightningEnvironment()],  # one process: a scheduler's variables do not make it part of a larger job
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _Record:
    """Writes one member's evaluations where they belong: its folder, its mirror at W&B, the progress bar."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        corpus: Corpus,
        model: ToyTransformer,
        counter: Counter,
        member: int,
        job_type: str,
    ) -> None:
        self._config, self._folder, self._corpus, self._model = config, folder, corpus, model
        self._member, self._began = member, time.monotonic()
        facts = counter.facts(member) | {
            "model/parameters": model.num_parameters(embedding=True),
            "model/non_embedding_parameters": model.num_parameters(embedding=False),
        }
        folder.write_facts(facts, corpus.tokens)
        for remark in corpus.remarks:
            log.warning(remark)
        self._mirror: Mirror = open_mirror(config, folder, job_type=job_type)
        self._mirror.summarize(facts)
        self._bar = tqdm(total=config.training.steps, desc=folder.run_id, unit="step", leave=False, disable=None)

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._mirror.finish(self._folder.status["state"])

    def add(self, evaluation: Evaluation) -> None:
        """Write one evaluation; with the last one also the weights and the tables that the report reads."""
        step, folder = evaluation.step, self._folder
        self._bar.update(step - self._bar.n)
        if evaluation.state == "failed":
            reason = f"the loss was not finite at step {step}; a lower training.learning_rate may help"
            folder.set_state("failed", reason=reason, step=step)
            return
        folder.add_row(step, evaluation.metrics)
        folder.add_survival(step, evaluation.thresholds, evaluation.survival)
        finished = evaluation.state == "finished"
        if finished:
            self._mirror.log_survival(step, evaluation.thresholds, evaluation.survival)
        self._mirror.log(step, evaluation.metrics)
        if finished:
            self._finish(evaluation)

    def _finish(self, evaluation: Evaluation) -> None:
        model, artifacts = self._model.member(self._member), self._config.artifacts
        counted = _counted(self._config)
        surest = most_confident(
            model,
            self._corpus,
            threshold=artifacts.threshold,
            **counted,
            limit=MOST_CONFIDENT,
            memory_mib=artifacts.memory_mib,
        )
        self._folder.write_table("artifacts", surest)
        self._folder.write_table("fibers", fiber_table(model, self._corpus, order=counted["order"]))
        self._folder.finish({name: value[0].detach().cpu().numpy() for name, value in model.named_parameters()})
        shown = (
            "train/accuracy",
            "artifacts/count",
            "artifacts/per_ngram",
            "generalization/recall",
            "hallucination/share",
        )
        numbers = [
            f"{name} {evaluation.metrics[name]:.4g}" for name in shown if evaluation.metrics.get(name) is not None
        ]
        seconds = time.monotonic() - self._began
        log.info("%s: %d steps in %.1f s, %s", self._folder.path, evaluation.step, seconds, ", ".join(numbers))
