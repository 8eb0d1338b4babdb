"""The schema of a run: every key, its default and the reason for it, and the checks across keys.

This module is the only home of defaults. It imports no torch, so that `--help` and every check answer at once.
`resolve` turns whatever Hydra composed into a `Config` without open questions: unknown keys are refused, every `null`
that stands for a choice is replaced by that choice, and combinations that cannot train are refused in one sentence.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

__all__ = [
    "METRICS",
    "MODELS",
    "WORLDS",
    "Config",
    "ConfigError",
    "RunFailed",
    "SweepFailed",
    "data_file",
    "explain",
    "leaves",
    "resolve",
]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one sentence that names the key, its value and the mend."""


class RunFailed(RuntimeError):
    """A run that was recorded as failed; the message says why."""


class SweepFailed(RuntimeError):
    """Some jobs of a sweep failed; the others were run."""


_NEVER = object()


def key(
    default: Any, *, identity: bool = True, absent: Any = _NEVER, per_member: bool = False, file: bool = False
) -> Any:
    """Return a dataclass field for one config key.

    `identity=False` keeps the key out of the run identity: it changes where or how fast a run happens, not its result.
    `absent` is the value at which the key does not enter the identity either; a key that is added later names the value
    that means 'as before', so that the runs made before it keep their ids. `per_member=True`: runs that differ in
    the key can be trained in one stack; all keys of `data` are so where the corpora come out alike in shape.
    `file=True`: the key is the path of an input file, whose contents enter the identity, not its place.
    """
    metadata = {"identity": identity, "absent": absent, "per_member": per_member, "file": file}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# ------------------------------------------------------------------------------------------------------------ metrics

# What every evaluation says, in the order of metrics.csv; how each is counted stands in tc_sweeps/artifacts.
METRICS = (
    "train/loss",
    "train/excess_loss",
    "train/accuracy",
    "train/above_threshold",
    "test/loss",
    "test/accuracy",
    "artifacts/count",
    "artifacts/per_ngram",
    "artifacts/ceiling",
    "artifacts/seen",
    "artifacts/unseen",
    "artifacts/diagonal",
    "artifacts/unseen_confident_rate",
    "artifacts/labelled_share",
    "artifacts/count_low",
    "artifacts/count_high",
    "artifacts/doubtful_share",
    "generalization/count",
    "generalization/recall",
    "generalization/attainable_recall",
    "generalization/restored",
    "hallucination/count",
    "hallucination/per_ngram",
    "hallucination/share",
    "hallucination/per_context",
    "abstention/rate",
    "judge/artifacts/count",
    "judge/generalization/count",
    "judge/generalization/recall",
    "judge/hallucination/count",
    "judge/hallucination/share",
    "judge/hallucination/per_context",
    "judge/abstention/rate",
    # Where rank.spectra=true (tc_sweeps/rank/spectra.py); an order has as many unfoldings as places.
    *(
        f"spectra/{matrix}/{measure}"
        for matrix in ("unfolding_1", "unfolding_2", "unfolding_3", "unfolding_4", "query_key", "value_output")
        for measure in ("stable_rank", "nuclear_norm", "numerical_rank")
    ),
)

MOST_UNFOLDINGS = 4  # that have metrics: the greatest order of which spectra can be told

LEAST_THRESHOLD = 1e-30  # of artifacts; float32 holds no number much smaller

# -------------------------------------------------------------------------------------------------------- data worlds


@dataclass
class World:
    """What every world has; each world adds its own keys."""

    name: str = key("")
    seed: int | None = key(None)  # null: the run's seed, so that seeds differ in data and in weights
    order: int | None = key(3)  # tokens per sentence; the paper's corpora are triples
    # Share of the distinct training n-grams that are made to end in a wrong token (tc_sweeps/corpus/noise.py).
    noise: float = key(0.0, absent=0.0)

    generator: ClassVar[int] = 1  # raised when the same keys would give other sentences; part of the run identity
    contexts: ClassVar[str] = "all"  # the contexts that `artifacts.contexts=null` means in this world

    def sizes(self) -> tuple[int, int] | None:
        """Return how many training sentences and tokens the corpus has, or None where its keys do not tell."""
        return None


@dataclass
class RandomData(World):
    """Random n-grams without any truth: every artifact is unsupported (the paper's Figures 2 and 3)."""

    name: str = key("random")
    vocab_size: int = key(100)  # V^2 = 10,000 contexts: exact counts cost milliseconds
    num_sentences: int = key(500)  # reaches the paper's band of 5 to 20 artifacts per triple at the default model
    # functional: distinct contexts with one completion each, so that every triple can be fitted to probability 1;
    # uniform: distinct n-grams of V^n, whose contexts may have several completions (threshold 1/2 is then out of reach)
    sampler: str = key("functional")

    def sizes(self) -> tuple[int, int]:
        """Return how many training sentences and tokens the corpus has."""
        return self.num_sentences, self.vocab_size


@dataclass
class TriplesData(World):
    """Any table of tokens: one sentence a line, columns separated by tabs or commas."""

    name: str = key("triples")
    order: int | None = key(None)  # null: the number of `data.columns`, or 3
    path: str | None = key(
        None, file=True
    )  # relative to where the user stands; its contents, not its place, enter the identity
    # Names (with header) or positions from 0, in the order of the sentence; null: all, and no more than data.order.
    columns: list[Any] | None = key(None)
    header: bool = key(False)
    delimiter: str | None = key(None)  # null: a comma where the path ends in .csv, else a tab
    num_sentences: int | None = key(None)  # training sentences; null: all that are not held out
    held_out_fraction: float = key(0.0)  # share of the distinct contexts


