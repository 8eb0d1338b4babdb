"""From axes to jobs: tables of what zips, exclusions and blocks make, and of what is refused."""

from __future__ import annotations

import itertools

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from tc_sweeps.config import ConfigError
from tc_sweeps.sweep.axes import Block, expand

parse = OverridesParser.create().parse_overrides
PARAMS = {"a": "1,2", "b": "x,y", "c": "5,6"}


def table(block: Block, *arguments: str) -> list[str]:
    return [" ".join(job) for job in expand([block], arguments, parse)]


TABLES = [
    ("product", Block({"a": "1,2", "b": "x,y"}), [], ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]),
    ("range", Block({"a": "range(0,3)", "b": "x"}), [], ["a=0 b=x", "a=1 b=x", "a=2 b=x"]),
    ("nothing", Block(), [], [""]),
    ("one zip", Block({"a": "1,2", "b": "x,y"}, zip=["a", "b"]), [], ["a=1 b=x", "a=2 b=y"]),
    (
        "a zip stands where its first axis stood",
        Block(PARAMS, zip=["a", "c"]),
        [],
        ["a=1 c=5 b=x", "a=1 c=5 b=y", "a=2 c=6 b=x", "a=2 c=6 b=y"],
    ),
    (
        "two zips",
        Block({**PARAMS, "d": "7,8"}, zip=[["a", "b"], ["c", "d"]]),
        [],
        ["a=1 b=x c=5 d=7", "a=1 b=x c=6 d=8", "a=2 b=y c=5 d=7", "a=2 b=y c=6 d=8"],
    ),
    ("a fixed value leaves its zip", Block(PARAMS, zip=["a", "b", "c"]), ["a=9"], ["a=9 b=x c=5", "a=9 b=y c=6"]),
    ("an argument changes a zip", Block(PARAMS, zip=["a", "b"]), ["a=3,4", "c=0"], ["a=3 b=x c=0", "a=4 b=y c=0"]),
    (
        "excluded",
        Block({"a": "1,2", "b": "x,y"}, exclude=[{"a": "1", "b": "y"}]),
        [],
        ["a=1 b=x", "a=2 b=x", "a=2 b=y"],
    ),
    ("excluded values", Block({"a": "range(0,5)"}, exclude=[{"a": "1,3"}, {"a": "range(4,9)"}]), [], ["a=0", "a=2"]),
    ("excluded by a list", Block({"a": "range(0,5)"}, exclude=[{"a": [1, "3,4"]}]), [], ["a=0", "a=2"]),
    ("excluded as a number", Block({"a": "1e-2,0.1"}, exclude=[{"a": "0.01"}]), [], ["a=0.1"]),
    ("excluded text", Block({"b": "'x',y,'p,q'"}, exclude=[{"b": "x"}, {"b": "'p,q'"}]), [], ["b=y"]),
    ("excluded null and lists", Block({"a": "null,[1,2],[2]"}, exclude=[{"a": "null,[2]"}]), [], ["a=[1,2]"]),
    ("a fixed key can exclude", Block({"a": "1,2", "b": "x"}, exclude=[{"a": "1", "b": "x"}]), [], ["a=2 b=x"]),
    (
        "which an argument has ended",
        Block({"a": "1,2", "b": "x"}, exclude=[{"b": "x", "a": "1"}]),
        ["b=y"],
        ["a=1 b=y", "a=2 b=y"],
    ),
    ("a zip and an exclusion", Block({"a": "1,2", "b": "x,y"}, zip=["a", "b"], exclude=[{"b": "y"}]), [], ["a=1 b=x"]),
]


@pytest.mark.parametrize(
    ("block", "arguments", "jobs"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES]
)
def test_jobs(block: Block, arguments: list[str], jobs: list[str]) -> None:
    assert table(block, *arguments) == jobs


def test_an_exclusion_is_for_one_of_the_blocks_at_least() -> None:
    both = {"exclude": [{"a": "1"}]}
    blocks = [Block({"a": "1,2"}, **both), Block({"a": "3,4"}, **both)]
    assert expand(blocks, [], parse) == [["a=2"], ["a=3"], ["a=4"]]
    with pytest.raises(ConfigError, match="leaves no job out"):
        expand([Block({"a": "5"}, **both), blocks[1]], [], parse)


