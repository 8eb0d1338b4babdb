"""Runs from config to numbers: the path that everything else hangs on.

config -> `Corpus` -> `StackModel` (M toy transformers) -> `StackModule` (loss, optimizer) -> `ArtifactCallback` (counts
on the device at each evaluation) -> one row of numbers per member -> local files and W&B. A single run is a stack of 1.
"""

from __future__ import annotations

import logging
import math
import secrets
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

import pandas as pd
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from tc_sweeps.artifacts import (
    METRICS,
    ArtifactCallback,
    Counter,
    Evaluation,
    JointCounter,
    SampledCounter,
    Scope,
    artifact_sample,
    enumerate_artifacts,
    epsilon_of,
    fiber_table,
    joint_artifacts,
    most_confident,
)
from tc_sweeps.config import Config, ConfigError, leaves
from tc_sweeps.corpus import Corpus, build_corpus
from tc_sweeps.model import (
    CorpusModule,
    Outside,
    StackModel,
    StackModule,
    batch_shape,
    build_model,
    evaluation_steps,
    outside_remarks,
)
from tc_sweeps.rank import RANK_FACTS, Spectra, gram_bytes, rank_facts
from tc_sweeps.store import Checkpoints, Job, Mirror, RunFolder, Saved, Worker, code_version, open_mirror, run_id

__all__ = ["Result", "counted", "device_of", "engine_of", "is_out_of_memory", "ngrams_of", "stack_key", "train"]

log = logging.getLogger(__name__)

SECONDS_PER_NGRAM = 2e-9  # of counting on one core of a CPU; V = 1,000 takes 1.5 to 2 s
SLOW_NGRAMS = 3e10  # a minute
BYTES_PER_SENTENCE = 200  # of the search for joint artifacts

Progress = Callable[[int, int, int], object]
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: RunFolder
    state: str
    reason: str | None


def train(
    jobs: Sequence[Job],
    *,
    job_type: str = "run",
    worker: Worker | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Result]:
    """Train runs that agree in `stack_key` as a stack, each from its checkpoint if it has one.

    Runs whose checkpoints stand at different steps are as many stacks. Everything about a run lies in its folder,
    `outputs/<sweep>/<run_id>/`, from before the first step. Members that fail take nobody with them. An interrupt, an
    error of the system (a full disk) and a want of memory leave the others to be continued by the next call, any other
    exception marks them as failed; all of these are raised on. `worker`: who holds the leases of the runs; a member
    whose lease is lost is not published any more. `progress` is told the member-steps made since it was last told,
    those that are left, and how many runs go on. `stop` is asked at evaluations: once it says so, a checkpoint is
    written and KeyboardInterrupt raised.
    """
    folders = [job.folder for job in jobs]
    try:
        with _one_thread(), ExitStack() as open_mirrors:
            saved = Checkpoints(folders[0].path.parent).find()
            members = [
                open_mirrors.enter_context(_Member(job, corpus, saved.get(job.folder.run_id), job_type, worker))
                for job in jobs
                if (corpus := _corpus(job)) is not None
            ]
            for remark in dict.fromkeys(remark for member in members for remark in member.remarks):
                log.warning(remark)
            if len({stack_key(member.config, member.corpus) for member in members}) > 1:
                raise ValueError("These runs are not alike in shape or shared settings: no stack holds them.")

            def tell(made: int) -> None:
                if progress is not None:
                    progress(made, sum(m.steps_left for m in members), sum(m.running for m in members))

            tell(0)
            steps = sorted({member.step for member in members})
            for stack in [[member for member in members if member.step == step] for step in steps]:
                state, clock = _saved_state(stack), _Clock(stack)
                while stack:
                    stack, state = _fit(stack, state, clock, _Keeper(stack, tell, stop))
    except (KeyboardInterrupt, SystemExit) as interrupt:  # Lightning turns both signals into a SystemExit
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and ignores any further Ctrl-C
        _end(folders, worker, "interrupted", "interrupted by a signal; the same command continues it")
        raise KeyboardInterrupt from interrupt
    except Exception as error:
        if isinstance(error, OSError) or is_out_of_memory(error):
            with suppress(OSError):  # the disk that is full may not take this either; the error itself is raised on
                _end(folders, worker, "interrupted", f"{type(error).__name__}: {error}; the same command continues it")
            raise
        _end(folders, worker, "failed", f"{type(error).__name__}: {error}")
        raise
    return [Result(folder, folder.status["state"], folder.status["reason"]) for folder in folders]


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller stack may get by without this error."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def stack_key(config: Config, corpus: Corpus) -> tuple[Any, ...]:
    """Return what runs have in common that can be trained in one stack: shared settings, and shapes up to buckets."""
    shared = [
        (name, value)
        for name, value, metadata in leaves(config)
        if not metadata["per_member"] and not name.startswith("data.")
    ]
    return *shared, corpus.vocab_size, corpus.order, engine_of(config, corpus), batch_shape(corpus, config)