@dataclass
class KinshipsData(World):
    """The Alyawarra kinship data as (subject, object, relation): 10,686 facts, one relation per ordered pair."""

    name: str = key("kinships")
    num_sentences: int | None = key(None)
    held_out_fraction: float = key(0.1)  # enough held-out facts (1,069) for a recall within 1.5 points

    contexts: ClassVar[str] = "typed"  # a person, then a person: only there does the truth speak


@dataclass
class PykeenData(World):
    """Any knowledge graph of PyKEEN, for example umls, nations or kinships; needs the `kg` extra."""

    name: str = key("pykeen")
    dataset: str = key("umls")
    columns: list[Any] = key(["subject", "object", "relation"])  # (head, tail) -> relation is the most functional order
    num_sentences: int | None = key(None)
    held_out_fraction: float = key(0.1)

    contexts: ClassVar[str] = "typed"


@dataclass
class GrammarData(World):
    """A closed world after the paper's (3): sentences agree in number, what is right does not depend on it."""

    name: str = key("grammar")
    # Small enough to count in no time, yet each lemma meets enough others that recall is neither 0 nor 1.
    subjects: int = key(12)  # lemmas, each with a singular and a plural form
    verbs: int = key(8)  # lemmas, likewise
    objects: int = key(16)
    num_sentences: int | None = key(None)  # training sentences; null: all that are not held out
    held_out_fraction: float = key(0.0)  # share of the contexts that agree; all others are held out in any case

    @property
    def agreeing(self) -> int:
        """The number of sentences that agree in number, one for each of their contexts."""
        return 2 * self.subjects * self.verbs

    def sizes(self) -> tuple[int, int]:
        """Return how many training sentences and tokens there are."""
        left = self.agreeing - round(self.held_out_fraction * self.agreeing)
        tokens = 2 * self.subjects + 2 * self.verbs + self.objects
        return left if self.num_sentences is None else self.num_sentences, tokens


@dataclass
class RelationsData(World):
    """A closed world after the paper's (4): families, whose facts follow from others, and people of different ones."""

    name: str = key("relations")
    # As many facts as the grammar has sentences; each person has enough relatives that a role can be learned from half
    # of the facts about them, and recall is neither 0 nor 1.
    families: int = key(6)
    parents: int = key(2)  # of a family; 0, 1 or 2
    children: int = key(6)
    held_out_fraction: float = key(0.5)  # share of the facts within families; these follow from the rest
    # Share of the would-be artifacts' contexts, two people of different families, that are trained with what is true.
    contradictions: float = key(0.0)

    @property
    def family(self) -> int:
        """The number of people in a family."""
        return self.parents + self.children

    @property
    def within(self) -> int:
        """The number of facts within families: one for each ordered pair of relatives."""
        return self.families * self.family * (self.family - 1)

    @property
    def most_held_out(self) -> int:
        """The number of facts within families that may be held out: all but those of its first member about others."""
        return self.families * (self.family - 1) ** 2

    def relations(self) -> list[str]:
        """Return the words for relations that the world has, whether or not they are trained."""
        kin = {"siblings": self.children > 1, "parent": self.parents > 0, "child": self.parents > 0}
        kin["spouses"] = self.parents > 1
        return [word for word, is_there in kin.items() if is_there] + ["friends", "unrelated"]

    def sizes(self) -> tuple[int, int]:
        """Return how many training sentences there are (about, where there are contradictions), and tokens."""
        between = self.families * (self.families - 1) * self.family**2
        sentences = self.within - round(self.held_out_fraction * self.within) + round(self.contradictions * between)
        return sentences, self.families * self.family + len(self.relations())


@dataclass
class FunctionData(World):
    """A world that is known whole: each of the V^(n-1) contexts has one right completion, and W lists all of them."""

    num_sentences: int | None = key(None)  # training sentences; null: all that are not held out
    held_out_fraction: float = key(0.25)  # share of the contexts; 1,024 of 64^2: a recall within 1.6 points

    def vocabulary(self) -> tuple[str, int]:
        """Return the key that sets the number of tokens, and that number."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int]:
        """Return how many training sentences and tokens the corpus has."""
        V = self.vocabulary()[1]
        contexts = V ** (_data_order(self) - 1)
        rest = contexts - round(self.held_out_fraction * contexts)
        return rest if self.num_sentences is None else self.num_sentences, V


@dataclass
class LatentData(FunctionData):
    """Tokens belong to hidden classes, and those of the context decide the last token: structure that can be found."""

    name: str = key("latent")
    vocab_size: int = key(64)  # 4,096 contexts: exact counts cost milliseconds
    classes: int = key(8)  # 64 pairs of classes
    num_sentences: int | None = key(400)  # each pair of classes about 6 times, in a tenth of the contexts

    def vocabulary(self) -> tuple[str, int]:
        """Return the key that sets the number of tokens, and that number."""
        return "vocab_size", self.vocab_size


@dataclass
class ModularData(FunctionData):
    """Addition of the context's tokens modulo a number: a rule that is found long after the data are memorised."""

    name: str = key("modular")
    modulus: int = key(59)  # also the number of tokens; far smaller ones leave too few sums to find the rule from
    held_out_fraction: float = key(0.5)  # so that the rule is found late: see conf/experiment/dynamics.yaml

    def vocabulary(self) -> tuple[str, int]:
        """Return the key that sets the number of tokens, and that number."""
        return "modulus", self.modulus


@dataclass
class LowRankData(FunctionData):
    """The most probable completions of a CP tensor of logits, whose rank is chosen."""

    name: str = key("low_rank")
    vocab_size: int = key(64)  # as in `latent`
    rank: int = key(4)  # about half of the tokens complete some context
    num_sentences: int | None = key(400)  # as in `latent`

    def vocabulary(self) -> tuple[str, int]:
        """Return the key that sets the number of tokens, and that number."""
        return "vocab_size", self.vocab_size


