"""The trade-off figure: what is drawn and said of methods whose effects are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import made
import numpy as np
import pytest

from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report import draw_experiment
from tc_sweeps.report.figures import tradeoff
from tc_sweeps.report.figures.tradeoff import hypervolume

SEEDS = range(5)
STRENGTHS = (0.1, 0.3, 0.6)
# (share of hallucinations removed, share of recall kept) at a strength.
Effect = Callable[[float], tuple[float, float]]


def finished_run(outputs: Path, overrides: dict, *, removed: float, kept: float, noise: float = 0.0) -> None:
    run = made.begin(outputs, "tradeoff", {"data.name": "kinships", **overrides})
    run.write_facts(made.random_facts({}), None)
    generator = np.random.default_rng([7, overrides["seed"], round(100 * removed), round(100 * kept)])
    right = 0.6 * kept * (1 + noise * generator.standard_normal())
    wrong = 0.3 * (1 - removed) * (1 + noise * generator.standard_normal())
    metrics = dict.fromkeys(METRICS, float("nan")) | {
        "train/accuracy": 1.0,
        "judge/generalization/recall": right,
        "judge/hallucination/per_context": wrong,
        "judge/hallucination/share": wrong / (right + wrong) if right + wrong else float("nan"),
    }
    run.add_row(1000, metrics)
    run.finish({"weight": np.zeros(2, dtype=np.float32)})


def sweep(outputs: Path, noise: float = 0.0, **effects: tuple[dict, str, Effect]) -> None:
    for seed in SEEDS:
        finished_run(outputs, {"seed": seed}, removed=0, kept=1, noise=noise)
        for extra, key, effect in effects.values():
            for strength in STRENGTHS:
                removed, kept = effect(strength)
                finished_run(outputs, {"seed": seed, key: strength, **extra}, removed=removed, kept=kept, noise=noise)


def test_methods_are_told_apart_by_what_they_cost(outputs: Path) -> None:
    sweep(
        outputs,
        noise=0.01,
        even=({"objective.outside.method": "unsupported"}, "objective.outside.share", lambda s: (s, 1 - s)),
        cheap=({"objective.outside.method": "hinge"}, "objective.outside.weight", lambda s: (s, 1 - s / 4)),
        dear=({}, "objective.label_smoothing", lambda s: (s / 2, 1 - s)),
        idle=({}, "objective.replay", lambda s: (s / 100, 1.0)),
        good=({}, "training.weight_decay", lambda s: (s, 1 + s)),
    )
    drawing = draw_experiment("tradeoff")
    first, *rest = drawing.verdict.splitlines()
    assert first == (
        "Of 5 pairs of world and method, recall falls by less than hallucinations in 1, by more in 1, and rises in 1; "
        "in 1 it cannot be told from in proportion, and 1 remove no hallucinations. Precision rises in 2, falls in 1 "
        "and cannot be told from flat in 1."
    )
    said = {line.split(", ")[1].split(":")[0]: line for line in rest[:-1]}
    told = {
        name: (float(line.split("hallucination removed ")[1].split(" [")[0]), line.split("; ")[1:-1])
        for name, line in said.items()
        if "recall lost" in line
    }
    for name, slope, compared, precision in (
        ("unsupported token", 1, "(not told from in proportion)", "precision is not told from flat"),
        ("hinge", 0.25, "(less than in proportion)", "precision rises"),
        ("label smoothing", 2, "(more than in proportion)", "precision falls"),
        ("weight decay", -1, "(recall rises)", "precision rises"),
    ):
        assert told[name][0] == pytest.approx(slope, abs=0.1)
        assert told[name][1][0].endswith(compared)
        assert told[name][1][1].startswith(precision)
    assert said["unsupported token"].startswith(
        "kinships, unsupported token: up to 60% of the hallucinations removed; recall lost"
    )
    assert said["replay"].startswith("kinships, replay: removes no hallucinations (")
    assert drawing.paths[0].exists()


def test_points_of_the_figure_are_means_over_seeds(outputs: Path) -> None:
    sweep(outputs, even=({}, "training.weight_decay", lambda s: (s, 1 - s / 2)))
    figure = tradeoff.draw(outputs / "tradeoff")
    upper, lower = figure.axes
    [path] = [line for line in upper.lines if len(line.get_xdata()) == 4 and line.get_linewidth() == 1]
    np.testing.assert_allclose(path.get_xdata(), [0, *STRENGTHS])
    np.testing.assert_allclose(path.get_ydata(), [1, 0.95, 0.85, 0.7])
    [precision] = [line for line in lower.lines if len(line.get_xdata()) == 4]
    expected = [0.6 * (1 - s / 2) / (0.6 * (1 - s / 2) + 0.3 * (1 - s)) for s in (0, *STRENGTHS)]
    np.testing.assert_allclose(precision.get_ydata(), expected, rtol=1e-6)


def test_strengths_that_leave_no_artifact_have_no_precision(outputs: Path) -> None:
    sweep(outputs, all_gone=({}, "training.weight_decay", lambda s: (1.0, 0.0) if s > 0.5 else (s, 1 - s)))
    drawing = draw_experiment("tradeoff")
    assert "up to 100% of the hallucinations removed" in drawing.verdict
    assert "for all removed" in drawing.verdict
    _, lower = tradeoff.draw(outputs / "tradeoff").axes
    assert [len(line.get_xdata()) for line in lower.lines if len(line.get_xdata()) > 2] == [3], "two strengths of three"


def test_seeds_without_their_base_are_left_out_and_other_sweeps_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "random", {}, ratio=lambda _: 10)
    with pytest.raises(ConfigError, match="has held-out n-grams and labelled contexts: choose a world with both"):
        draw_experiment("random", "tradeoff")
    finished_run(outputs, {"seed": 0}, removed=0, kept=1)
    with pytest.raises(ConfigError, match="has no method to compare with runs of the same seeds without any"):
        draw_experiment("tradeoff")
    finished_run(outputs, {"seed": 1, "training.weight_decay": 0.1}, removed=0.5, kept=0.5)
    with pytest.raises(ConfigError, match="has no method to compare"):
        draw_experiment("tradeoff")
    finished_run(outputs, {"seed": 0, "training.weight_decay": 0.1}, removed=0.5, kept=0.5)
    drawing = draw_experiment("tradeoff")
    assert "recall lost per hallucination removed 1 (not told from in proportion)" in drawing.verdict
    wider = {"seed": 0, "training.weight_decay": 0.1, "model.width": 8}
    finished_run(outputs, wider, removed=0.5, kept=0.5)
    with pytest.raises(ConfigError, match=r"differ in model.width, .* as in --where model.width=(8|32)\."):
        draw_experiment("tradeoff")
    drawing = draw_experiment("tradeoff", where={"model.width": 32})
    assert "recall lost per hallucination removed 1 (not told" in drawing.verdict
    both = {"seed": 1, "training.weight_decay": 0.1, "objective.replay": 0.1}
    finished_run(outputs, both, removed=0.5, kept=0.5)
    with pytest.raises(ConfigError, match=r"has weight decay and replay: this figure compares methods one by one"):
        draw_experiment("tradeoff")


@pytest.mark.parametrize(
    ("removed", "kept", "area"),
    [
        ([], [], 0.0),
        ([0.5], [0.8], 0.4),
        ([0.5, 1.0], [0.8, 0.2], 0.5 * 0.8 + 0.5 * 0.2),
        ([0.5, 0.4], [0.8, 0.7], 0.4),  # a point that another one beats adds nothing
        ([-0.3, 1.2], [1.1, 0.5], 0.5),
    ],
)
def test_hypervolume(removed: list[float], kept: list[float], area: float) -> None:
    assert hypervolume(np.array(removed), np.array(kept)) == pytest.approx(area)


def test_hypervolume_is_the_share_of_the_square_that_points_dominate() -> None:
    generator = np.random.default_rng(1)
    for _ in range(5):
        points = generator.random((6, 2))
        drawn = generator.random((20_000, 2))
        dominated = (points[None] >= drawn[:, None]).all(2).any(1).mean()
        assert hypervolume(points[:, 0], points[:, 1]) == pytest.approx(dominated, abs=0.02)


def test_no_bar_leaves_what_can_be_removed_or_kept(outputs: Path) -> None:
    for seed, (removed, kept) in enumerate([(1.0, 0.1), (0.2, 1.0)]):
        finished_run(outputs, {"seed": seed}, removed=0, kept=1)
        finished_run(outputs, {"seed": seed, "training.weight_decay": 1}, removed=removed, kept=kept)
    upper, lower = tradeoff.draw(outputs / "tradeoff").axes
    bars = [bar.get_segments()[0].tolist() for axes in (upper, lower) for bar in axes.collections]
    [across, up], [_, within] = bars[:2], bars[2:]
    assert across[1] == pytest.approx([1, 0.55])  # of 1 and 0.2 the interval reaches to 5.7
    assert across[0][0] < 0
    assert up[0] == pytest.approx([0.6, 0])
    assert up[1][1] > 1  # recall may rise
    assert [y for _, y in within] == pytest.approx([0, 1])