def _corpus(job: Job) -> Corpus | None:
    """Return the corpus of a run; one that cannot be built or trained on fails the run, and nobody else."""
    config, folder = job.config, job.folder
    try:
        corpus = build_corpus(config.data)
        if run_id(config) != folder.run_id:
            files = [f"{name}={value}" for name, value, metadata in leaves(config) if metadata["file"] and value]
            raise ConfigError(f"{' or '.join(files)} was changed after the launch.")
        engine_of(config, corpus)
        batch_shape(corpus, config)
        return corpus
    except Exception as error:
        folder.begin(config, METRICS)
        folder.set_state(
            "failed", reason=str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        )
        return None


def _rank_facts(job: Job, corpus: Corpus) -> dict[str, float | int | str | None]:
    """Return the ranks of a run's data, which an earlier attempt may have written; at once written themselves.

    They take longer than many a training, so that a run that is killed in between should not begin with them again.
    """
    facts = job.folder.read_facts()
    if not all(name in facts for name in RANK_FACTS):
        data = job.config.data
        assert data.seed is not None
        facts = dict(rank_facts(corpus, order=counted(job.config)["order"], seed=data.seed))
        job.folder.write_facts(facts, corpus.tokens)
    return {name: facts[name] for name in RANK_FACTS}


def _end(folders: Sequence[RunFolder], worker: Worker | None, state: str, reason: str) -> None:
    """Record how runs ended that are not done: those that had begun, and those that cannot begin."""
    ended = ("running", "queued") if state == "failed" else ("running",)
    for folder in folders:
        if folder.status["state"] in ended and (worker is None or worker.holds(folder)):
            folder.set_state(state, reason=reason)


def _fit(
    members: Sequence[_Member], state: State | None, clock: _Clock, keeper: _Keeper
) -> tuple[list[_Member], State]:
    """Train members until all are done, or half of them; return those that are not, with the state they go on from."""
    configs, corpora = [m.config for m in members], [m.corpus for m in members]
    device = device_of(configs[0])
    model = build_model(
        configs[0].model,
        vocab_size=corpora[0].vocab_size,
        max_length=corpora[0].order - 1,
        seeds=[config.seed for config in configs],
        unsupported=configs[0].objective.outside.method == "unsupported",
    )
    evaluations_made = members[0].evaluations_made
    outside = None if configs[0].objective.outside.method == "none" else Outside(corpora, configs)
    module = StackModule(model, configs, outside=outside, evaluations_made=evaluations_made)
    if state is not None:
        module.load_state(state)
    counter = make_counter(configs, corpora, device)
    counts_all = configs[0].artifacts.measure == "conditional" and engine_of(configs[0], corpora[0]) == "exact"
    if evaluations_made == 0 and counts_all and (ngrams := ngrams_of(configs[0], corpora[0])) > SLOW_NGRAMS:
        log.warning(
            "Every evaluation counts over %.1e n-grams of one run, about %.0f minutes on a core: a smaller vocabulary, "
            "artifacts.order or artifacts.contexts=typed makes them fewer, a lower artifacts.exact_ngrams draws some.",
            *(ngrams, ngrams * SECONDS_PER_NGRAM / 60),
        )
    for place, member in enumerate(members):
        member.join(model, counter, place)

    def publish(evaluation: Evaluation) -> None:
        members[evaluation.member].publish(evaluation, clock.seconds_at(evaluation.step))

    counting = ArtifactCallback(counter, publish, beside=make_spectra(configs, corpora, device))
    trainer = _trainer(configs[0].training.evaluations - evaluations_made, device, [counting, keeper])
    trainer.fit(module, CorpusModule(corpora, configs))
    return [member for member in members if member.running], keeper.state(module)