@dataclass
class RatingsData(World):
    """A closed world of pairs: users and the items that they like best, by a matrix of low rank; to be recommended."""

    name: str = key("ratings")
    order: int | None = key(2)  # a user, then an item
    users: int = key(200)
    items: int = key(100)
    rank: int = key(4)  # of the ratings; the likes of a user can be found from far fewer than it has
    likes: int = key(20)  # of each user: the items that it rates highest
    held_out_fraction: float = key(0.2)  # share of the likes of each user; 800 in all: a recall within 1.8 points

    contexts: ClassVar[str] = "typed"  # users

    @property
    def held_out(self) -> int:
        """The number of likes of each user that are held out."""
        return round(self.held_out_fraction * self.likes)

    def sizes(self) -> tuple[int, int]:
        """Return how many training sentences and tokens there are."""
        return self.users * (self.likes - self.held_out), self.users + self.items


# A world that is known whole lists all its contexts: these many take 10 seconds, or a minute in `low_rank`.
MOST_CONTEXTS = 2**20


@dataclass
class TextData(World):
    """Any UTF-8 text: its sentences are the windows of `order` tokens that slide over it; needs the `text` extra."""

    name: str = key("text")
    path: str | None = key(None, file=True)  # as in triples: its contents, not its place, enter the identity
    tokenizer: str = key("words")  # words: the most frequent ones; bpe: pieces of words, trained on the text itself
    vocab_size: int = key(1000)  # at most; V^3 is a billion n-grams, counted in 10 to 15 s on one core
    lowercase: bool = key(False)  # True: The and the are one word
    num_sentences: int | None = key(None)  # training windows; null: all that are not held out
    # Share of the text, in blocks of about 100 tokens: what the model has not read but could have written.
    held_out_fraction: float = key(0.1)


WORLDS: dict[str, type[World]] = {
    "random": RandomData,
    "triples": TriplesData,
    "kinships": KinshipsData,
    "pykeen": PykeenData,
    "grammar": GrammarData,
    "relations": RelationsData,
    "latent": LatentData,
    "modular": ModularData,
    "low_rank": LowRankData,
    "ratings": RatingsData,
    "text": TextData,
}

# --------------------------------------------------------------------------------------------------- the other groups


@dataclass
class ModelConfig:
    """What every model has; each model adds its own keys."""

    name: str = key("", absent="transformer")  # the only model that there was at first
    init_scale: float = key(1.0)

    @property
    def sees_multisets(self) -> bool:
        """Whether all that a model sees of a context is its last token and how often each token is among the others."""
        return False


@dataclass
class TransformerConfig(ModelConfig):
    """The toy transformer of the paper: causal, residual, no layer norm, no biases, no positional encodings."""

    name: str = key("transformer", absent="transformer")
    width: int = key(32)
    layers: int = key(1)
    heads: int = key(4)
    qk_width: int | None = key(None)  # per head; null: width / heads, as in the original transformer
    vo_width: int | None = key(None)  # per head; null: width / heads
    mlp_width: int = key(0)  # 0: attention only
    tied: bool = key(False)  # True: the unembedding is the transposed embedding
    # Standard deviation of the initial embedding, in units of 1 / sqrt(width). Large values memorise without learning
    # what is alike: on 30 % of the kinships recall falls to a third between 1 and 5.66 (LOG.md).
    init_scale: float = key(1.0)
    # The three parts that the paper leaves out, for ablation:
    positions: bool = key(False)  # learned positional encodings
    layer_norm: bool = key(False)  # before each sublayer and before the unembedding
    biases: bool = key(False)  # in the attention projections and the MLP

    @property
    def sees_multisets(self) -> bool:
        """Whether all that a model sees of a context is its last token and how often each token is among the others."""
        return self.layers == 1 and not self.positions


@dataclass
class CPConfig(ModelConfig):
    """A tensor of logits of low CP rank: the n-grams are completed by the products of factors, one for each place."""

    name: str = key("cp", absent="transformer")
    rank: int = key(16)  # fits 500 random triples within 1000 steps
    init_scale: float = key(1.0)  # standard deviation of the initial logits


MODELS: dict[str, type[ModelConfig]] = {"transformer": TransformerConfig, "cp": CPConfig}


@dataclass
class Outside:
    """What is asked of contexts outside the data, so that fewer artifacts appear there (section 3.4 of the paper).

    Never of a context of the judge's half, whatever else is chosen.
    """

    # unsupported: answer them with one more token, which is no artifact. unlikelihood: -log(1 - p), hinge: p - 1/2
    # where p > 1/2 (whatever artifacts.threshold is), for the probability p of the model's surest token. none: the
    # paper's plain loss.
    method: str = key("none", absent="none")
    # random; mined: those where the model is surest, a part after every evaluation; misplaced: those with a token where
    # the data never has it; file: those of `path`, one a line, tokens separated by tabs. Whichever they are, those in
    # the data and the judge's are left out, and `share` is taken of the others, by chance where they are not mined.
    contexts: str = key("random", absent="random")
    share: float = key(0.1, absent=0.1)  # of the contexts that may be taught on, which are about half
    weight: float = key(1.0, absent=1.0, per_member=True)  # of each of them in the loss, in sentences
    path: str | None = key(None, absent=None, file=True)


@dataclass
class Objective:
    """What the loss is summed over, and what is done against artifacts."""

    positions: str = key("all")  # all: equation (1), every prefix; last: only the last token of each sentence
    # Share of every target that is spread evenly over the vocabulary.
    label_smoothing: float = key(0.0, absent=0.0, per_member=True)
    # Share of the sentences that is repeated. The more, the less it singles any out: at 1 the loss is the plain one.
    replay: float = key(0.0, absent=0.0, per_member=True)
    replay_times: int = key(10, absent=10)  # how often each of these occurs then
    outside: Outside = field(default_factory=Outside)


