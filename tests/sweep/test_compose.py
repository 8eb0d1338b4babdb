"""The composer gives the very configs that Hydra composes, with one composition for each combination of groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from tc_sweeps import cli
from tc_sweeps.config import explain
from tc_sweeps.sweep.compose import Composer, current

Hydra = tuple[ConfigLoader, DictConfig]


def load_master(loader: ConfigLoader, *overrides: str) -> DictConfig:
    return loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    setup_globals()
    with initialize_config_dir(str(cli._conf()), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def master(loader: ConfigLoader) -> DictConfig:
    return load_master(loader)


def by_hydra(loader: ConfigLoader, master: DictConfig, overrides: list[str], number: int) -> DictConfig:
    """Return what Hydra's launchers run for a job."""
    config = loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    return config


def assert_same(ours: DictConfig, hydras: DictConfig) -> None:
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(hydras)  # first, for the sake of its message; and the order
    assert OmegaConf.to_container(ours, resolve=False) == OmegaConf.to_container(hydras, resolve=False)
    for key in ("", "model", "training", "data", "hydra", "hydra.job"):
        node, theirs = (OmegaConf.select(config, key) if key else config for config in (ours, hydras))
        assert OmegaConf.get_type(node) == OmegaConf.get_type(theirs)
        assert OmegaConf.is_struct(node) == OmegaConf.is_struct(theirs)
        assert OmegaConf.is_readonly(node) == OmegaConf.is_readonly(theirs)


JOBS = [
    [],
    ["model=mlp"],
    ["model=mlp", "model.width=64", "objective=last"],
    ["model.width=64", "model=mlp"],
    ["data=kinships", "data.held_out_fraction=0.4", "training=minibatch", "training.batch_size=32"],
    ["seed=3", "training.learning_rate=1e-3", "model.tied=true", "training.batch_size=null"],
    ["training.learning_rate=1", "training.steps=1_000", "training.weight_decay=inf"],
    ["sweep='a b'", 'tracking.project="it\'s, quoted=1"', "tracking.entity=plain"],
    ["sweep='123'", "sweep=true"],
    ["data=triples", "data.path=facts.tsv", "data.columns=[0,2,1]"],
    ["data=triples", "data.path=facts.tsv", "data.columns=[a,'b c',null]", "data.delimiter='\\t'"],
    ["data.seed=${seed}", "seed=4"],
    ["sweep=s_${hydra:job.num}_${now:%Y}", "seed=1"],
    ["experiment=figure2"],
    ["experiment=figure2", "data.num_sentences=700"],
    ["experiment=kinships", "model.width=64", "objective=last", "sweep=mine"],
    ["data=eats"],
    ["+new=1", "seed=2"],
    ["+new={a:1,b:[2,x]}", "+new.c=3"],
    ["++seed=5"],
    ["seed=4", "++seed=5"],
    ["++seed=5", "seed=4"],
    ["++data.other=1"],
    ["++extra={a:1,b:2}", "~extra.a", "~extra.b=2"],
    ["~objective"],
    ["model={width:16,heads:2}", "model.width=8"],
    ["model.width=8", "model={width:16,heads:2}"],
    ["hydra.verbose=true", "seed=1"],
    ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1", "model.width=8"],
    ["hydra.job.config.override_dirname.kv_sep=-", "seed=1", "model.width=8"],
    ["hydra={job:{name:x}}", "seed=1"],
    ["hydra/launcher=basic", "hydra/sweeper=basic"],
    ["model.width=64", "seed=1", "model.heads=2"],  # override_dirname is sorted
]


@pytest.mark.parametrize("overrides", JOBS, ids=" ".join)
def test_a_job_is_what_hydra_composes(loader: ConfigLoader, master: DictConfig, overrides: list[str]) -> None:
    composer, expected = Composer(loader, master), by_hydra(loader, master, overrides, 3)
    assert_same(composer.compose(overrides, 3), expected)
    composer.compose([*overrides, "training.steps=7"], 4).sweep = "changed"
    assert_same(composer.compose(overrides, 3), expected)  # nothing stuck to the base


def tried(compose: Callable[..., DictConfig], *arguments: Any) -> tuple[Any, str | None]:
    """Return what was composed, or why that was refused."""
    try:
        return compose(*arguments), None
    except HydraException as error:
        return None, explain(error)


CHOICES = [
    st.sampled_from(["model=attention", "model=mlp", "objective=last", "objective=all", "training=minibatch"]),
    st.sampled_from(["data=kinships", "data=random", "experiment=figure2", "experiment=figure3", "tracking=none"]),
    st.integers(-5, 5).map("seed={}".format),
    st.integers(1, 500).map("model.width={}".format),
    st.floats(allow_nan=False).map("training.learning_rate={}".format),
    st.booleans().map("model.tied={}".format),
    st.sampled_from(["null", "1", "32"]).map("training.batch_size={}".format),
    st.sampled_from(["a", "'b, c'", '"d=e"', "${tracking.project}", "x:y"]).map("sweep={}".format),
    st.integers(0, 3).map("++seed={}".format),
    st.integers(0, 3).map("++extra.a={}".format),
    st.sampled_from(["~tracking.entity", "+extra.b=[1,2]", "data.seed=${seed}", "hydra.verbose=true"]),
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(CHOICES), max_size=6), st.integers(0, 1000))
@pytest.mark.slow
def test_any_job_is_what_hydra_composes_or_refused_with_it(
    loader: ConfigLoader, master: DictConfig, overrides: list[str], number: int
) -> None:
    expected, refusal = tried(by_hydra, loader, master, overrides, number)
    composed, refused = tried(Composer(loader, master).compose, overrides, number)
    assert refused == refusal
    if composed is not None:
        assert_same(composed, expected)