class _Keeper(pl.Callback):
    """Tells the progress, saves checkpoints, ends a stack of which half have ended; all after evaluations."""

    def __init__(self, members: Sequence[_Member], tell: Callable[[int], None], stop: Callable[[], bool]) -> None:
        self._members, self._tell, self._stop = members, tell, stop
        self._running = len(members)
        # Of no other stack, ever: what stands in a checkpoint may be all that its runs have.
        self._name = secrets.token_hex(8)
        self._saved = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look after the members that are not done."""
        assert isinstance(pl_module, StackModule)
        made = pl_module.step - pl_module.blocks[pl_module.blocks.index(pl_module.step) - 1]
        running = [member for member in self._members if member.running]
        self._tell(made * self._running)
        self._running = len(running)
        # The rest of the steps in a stack of their own: cheap on a CPU, whereas a device may have to capture them anew.
        if not running or (pl_module.device.type == "cpu" and 2 * len(running) <= len(self._members)):
            trainer.should_stop = True
        stops = self._stop()
        if running and (stops or time.monotonic() - self._saved >= running[0].config.training.checkpoint_seconds):
            self._save(pl_module, running)
            self._saved = time.monotonic()
        if running and stops:
            raise KeyboardInterrupt

    def _save(self, module: StackModule, running: Sequence[_Member]) -> None:
        folders = [member.folder for member in running]
        for folder in folders:
            folder.save_survival()
        state = {name: value.cpu().numpy() for name, value in self.state(module).items()}
        Checkpoints(folders[0].path.parent).save(self._name, folders, module.step, state)

    def state(self, module: StackModule) -> State:
        """Return the state of the members that are not done."""
        places = torch.tensor([member.place for member in self._members if member.running], dtype=torch.int64)
        return {name: value[places.to(value.device)] for name, value in module.state().items()}


def make_counter(configs: Sequence[Config], corpora: Sequence[Corpus], device: torch.device) -> Counter:
    """Return the counter that the configs of a stack ask for."""
    first, over = configs[0], counted(configs[0])
    settings: dict[str, Any] = {
        "order": over["order"],
        "memory_mib": first.artifacts.memory_mib,
        "device": device,
        "sees_multisets": first.model.sees_multisets,
    }
    if first.artifacts.measure == "joint":
        sentences = sum(_most_sentences(config, corpus) for config, corpus in zip(configs, corpora, strict=True))
        if sentences * BYTES_PER_SENTENCE > first.artifacts.memory_mib << 20:  # though those of each run alone fit
            raise MemoryError(f"artifacts.memory_mib={first.artifacts.memory_mib} does not hold their joint artifacts.")
        return JointCounter(corpora, epsilon=first.artifacts.epsilon, **settings)
    settings |= {
        "contexts": over["contexts"],
        "threshold": first.artifacts.threshold,
        "positions": first.objective.positions,
    }
    if engine_of(first, corpora[0]) == "exact":
        return Counter(corpora, engine=first.artifacts.engine, **settings)
    seeds = [config.seed for config in configs]
    return SampledCounter(corpora, sampling=first.artifacts.sampling, seeds=seeds, **settings)


def make_spectra(configs: Sequence[Config], corpora: Sequence[Corpus], device: torch.device) -> Spectra | None:
    """Return what tells the spectra of a stack, if its configs ask for them."""
    if not configs[0].rank.spectra:
        return None
    places = [corpus.places(**counted(config)) for config, corpus in zip(configs, corpora, strict=True)]
    return Spectra(places, memory_mib=configs[0].artifacts.memory_mib, device=device)


def ngrams_of(config: Config, corpus: Corpus) -> int:
    """Return how many n-grams a count passes: the contexts considered times the vocabulary."""
    return math.prod(len(tokens) for tokens in corpus.places(**counted(config))) * corpus.vocab_size


def _most_sentences(config: Config, corpus: Corpus) -> float:
    """Return how many sentences can have more than epsilon, at most."""
    return min(1 / epsilon_of(corpus, config.artifacts.epsilon), ngrams_of(config, corpus))


def engine_of(config: Config, corpus: Corpus) -> Literal["exact", "sampled"]:
    """Return whether artifacts are counted or estimated; `auto` counts up to `artifacts.exact_ngrams`.

    Raises ConfigError where they are too many even for that, where joint ones may not fit into the memory, and where
    contexts are to be mined or spectra to be told, for which all have to be looked at.
    """
    artifacts, ngrams = config.artifacts, ngrams_of(config, corpus)
    if ngrams >= 1 << 62:
        raise ConfigError(f"{ngrams:.1e} n-grams are too many to number: lower artifacts.order or the vocabulary.")
    if config.rank.spectra:
        _check_spectra(config, corpus, ngrams)
    if artifacts.measure == "joint":
        epsilon = epsilon_of(corpus, artifacts.epsilon)
        if (most := _most_sentences(config, corpus)) * BYTES_PER_SENTENCE > artifacts.memory_mib << 20:
            raise ConfigError(
                f"Up to {most:.1e} sentences can have more than artifacts.epsilon={epsilon:.1e}, which "
                f"artifacts.memory_mib={artifacts.memory_mib} does not hold: raise one of them."
            )
        return "exact"
    auto = artifacts.engine == "auto"
    if artifacts.engine != "sampled" and not (auto and ngrams > artifacts.exact_ngrams):
        return "exact"
    if config.objective.outside.contexts == "mined":
        raise ConfigError(
            f"objective.outside.contexts=mined looks at every context, and {ngrams:.1e} n-grams are more than "
            f"artifacts.exact_ngrams={artifacts.exact_ngrams:.1e}: raise it, or choose other contexts."
        )
    return "sampled"


def _check_spectra(config: Config, corpus: Corpus, ngrams: int) -> None:
    """Raise ConfigError where the contexts, or the tokens of a place, are too many for spectra."""
    artifacts = config.artifacts
    if artifacts.engine == "auto" and ngrams > artifacts.exact_ngrams:
        mend = "leave it out" if artifacts.measure == "joint" else "raise that, or leave the spectra out"
        raise ConfigError(
            f"rank.spectra=true looks at every context, and {ngrams:.1e} n-grams are more than "
            f"artifacts.exact_ngrams={artifacts.exact_ngrams:.1e}: {mend}."
        )
    sizes = [len(tokens) for tokens in corpus.places(**counted(config))]
    if len(sizes) > 1 and (least := -(-gram_bytes(max(sizes)) >> 20)) > artifacts.memory_mib:
        raise ConfigError(
            f"rank.spectra=true needs {least} MiB for the {max(sizes)} tokens of a place, and "
            f"artifacts.memory_mib={artifacts.memory_mib}: raise that, or leave the spectra out."
        )


def _kept(model: StackModel, corpus: Corpus, config: Config) -> Iterable[pd.DataFrame]:
    """Return the artifacts that a run keeps by name, in parts: `artifacts.keep`."""
    artifacts = config.artifacts
    over = counted(config)
    if artifacts.measure == "joint":
        found = joint_artifacts(
            model, corpus, epsilon=artifacts.epsilon, order=over["order"], memory_mib=artifacts.memory_mib
        )
        return [found.tables[0] if artifacts.keep == "all" else found.tables[0].head(artifacts.kept)]
    scope: Scope = {
        "threshold": artifacts.threshold,
        "order": over["order"],
        "contexts": over["contexts"],
        "memory_mib": artifacts.memory_mib,
    }
    if engine_of(config, corpus) == "sampled":  # the contexts are too many to look through
        alone = make_counter([config], [corpus], device_of(config))
        assert isinstance(alone, SampledCounter)
        scope["among"] = alone.looked_at(model)
    if artifacts.keep == "all":
        return enumerate_artifacts(model, corpus, **scope)
    if artifacts.keep == "sample":
        return [artifact_sample(model, corpus, limit=artifacts.kept, seed=config.seed, **scope)]
    return [most_confident(model, corpus, limit=artifacts.kept, **scope)]


class Counted(TypedDict):
    order: int
    contexts: Literal["all", "typed"]


def counted(config: Config) -> Counted:
    """Return what a resolved config counts over."""
    assert config.artifacts.order is not None
    return {
        "order": config.artifacts.order,
        "contexts": cast(Literal["all", "typed"], config.artifacts.contexts),
    }


def device_of(config: Config) -> torch.device:
    """Return the device that a config asks for and this process has.

    Raises ConfigError where there is none, or one that cannot count as the config asks.
    """
    accelerator, available = config.training.accelerator, torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ConfigError("training.accelerator=cuda, but this machine has no CUDA device: use auto or cpu.")
    if accelerator == "cpu" or not available:
        if config.artifacts.engine == "flex":
            raise ConfigError("artifacts.engine=flex counts on a CUDA device only: use auto, or chunked.")
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: the sums of two add up in another order, and cores serve better as workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _trainer(evaluations: int, device: torch.device, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Return a Lightning trainer whose epoch is one evaluation interval; the store logs and keeps, not Lightning."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    # Lightning's advice on loaders and optimizers does not fit: one batch lies on the device, AdamW is our own.
    warnings.filterwarnings("ignore", message=".*(many workers|will run with no optimizer|LeafSpec|`srun` command).*")
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1 if device.index is None else [device.index],
        max_epochs=evaluations,
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # one process: a scheduler's variables do not make it part of a larger job
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _saved_state(members: Sequence[_Member]) -> State | None:
    """Return the state that the members' checkpoints hold, None where they start anew."""
    saved = [member.saved for member in members if member.saved is not None]
    if not saved:
        return None
    arrays = Checkpoints(members[0].folder.path.parent).load(saved)
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