@dataclass
class Training:
    """Optimization: AdamW on the whole corpus, or on minibatches drawn on the device."""

    steps: int = key(1000)
    evaluations: int = key(20)  # times artifacts are counted; the last one is at the last step
    spacing: str = key("even")  # even, or log: evaluations evenly spaced in the logarithm of the step
    batch_size: int | None = key(None)  # sentences a step; null: the full batch
    learning_rate: float = key(1e-2, per_member=True)  # fits 500 random triples within 1000 steps at width 32
    schedule: str = key(
        "constant"
    )  # after the warm-up: constant, or half a cosine that would reach 0 after the last step
    warmup_steps: int = key(0)
    weight_decay: float = key(
        0.0, per_member=True
    )  # decay lowers artifacts by itself: off unless it is what is studied
    beta1: float = key(0.9)
    beta2: float = key(0.999)
    epsilon: float = key(1e-8)
    clip_norm: float | None = key(None)  # greatest gradient norm of one model; null: no clipping
    # Nats per sentence; stop at the first evaluation at or below it.
    target_excess_loss: float | None = key(None, per_member=True)
    accelerator: str = key("auto", identity=False)  # auto, cpu, cuda
    # Between checkpoints, which are written at evaluations; about what a kill costs at most. 0: at every evaluation.
    checkpoint_seconds: float = key(10.0, identity=False)


@dataclass
class Sampling:
    """How artifacts are estimated where their contexts are too many to count (tc_sweeps/artifacts/sampling.py)."""

    # uniform: any context as likely as another, which no other choice beat in models that have learnt their data
    # (benchmarks/README.md); stratified: by what the data say of its tokens, most where most is uncertain; importance:
    # most after the tokens that the model is surest after, for artifacts that are rare.
    method: str = key("uniform", absent="uniform")
    contexts: int = key(
        20_000, absent=20_000
    )  # drawn at most, of each member: within a few percent where artifacts are common
    # A budget of time for each run of a stack at each evaluation; what it leaves room for differs from machine to
    # machine, and so do the numbers. null: none.
    seconds: float | None = key(None, absent=None)
    # Stop at this half width of the interval, as a share of the estimate; null: draw all that the budget allows. The
    # interval holds as often, but since luck with artifacts ends the drawing early, the estimate is up to 2 % too high
    # on average (benchmarks/README.md).
    relative_error: float | None = key(None, absent=None)


@dataclass
class Artifacts:
    """What is counted, and how."""

    threshold: float = key(0.5)  # at 1/2 a context has at most one artifact; the survival curve covers the rest
    order: int | None = key(None)  # null: data.order
    contexts: str | None = key(None)  # all, typed, or null: the world's choice
    # conditional: P(last token | context) above the threshold; joint: P(sentence) above epsilon, all of them listed
    measure: str = key("conditional", absent="conditional")
    epsilon: float | None = key(None, absent=None)  # of measure=joint; null: 1 / (2 N) with N training sentences
    # auto: exact up to `exact_ngrams`, sampled beyond; reference: float64 throughout;
    # chunked: float32, rows in doubt decided in float64; flex: on CUDA, by a fused kernel that has no logits in memory,
    # where every threshold is at least 1/2, else as chunked. The counts of exact engines are the same.
    engine: str = key("auto", absent="auto")
    exact_ngrams: float = key(1e11, absent=1e11)  # a run's n-grams that auto still counts: minutes on one core
    sampling: Sampling = field(default_factory=Sampling)
    # Which artifacts artifacts.parquet holds: the most confident ones, all, or as many drawn at random.
    keep: str = key("top-k", absent="top-k")
    kept: int = key(10_000, absent=10_000)  # at most, unless all are kept: a table of that many is 200 kB
    memory_mib: int = key(256, identity=False)  # bound on what a count holds at once, above the model


@dataclass
class Rank:
    """What is said of ranks beside the artifacts (tc_sweeps/rank)."""

    # Before training, the effective rank of the training data, alone and with true, shuffled and random test data, as
    # `rank/*` in the results: four searches of a second each for 200 triples of 32 tokens, far longer for larger data.
    effective: bool = key(False, absent=False, per_member=True)
    # At every evaluation the spectra of the model: of the unfoldings of its log-probabilities, of its heads' products.
    # Off, since every context costs some time: of a default run a few percent (benchmarks/README.md).
    spectra: bool = key(False, absent=False)


@dataclass
class Tracking:
    """Where Weights & Biases mirrors the run; the local files are written in every mode."""

    mode: str = key("offline", identity=False)  # offline, online, none
    project: str = key("tc_sweeps", identity=False)
    entity: str | None = key(None, identity=False)


@dataclass
class Config:
    """One run."""

    sweep: str = key("scratch", identity=False)  # the folder under outputs/ that the run belongs to
    seed: int = key(0, per_member=True)
    data: World = field(default_factory=RandomData)
    model: ModelConfig = field(default_factory=TransformerConfig)
    objective: Objective = field(default_factory=Objective)
    training: Training = field(default_factory=Training)
    artifacts: Artifacts = field(default_factory=Artifacts)
    rank: Rank = field(default_factory=Rank)
    tracking: Tracking = field(default_factory=Tracking)


# ---------------------------------------------------------------------------------------------------------- resolving


def data_file(name: str) -> str:
    """Return the path of a corpus that the package ships, as `${data_file:NAME}` does in a config."""
    return str(Path(__file__).parent / "corpus" / "files" / name)


