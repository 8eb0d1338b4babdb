"""The schema of a run: what is refused and how, what is chosen, and what is not imported."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tc_sweeps import config
from tc_sweeps.config import MODELS, WORLDS, Config, ConfigError, leaves, resolve


def nested(overrides: dict) -> dict:
    """Return dotted keys as nested dictionaries."""
    values: dict = {}
    for dotted, value in overrides.items():
        *groups, last = dotted.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return values


def refusal(overrides: dict) -> str:
    """Return the sentence with which overrides are refused."""
    with pytest.raises(ConfigError) as error:
        resolve(OmegaConf.create(nested(overrides)))
    return str(error.value)


TRIPLES = {"data.name": "triples", "data.path": "facts.tsv"}
PYKEEN = {"data.name": "pykeen"}
KINSHIPS = {"data.name": "kinships"}
GRAMMAR = {"data.name": "grammar"}
RELATIONS = {"data.name": "relations"}
LATENT = {"data.name": "latent"}
MODULAR = {"data.name": "modular"}
LOW_RANK = {"data.name": "low_rank"}

# ------------------------------------------------------------------------------------------------------- the refusals

REFUSED = [
    ({"data.name": "randm"}, f"data.name=randm is not one of {', '.join(WORLDS)}; did you mean 'random'?"),
    ({"data.name": ""}, "data.name= is not one of"),
    ({"sweep": ""}, "sweep='' must name a folder"),
    ({"sweep": "a/b"}, "sweep='a/b' must name a folder"),
    ({"sweep": "a\\b"}, "sweep='a\\b' must name a folder"),
    ({"sweep": ".."}, "sweep='..' must name a folder"),
    ({"sweep": ".hydra"}, "sweep='.hydra' must name a folder"),
    *(({"sweep": f"a{sign}b"}, f"sweep='a{sign}b' must name a folder") for sign in ":;,#?'"),
    ({"sweep": "."}, "sweep='.' must name a folder"),
    *(({name: 2**63}, f"{name}={2**63} must fit into 64 bits") for name in ("seed", "data.seed")),
    ({"objective.label_smoothing": 1.0}, "objective.label_smoothing=1.0 must lie in [0, 1)"),
    ({"objective.label_smoothing": -0.1}, "objective.label_smoothing=-0.1 must lie in [0, 1)"),
    *(({"objective.replay": value}, f"objective.replay={value} must lie in [0, 1)") for value in (-0.1, 1.0, math.nan)),
    ({"objective.replay_times": 0}, "objective.replay_times=0 must be at least 1"),
    ({"objective.outside.method": "unsuported"}, "did you mean 'unsupported'?"),
    ({"objective.outside.contexts": "mine"}, "did you mean 'mined'?"),
    ({"data.order": 5, "data.vocab_size": 6, "rank.spectra": True}, "tells of up to 4 unfoldings: artifacts.order=5"),
    ({"artifacts.engine": "sampled", "rank.spectra": True}, "rank.spectra=true needs all of them"),
    ({"objective.outside.share": 0.0}, "objective.outside.share=0.0 must lie in (0, 1]"),
    ({"objective.outside.weight": -1.0}, "objective.outside.weight=-1.0 must be at least 0"),
    ({"objective.outside.contexts": "file"}, "contexts=file needs a path"),
    ({"objective.outside.path": "a.tsv"}, "no other choice takes one"),
    (
        {"objective.outside.contexts": "mined", "training.evaluations": 1},
        "objective.outside.contexts=mined finds contexts at evaluations before the last",
    ),
    # data
    ({"data.order": 1}, "data.order=1 must be at least 2"),
    ({"data.order": 0}, "data.order=0 must be at least 2"),
    ({"data.order": -3}, "data.order=-3 must be at least 2"),
    ({"data.num_sentences": 0}, "data.num_sentences=0 must be at least 1"),
    ({**KINSHIPS, "data.num_sentences": -1}, "data.num_sentences=-1 must be at least 1"),
    ({**KINSHIPS, "data.held_out_fraction": 1.0}, "data.held_out_fraction=1.0 must lie in [0, 1)"),
    ({**PYKEEN, "data.held_out_fraction": -0.1}, "data.held_out_fraction=-0.1 must lie in [0, 1)"),
    ({**TRIPLES, "data.held_out_fraction": math.nan}, "data.held_out_fraction=nan must lie in [0, 1)"),
    ({"data.vocab_size": 1}, "data.vocab_size=1 must be at least 2"),
    ({"data.vocab_size": -5}, "data.vocab_size=-5 must be at least 2"),
    ({"data.sampler": "uniforn"}, "data.sampler=uniforn is not one of functional, uniform; did you mean 'uniform'?"),
    (
        {"data.vocab_size": 10, "data.num_sentences": 101},
        "data.num_sentences=101 is more than the 100 distinct contexts of data.vocab_size=10 at data.order=3",
    ),
    (
        {"data.vocab_size": 10, "data.num_sentences": 1001, "data.sampler": "uniform"},
        "data.num_sentences=1001 is more than the 1000 distinct n-grams of data.vocab_size=10 at data.order=3",
    ),
    ({"data.vocab_size": 10**7, "data.order": 4}, "data.vocab_size=10000000 with data.order=4 has too many n-grams"),
    ({"data.order": 2500}, "data.vocab_size=100 with data.order=2500 has too many n-grams"),
    (
        {"data.vocab_size": 2**31, "data.sampler": "uniform"},
        "data.vocab_size=2147483648 with data.order=3 has too",
    ),
    ({**TRIPLES, "data.columns": [[0], 1, 2]}, "data.columns=[[0], 1, 2] must be names or positions"),
    ({**TRIPLES, "data.columns": [0, 1], "data.order": 3}, "data.columns=[0, 1] must name data.order=3 columns"),
    ({**TRIPLES, "data.columns": []}, "data.columns=[] must name data.order=3 columns"),
    ({**TRIPLES, "data.columns": [0, 1, 0]}, "data.columns=[0, 1, 0] names a column twice"),
    ({**TRIPLES, "data.columns": [0, "b"]}, "data.columns=[0, 'b'] has names: set data.header=true"),
    ({"data.name": "triples"}, "data.path is missing"),
    ({**TRIPLES, "data.path": ""}, "data.path is missing"),
    ({**TRIPLES, "data.delimiter": "||"}, "data.delimiter='||' must be a single character"),
    ({**TRIPLES, "data.delimiter": ""}, "data.delimiter='' must be a single character"),
    (
        {**PYKEEN, "data.columns": ["subject", "objekt", "relation"]},
        "data.columns=objekt is not one of subject, relation, object",
    ),
    ({**PYKEEN, "data.columns": [0, 1, 2]}, "data.columns=0 is not one of subject, relation, object"),
    ({**PYKEEN, "data.order": 2}, "must name data.order=2 columns"),
    ({**KINSHIPS, "data.order": 4}, "data.order=4: a kinship fact has 3 tokens"),
    *(
        ({**GRAMMAR, f"data.{name}": value}, f"data.{name}={value} must be at least 1")
        for name in ("subjects", "verbs", "objects", "num_sentences")
        for value in (0, -2)
    ),
    ({**GRAMMAR, "data.order": 2}, "data.order=2 must be 3: a sentence of data=grammar has 3 tokens"),
    ({**GRAMMAR, "data.held_out_fraction": 1.0}, "data.held_out_fraction=1.0 must lie in [0, 1)"),
    ({**GRAMMAR, "data.held_out_fraction": 0.999}, "data.held_out_fraction=0.999 of 192 contexts leaves none"),
    ({**GRAMMAR, "data.num_sentences": 193}, "data.num_sentences=193 is more than the 192 sentences that agree"),
    (
        {**GRAMMAR, "data.num_sentences": 97, "data.held_out_fraction": 0.5},
        "data.num_sentences=97 is more than the 96 sentences that agree in number and are not held out",
    ),
    ({**RELATIONS, "data.order": 4}, "data.order=4 must be 3: a sentence of data=relations has 3 tokens"),
    ({**RELATIONS, "data.families": 1}, "data.families=1 must be at least 2"),
    ({**RELATIONS, "data.children": 0}, "data.children=0 must be at least 1"),
    *(({**RELATIONS, "data.parents": value}, f"data.parents={value} must be 0, 1 or 2") for value in (-1, 3)),
    ({**RELATIONS, "data.parents": 0, "data.children": 1}, "data.children=1 with data.parents=0 is a family of one"),
    *(
        ({**RELATIONS, "data.contradictions": value}, f"data.contradictions={value} must lie in [0, 1]")
        for value in (-0.1, 1.1, math.nan)
    ),
    (
        {**RELATIONS, "data.held_out_fraction": 0.9},
        "data.held_out_fraction=0.9 is too much: in a family of 8 people at most 294 of all 336 facts follow",
    ),
    ({**RELATIONS, "data.held_out_fraction": 0.001}, "data.held_out_fraction=0.001 of 336 facts rounds to none"),
    ({**RELATIONS, "data.held_out_fraction": -0.5}, "data.held_out_fraction=-0.5 must lie in [0, 1)"),
    *(
        ({**world, "data.noise": value}, f"data.noise={value} must lie in [0, 1)")
        for world in ({}, KINSHIPS, MODULAR)
        for value in (1.0, -0.1, math.nan)
    ),
    ({**MODULAR, "data.modulus": 1}, "data.modulus=1 must be at least 2"),
    ({**MODULAR, "data.modulus": -7}, "data.modulus=-7 must be at least 2"),
    ({**MODULAR, "data.modulus": 1025}, "data.modulus=1025 with data.order=3 has more than 1048576 contexts, and"),
    (
        {**LATENT, "data.order": 5},
        "data.vocab_size=64 with data.order=5 has more than 1048576 contexts, and data=latent",
    ),
    ({**LOW_RANK, "data.order": 999}, "data.vocab_size=64 with data.order=999 has more than 1048576 contexts"),
    ({**LATENT, "data.vocab_size": 1}, "data.vocab_size=1 must be at least 2"),
    ({**LATENT, "data.classes": 0}, "data.classes=0 must lie between 1 and data.vocab_size=64"),
    ({**LATENT, "data.classes": 65}, "data.classes=65 must lie between 1 and data.vocab_size=64"),
    ({**LOW_RANK, "data.rank": 0}, "data.rank=0 must be at least 1"),
    (
        {**LATENT, "data.vocab_size": 20, "data.num_sentences": 301},
        "data.num_sentences=301 is more than the 300 sentences that are not held out; lower it or",
    ),
    (
        {**MODULAR, "data.modulus": 7, "data.num_sentences": 26},
        "data.num_sentences=26 is more than the 25 sentences that are not held out",
    ),
    ({**LOW_RANK, "data.held_out_fraction": 1.0}, "data.held_out_fraction=1.0 must lie in [0, 1)"),
    # model
    *(({f"model.{name}": 0}, f"model.{name}=0 must be at least 1") for name in ("width", "layers", "heads")),
    *(({f"model.{name}": 0}, f"model.{name}=0 must be at least 1") for name in ("qk_width", "vo_width")),
    ({"model.width": -8}, "model.width=-8 must be at least 1"),
    ({"model.mlp_width": -1}, "model.mlp_width=-1 must be at least 0"),
    ({"model.init_scale": 0.0}, "model.init_scale=0.0 must be greater than 0"),
    ({"model.init_scale": math.inf}, "model.init_scale=inf must be greater than 0"),
    ({"model.width": 30}, "model.width=30 is not divisible by model.heads=4: choose a multiple, or set model.qk_width"),
    ({"model.width": 30, "model.qk_width": 8}, "model.heads=4: choose a multiple, or set model.vo_width"),
    # objective and training
    ({"objective.positions": "first"}, "objective.positions=first is not one of all, last"),
    *(({f"training.{name}": 0}, f"training.{name}=0 must be at least 1") for name in ("steps", "evaluations")),
    ({"training.batch_size": 0}, "training.batch_size=0 must be at least 1"),
    ({"training.steps": -10}, "training.steps=-10 must be at least 1"),
    ({"training.warmup_steps": 1001}, "training.warmup_steps=1001 is more than training.steps=1000"),
    ({"training.warmup_steps": -1}, "training.warmup_steps=-1 must be at least 0"),
    ({"training.weight_decay": -0.1}, "training.weight_decay=-0.1 must be at least 0"),
    ({"training.weight_decay": math.nan}, "training.weight_decay=nan must be at least 0"),
    ({"training.target_excess_loss": -1.0}, "training.target_excess_loss=-1.0 must be at least 0"),
    ({"training.steps": 10}, "training.evaluations=20 is more than training.steps=10: lower it"),
    *(
        ({f"training.{name}": value}, f"training.{name}={value} must be greater than 0")
        for name in ("learning_rate", "epsilon", "clip_norm")
        for value in (0.0, -0.5, math.nan, math.inf)
    ),
    *(
        ({f"training.{name}": value}, f"training.{name}={value} must lie in [0, 1)")
        for name in ("beta1", "beta2")
        for value in (-0.1, 1.0, math.nan)
    ),
    ({"training.spacing": "linear"}, "training.spacing=linear is not one of even, log"),
    ({"training.schedule": "cosin"}, "training.schedule=cosin is not one of constant, cosine; did you mean 'cosine'?"),
    ({"training.accelerator": "gpu"}, "training.accelerator=gpu is not one of auto, cpu, cuda"),
    # artifacts and tracking
    *(
        ({"artifacts.threshold": value}, f"artifacts.threshold={value} must lie between 0 and 1")
        for value in (0.0, 1.0, 1.5, -0.5, math.nan)
    ),
    ({"artifacts.order": 1}, "artifacts.order=1 must lie between 2 and data.order=3"),
    ({"artifacts.order": 4}, "artifacts.order=4 must lie between 2 and data.order=3"),
    (
        {**TRIPLES, "data.columns": [0, 1], "artifacts.order": 3},
        "artifacts.order=3 must lie between 2 and data.order=2",
    ),
    ({"artifacts.contexts": "type"}, "artifacts.contexts=type is not one of None, all, typed; did you mean 'typed'?"),
    ({"artifacts.memory_mib": 0}, "artifacts.memory_mib=0 must be at least 1"),
    *(
        ({"artifacts.measure": "joint", name: value}, fragment)
        for name, value, fragment in (
            *(("artifacts.epsilon", epsilon, "must lie between 0 and 1") for epsilon in (0.0, 1.0, -0.1, math.nan)),
            ("objective.positions", "last", "artifacts.measure=joint needs objective.positions=all"),
            ("artifacts.threshold", 0.3, "artifacts.threshold=0.3 is of artifacts.measure=conditional"),
            ("artifacts.contexts", "typed", "artifacts.contexts=typed with artifacts.measure=joint"),
            ("artifacts.engine", "chunked", "artifacts.engine=chunked with artifacts.measure=joint"),
            ("objective.outside", {"method": "hinge", "contexts": "mined"}, "no contexts can be mined"),
        )
    ),
    ({"artifacts.epsilon": 0.01}, "artifacts.epsilon=0.01 is of artifacts.measure=joint"),
    ({"tracking.mode": "of"}, "tracking.mode=of is not one of offline, online, none"),
]


@pytest.mark.parametrize(("overrides", "fragment"), REFUSED, ids=lambda part: str(part)[:60])
def test_what_cannot_be_run_is_refused_in_one_sentence_with_key_and_value(overrides, fragment):
    sentence = refusal(overrides)
    assert fragment in sentence
    assert sentence.endswith((".", "?"))
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("overrides", "fragment"),
    [
        ({"training.steps": "many"}, "training.steps: Value 'many'"),
        ({"model.width": 1.5}, "model.width: Value '1.5'"),
        ({"model.tied": "maybe"}, "model.tied: Value 'maybe'"),
        ({"training.learning_rate": [1, 2]}, "training.learning_rate"),
        ({"seed": None}, "seed"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_type_is_refused_with_its_key(overrides, fragment):
    sentence = refusal(overrides)
    assert fragment in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("model.widht", "model.width"),
        ("model.layer", "model.layers"),
        ("training.learning_rat", "training.learning_rate"),
        ("trainig.steps", "training"),
        ("artifact.threshold", "artifacts"),
        ("data.num_sentence", "data.num_sentences"),
        ("data.vocabsize", "data.vocab_size"),
        ("sed", "seed"),
        ("width", "model.width"),
        ("learning_rate", "training.learning_rate"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(unknown, nearest):
    sentence = refusal({unknown: 1})
    named = unknown if "." in nearest else unknown.split(".")[0]  # of an unknown group only the group is named
    assert sentence == f"Unknown key '{named}'; did you mean '{nearest}'?"


def test_an_unknown_key_that_is_like_no_other_gets_no_suggestion():
    assert refusal({"training.zzzzqq": 1}) == "Unknown key 'training.zzzzqq'."


@pytest.mark.parametrize(
    ("world", "unknown"), [(KINSHIPS, "data.vocab_size"), ({}, "data.held_out_fraction"), ({}, "data.path")]
)
def test_a_key_of_another_world_is_refused_and_not_suggested(world, unknown):
    sentence = refusal({**world, unknown: 1})
    assert sentence.startswith(f"Unknown key '{unknown}'")
    assert f"did you mean '{unknown}'" not in sentence
    assert "have it)" in sentence, "the worlds that have it are named"
    assert f"data={world.get('data.name', 'random')} has name, " in sentence


CP = {"model.name": "cp"}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            CP | {"model.width": 8},
            "Unknown key 'model.width' (transformer has it): model=cp has name, init_scale, rank.",
        ),
        (CP | {"model.zzzzqq": 8}, "Unknown key 'model.zzzzqq': model=cp has name, init_scale, rank."),
        (CP | {"model.rnk": 8}, "Unknown key 'model.rnk'; did you mean 'model.rank'?"),
        (CP | {"model.rank": 0}, "model.rank=0 must be at least 1."),
        (CP | {"model.init_scale": 0.0}, "model.init_scale=0.0 must be greater than 0."),
        ({"model.name": "ccp"}, "model.name=ccp is not one of transformer, cp; did you mean 'cp'?"),
    ],
    ids=str,
)
def test_what_a_cp_tensor_cannot_have_is_refused(overrides, sentence):
    assert refusal(overrides) == sentence


def test_a_key_of_another_model_is_refused_and_the_model_that_has_it_named():
    sentence = refusal({"model.rank": 8})
    assert sentence.startswith("Unknown key 'model.rank' (cp has it): model=transformer has name, init_scale, width, ")


# -------------------------------------------------------------------------------------------------------- the choices


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        ({}, {"data.seed": 0, "data.order": 3, "model.qk_width": 8, "model.vo_width": 8}),
        ({}, {"artifacts.order": 3, "artifacts.contexts": "all"}),
        ({"seed": 5}, {"data.seed": 5}),
        ({"seed": 5, "data.seed": 0}, {"data.seed": 0, "seed": 5}),
        ({"model.width": 48, "model.heads": 6}, {"model.qk_width": 8, "model.vo_width": 8}),
        ({"model.qk_width": 3}, {"model.qk_width": 3, "model.vo_width": 8}),
        ({"model.width": 30, "model.qk_width": 3, "model.vo_width": 5}, {"model.qk_width": 3, "model.vo_width": 5}),
        ({"data.order": 4}, {"data.order": 4, "artifacts.order": 4}),
        ({"data.order": 4, "artifacts.order": 2}, {"artifacts.order": 2}),
        (KINSHIPS, {"artifacts.contexts": "typed", "data.order": 3, "data.held_out_fraction": 0.1}),
        (PYKEEN, {"artifacts.contexts": "typed", "data.order": 3, "data.dataset": "umls"}),
        (TRIPLES, {"artifacts.contexts": "all", "data.order": 3}),
        ({**TRIPLES, "data.columns": [4, 0]}, {"data.order": 2, "artifacts.order": 2}),
        ({**PYKEEN, "data.columns": ["subject", "object"], "data.order": 2}, {"data.order": 2}),
        ({**KINSHIPS, "artifacts.contexts": "all"}, {"artifacts.contexts": "all"}),
        ({**KINSHIPS, "artifacts.measure": "joint"}, {"artifacts.contexts": "all", "artifacts.epsilon": None}),
        (GRAMMAR, {"artifacts.contexts": "all", "data.order": 3, "data.held_out_fraction": 0.0}),
        (RELATIONS, {"artifacts.contexts": "all", "data.order": 3, "data.contradictions": 0.0}),
        ({**MODULAR, "data.modulus": 1024}, {"artifacts.contexts": "all", "data.order": 3, "data.noise": 0.0}),
        ({**LATENT, "data.num_sentences": 3072}, {"data.classes": 8}),
    ],
)
def test_every_null_that_stands_for_a_choice_is_replaced_by_it(overrides, chosen):
    values = {dotted: value for dotted, value, _ in leaves(resolve(nested(overrides)))}
    assert {dotted: values[dotted] for dotted in chosen} == chosen


@st.composite
def configurations(draw):
    world = draw(
        st.sampled_from([{}, KINSHIPS, PYKEEN, GRAMMAR, RELATIONS, TRIPLES, {**TRIPLES, "data.columns": [2, 0]}])
    )
    more = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "seed": st.integers(-5, 5),
                "data.seed": st.integers(0, 5),
                "model.width": st.sampled_from([4, 12, 64]),
                "model.qk_width": st.integers(1, 9),
                "model.layers": st.integers(1, 3),
                "training.batch_size": st.none() | st.integers(1, 99),
                "training.learning_rate": st.floats(1e-9, 1.0),
                "training.clip_norm": st.none() | st.floats(0.1, 9.0),
                "artifacts.order": st.none() | st.just(2),
                "artifacts.contexts": st.sampled_from([None, "all", "typed"]),
                "tracking.entity": st.none() | st.just("somebody"),
            },
        )
    )
    return nested({**world, **more})


@settings(deadline=None, max_examples=40)
@given(configurations())
def test_a_resolved_config_resolves_to_itself_also_through_yaml(values):
    config = resolve(values)
    again = resolve(asdict(config))
    assert again == config
    assert type(again.data) is type(config.data)
    assert resolve(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.structured(config)))) == config


def test_a_saved_config_of_joint_artifacts_means_what_it_said():
    config = resolve(nested({**KINSHIPS, "artifacts.measure": "joint", "artifacts.epsilon": 0.01}))
    assert resolve(asdict(config)) == config


def test_the_defaults_are_those_of_the_contract():
    values = {dotted: value for dotted, value, _ in leaves(resolve({}))}
    contract = {
        "sweep": "scratch", "seed": 0, "data.name": "random", "data.vocab_size": 100, "data.num_sentences": 500,
        "data.sampler": "functional", "data.order": 3, "model.width": 32, "model.layers": 1, "model.heads": 4,
        "model.mlp_width": 0, "objective.positions": "all", "training.steps": 1000, "training.evaluations": 20,
        "training.spacing": "even", "training.learning_rate": 0.01, "training.weight_decay": 0.0,
        "training.batch_size": None, "artifacts.threshold": 0.5, "artifacts.contexts": "all",
        "tracking.mode": "offline",
    }  # fmt: skip
    assert {dotted: values[dotted] for dotted in contract} == contract


def test_resolve_leaves_what_it_was_given_alone():
    values = nested({"seed": 4, "model.width": 16})
    composed = OmegaConf.create(values)
    resolve(values)
    resolve(composed)
    assert values == {"seed": 4, "model": {"width": 16}}
    assert composed == values


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_carries_its_name_a_seed_an_order_and_a_generator_version(name):
    world = WORLDS[name]()
    assert world.name == name
    assert {"data.name", "data.seed", "data.order"} <= {dotted for dotted, _, _ in leaves(Config(data=world))}
    assert WORLDS[name].generator >= 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_carries_its_name(name):
    assert MODELS[name]().name == name
    assert resolve({"model": {"name": name}}).model == resolve({"model": asdict(MODELS[name]())}).model


@pytest.mark.parametrize("module", ["tc_sweeps", "tc_sweeps.config", "tc_sweeps.cli", "tc_sweeps.store"])
def test_config_and_command_line_import_no_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'pytorch_lightning'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_values_of_the_right_types_become_what_omegaconf_makes_of_them(world: str) -> None:
    values = asdict(Config(data=WORLDS[world]()))
    values["seed"], values["model"]["qk_width"], values["training"]["learning_rate"] = 7, 3, float("inf")
    quick = Config(data=WORLDS[world]())
    config._set(quick, values)
    assert quick == config._converted(world, "transformer", values)


@pytest.mark.parametrize(
    "values",
    [
        {"sede": 1},
        {"model": {"widht": 1}},
        {"model": None},
        {"seed": "1"},
        {"seed": True},
        {"seed": None},
        {"training": {"learning_rate": 1}},
        {"sweep": "???"},
        {"sweep": "s${seed}"},
        {"data": {"path": "f", "columns": [0, "${seed}"]}},
        {"data": {"path": "f", "columns": [0, [1]]}},
    ],
    ids=str,
)
def test_values_that_need_converting_or_refusing_are_left_to_omegaconf(values: dict[str, Any]) -> None:
    with pytest.raises(config._NotPlain):
        config._set(Config(data=WORLDS["triples"]()), values)


def test_a_value_that_must_be_given_is_asked_for():
    with pytest.raises(ConfigError, match=r"training\.steps: Missing mandatory value"):
        resolve(OmegaConf.create({"training": {"steps": "???"}}))