class _Clock:
    """The seconds that each member of a stack took; at every moment those in training share the device equally."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self._members, self._step = members, -1
        self._share, self._then = 0.0, time.monotonic()

    def seconds_at(self, step: int) -> float:
        """Return each running member's seconds up to the evaluation at `step`; asked before any of them ends there."""
        if step > self._step:
            now, running = time.monotonic(), sum(member.running for member in self._members)
            self._share += (now - self._then) / max(1, running)
            self._step, self._then = step, now
        return self._share


class _Member:
    """One run of a stack; writes its evaluations where they belong, its folder and its mirror at W&B."""

    def __init__(self, job: Job, corpus: Corpus, saved: Saved | None, job_type: str, worker: Worker | None) -> None:
        """Begin an attempt at the run, behind its checkpoint where its table reaches that far."""
        self.config, self.folder, self.corpus, self._worker = job.config, job.folder, corpus, worker
        self.saved, self._first = saved, saved.step if saved else 0
        self.step = self._first
        self.evaluations_made = [0, *evaluation_steps(job.config.training)].index(self.step)
        self.running = True
        self._job_type, self._began = job_type, time.monotonic()
        self._visible, self._mirror = False, Mirror()
        job.folder.begin(job.config, METRICS, step=self.step)
        self._rank_facts = _rank_facts(job, corpus) if job.config.rank.effective else {}

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self._mirror.finish(self.folder.status["state"])

    @property
    def remarks(self) -> list[str]:
        """What a user should be told about the data, in whole sentences."""
        return [*self.corpus.remarks, *outside_remarks(self.corpus, self.config)]

    @property
    def steps_left(self) -> int:
        """Optimizer steps up to the last one."""
        return self.config.training.steps - self.step if self.running else 0

    def join(self, model: StackModel, counter: Counter, place: int) -> None:
        """Take a place in a stack; in its first one the run becomes visible."""
        self._model, self.place, self._alone = model, place, model.num_members == 1
        if self._visible:
            return
        self._visible = True
        facts: dict[str, float | int | str | None] = {
            **counter.facts(place),
            "model/parameters": model.num_parameters(embedding=True),
            "model/non_embedding_parameters": model.num_parameters(embedding=False),
            **self._rank_facts,
            "code_version": code_version(),
        }
        self.folder.write_facts(facts, self.corpus.tokens)
        rows = self.folder.rows()
        self._mirror = open_mirror(self.config, self.folder, job_type=self._job_type, rows=rows)
        self._mirror.summarize(facts)

    def publish(self, evaluation: Evaluation, seconds: float) -> None:
        """Write one evaluation; with the last one also the weights and the tables that the report reads.

        `seconds`: what this member took of the device up to now.
        """
        if not self.running:
            return
        step, folder = evaluation.step, self.folder
        if self._worker is not None and not self._worker.holds(folder):
            log.warning("%s was taken over by another worker, which took this one for dead.", folder.path)
            self.running = False
            return
        self.running = evaluation.state == "running"
        self.evaluations_made += 1
        self.step = step
        if evaluation.state == "failed":
            folder.diverge(step)
            return
        folder.add_row(step, evaluation.metrics)
        folder.add_survival(step, evaluation.thresholds, evaluation.survival)
        if evaluation.state == "finished":
            self._mirror.log_survival(step, evaluation.thresholds, evaluation.survival)
        self._mirror.log(step, evaluation.metrics)
        if evaluation.state == "finished":
            self._finish(evaluation, seconds / (step - self._first))
        elif folder.prune_requested:
            self.running = False
            folder.prune(step)

    def _finish(self, evaluation: Evaluation, seconds_per_step: float) -> None:
        model = self._model.member(self.place)
        self.folder.write_parts("artifacts", _kept(model, self.corpus, self.config))
        self.folder.write_table("fibers", fiber_table(model, self.corpus, order=counted(self.config)["order"]))
        # First the mirror, which a run that is killed before its last word shows anew; a finished one never would.
        self._mirror.finish("finished")
        weights = {name: value[0].detach().cpu().numpy() for name, value in model.named_parameters()}
        self.folder.finish(weights, seconds_per_step=seconds_per_step)
        shown = (
            "train/accuracy",
            "artifacts/count",
            "artifacts/per_ngram",
            "artifacts/labelled_share",
            "generalization/recall",
            "hallucination/share",
        )
        numbers = [
            f"{name} {evaluation.metrics[name]:.4g}" for name in shown if evaluation.metrics.get(name) is not None
        ]
        seconds = time.monotonic() - self._began
        level = logging.INFO if self._alone else logging.DEBUG  # a stack says one line for all
        steps = f"steps {self._first} to {evaluation.step}" if self._first else f"{evaluation.step} steps"
        log.log(level, "%s: %s in %.1f s, %s", self.folder.path, steps, seconds, ", ".join(numbers))