def test_an_axis_whose_key_is_given_once_more_is_refused_and_a_value_is_replaced_as_hydra_has_it() -> None:
    assert table(Block(PARAMS), "a=3", "b=x", "c=5", "a=4") == ["a=4 b=x c=5"]
    assert table(Block(), "a=3", "a=1,2") == ["a=1", "a=2"]
    for twice in (["a=1,2", "a=3"], ["a=1,2", "b=z", "a=3,4"], ["a=1,2", "a=1,2"]):
        with pytest.raises(ConfigError, match=r"^a=1,2 and a=.* give one axis twice"):
            table(Block(PARAMS), *twice)


def test_a_block_within_another_has_its_zips_and_exclusions_too() -> None:
    outer = Block({"seed": "0,1", "a": "1,2"}, zip=["a", "seed"], exclude=[{"seed": "1"}])
    inner = Block({"a": "3,4", "b": "x,y", "c": "5,6"}, zip=["b", "c"], exclude=[{"c": "6"}])
    assert table(inner.within(outer)) == ["seed=0 a=3 b=x c=5"]


REFUSED = [
    (Block(PARAMS, zip=["a", "bb"]), "hydra.sweeper.zip names 'bb', which is no axis of this sweep"),
    (
        Block(PARAMS, zip=["model.width"]),
        "hydra.sweeper.zip names 'model.width', which is no axis of this sweep: there are a, b, c.",
    ),
    (Block({"model.width": "1,2"}, zip=["model.widht"]), "did you mean 'model.width'?"),
    (
        Block({"a": "1,2,3", "b": "x,y"}, zip=["a", "b"]),
        "a has 3 values, b has 2 values; axes that go together need as many",
    ),
    (Block(PARAMS, zip=[["a", "b"], ["b", "c"]]), "hydra.sweeper.zip names b twice"),
    (Block(PARAMS, zip=["a", ["b", "c"]]), "mixes names and lists of names"),
    (
        Block(PARAMS, exclude=[{"aa": "1"}]),
        "hydra.sweeper.exclude names 'aa', which is no axis of this sweep; did you mean 'a'?",
    ),
    (Block({"a": "1,2"}, exclude=[{"a": "1"}, {"a": "2"}]), "hydra.sweeper.exclude leaves no job"),
    (
        Block({"a": "1,2", "b": "x,y"}, exclude=[{"a": "1"}, {"a": "2,3", "b": "z"}]),
        "hydra.sweeper.exclude: {a: 2,3, b: z} leaves no job out",
    ),
    (Block({"a": "1,2", "b": "x,y"}, zip=["a", "b"], exclude=[{"a": "1", "b": "y"}]), "leaves no job out"),
    (Block({"a": "interval(0,1)"}), "an axis needs its values one by one"),
    (Block({"a": "range(3,3)"}), "this axis has no values"),
]


@pytest.mark.parametrize(("block", "fragment"), REFUSED)
def test_refused(block: Block, fragment: str) -> None:
    with pytest.raises(ConfigError) as refused:
        table(block)
    assert fragment in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


values = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)


@given(a=values, b=values, c=values, left_out=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_product_without_exclusions_is_brute_force(
    a: list[int], b: list[int], c: list[int], left_out: tuple[int, int]
) -> None:
    wanted = [f"a={x} b={y} c={z}" for x, y, z in itertools.product(a, b, c) if (x, z) != left_out]
    params = {name: ",".join(map(str, found)) for name, found in (("a", a), ("b", b), ("c", c))}
    block = Block(params, exclude=[{"a": str(left_out[0]), "c": str(left_out[1])}])
    if 0 < len(wanted) < len(a) * len(b) * len(c):
        assert table(block) == wanted
    else:
        with pytest.raises(ConfigError, match="leaves no job out" if wanted else "leaves no job of the sweep"):
            table(block)


@given(pairs=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=5), b=values)
def test_a_zip_is_brute_force(pairs: list[tuple[int, int]], b: list[int]) -> None:
    params = {
        "a": ",".join(str(x) for x, _ in pairs),
        "b": ",".join(map(str, b)),
        "c": ",".join(str(z) for _, z in pairs),
    }
    assert table(Block(params, zip=["a", "c"])) == [f"a={x} c={z} b={y}" for (x, z), y in itertools.product(pairs, b)]
