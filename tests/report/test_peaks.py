"""The experiments on capacity and rank: what was planted in made-up sweeps is found, and what was not is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_figures import check

from tc_sweeps.config import ConfigError
from tc_sweeps.report import draw_experiment
from tc_sweeps.report.figures import capacity, head_widths, rank_peak
from tc_sweeps.report.seeds import by_seed, greatest, slopes

# ---------------------------------------------------------------------------------------------------------------- seeds


def test_a_seed_that_lacks_a_value_is_left_out_and_columns_are_in_order() -> None:
    runs = pd.DataFrame({"seed": [0, 0, 1, 1, 2], "model.width": [16, 8, 8, 16, 8], "artifacts/count": [2, 1, 3, 5, 9]})
    table = by_seed(runs, "model.width", "artifacts/count")
    assert table.columns.tolist() == [8, 16]
    assert table.to_numpy().tolist() == [[1, 2], [3, 5]]


def test_a_seed_with_several_runs_at_a_value_is_refused() -> None:
    runs = pd.DataFrame(
        {"seed": [0, 0, 0], "model.width": [8, 8, 16], "model.layers": [1, 2, 2], "artifacts/count": [1, 2, 3]}
    )
    with pytest.raises(
        ConfigError, match=r"^Runs differ in model\.layers, not in model\.width and seed alone: .*=1\.$"
    ):
        by_seed(runs, "model.width", "artifacts/count")


@given(
    x=st.lists(st.integers(1, 1000), min_size=2, max_size=8, unique=True),
    slope=st.floats(-100, 100),
    start=st.floats(-100, 100),
)
def test_slopes_of_lines_are_those_of_the_lines(x: list[int], slope: float, start: float) -> None:
    places = np.log2(sorted(x))
    table = pd.DataFrame([start + slope * places, 0 * places], columns=sorted(x))
    np.testing.assert_allclose(slopes(table, np.log2), [slope, 0], atol=1e-8 * (1 + abs(slope)))


def test_slopes_are_those_of_least_squares() -> None:
    values = np.random.default_rng(0).standard_normal((5, 4))
    table = pd.DataFrame(values, columns=[1, 2, 5, 7])
    np.testing.assert_allclose(slopes(table), np.polyfit([1, 2, 5, 7], values.T, 1)[0], rtol=1e-12)


def test_the_greatest_is_the_first_of_several() -> None:
    assert greatest(pd.DataFrame([[1, 3, 3], [2, 1, 0]], columns=[4, 8, 16])).tolist() == [8, 4]


# ---------------------------------------------------------------------------------------------------------- head widths


def test_head_widths_find_a_planted_slope_and_the_ratio_of_two_widths(outputs: Path) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 300 + 80 * np.log2(vo) + 20 * np.log2(qk))
    drawing = draw_experiment("head_widths")
    check(drawing, "head_widths")
    first, second, *told, _ = drawing.verdict.splitlines()
    assert first.endswith(
        "a larger value-output share at equal parameters: holds up to a share of 0.75 [0.75, 0.75] only."
    )
    assert second == "The query-key width plays the lesser role: holds."
    assert told[0].startswith("all runs, 1,024 parameters: facts stored change by ")
    assert re.findall(r"(\d+)(?:\.0+)? \[", told[1]) == ["20", "80", "4", "60"]
    assert "times as much" in told[1]


def test_head_widths_tell_where_facts_turn(outputs: Path) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 100 * min(vo, 5) + 100 * min(qk, 3))
    first, _, told, *_ = head_widths.verdict(outputs / "head_widths").splitlines()
    assert first.endswith(": holds up to a share of 0.5 [0.5, 0.5] only.")
    assert "most are 700 at 0.5; up to a share of 0.5 [0.5, 0.5] only, the mean of the shares beyond which" in told


def test_head_widths_tell_where_facts_turn_in_one_of_two_settings(outputs: Path) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 100 * min(vo, 5) + 100 * min(qk, 3), sizes=[1000])
    made.head_widths_sweep(outputs, lambda qk, vo: 100 * vo, sizes=[1500])
    first, *_ = head_widths.verdict(outputs / "head_widths").splitlines()
    assert first.endswith("holds in all 2 settings, up to a share of 0.5 [0.5, 0.5] only for num sentences 1000.")


def test_head_widths_that_store_fewer_facts_have_no_turn(outputs: Path) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 300 - 20 * vo)
    assert "up to a share" not in head_widths.verdict(outputs / "head_widths")


def test_a_sweep_of_models_without_heads_is_refused(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters, seeds=1, model={"model.name": "cp"})
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'capacity' has model\.qk_width and model\.vo_width,"):
        head_widths.verdict(outputs / "capacity")


@pytest.mark.parametrize(("weight", "answer"), [(0.0, "does not hold."), (-20.0, "does not hold.")])
def test_head_widths_of_no_or_the_opposite_effect_do_not_hold(outputs: Path, weight: float, answer: str) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 300 + weight * (vo - qk))
    first, second, *_ = head_widths.verdict(outputs / "head_widths").splitlines()
    assert first.endswith(answer)
    assert second.endswith(answer)


def test_head_widths_of_few_seeds_are_not_judged(outputs: Path) -> None:
    made.head_widths_sweep(outputs, lambda qk, vo: 300 + 20 * vo, seeds=3)
    first, second, *_ = head_widths.verdict(outputs / "head_widths").splitlines()
    assert first.endswith("cannot be said from these runs.")
    assert second.endswith("cannot be said from these runs.")


def test_head_widths_of_one_width_are_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^No two runs of a seed of the sweep 's' share their parameters otherwise"):
        draw_experiment("s", "head_widths")


# ------------------------------------------------------------------------------------------------------------- capacity


def test_capacity_finds_planted_bits_per_parameter_in_proportion(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters)
    drawing = draw_experiment("capacity")
    check(drawing, "capacity")
    first, *sizes, _ = drawing.verdict.splitlines()
    assert first.startswith("Capacity in bits grows in proportion to all parameters (slope of the logarithms 1")
    assert "and more slowly than parameters without embeddings" in first
    assert len(sizes) == 3
    for told in sizes:
        assert "which agrees with 2 bits per parameter (Allen-Zhu and Li, arXiv 2404.05405); " in told
    assert sizes[1].startswith("width 8 (1,280 parameters, 256 without embeddings): ")
    assert "Artifacts are most at 299 [299, 299] triples, in 1 [1, 1] of the unseen contexts." in sizes[1]


@pytest.mark.parametrize(("power", "words"), [(0.5, "grows more slowly than all"), (1.5, "grows faster than all")])
def test_capacity_tells_other_powers_from_proportion(outputs: Path, power: float, words: str) -> None:
    made.capacity_sweep(outputs, lambda parameters: 60 * parameters**power / 1280 ** (power - 0.5))
    assert words in capacity.verdict(outputs / "capacity")


def test_capacity_of_tensors_that_are_all_embedding_says_nothing_without(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters, model={"model.name": "cp"})
    drawing = draw_experiment("capacity")
    check(drawing, "capacity")
    assert "without embeddings" not in drawing.verdict
    assert "inf" not in drawing.verdict
    first, second, *_ = drawing.verdict.splitlines()
    assert first.endswith(").")
    assert second.startswith("rank 4 (576 parameters): ")


def test_capacity_of_sizes_with_equally_many_parameters_is_that_of_all(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters)
    made.capacity_sweep(outputs, lambda parameters: 60 * parameters**0.5, model={"model.heads": 2})
    first, *_ = capacity.verdict(outputs / "capacity").splitlines()
    assert "more slowly than all parameters (slope of the logarithms 0.75" in first


def test_capacity_of_models_that_are_not_full_is_left_out(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters, shares=(0.3, 0.7, 0.9))
    drawing = draw_experiment("capacity")  # of which the last panel is empty
    assert drawing.verdict.startswith("How capacity goes with size cannot be said: fewer than two sizes are full.")
    assert drawing.verdict.count("left out, since it still stores more with more triples.") == 3


def test_capacity_of_few_seeds_is_not_judged(outputs: Path) -> None:
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters, seeds=2)
    verdict = capacity.verdict(outputs / "capacity")
    assert "(too few seeds to judge) with all parameters" in verdict
    assert "agrees with" not in verdict


def test_capacity_of_facts_without_a_number_of_bits_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^The sweep 's' has runs of other data than functional random n-grams"):
        draw_experiment("s", "capacity")
    made.capacity_sweep(outputs, lambda parameters: 2 * parameters, seeds=2)
    other = {"data.vocab_size": 32, "data.num_sentences": 100, "objective.positions": "last"}
    made.finished_random_run(outputs, "capacity", other, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"has several vocabularies.*--where data\.vocab_size=64\.$"):
        draw_experiment("capacity")
    capacity.draw(outputs / "capacity", {"data.vocab_size": 64})


# ------------------------------------------------------------------------------------------------------------ rank peak


def inverted_u(ratio: float) -> float:
    """A rate that is largest at the effective rank."""
    return float(0.9 * np.exp(-(np.log(ratio) ** 2) / 8))


def test_rank_peak_finds_a_planted_peak_at_the_effective_rank(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 6, "latent": 4})
    drawing = draw_experiment("rank_peak")
    check(drawing, "rank_peak")
    first, second, *told, _ = drawing.verdict.splitlines()
    assert first == "Artifacts peak at the effective rank, within a factor of 1.5: holds in all 2 settings."
    assert second == "Right completions peak there too: holds."
    assert len(told) == 6  # random data have no right completions
    cp = next(line for line in told if line.startswith("name random, ") and "rank of the CP tensor" in line)
    assert "most at the rank of the CP tensor 6 (0.9" in cp
    assert "a peak: " in cp
    assert cp.endswith("a seed's own peak at 6 [6, 6]: 1 [1, 1] times the effective rank, 6 [6, 6].")
    assert any("most at the width of the transformer 4 (" in line for line in told)


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (lambda ratio: inverted_u(ratio / 2), "a peak: "),  # at twice the effective rank
        (lambda ratio: 0.9 - 0.2 / (1 + ratio), "no peak: "),  # it rises and rises
        (lambda ratio: 0.8, "no peak: "),
    ],
)
def test_rank_peaks_elsewhere_or_none_do_not_hold(outputs: Path, rate: Callable[[float], float], words: str) -> None:
    made.rank_peak_sweep(outputs, rate, effective={"random": 4})
    verdict = rank_peak.verdict(outputs / "rank_peak")
    assert verdict.startswith("Artifacts peak at the effective rank, within a factor of 1.5: does not hold.")
    assert words in verdict


def test_rank_peak_of_few_seeds_or_unknown_rank_cannot_be_said(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 4}, seeds=3)
    verdict = rank_peak.verdict(outputs / "rank_peak")
    assert "cannot be said from these runs." in verdict
    assert "(too few seeds to judge)" in verdict
    without = rank_peak.verdict(outputs / "rank_peak", {"model.rank": [2, 4, 8]})
    assert "of unknown effective rank" in without


def test_rank_peak_of_one_seed_is_not_told_from_none(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 4}, seeds=1)
    verdict = rank_peak.verdict(outputs / "rank_peak")
    assert "(0.9" in verdict
    assert ", not told from no peak: " in verdict


def test_rank_peak_over_seeds_of_the_data_alone_is_one_setting(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 4}, seed_key="data.seed")
    first, *told, _ = rank_peak.verdict(outputs / "rank_peak").splitlines()
    assert first.endswith(": holds.")
    assert len(told) == 2
    assert told[0].startswith("all runs, ")


def test_rank_peak_tells_models_apart_that_differ_in_more_than_width(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 4})
    size = {"data.vocab_size": 64, "data.num_sentences": 400}
    for width in (4, 8, 16):
        overrides = {**size, "model.width": width, "model.heads": 2, "seed": 0}
        metrics = {"train/accuracy": 1.0, "artifacts/unseen_confident_rate": 0.1}
        made.finished_run(outputs, "rank_peak", overrides, {1000: metrics}, made.random_facts(size))
    first, *told, _ = rank_peak.verdict(outputs / "rank_peak").splitlines()
    assert first.endswith(": holds.")
    assert any(line.startswith("heads 2, ") and "width of the transformer 4 (0.1" in line for line in told)


def test_the_effective_rank_is_drawn_on_the_axis_of_ranks_alone(outputs: Path) -> None:
    made.rank_peak_sweep(outputs, inverted_u, effective={"random": 4}, seeds=2)
    ranks, widths = rank_peak.draw(outputs / "rank_peak").axes
    assert [line.get_xdata()[0] for line in ranks.lines if line.get_linestyle() == "--"] == [4]
    assert not [line for line in widths.lines if line.get_linestyle() == "--"]


def test_rank_peak_without_ranks_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^No seed of the sweep 's' has CP tensors of three ranks or more"):
        draw_experiment("s", "rank_peak")