OmegaConf.register_new_resolver("data_file", data_file, replace=True)


def resolve(composed: DictConfig | dict[str, Any]) -> Config:
    """Return the `Config` that a composed (or saved) configuration means, with every choice made.

    Raises `ConfigError`, in one sentence, for unknown keys (also those that Hydra lets in with `+`), wrong types and
    combinations that cannot be run.
    """
    values = _container(composed) if isinstance(composed, DictConfig) else composed
    world = (values.get("data") or {}).get("name", "random")
    model = (values.get("model") or {}).get("name", "transformer")
    _one_of("data.name", world, WORLDS)
    _one_of("model.name", model, MODELS)
    try:
        config = Config(data=WORLDS[world](), model=MODELS[model]())
        _set(config, values)
    except _NotPlain:
        config = _converted(world, model, values)
    _check(config)
    _make_choices(config)
    return config


def _container(composed: DictConfig) -> dict[Any, Any]:
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(values, dict)
    return values


def _converted(world: str, model: str, values: dict[Any, Any]) -> Config:
    """Return what OmegaConf makes of the values: it converts types, and refuses what does not fit and unknown keys."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(_schema(world, model), values))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, Config)
    return config


@cache
def _schema(world: str, model: str) -> DictConfig:
    config = Config(data=WORLDS[world](), model=MODELS[model]())
    return OmegaConf.structured(config)  # type: ignore[no-any-return]


class _NotPlain(Exception):
    """There is something to convert or to refuse."""


def _set(config: Any, values: Any) -> None:
    """Set the values of a dataclass tree, if all of them have the very types of their keys.

    What Hydra has composed is so; OmegaConf gives the same then, in ten times the time. Else raises `_NotPlain`.
    """
    types = _types(config.__class__)
    if not isinstance(values, dict) or not values.keys() <= types.keys():
        raise _NotPlain
    for name, value in values.items():
        default = getattr(config, name)
        if is_dataclass(default):
            _set(default, value)
        elif type(value) in types[name] and _is_plain(value):
            setattr(config, name, value)
        else:
            raise _NotPlain


def _is_plain(value: Any) -> bool:
    """Whether a value is neither missing nor an interpolation, nor holds what may be so."""
    if isinstance(value, list):
        return all(isinstance(item, int | float | str) and _is_plain(item) for item in value)
    return not isinstance(value, str) or not (value == "???" or "${" in value)


@cache
def _types(schema: type) -> dict[str, tuple[type, ...]]:
    """Return the types that a value of each key can have, as in {"order": (int, NoneType)}."""
    hints = get_type_hints(schema)
    options = {name: get_args(hint) if isinstance(hint, UnionType) else (hint,) for name, hint in hints.items()}
    return {item.name: tuple(get_origin(hint) or hint for hint in options[item.name]) for item in fields(schema)}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, value, field metadata) for every key of a dataclass tree."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value, item.metadata


def explain(error: BaseException) -> str:
    """Return one sentence for an error of Hydra or OmegaConf, with the nearest key where a key is unknown."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, SweepFailed):  # what made its runs fail has been said
        return str(error)
    for link in chain:
        if isinstance(link, ConfigError):
            return str(link)
        if isinstance(link, yaml.MarkedYAMLError) and link.problem_mark:
            return f"{link.problem_mark.name}, line {link.problem_mark.line + 1}: {link.problem}."
        if override := getattr(link, "override", None):  # that cannot be parsed
            return f"{override} cannot be read: {str(link).splitlines()[0]}."
    for link in chain:
        name = getattr(link, "full_key", None)
        if not isinstance(link, OmegaConfBaseException) or not name:
            continue
        if isinstance(link, ConfigKeyError | ConfigAttributeError):
            return _unknown(str(name), link)
        return f"{name!s}: {str(link).splitlines()[0].rstrip('.')}."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and (several := re.match(r"Ambiguous value for argument '(.*)'$", lines[0])):
        return f"{several[1]}: several values make a sweep, which -m starts."
    if "Config search path:" in lines:  # an unknown choice of a group: the choices matter, not where they were sought
        lines = lines[: lines.index("Config search path:")]
    return " ".join(lines)


def _unknown(name: str, error: OmegaConfBaseException) -> str:
    """Return the sentence for a key that no config has, or not the one that was chosen."""
    if name == "experiment":  # the file's own group, where its keys then stand
        return "The experiment's file does not begin with '# @package _global_': its keys are taken for its own."
    if kind := getattr(error.object_type, "kind", None):
        keys = [item.name for item in fields(error.object_type) if item.name != "_target_"]  # type: ignore[arg-type]
        return f"Unknown key '{name}': {kind} has {', '.join(keys)}."
    group, _, word = name.partition(".")
    if isinstance(error.object_type, type) and issubclass(error.object_type, World | ModelConfig):
        return f"Unknown key '{name}'{_of_choices(group, word, error.object_type)}"
    return f"Unknown key '{name}'{_nearest(name, error.parent_node)}"


def _of_choices(group: str, word: str, chosen: type[World | ModelConfig]) -> str:
    """Return the end of a sentence that says what keys a world (or a model) has, and which others have this one."""
    keys = [item.name for item in fields(chosen)]
    if near := difflib.get_close_matches(word, keys, n=1):
        return f"; did you mean '{group}.{near[0]}'?"
    choices: Mapping[str, type[World | ModelConfig]] = WORLDS if issubclass(chosen, World) else MODELS
    others = [name for name, other in choices.items() if word in {item.name for item in fields(other)}]
    known = f" ({', '.join(others)} {'have' if len(others) > 1 else 'has'} it)" if others else ""
    name = next((name for name, other in choices.items() if other is chosen), None)
    if name is None:  # a file that has no schema
        first = next(iter(others or choices))
        return f"{known}: the file of the group {group} must begin with 'defaults: [/schema/{group}/{first}@_here_]'."
    return f"{known}: {group}={name} has {', '.join(keys)}."


