"""The schema of a run: every key, its default and the reason for it, and the checks across keys.

This module is the only home of defaults. It imports no torch, so that `--help` and every check answer at once.
`resolve` turns whatever Hydra composed into a `Config` without open questions: unknown keys are refused, every `null`
that stands for a choice is replaced by that choice, and combinations that cannot train are refused in one sentence.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
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


def key(default: Any, *, identity: bool = True, absent: Any = _NEVER, per_member: bool = False) -> Any:
    """Return a dataclass field for one config key.

    `identity=False` keeps the key out of the run identity: it changes where or how fast a run happens, not its result.
    `absent` is the value at which the key does not enter the identity either; a key that is added later names the value
    that means 'as before', so that the runs made before it keep their ids. `per_member=True`: runs that differ in
    the key can be trained in one stack; all keys of `data` are so where the corpora come out alike in shape.
    """
    metadata = {"identity": identity, "absent": absent, "per_member": per_member}
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
    "generalization/count",
    "generalization/recall",
    "generalization/attainable_recall",
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
)

# -------------------------------------------------------------------------------------------------------- data worlds


@dataclass
class World:
    """What every world has; each world adds its own keys."""

    name: str = key("")
    seed: int | None = key(None)  # null: the run's seed, so that seeds differ in data and in weights
    order: int | None = key(3)  # tokens per sentence; the paper's corpora are triples

    generator: ClassVar[int] = 1  # raised when the same keys would give other sentences; part of the run identity
    contexts: ClassVar[str] = "all"  # the contexts that `artifacts.contexts=null` means in this world


@dataclass
class RandomData(World):
    """Random n-grams without any truth: every artifact is unsupported (the paper's Figures 2 and 3)."""

    name: str = key("random")
    vocab_size: int = key(100)  # V^2 = 10,000 contexts: exact counts cost milliseconds
    num_sentences: int = key(500)  # reaches the paper's band of 5 to 20 artifacts per triple at the default model
    # functional: distinct contexts with one completion each, so that every triple can be fitted to probability 1;
    # uniform: distinct n-grams of V^n, whose contexts may have several completions (threshold 1/2 is then out of reach)
    sampler: str = key("functional")


@dataclass
class TriplesData(World):
    """Any table of tokens: one sentence a line, columns separated by tabs or commas."""

    name: str = key("triples")
    order: int | None = key(None)  # null: the number of `data.columns`, or 3
    path: str | None = key(None)  # relative to where the user stands; its contents, not its place, enter the identity
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


WORLDS: dict[str, type[World]] = {
    "random": RandomData,
    "triples": TriplesData,
    "kinships": KinshipsData,
    "pykeen": PykeenData,
}

# --------------------------------------------------------------------------------------------------- the other groups


@dataclass
class ModelConfig:
    """The toy transformer of the paper: causal, residual, no layer norm, no biases, no positional encodings."""

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


@dataclass
class Objective:
    """What the loss is summed over."""

    positions: str = key("all")  # all: equation (1), every prefix; last: only the last token of each sentence


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
class Artifacts:
    """What is counted."""

    threshold: float = key(0.5)  # at 1/2 a context has at most one artifact; the survival curve covers the rest
    order: int | None = key(None)  # null: data.order
    contexts: str | None = key(None)  # all, typed, or null: the world's choice
    memory_mib: int = key(256, identity=False)  # bound on what a count holds at once, above the model


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
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: Objective = field(default_factory=Objective)
    training: Training = field(default_factory=Training)
    artifacts: Artifacts = field(default_factory=Artifacts)
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
    name = (values.get("data") or {}).get("name", "random")
    _one_of("data.name", name, WORLDS)
    try:
        config = Config(data=WORLDS[name]())
        _set(config, values)
    except _NotPlain:
        config = _converted(name, values)
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


def _converted(world: str, values: dict[Any, Any]) -> Config:
    """Return what OmegaConf makes of the values: it converts types, and refuses what does not fit and unknown keys."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(_schema(world), values))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, Config)
    return config


@cache
def _schema(world: str) -> DictConfig:
    return OmegaConf.structured(Config(data=WORLDS[world]()))  # type: ignore[no-any-return]


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
    return f"Unknown key '{name}'{_nearest(name, error.parent_node)}"


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
    data, model, training, artifacts = config.data, config.model, config.training, config.artifacts
    _require(
        re.fullmatch(r"[^./\\:;,#?'\s][^/\\:;,#?']*", config.sweep) is not None,
        f"sweep='{config.sweep}' must name a folder and a group at W&B: no dot in front, none of / \\ : ; , # ? '.",
    )
    for name, seed in (("seed", config.seed), ("data.seed", data.seed)):
        _require(seed is None or -(2**63) <= seed < 2**63, f"{name}={seed} must fit into 64 bits.")
    _check_data(data)
    _at_least(1, model__width=model.width, model__layers=model.layers, model__heads=model.heads)
    _at_least(1, model__qk_width=model.qk_width, model__vo_width=model.vo_width)
    _at_least(0, model__mlp_width=model.mlp_width)
    _require(
        math.isfinite(model.init_scale) and model.init_scale > 0,
        f"model.init_scale={model.init_scale} must be greater than 0.",
    )
    for name in ("qk_width", "vo_width"):
        _require(
            getattr(model, name) is not None or model.width % model.heads == 0,
            f"model.width={model.width} is not divisible by model.heads={model.heads}: "
            f"choose a multiple, or set model.{name}.",
        )
    _one_of("objective.positions", config.objective.positions, ("all", "last"))
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
    _require(0 < artifacts.threshold < 1, f"artifacts.threshold={artifacts.threshold} must lie between 0 and 1.")
    order = _data_order(data)
    _require(
        artifacts.order is None or 2 <= artifacts.order <= order,
        f"artifacts.order={artifacts.order} must lie between 2 and data.order={order}.",
    )
    _one_of("artifacts.contexts", artifacts.contexts, (None, "all", "typed"))
    _at_least(1, artifacts__memory_mib=artifacts.memory_mib)
    _one_of("tracking.mode", config.tracking.mode, ("offline", "online", "none"))


def _check_data(data: World) -> None:
    order = _data_order(data)
    _require(order >= 2, f"data.order={order} must be at least 2: an n-gram has a context and a last token.")
    _at_least(1, data__num_sentences=getattr(data, "num_sentences", None))
    fraction = getattr(data, "held_out_fraction", 0.0)
    _require(0 <= fraction < 1, f"data.held_out_fraction={fraction} must lie in [0, 1).")
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
    if isinstance(data, PykeenData):
        for column in columns or []:
            _one_of("data.columns", column, ("subject", "relation", "object"))
    if isinstance(data, KinshipsData):
        _require(order <= 3, f"data.order={order}: a kinship fact has 3 tokens.")


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
    model.qk_width = model.qk_width or model.width // model.heads
    model.vo_width = model.vo_width or model.width // model.heads
    artifacts.order = artifacts.order or data.order
    artifacts.contexts = artifacts.contexts or data.contexts