REFUSED = [
    (["sede=3"], "did you mean 'seed'?"),
    (["seed=1", "model.widht=3"], "did you mean 'model.width'?"),
    (["width=16"], "did you mean 'model.width'?"),
    (["model.width=wide"], "model.width: Value 'wide'"),
    (["model.width=1.5"], "model.width: Value '1.5'"),
    (["model.width=null"], "model.width"),
    (["model=mpl"], "Could not find 'model/mpl'"),
    (["modle=mlp"], "did you mean 'model'?"),
    (["model=3"], "group"),
    (["++model=mlp"], "force-add of config groups"),
    (["model@other=mlp"], "model@other"),
    (["seed@other=3"], "seed"),
    (["+seed=3"], "Could not append to config"),
    (["~sede"], "'sede' does not exist"),
    (["~seed=3"], "The value of 'seed' is 0 and not 3"),
    (["seed=1,2"], "several values make a sweep, which -m starts"),
    (["seed=range(2)"], "requires --multirun"),
    (["~tracking.entity"], "'tracking.entity' does not exist"),  # what is null is not there, for Hydra
    (["~tracking.project"], "tracking.project"),
    (["+model@other=mlp"], "Unknown key 'other'"),
    (["seed=[1"], "no viable alternative"),
    (["hydra.lancher=x"], "did you mean 'hydra.launcher'?"),
]


@pytest.mark.parametrize(("overrides", "fragment"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_what_hydra_refuses_is_refused_in_the_same_words(
    loader: ConfigLoader, master: DictConfig, overrides: list[str], fragment: str
) -> None:
    errors = []
    for compose in (Composer(loader, master).compose, lambda job, number: by_hydra(loader, master, job, number)):
        with pytest.raises((HydraException, ValueError)) as refused:
            compose(overrides, 0)
        errors.append(refused.value)
    assert [type(error) for error in errors] == [type(errors[1])] * 2
    assert explain(errors[0]) == explain(errors[1])
    assert fragment in explain(errors[0])


def test_hydra_composes_once_for_each_combination_of_choices(
    loader: ConfigLoader, master: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[list[str]] = []
    load = loader.load_sweep_config

    def counting(config: DictConfig, overrides: list[str]) -> DictConfig:
        composed.append(overrides)
        return load(config, overrides)

    monkeypatch.setattr(loader, "load_sweep_config", counting)
    composer = Composer(loader, master)
    jobs = [
        [f"model={model}", f"seed={seed}", f"objective={objective}", f"++extra.x={seed}"]
        for model in ("attention", "mlp")
        for seed in range(5)
        for objective in ("all", "last")
    ]
    for number, job in enumerate(jobs):
        composer.compose(job, number)
    assert sorted(composed) == [[f"model={m}", f"objective={o}"] for m in ("attention", "mlp") for o in ("all", "last")]


def test_the_time_in_a_folder_name_is_that_of_the_multirun(loader: ConfigLoader) -> None:
    setup_globals()
    master = load_master(loader)
    began = master.hydra.sweep.dir  # resolved now, to the microsecond
    assert Composer(loader, master).compose(["seed=1"], 1).hydra.sweep.dir == began


def test_groups_of_the_search_path_of_the_command_line_are_groups(
    loader: ConfigLoader, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("more")
    (folder / "more").mkdir()
    (folder / "more/mine.yaml").write_text("# @package _global_\nseed: 77\n")
    master = load_master(loader, f"hydra.searchpath=[file://{folder}]")
    overrides = ["+more=mine", "model.width=8"]
    job = Composer(loader, master).compose(overrides, 0)
    assert job.seed == 77
    assert_same(job, by_hydra(loader, master, overrides, 0))


def test_the_settings_of_the_master_hold_in_every_job(loader: ConfigLoader) -> None:
    master = load_master(loader, "hydra.job.name=other", "hydra.launcher.workers=2", "seed=1,2")
    job = Composer(loader, master).compose(["seed=2"], 1)
    assert (job.hydra.job.name, job.hydra.launcher.workers, job.seed) == ("other", 2, 2)
    assert_same(job, by_hydra(loader, master, ["seed=2"], 1))


def test_hydras_resolvers_look_into_the_current_job(loader: ConfigLoader, master: DictConfig) -> None:
    composer = Composer(loader, master)
    first, second = (composer.compose(["sweep=s${hydra:job.num}"], number) for number in (1, 2))
    with current(first):
        assert first.sweep == "s1"
        with current(second):
            assert second.sweep == "s2"
        assert first.sweep == "s1"