def _nearest(name: str, parent: Any) -> str:
    """Return the end of a sentence that suggests the nearest key of the config in which `name` is unknown."""
    known: list[str] = []
    if isinstance(parent, DictConfig):
        known = list(_dotted(OmegaConf.to_container(parent._get_root(), resolve=False)))
    last = {key.rpartition(".")[2]: key for key in reversed(known)}
    word = name.rpartition(".")[2]
    near = [last[word]] if word in last else difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    near = near or [last[k] for k in difflib.get_close_matches(word, last, n=1, cutoff=0.6)]
    return f"; did you mean '{near[0]}'?" if near else "."


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield f"{prefix}{name}"
            yield from _dotted(value, f"{prefix}{name}.")


def _one_of(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ConfigError(f"{name}={value} is not one of {', '.join(map(str, allowed))}{hint}")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ConfigError(sentence)


def _at_least(low: float, **values: float | None) -> None:
    for name, value in values.items():
        dotted = name.replace("__", ".")
        _require(value is None or (math.isfinite(value) and value >= low), f"{dotted}={value} must be at least {low}.")


def _check(config: Config) -> None:
    """Raise `ConfigError` for the first key or pair of keys that cannot be run."""
    data, training, artifacts = config.data, config.training, config.artifacts
    _require(
        re.fullmatch(r"[^./\\:;,#?'\s][^/\\:;,#?']*", config.sweep) is not None,
        f"sweep='{config.sweep}' must name a folder and a group at W&B: no dot in front, none of / \\ : ; , # ? '.",
    )
    for name, seed in (("seed", config.seed), ("data.seed", data.seed)):
        _require(seed is None or -(2**63) <= seed < 2**63, f"{name}={seed} must fit into 64 bits.")
    _check_data(data)
    _check_model(config.model)
    _check_objective(config)
    _at_least(1, training__steps=training.steps, training__evaluations=training.evaluations)
    _at_least(1, training__batch_size=training.batch_size)
    _at_least(
        0,
        training__warmup_steps=training.warmup_steps,
        training__weight_decay=training.weight_decay,
        training__target_excess_loss=training.target_excess_loss,
        training__checkpoint_seconds=training.checkpoint_seconds,
    )
    _require(
        training.evaluations <= training.steps,
        f"training.evaluations={training.evaluations} is more than training.steps={training.steps}: lower it.",
    )
    _require(
        training.warmup_steps <= training.steps,
        f"training.warmup_steps={training.warmup_steps} is more than training.steps={training.steps}: lower it.",
    )
    for name in ("learning_rate", "epsilon", "clip_norm"):
        value = getattr(training, name)
        _require(
            value is None or (math.isfinite(value) and value > 0), f"training.{name}={value} must be greater than 0."
        )
    for name in ("beta1", "beta2"):
        _require(0 <= getattr(training, name) < 1, f"training.{name}={getattr(training, name)} must lie in [0, 1).")
    _one_of("training.spacing", training.spacing, ("even", "log"))
    _one_of("training.schedule", training.schedule, ("constant", "cosine"))
    _one_of("training.accelerator", training.accelerator, ("auto", "cpu", "cuda"))
    _require(
        LEAST_THRESHOLD <= artifacts.threshold < 1,
        f"artifacts.threshold={artifacts.threshold} must lie between 0 and 1, and be at least {LEAST_THRESHOLD}.",
    )
    order = _data_order(data)
    _require(
        artifacts.order is None or 2 <= artifacts.order <= order,
        f"artifacts.order={artifacts.order} must lie between 2 and data.order={order}.",
    )
    _one_of("artifacts.contexts", artifacts.contexts, (None, "all", "typed"))
    _check_counting(config)
    _check_rank(config)
    _one_of("tracking.mode", config.tracking.mode, ("offline", "online", "none"))


def _check_model(model: ModelConfig) -> None:
    if isinstance(model, CPConfig):
        _at_least(1, model__rank=model.rank)
    if isinstance(model, TransformerConfig):
        _at_least(1, model__width=model.width, model__layers=model.layers, model__heads=model.heads)
        _at_least(1, model__qk_width=model.qk_width, model__vo_width=model.vo_width)
        _at_least(0, model__mlp_width=model.mlp_width)
        for name in ("qk_width", "vo_width"):
            _require(
                getattr(model, name) is not None or model.width % model.heads == 0,
                f"model.width={model.width} is not divisible by model.heads={model.heads}: "
                f"choose a multiple, or set model.{name}.",
            )
    _require(
        math.isfinite(model.init_scale) and model.init_scale > 0,
        f"model.init_scale={model.init_scale} must be greater than 0.",
    )


def _check_counting(config: Config) -> None:
    artifacts, sampling = config.artifacts, config.artifacts.sampling
    _at_least(1, artifacts__memory_mib=artifacts.memory_mib)
    _one_of("artifacts.measure", artifacts.measure, ("conditional", "joint"))
    _one_of("artifacts.engine", artifacts.engine, ("auto", "reference", "chunked", "flex", "sampled"))
    _require(
        artifacts.engine != "flex" or artifacts.threshold >= 0.5,
        f"artifacts.engine=flex knows the greatest entry of a row only, and artifacts.threshold={artifacts.threshold} "
        "is below 1/2: use chunked.",
    )
    _one_of("artifacts.keep", artifacts.keep, ("top-k", "all", "sample"))
    _at_least(1, artifacts__kept=artifacts.kept, artifacts__exact_ngrams=artifacts.exact_ngrams)
    _one_of("artifacts.sampling.method", sampling.method, ("uniform", "stratified", "importance"))
    _require(
        100 <= sampling.contexts <= 10_000_000,
        f"artifacts.sampling.contexts={sampling.contexts} must lie between 100 and 10,000,000.",
    )
    for name in ("seconds", "relative_error"):
        value = getattr(sampling, name)
        _require(
            value is None or (math.isfinite(value) and value > 0),
            f"artifacts.sampling.{name}={value} must be greater than 0.",
        )
    _require(
        artifacts.engine != "sampled" or config.objective.outside.contexts != "mined",
        "artifacts.engine=sampled looks at some contexts only: objective.outside.contexts=mined needs all of them.",
    )
    if artifacts.measure == "joint":
        _require(
            artifacts.epsilon is None or 0 < artifacts.epsilon < 1,
            f"artifacts.epsilon={artifacts.epsilon} must lie between 0 and 1.",
        )
        _require(
            artifacts.keep != "sample",
            "artifacts.keep=sample with artifacts.measure=joint: these artifacts are few, so keep=all.",
        )
        _require(
            config.objective.positions == "all",
            "artifacts.measure=joint needs objective.positions=all: the probability of a sentence is that of each of "
            "its tokens.",
        )
        _require(
            config.objective.outside.contexts != "mined",
            "artifacts.measure=joint looks at sentences, not at every context: no contexts can be mined.",
        )
        _require(
            artifacts.threshold == Artifacts.threshold,
            f"artifacts.threshold={artifacts.threshold} is of artifacts.measure=conditional; artifacts.epsilon is that "
            "of the probability of sentences.",
        )
        _require(
            artifacts.contexts != "typed",
            "artifacts.contexts=typed with artifacts.measure=joint: every sentence is considered; leave it out.",
        )
        _require(
            artifacts.engine == "auto",
            f"artifacts.engine={artifacts.engine} with artifacts.measure=joint: sentences are found by a search over "
            "prefixes, whatever the engine; leave it at auto.",
        )
    else:
        _require(
            artifacts.epsilon is None,
            f"artifacts.epsilon={artifacts.epsilon} is of artifacts.measure=joint; artifacts.threshold is that of "
            "conditional probabilities.",
        )


def _check_rank(config: Config) -> None:
    if not config.rank.spectra:
        return
    order = config.artifacts.order or _data_order(config.data)
    _require(
        order <= MOST_UNFOLDINGS,
        f"rank.spectra=true tells of up to {MOST_UNFOLDINGS} unfoldings: artifacts.order={order} must be no more.",
    )
    _require(
        config.artifacts.engine != "sampled",
        "artifacts.engine=sampled looks at some contexts only: rank.spectra=true needs all of them.",
    )


def _check_objective(config: Config) -> None:
    objective, outside = config.objective, config.objective.outside
    _one_of("objective.positions", objective.positions, ("all", "last"))
    _require(
        0 <= objective.label_smoothing < 1,
        f"objective.label_smoothing={objective.label_smoothing} must lie in [0, 1).",
    )
    _require(0 <= objective.replay < 1, f"objective.replay={objective.replay} must lie in [0, 1).")
    _at_least(1, objective__replay_times=objective.replay_times)
    _one_of("objective.outside.method", outside.method, ("none", "unsupported", "unlikelihood", "hinge"))
    _one_of("objective.outside.contexts", outside.contexts, ("random", "mined", "misplaced", "file"))
    _require(0 < outside.share <= 1, f"objective.outside.share={outside.share} must lie in (0, 1].")
    _at_least(0, objective__outside__weight=outside.weight)
    _require(
        (outside.path is not None) == (outside.contexts == "file"),
        f"objective.outside.path={outside.path} with objective.outside.contexts={outside.contexts}: "
        "contexts=file needs a path, and no other choice takes one.",
    )
    _require(
        outside.contexts != "mined" or config.training.evaluations > 1,
        "objective.outside.contexts=mined finds contexts at evaluations before the last: raise training.evaluations.",
    )


def _check_data(data: World) -> None:
    order = _data_order(data)
    _require(order >= 2, f"data.order={order} must be at least 2: an n-gram has a context and a last token.")
    _at_least(1, data__num_sentences=getattr(data, "num_sentences", None))
    fraction = getattr(data, "held_out_fraction", 0.0)
    _require(0 <= fraction < 1, f"data.held_out_fraction={fraction} must lie in [0, 1).")
    _require(0 <= data.noise < 1, f"data.noise={data.noise} must lie in [0, 1).")
    if isinstance(data, RandomData):
        _at_least(2, data__vocab_size=data.vocab_size)
        _one_of("data.sampler", data.sampler, ("functional", "uniform"))
        places = order - 1 if data.sampler == "functional" else order
        _require(
            places * math.log2(data.vocab_size) < 62,
            f"data.vocab_size={data.vocab_size} with data.order={order} has too many n-grams to number; lower one.",
        )
        room = data.vocab_size**places
        what = "contexts" if data.sampler == "functional" else "n-grams"
        _require(
            data.num_sentences <= room,
            f"data.num_sentences={data.num_sentences} is more than the {room} distinct {what} of "
            f"data.vocab_size={data.vocab_size} at data.order={order}.",
        )
    columns = getattr(data, "columns", None)
    if columns is not None:
        _require(
            all(isinstance(column, int | str) for column in columns),
            f"data.columns={columns} must be names or positions.",
        )
        _require(len(columns) == order, f"data.columns={columns} must name data.order={order} columns.")
        _require(len(set(columns)) == len(columns), f"data.columns={columns} names a column twice.")
    if isinstance(data, TriplesData):
        _require(bool(data.path), "data.path is missing: name the file of tokens, as in data.path=facts.tsv.")
        _require(
            data.delimiter is None or len(data.delimiter) == 1,
            f"data.delimiter={data.delimiter!r} must be a single character.",
        )
        named = [c for c in columns or [] if not isinstance(c, int)]
        _require(data.header or not named, f"data.columns={columns} has names: set data.header=true, or use positions.")
    if isinstance(data, TextData):
        _require(bool(data.path), "data.path is missing: name the file of text, as in data.path=book.txt.")
        _at_least(2, data__vocab_size=data.vocab_size)
        _one_of("data.tokenizer", data.tokenizer, ("words", "bpe"))
    if isinstance(data, PykeenData):
        for column in columns or []:
            _one_of("data.columns", column, ("subject", "relation", "object"))
    if isinstance(data, FunctionData):
        _check_function(data, order)
    if isinstance(data, KinshipsData):
        _require(order <= 3, f"data.order={order}: a kinship fact has 3 tokens.")
    if isinstance(data, GrammarData | RelationsData):
        _require(order == 3, f"data.order={order} must be 3: a sentence of data={data.name} has 3 tokens.")
    if isinstance(data, RatingsData):
        _require(order == 2, f"data.order={order} must be 2: a sentence of data=ratings is a user and an item.")
        _at_least(1, data__users=data.users, data__items=data.items, data__rank=data.rank, data__likes=data.likes)
        _require(data.likes <= data.items, f"data.likes={data.likes} is more than data.items={data.items}; lower it.")
        _require(
            fraction == 0 or 1 <= data.held_out < data.likes,
            f"data.held_out_fraction={fraction} of data.likes={data.likes} holds out {data.held_out} likes of each "
            "user: choose one that holds out some and leaves some.",
        )
    if isinstance(data, GrammarData):
        _at_least(1, data__subjects=data.subjects, data__verbs=data.verbs, data__objects=data.objects)
        left = data.agreeing - round(fraction * data.agreeing)
        _require(
            left >= 1,
            f"data.held_out_fraction={fraction} of {data.agreeing} contexts leaves none to train on; lower it.",
        )
        _require(
            data.num_sentences is None or data.num_sentences <= left,
            f"data.num_sentences={data.num_sentences} is more than the {left} sentences that agree in number and are "
            "not held out; lower it or data.held_out_fraction.",
        )
    if isinstance(data, RelationsData):
        _at_least(2, data__families=data.families)
        _at_least(1, data__children=data.children)
        _require(0 <= data.parents <= 2, f"data.parents={data.parents} must be 0, 1 or 2.")
        _require(
            data.family > 1, f"data.children={data.children} with data.parents=0 is a family of one: raise one of them."
        )
        _require(
            fraction == 0 or round(fraction * data.within) >= 1,
            f"data.held_out_fraction={fraction} of {data.within} facts rounds to none; raise it or set it to 0.",
        )
        _require(
            round(fraction * data.within) <= data.most_held_out,
            f"data.held_out_fraction={fraction} is too much: in a family of {data.family} people at most "
            f"{data.most_held_out} of all {data.within} facts follow from the rest; lower it.",
        )
        share = data.contradictions
        _require(0 <= share <= 1, f"data.contradictions={share} must lie in [0, 1].")


def _check_function(data: FunctionData, order: int) -> None:
    name, V = data.vocabulary()
    _require(V >= 2, f"data.{name}={V} must be at least 2.")
    _require(
        (order - 1) * math.log2(V) <= math.log2(MOST_CONTEXTS),
        f"data.{name}={V} with data.order={order} has more than {MOST_CONTEXTS} contexts, and data={data.name} lists "
        "the completion of each; lower one.",
    )
    if isinstance(data, LatentData):
        _require(1 <= data.classes <= V, f"data.classes={data.classes} must lie between 1 and data.vocab_size={V}.")
    if isinstance(data, LowRankData):
        _at_least(1, data__rank=data.rank)
    contexts = V ** (order - 1)
    rest = contexts - round(data.held_out_fraction * contexts)
    _require(
        data.num_sentences is None or data.num_sentences <= rest,
        f"data.num_sentences={data.num_sentences} is more than the {rest} sentences that are not held out; "
        "lower it or data.held_out_fraction.",
    )


def _data_order(data: World) -> int:
    if data.order is not None:
        return data.order
    return len(getattr(data, "columns", None) or [0, 0, 0])


def _make_choices(config: Config) -> None:
    """Replace every null that stands for a choice by the choice, so that the saved config has no open questions."""
    data, model, artifacts = config.data, config.model, config.artifacts
    data.seed = config.seed if data.seed is None else data.seed
    data.order = _data_order(data)
    if isinstance(data, TriplesData) and data.delimiter is None:
        data.delimiter = "," if str(data.path).endswith(".csv") else "\t"
    if config.objective.outside.method == "none":  # what would be done if anything were is no part of the run
        config.objective.outside = Outside()
    if config.objective.replay == 0:
        config.objective.replay_times = Objective.replay_times
    if isinstance(model, TransformerConfig):
        model.qk_width = model.qk_width or model.width // model.heads
        model.vo_width = model.vo_width or model.width // model.heads
    artifacts.order = artifacts.order or data.order
    artifacts.contexts = artifacts.contexts or ("all" if artifacts.measure == "joint" else data.contexts)
    # What would be done if another engine or measure were chosen is no part of the run either.
    if artifacts.measure == "joint" or artifacts.engine != "auto":
        artifacts.exact_ngrams = Artifacts.exact_ngrams
    if artifacts.measure == "joint" or artifacts.engine in ("reference", "chunked", "flex"):
        artifacts.sampling = Sampling()
    if artifacts.keep == "all":
        artifacts.kept = Artifacts.kept
