from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import made
import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.cli import main
from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report import draw_experiment, draw_xy, experiments, left_out, load_sweep, style
from tc_sweeps.report.curves import figure_xy, labelled
from tc_sweeps.report.figures import (
    Drawing,
    contradictions,
    dynamics,
    examples,
    figure2,
    figure3,
    kinships,
    recommendation,
)
from tc_sweeps.report.where import spell_where

CONF = Path(__file__).parents[2] / "conf" / "experiment"


def check_png(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    height, width = pixels.shape[:2]
    assert min(height, width) > 500
    assert 0.02 < float((pixels[..., :3].min(axis=2) < 0.95).mean()) < 0.7  # neither blank nor covered


def check(drawing: Drawing, name: str) -> None:
    assert [path.name for path in drawing.paths] == [f"{name}.png", f"{name}.pdf"]
    check_png(drawing.paths[0])
    assert drawing.paths[1].read_bytes().startswith(b"%PDF")
    assert drawing.claim
    assert drawing.verdict in str(drawing)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_has_a_figure(path: Path) -> None:
    searches = "override /hydra/sweeper: optuna" in path.read_text()
    assert ("search" if searches else path.stem) in experiments()


def test_drawing_leaves_the_style_of_the_process_alone(outputs: Path) -> None:
    before = dict(mpl.rcParams)
    draw_experiment(made.sizes_sweep(outputs, seeds=[0]))
    assert dict(mpl.rcParams) == before


def test_figure1_draws_the_cells_and_spells_the_artifacts(outputs: Path) -> None:
    made.finished_mice_run(outputs)
    drawing = draw_experiment("figure1")
    check(drawing, "figure1")
    assert drawing.verdict.startswith("Holds.")
    assert "6 of its 6 training triples and 4 artifacts" in drawing.verdict
    assert "mouse eat cheese" in drawing.verdict


def test_figure1_of_a_large_vocabulary_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "big", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"at most 16 tokens.*lower data\.vocab_size\.$"):
        draw_experiment("big", "figure1")


def test_figure2_tells_inside_from_outside_and_under_fitted(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    drawing = draw_experiment("figure2")
    check(drawing, "figure2")
    assert drawing.verdict.startswith("Holds at some sizes.")
    line = next(text for text in drawing.verdict.splitlines() if text.startswith("loss on the last token"))
    within, outside, left_out = line.split("; ")
    assert "500 (18" in within
    assert "1,000 (8.7" in within
    assert "200 (44" in outside
    assert left_out.endswith("4,000.")
    # 18.0 of 19 at 500 triples and 44.7 of 49 at 200 are the ends, up to the seeds' noise.
    assert "Fully fitted sizes reach 92% to 98% of the ceiling" in drawing.verdict


def test_figure2_with_one_seed_cannot_say(outputs: Path) -> None:
    made.sizes_sweep(outputs, seeds=[0])
    assert draw_experiment("figure2").verdict.startswith("Cannot be said from these runs")


def test_figure2_of_under_fitted_models_cannot_say(outputs: Path) -> None:
    for seed in (0, 1):
        made.finished_random_run(outputs, "figure2", {"seed": seed}, ratio=lambda _: 10, accuracy=0.5)
    assert "no size is fully fitted" in draw_experiment("figure2").verdict


def test_figure2_outside_the_band_does_not_hold(outputs: Path) -> None:
    for seed in (0, 1, 2):
        made.finished_random_run(outputs, "figure2", {"seed": seed}, ratio=lambda _: 2)
    assert draw_experiment("figure2").verdict.startswith("Does not hold")


@pytest.mark.parametrize(
    ("sizes", "ratios", "start"),
    [
        ({50: 125, 100: 500}, (18, 18.2), "It is that of the data: at V^2 / N = 20 the ratios of 2 sizes differ by"),
        ({50: 125, 100: 500}, (12, 18), "It depends on more than V^2 / N: at V^2 / N = 20"),
        ({50: 125, 100: 1000}, (18, 9), "Cannot be said from these runs, whose V^2 / N differ"),
        ({50: 125}, (18, 18), "Cannot be said from these runs: fewer than two sizes"),
    ],
)
def test_vocabulary_tells_a_ratio_of_the_data_from_one_of_the_model(
    outputs: Path, sizes: dict[int, int], ratios: tuple[float, float], start: str
) -> None:
    for seed in (0, 1, 2):
        for (size, triples), ratio in zip(sizes.items(), ratios, strict=False):
            chosen = {"data.vocab_size": size, "data.num_sentences": triples, "seed": seed}
            made.finished_random_run(outputs, "vocabulary", chosen, ratio=lambda _, r=ratio: r)
        unfit = {"data.vocab_size": 200, "data.num_sentences": 2000, "seed": seed}
        made.finished_random_run(outputs, "vocabulary", unfit, ratio=lambda _: 4, accuracy=0.5)
    drawing = draw_experiment("vocabulary")
    check(drawing, "vocabulary")
    assert drawing.verdict.startswith(start)
    assert "at V = 200" not in drawing.verdict


def test_figure3_of_falling_curves_holds_and_leaves_out_what_does_not_fit(outputs: Path) -> None:
    made.widths_sweep(outputs, slope=-0.5)
    drawing = draw_experiment("figure3")
    check(drawing, "figure3")
    assert drawing.verdict.startswith("Holds at every threshold.")
    assert "Left out as not fully fitted: width 4 (3 of 3 runs)." in drawing.verdict
    assert "at P > 0.1 it falls from 41.7 to 39.7 (rank correlation -1 [-1, -1]), always above 10" in drawing.verdict


@pytest.mark.parametrize(
    ("ratios", "words", "start"),
    [
        (
            (19, 16, 15, 16, 17),
            "it is U-shaped: falls from 19.1 to 15.1 at 4,096 parameters and rises to 17.1",
            "Does not",
        ),
        (
            (15, 18, 19, 18, 17),
            "it is an inverted U: rises from 15.1 to 19.1 at 4,096 parameters and falls",
            "Does not",
        ),
        (
            (19, 17, 15, 14, 14.5),
            "it falls from 19.1 to 14.6 (rank correlation -0.9 [-0.9, -0.9], not at every",
            "Holds",
        ),
        (
            (14.5, 14, 15, 17, 19),
            "it rises from 14.6 to 19.1 (rank correlation 0.9 [0.9, 0.9], not at every",
            "Does not",
        ),
    ],
)
def test_figure3_calls_a_curve_that_turns_by_its_shape(
    outputs: Path, ratios: tuple[float, ...], words: str, start: str
) -> None:
    for seed in (0, 1, 2):
        for width, ratio in zip((8, 16, 32, 64, 128), ratios, strict=True):
            overrides = {"model.width": width, "seed": seed}
            made.finished_random_run(outputs, "figure3", overrides, ratio=lambda _, r=ratio: r)
    verdict = draw_experiment("figure3").verdict
    assert verdict.startswith(start)
    assert f"at P > 0.5 {words}" in verdict


def test_figure3_leaves_open_what_seeds_disagree_on(outputs: Path) -> None:
    for seed, ratios in enumerate([(15, 16, 17), (18, 16, 14), (16, 18, 15)]):
        for width, ratio in zip((8, 16, 32), ratios, strict=True):
            overrides = {"model.width": width, "seed": seed}
            made.finished_random_run(outputs, "figure3", overrides, ratio=lambda _, r=ratio: r)
    verdict = draw_experiment("figure3").verdict
    assert verdict.startswith("Cannot be said from these runs.")
    assert "has no trend that stands out from the noise" in verdict


@pytest.mark.parametrize(("slope", "word"), [(0.5, "rises"), (0.0, "is flat"), (-2.0, "is below 10 at")])
def test_figure3_tells_other_curves_apart(outputs: Path, slope: float, word: str) -> None:
    made.widths_sweep(outputs, slope=slope)
    verdict = draw_experiment("figure3").verdict
    assert word in verdict
    assert not verdict.startswith("Holds at every threshold.")


def test_figure3_with_one_seed_cannot_say(outputs: Path) -> None:
    made.widths_sweep(outputs, slope=-0.5, seeds=[0])
    verdict = draw_experiment("figure3").verdict
    assert verdict.startswith("Cannot be said from these runs.")
    assert "too few seeds" in verdict


def test_examples_tell_generalizations_from_hallucinations_and_what_contradicts_them(outputs: Path) -> None:
    made.examples_sweep(outputs)
    drawing = draw_experiment("examples")
    check(drawing, "examples")
    verdict = drawing.verdict.splitlines()
    # One of four seeds is below the threshold, so that the interval of 'mice eats cheese' reaches below it.
    assert verdict[0] == "Both examples are completed with their artifacts: cannot be said from these runs."
    assert verdict[1] == "'Jack John friends' precludes 'Jack John siblings': holds."
    assert verdict[2] == "It leaves 'Jane Jill siblings' an artifact: holds."
    assert "'mice eats cheese' 0.83 [0.37, 1.00] (artifact in 3 of 4 seeds, as a generalization)" in drawing.verdict
    assert (
        "'Jack John siblings' 0.9830 [0.9789, 0.9871] (artifact in 4 of 4 seeds, as a hallucination)" in drawing.verdict
    )
    assert "'Jack John friends' 1 [1, 1] (a training sentence)" in drawing.verdict
    but_one = draw_experiment("examples", where={"seed": [1, 2, 3]}).verdict
    assert but_one.startswith("Both examples are completed with their artifacts: holds.")


def test_examples_draw_what_is_wanted_blue_and_what_is_made_up_orange(outputs: Path) -> None:
    figure = examples.draw(made.examples_sweep(outputs))
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]
    siblings = ["Jack John siblings", "Jane Jill siblings", "Jack John friends"]
    assert labels == [["mouse eat cheese", "mice eats cheese"], siblings, siblings]
    blue, orange, grey = style.GENERALIZATION, style.HALLUCINATION, style.GREY
    means = [[line.get_color() for line in axes.lines if line.get_marker() == "o"] for axes in figure.axes]
    assert means == [[blue, blue], [orange, orange, blue], [orange, orange, grey]]
    seeds = [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_marker() == "."]
    assert [len(points) for points in seeds] == [4, 4]
    assert seeds[1][0] == 0.4
    told = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert told[0] == ["artifact in 4 of 4 seeds", "artifact in 3 of 4 seeds"]
    assert told[2] == ["artifact in 0 of 4 seeds", "artifact in 4 of 4 seeds", "training sentence"]
    assert figure.axes[2].get_title("left").count("'") == 6


@pytest.mark.parametrize(
    ("options", "place", "line"),
    [
        ({"tempting": 0.1}, 0, "Both examples are completed with their artifacts: does not hold."),
        ({"contradicted": 0.9}, 1, "'Jack John friends' precludes 'Jack John siblings': does not hold."),
        ({"seeds": 1}, 2, "It leaves 'Jane Jill siblings' an artifact: cannot be said from these runs."),
    ],
)
def test_examples_that_turn_out_otherwise(outputs: Path, options: dict[str, Any], place: int, line: str) -> None:
    made.examples_sweep(outputs, **options)
    assert draw_experiment("examples").verdict.splitlines()[place] == line


def test_examples_of_other_worlds_and_of_several_models_are_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(
        ConfigError, match=r"^No finished run of the sweep 's' is of one of the paper's examples: train"
    ):
        draw_experiment("s", "examples")
    for width in (8, 16):
        overrides = {"data.name": "grammar", "model.width": width}
        made.finished_example_run(outputs, overrides, ["mouse eats cheese", "mice eat cheese"], {})
    with pytest.raises(ConfigError, match=r"^The runs of one panel differ in model\.width: hold each, as in --where"):
        draw_experiment("examples")
    draw_experiment("examples", where={"model.width": 8})


def test_kinships_tells_whether_both_grow_together(outputs: Path) -> None:
    made.kinships_sweep(outputs)
    drawing = draw_experiment("kinships")
    check(drawing, "kinships")
    assert "there at the end: holds in all 6 settings." in drawing.verdict
    assert "grow together over training: holds in all 6 settings." in drawing.verdict
    assert "trained on 10%, width 32: recall 0.14" in drawing.verdict


def test_kinships_tells_when_one_grows_as_the_other_falls(outputs: Path) -> None:
    made.kinships_sweep(outputs, together=False)
    assert "grow together over training: does not hold." in draw_experiment("kinships").verdict


def test_kinships_without_held_out_facts_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^No run of the sweep 's' has held-out facts"):
        draw_experiment("s", "kinships")


def test_unknown_figures_and_sweeps_without_results_are_refused(outputs: Path) -> None:
    made.failed_run(outputs, "figure2", {})
    with pytest.raises(ConfigError, match=r"^There is no figure 'figur2'; did you mean 'figure2'\?$"):
        draw_experiment("figure2", "figur2")
    with pytest.raises(ConfigError, match=r"^There is no figure 'x'; there are .*figure1, .* and \w+\.$"):
        draw_experiment("figure2", "x")
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'figure2' has finished"):
        draw_experiment("figure2")


def test_a_sweep_of_no_experiment_says_what_to_type(outputs: Path) -> None:
    made.kinships_sweep(outputs, seeds=[0])
    (outputs / "kinships").rename(outputs / "mine")
    plan = json.loads((outputs / "mine/plan.json").read_text())
    (outputs / "mine/plan.json").write_text(json.dumps(plan | {"experiment": "my_own"}))
    with pytest.raises(ConfigError, match=r"^The sweep 'mine' is of no experiment that has a figure") as refused:
        draw_experiment("mine")
    *_, sweep, x_option, x, y_option, y = str(refused.value).split()
    assert (sweep, x_option, x, y_option, y) == ("mine", "--x", "data.held_out_fraction", "--y", "artifacts/per_ngram")
    check_png(draw_xy(sweep, x, y))


@pytest.mark.parametrize("well_fitted", [True, False])
def test_legends_name_only_what_is_drawn(outputs: Path, well_fitted: bool) -> None:
    for width in (8, 16):
        for seed in (0, 1):
            accuracy = 1.0 if well_fitted or width == 16 else 0.5
            overrides = {"model.width": width, "seed": seed}
            made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18, accuracy=accuracy)
    for figure in (figure2.draw(outputs / "s", {"model.width": 8}), figure3.draw(outputs / "s")):
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert ("under-fitted in a seed" in labels) != well_fitted
        assert any(label.startswith("ceiling at perfect fit") for label in labels)
        assert figure.get_suptitle().startswith("mean and 95 % Student t interval over seeds (2 runs a point)")


def test_kinships_names_its_two_measures_of_hallucination_and_hatches_a_second_band(outputs: Path) -> None:
    made.kinships_sweep(outputs)
    figure = kinships.draw(outputs / "kinships")
    left, middle, right = figure.axes
    assert middle.get_ylabel() == "hallucinations as a share of labelled artifacts"
    assert right.get_ylabel() == "hallucinations per labelled unseen context"
    assert right.get_title() == "hallucination rate per context against recall"
    assert figure.get_suptitle() == (
        "mean and 95 % Student t interval over seeds (3 runs a curve); on the right means alone, with a marker where "
        "training ends"
    )
    assert "faint: some of its runs have no value" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert {band.get_hatch() for band in left.collections} == {None, "////"}  # widths 32 and 64


def test_kinships_is_faint_where_a_share_is_undefined_in_some_seeds(outputs: Path) -> None:
    for seed, shares in enumerate([(0.9, 0.6, 0.4), (float("nan"), 0.5, 0.3), (float("nan"), 0.4, 0.2)]):
        evaluations = {
            step: {"generalization/recall": 0.1, "hallucination/share": share, "hallucination/per_context": 0.2}
            for step, share in zip((10, 20, 30), shares, strict=True)
        }
        overrides = {"data.name": "kinships", "data.held_out_fraction": 0.5, "seed": seed}
        made.finished_run(outputs, "kinships", overrides, evaluations)
    figure = kinships.draw(outputs / "kinships")
    faint, line = figure.axes[1].lines
    assert np.asarray(faint.get_ydata()).tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert np.isnan(line.get_ydata()[0])
    assert np.asarray(line.get_ydata())[1:].tolist() == pytest.approx([0.5, 0.3])
    assert faint.get_alpha() == figure.legends[0].get_lines()[-1].get_alpha() == style.FAINT["alpha"]
    assert line.get_alpha() is None
    [band] = figure.axes[1].collections
    assert {x for path in band.get_paths() for x, _ in path.vertices} == {20, 30}
    assert figure.legends[0].get_texts()[-1].get_text() == "faint: some of its runs have no value"
    assert len(figure.axes[0].lines) == 1  # recall has a value in all of them
    assert "(3 runs a curve)" in figure.get_suptitle()


def test_kinships_says_which_runs_are_under_fitted(outputs: Path) -> None:
    for fraction, accuracy in ((0.5, 0.8), (0.1, 1.0)):
        for seed in (0, 1):
            evaluations = {step: {"generalization/recall": 0.5, "hallucination/share": 0.5} for step in (10, 20)}
            evaluations[20]["train/accuracy"] = accuracy if seed else 1.0
            overrides = {"data.name": "kinships", "data.held_out_fraction": fraction, "seed": seed}
            run = made.finished_run(outputs, "kinships", overrides, evaluations)
            run.write_facts(made.random_facts({}) | {"corpus/fully_fitted_accuracy": 0.9}, None)
    figure, said = kinships.draw(outputs / "kinships"), kinships.verdict(outputs / "kinships")
    assert "trained on 50% (1 of 2 runs under-fitted): recall" in said
    assert "trained on 90%: recall" in said
    ends = [line.get_markerfacecolor() for line in figure.axes[2].lines if line.get_markersize() == 7]
    assert [isinstance(colour, str) and colour == "white" for colour in ends] == [True, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "under-fitted in a seed"


def test_kinships_keeps_runs_that_have_reached_their_target(outputs: Path) -> None:
    for seed, steps in enumerate([(10, 20), (10, 20, 30)]):
        evaluations = {
            step: {"generalization/recall": (seed + 1) * step / 100, "hallucination/share": 0.5} for step in steps
        }
        overrides = {"data.name": "kinships", "data.held_out_fraction": 0.5, "seed": seed}
        made.finished_run(outputs, "kinships", overrides, evaluations)
    [line] = kinships.draw(outputs / "kinships").axes[0].lines
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([0.15, 0.3, 0.4])  # 0.2 stays, 0.6 is reached
    assert "recall 0.4 [" in kinships.verdict(outputs / "kinships")


def test_kinships_says_what_grows_together(outputs: Path) -> None:
    made.kinships_sweep(outputs, seeds=[0, 1])
    assert "correlation of recall with hallucinations per context over training" in kinships.verdict(
        outputs / "kinships"
    )


@pytest.mark.parametrize(
    ("sweep", "where", "name"),
    [
        ("figure2", {"objective.positions": "all", "data.num_sentences": [500, 1000]}, None),
        ("figure3", {"objective.positions": "last"}, "figure3_where_objective.positions=last"),
        ("kinships", {"model.width": 64}, "kinships_where_model.width=64"),
    ],
)
def test_a_figure_of_some_runs_says_so_and_has_its_own_name(
    outputs: Path, sweep: str, where: dict[str, Any], name: str | None
) -> None:
    module, make = {
        "figure2": (figure2, made.sizes_sweep),
        "figure3": (figure3, lambda to: made.widths_sweep(to, slope=0)),
        "kinships": (kinships, made.kinships_sweep),
    }[sweep]
    make(outputs)
    drawing = draw_experiment(sweep, where=where)
    check(drawing, name or "figure2_where_objective.positions=all_and_data.num_sentences=500,1000")
    assert str(drawing).startswith(f"Runs:    those with {spell_where(where)}")
    assert drawing.left_out == ("1 of 7 runs is left out: 1 failed." if sweep == "figure2" else "")
    assert drawing.verdict != module.verdict(outputs / sweep)
    title = module.draw(outputs / sweep, where).get_suptitle()
    assert title.endswith(f"\nruns with {spell_where(where)}")


def test_a_figure_says_which_runs_have_not_finished(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        made.finished_random_run(outputs, "figure2", {"seed": seed}, ratio=lambda _: 18)
    drawing = draw_experiment("figure2")
    assert drawing.left_out == ""
    assert str(drawing).startswith("Claim:")
    made.failed_run(outputs, "figure2", {"seed": 2})
    assert left_out("figure2") == "1 of 3 runs is left out: 1 failed."
    assert left_out("figure2", {"seed": [0, 1]}) == ""
    made.failed_run(outputs, "figure2", {"seed": 3})
    made.begin(outputs, "figure2", {"seed": 4}).set_state("running", step=5)  # nobody holds its lease
    sentence = "3 of 5 runs are left out: 2 failed, 1 interrupted."
    figures: list[Figure] = []
    monkeypatch.setattr("tc_sweeps.report.figures.save", lambda figure, path: figures.append(figure) or [path])
    assert str(draw_experiment("figure2")).startswith(f"Runs:    {sentence}\nClaim:")
    assert figures[0].get_suptitle().endswith(f"(2 runs a point)\n{sentence}")
    assert figure_xy(outputs / "figure2", "step", "train/loss").get_suptitle().endswith(f"\n{sentence}")
    monkeypatch.setattr("sys.argv", ["tc-sweeps", "figure", "figure2", "--x", "step", "--y", "train/loss"])
    main()
    said, path = capsys.readouterr().out.splitlines()
    assert said == sentence
    assert path.endswith("train_loss_against_step.png")


def test_any_metric_against_any_key(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    made.kinships_sweep(outputs, seeds=[0, 1])
    path = draw_xy("figure2", "data.num_sentences", "artifacts/per_ngram", "objective.positions")
    assert path.name == "artifacts_per_ngram_against_data_num_sentences_by_objective_positions.png"
    check_png(path)
    assert path.with_suffix(".pdf").exists()
    check_png(draw_xy("kinships", "step", "generalization/recall", ["data.held_out_fraction", "model.width"]))
    check_png(draw_xy("figure2", "objective.positions", "model/parameters"))
    path = draw_xy("kinships", "step", "artifacts/count", where={"model.width": 32, "data.held_out_fraction": 0.9})
    assert path.name == "artifacts_count_against_step_where_model.width=32_and_data.held_out_fraction=0.9.png"
    check_png(path)


def lines_of(figure: Figure, linestyle: str) -> list[Any]:
    return [line for line in figure.axes[0].lines if line.get_linestyle() == linestyle]


@pytest.mark.parametrize(
    ("y", "ceiling"),
    [("artifacts/per_ngram", [9800 / 200, 9500 / 500]), ("artifacts/count", [9800, 9500]), ("train/accuracy", None)],
)
def test_beside_a_number_of_artifacts_stands_its_ceiling(outputs: Path, y: str, ceiling: list[float] | None) -> None:
    for triples in (200, 500):
        for seed in (0, 1):
            made.finished_random_run(outputs, "s", {"data.num_sentences": triples, "seed": seed}, ratio=lambda _: 8)
    figure = figure_xy(outputs / "s", "data.num_sentences", y)
    dashed = lines_of(figure, "--")
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    if ceiling is None:
        assert (dashed, labels) == ([], [])
    else:
        assert dashed[0].get_ydata().tolist() == ceiling
        assert labels == [y, "ceiling of these runs"]
    over_training = figure_xy(outputs / "s", "step", y)
    assert len(lines_of(over_training, "--")) == (2 if ceiling else 0)  # one for each size
    assert over_training.axes[0].get_xlabel() == "optimizer step"


def test_the_ceiling_of_a_single_value_is_dashed_as_well(outputs: Path) -> None:
    for seed in (0, 1):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18)
    figure = figure_xy(outputs / "s", "model.width", "artifacts/count")
    [ceiling] = [line for line in figure.axes[0].lines if line.get_marker() is style.DASHES]
    assert ceiling.get_ydata().tolist() == [9500]


def test_whole_numbers_have_whole_ticks(outputs: Path) -> None:
    for heads in (1, 2):
        made.finished_random_run(outputs, "s", {"model.heads": heads}, ratio=lambda _: 18)
    axes = figure_xy(outputs / "s", "model.heads", "train/loss").axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1, 2]


def test_few_values_have_a_tick_each(outputs: Path) -> None:
    for decay in (0.0, 0.1, 0.25):
        made.finished_random_run(outputs, "s", {"training.weight_decay": decay}, ratio=lambda _: 18)
    axes = figure_xy(outputs / "s", "training.weight_decay", "train/loss").axes[0]
    assert list(axes.get_xticks()) == [0, 0.1, 0.25]
    assert [axes.xaxis.get_major_formatter()(tick) for tick in (0, 0.1, 0.25, 1.5, 1000)] == [
        *("0", "0.1", "0.25", "1.5", "1,000")
    ]


def test_ticks_that_would_not_fit_are_left_out() -> None:
    axes = style.new_figure(6, 4).subplots()
    style.ticks_at(axes, [0, 0.01, 1, 2, 3], most=4)
    assert list(axes.get_xticks()) == [0, 1, 2, 3]
    style.ticks_at(axes, [0, 1, 2, 3, 4], most=4)
    assert list(axes.get_xticks()) == [0, 2, 4]
    style.ticks_at(axes, [0, 1, 2, 3], most=4)
    assert list(axes.get_xticks()) == [0, 1, 2, 3]
    style.ticks_at(axes, [5], most=4)
    assert list(axes.get_xticks()) == [5]


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_its_unit_beside_the_axis(metric: str) -> None:
    name, bracket, words = labelled(metric).replace("\n", " ").partition(" (")
    assert (name, bracket) == (metric, " (")
    assert words.endswith(", judge's half)" if metric.startswith("judge/") else ")")
    assert all(len(line) < 48 for line in labelled(metric).split("\n"))


def test_points_that_a_seed_has_not_fitted_are_hollow(outputs: Path) -> None:
    for width, accuracies in ((8, (0.5, 1.0)), (16, (1.0, 1.0))):
        for seed, accuracy in enumerate(accuracies):
            overrides = {"model.width": width, "seed": seed}
            made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18, accuracy=accuracy)
    figure = figure_xy(outputs / "s", "model.width", "train/loss")
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    faces = {line.get_xdata()[0]: line.get_markerfacecolor() for line in points}
    assert faces == {8: "white", 16: style.COLOURS[0]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["under-fitted in a seed"]
    assert not figure_xy(outputs / "s", "model.width", "train/loss", where={"model.width": 16}).legends


def test_where_the_fit_is_not_known_points_are_full(outputs: Path) -> None:
    made.finished_run(outputs, "s", {}, {10: {"artifacts/count": 3}})
    figure = figure_xy(outputs / "s", "model.width", "artifacts/count")
    assert not figure.legends


WIDTHS = {"model.width": [8, 16]}
TWO = {**WIDTHS, "training.weight_decay": [0.0, 0.1]}
THREE = {**TWO, "objective.positions": ["all", "last"]}


def product_sweep(outputs: Path, axes: dict[str, list[Any]]) -> Path:
    for values in itertools.product(*axes.values(), [0, 1]):
        overrides = dict(zip([*axes, "seed"], values, strict=True))
        made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18)
    return outputs / "s"


@pytest.mark.parametrize(
    ("axes", "x", "by", "where", "lines"),
    [
        (WIDTHS, "model.width", [], {}, []),
        (WIDTHS, "model/parameters", [], {}, []),  # goes along with the width
        (WIDTHS, "step", [], {}, ["width 8", "width 16"]),
        (WIDTHS, "step", ["model.width"], {}, ["width 8", "width 16"]),
        (WIDTHS, "step", [], {"model.width": 8}, []),
        (TWO, "model.width", [], {}, ["weight decay 0", "weight decay 0.1"]),
        (TWO, "step", [], {"training.weight_decay": 0.1}, ["width 8", "width 16"]),
        (TWO, "step", ["model.width"], {"model.width": 8}, ["width 8, weight decay 0", "width 8, weight decay 0.1"]),
        (THREE, "model.width", [], {"training.weight_decay": 0}, ["loss on all positions", "loss on the last token"]),
    ],
)
def test_an_axis_that_is_left_gets_lines_of_its_own(
    outputs: Path, axes: dict[str, list[Any]], x: str, by: list[str], where: dict[str, Any], lines: list[str]
) -> None:
    figure = figure_xy(product_sweep(outputs, axes), x, "train/loss", by, where)
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == lines
    title = f"mean and 95 % Student t interval over seeds (2 runs a {'curve' if x == 'step' else 'point'})"
    assert figure.get_suptitle() == title + (f"\nruns with {spell_where(where)}" if where else "")


def test_an_axis_names_the_keys_that_go_along_with_it(outputs: Path) -> None:
    for width, rate in ((8, 0.02), (16, 0.01)):
        for seed in (0, 1):
            overrides = {"model.width": width, "training.learning_rate": rate, "seed": seed}
            made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18)
    along = figure_xy(outputs / "s", "model.width", "train/loss").axes[0].get_xlabel()
    assert along == "model.width\n(and training.learning_rate with it)"
    alone = figure_xy(product_sweep(outputs / "other", TWO), "model.width", "train/loss").axes[0].get_xlabel()
    assert alone == "model.width"


@pytest.mark.parametrize(
    ("axes", "x", "by", "options"),
    [
        (TWO, "step", [], "--by model.width --where training.weight_decay=0"),
        (THREE, "model.width", [], "--by objective.positions --where training.weight_decay=0"),
        (THREE, "step", ["model.width"], "--by objective.positions --where training.weight_decay=0"),
    ],
)
def test_two_axes_that_are_left_are_not_averaged_over(
    outputs: Path, axes: dict[str, list[Any]], x: str, by: list[str], options: str
) -> None:
    named = " and ".join(option.split("=")[0] for option in options.split()[1::2])
    with pytest.raises(ConfigError, match=rf"^The runs of one point differ in {named}, .*, as in {options}\.$"):
        figure_xy(product_sweep(outputs, axes), x, "train/loss", by)


def test_over_training_a_run_that_has_reached_its_target_stays_in_the_mean(outputs: Path) -> None:
    made.finished_run(outputs, "s", {"seed": 0}, {50: {"train/loss": 4}, 100: {"train/loss": 6}})
    made.finished_run(outputs, "s", {"seed": 1}, {step: {"train/loss": step} for step in (50, 100, 150)})
    [axes] = figure_xy(outputs / "s", "step", "train/loss").axes
    assert axes.lines[0].get_xydata().tolist() == [[50, 27], [100, 53], [150, 78]]


def test_over_training_a_curve_is_faint_where_a_run_has_no_value(outputs: Path) -> None:
    made.finished_run(outputs, "s", {"seed": 0}, {50: {"train/loss": 4}, 100: {"train/loss": 6}})
    made.finished_run(outputs, "s", {"seed": 1}, {50: {"artifacts/count": 1}, 100: {"train/loss": 8}})
    figure = figure_xy(outputs / "s", "step", "train/loss")
    faint, whole = figure.axes[0].lines
    assert np.asarray(faint.get_ydata()).tolist() == [4, 7]
    assert np.isnan(whole.get_ydata()).tolist() == [True, False]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["faint: some of its runs have no value"]
    assert "(2 runs a curve)" in figure.get_suptitle()


def test_axes_that_go_along_with_each_other_are_one(outputs: Path) -> None:
    for width, rate in ((8, 0.1), (16, 0.01)):
        overrides = {"model.width": width, "training.learning_rate": rate}
        made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18)
    figure = figure_xy(outputs / "s", "step", "train/loss")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["width 8", "width 16"]
    assert figure.get_suptitle() == "1 run a curve"


def test_a_title_counts_the_runs_in_which_the_metric_is_defined(outputs: Path) -> None:
    for seeds, width in ((5, 8), (3, 16)):
        for seed in range(seeds):
            overrides = {"model.width": width, "seed": seed}
            made.finished_random_run(outputs, "s", overrides, ratio=lambda _: 18)
    figure = figure_xy(outputs / "s", "model.width", "train/accuracy")
    assert "(3 to 5 runs a point)" in figure.get_suptitle()
    [one] = load_sweep("s", where={"model.width": 8, "seed": 0})["run_id"]
    path = outputs / "s" / one / "metrics.csv"
    pd.read_csv(path).assign(**{"train/accuracy": float("nan")}).to_csv(path, index=False)
    figure = figure_xy(outputs / "s", "model.width", "train/accuracy")
    assert "(3 to 4 runs a point)" in figure.get_suptitle()


def test_no_band_of_a_share_leaves_zero_to_one(outputs: Path) -> None:
    for seed, accuracy in enumerate((0.2, 1.0)):
        made.finished_random_run(outputs, "s", {"seed": seed}, ratio=lambda _: 18, accuracy=accuracy)
    [band] = figure_xy(outputs / "s", "step", "train/accuracy").axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 1)
    figure = figure_xy(outputs / "s", "model.width", "train/accuracy")
    [bar] = figure.axes[0].collections
    assert bar.get_segments()[0][:, 1].tolist() == [0, 1]


def test_a_null_has_a_place_on_the_axis(outputs: Path) -> None:
    for sentences in (None, 1000, 2000):
        overrides = {"data.num_sentences": sentences, "data.held_out_fraction": 0.1}
        made.finished_kinships_run(outputs, "s", overrides, recall=0.5)
    check_png(draw_xy("s", "data.num_sentences", "generalization/recall"))


@pytest.mark.parametrize(
    ("x", "y", "by", "sentence"),
    [
        ("width", "artifacts/count", None, r"^--x width is not a column of this sweep; did you mean 'model\.width'\?$"),
        ("step", "artifact/count", None, r"^--y artifact/count .*did you mean 'artifacts/count'\?$"),
        (
            "step",
            "artifacts/count",
            "objective.position",
            r"^--by objective.position .*did you mean 'objective\.positions'\?$",
        ),
        ("step", "generalization/recall", None, r"^--y generalization/recall is undefined in every finished run"),
    ],
)
def test_unknown_columns_name_the_nearest(outputs: Path, x: str, y: str, by: str | None, sentence: str) -> None:
    made.finished_random_run(outputs, "s", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=sentence):
        draw_xy("s", x, y, by)


# ------------------------------------------------------------------------------ generalization against hallucination

STEPS = (1, 10, 100, 1000)
GROKKED = {"fit": (0.2, 1, 1, 1), "recall": (0, 0, 0.05, 0.95), "wrong": (0.1, 0.8, 0.9, 0.2)}
TOGETHER = {"fit": (0.1, 0.6, 0.995, 1), "recall": (0, 0.4, 0.6, 0.6), "wrong": (0, 0.3, 0.2, 0.2)}
RECALL_FIRST = {"fit": (0.1, 0.6, 0.7, 0.8), "recall": (0, 0.4, 0.6, 0.6), "wrong": (0, 0, 0.05, 0.2)}
NEVER = {"fit": (1, 1, 1, 1), "recall": (0, 0, 0, 0), "wrong": (0, 0, 0, 0)}


def dynamics_runs(
    outputs: Path,
    overrides: dict[str, Any],
    curves: dict[str, tuple[float, ...]],
    *,
    wrong: str = "hallucination/per_context",
    seeds: int = 3,
) -> None:
    """Runs of one world; the seeds' curves are 0.9, 1 and 1.1 times recall and hallucinations, up to 1 of recall."""
    for seed in range(seeds):
        by = 0.9 + 0.1 * seed
        evaluations = {
            step: {
                "train/accuracy": fit,
                "train/excess_loss": 0.1 / step * 10**seed,
                "generalization/recall": min(right * by, 1),
                wrong: bad * by,
            }
            for step, fit, right, bad in zip(STEPS, *curves.values(), strict=True)
        }
        made.finished_run(outputs, "dynamics", {**overrides, "seed": seed}, evaluations)


def drawn(axes: Axes, colour: str, linestyle: str = "-") -> list[list[float]]:
    """The heights of each line of a colour and style."""
    lines = [line for line in axes.get_lines() if line.get_color() == colour and line.get_linestyle() == linestyle]
    return [np.asarray(line.get_ydata(), float).tolist() for line in lines]


def test_dynamics_draws_a_panel_for_each_world_and_config(outputs: Path) -> None:
    dynamics_runs(outputs, {"data.name": "relations"}, GROKKED)
    for width in (8, 16):
        dynamics_runs(
            outputs, {"data.name": "kinships", "model.width": width}, TOGETHER, wrong="hallucination/share", seeds=2
        )
    made.finished_random_run(outputs, "dynamics", {}, ratio=lambda _: 18)  # has no truth: no panel
    made.failed_run(outputs, "dynamics", {"data.name": "kinships", "model.width": 4})
    check(draw_experiment("dynamics"), "dynamics")
    figure = dynamics.draw(outputs / "dynamics")
    upper, lower = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in upper] == ["kinships: width 8", "kinships: width 16", "relations"]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    mean = pytest.approx
    together, _, grokked = upper
    assert drawn(grokked, style.GENERALIZATION) == [mean([0, 0, 0.05, (0.855 + 0.95 + 1) / 3])]
    assert drawn(grokked, style.HALLUCINATION) == [mean(GROKKED["wrong"])]
    assert drawn(grokked, style.GREY, "--") == [mean(GROKKED["fit"])]
    assert drawn(together, style.HALLUCINATION, ":") == [mean([0.95 * value for value in TOGETHER["wrong"]])]
    assert drawn(together, style.HALLUCINATION) == []
    # Excess losses of 0.1, 1 and 10 over the step are 1 over it on a logarithm.
    assert drawn(lower[2], style.COLOURS[-1]) == [mean([1 / step for step in STEPS])]
    assert all(axes.get_ylim()[0] < line.min() for axes in lower for line in [axes.get_lines()[0].get_ydata()])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "recall of held-out n-grams",
        "hallucinations per labelled unseen context",
        "hallucinations as a share of labelled artifacts",
        "training accuracy",
        "excess loss (geometric mean)",
    ]
    assert figure.get_suptitle() == "mean and 95 % Student t interval over seeds (2 to 3 runs a curve)"


def test_dynamics_keeps_runs_that_have_reached_their_target(outputs: Path) -> None:
    for seed, steps in enumerate([(1, 10), (1, 10, 100)]):
        evaluations = {
            step: {
                "train/accuracy": 1,
                "train/excess_loss": 0.1,
                "generalization/recall": (seed + 1) * 0.1,
                "hallucination/share": 0.5,
            }
            for step in steps
        }
        made.finished_run(outputs, "dynamics", {"data.name": "kinships", "seed": seed}, evaluations)
    upper, lower = dynamics.draw(outputs / "dynamics").axes
    assert drawn(upper, style.GENERALIZATION) == [pytest.approx([0.15, 0.15, 0.15])]
    assert len(drawn(lower, style.COLOURS[-1])[0]) == 3


def test_dynamics_has_room_for_rates_above_one(outputs: Path) -> None:
    dynamics_runs(outputs, {"data.name": "relations"}, {**TOGETHER, "wrong": (0, 1, 2, 3)}, seeds=1)
    dynamics_runs(outputs, {"data.name": "kinships"}, TOGETHER, seeds=1)
    high, low = dynamics.draw(outputs / "dynamics").axes[:2]
    assert high.get_ylim() == low.get_ylim()
    assert high.get_ylim()[1] > 2.7


@pytest.mark.parametrize(
    ("curves", "start", "parts"),
    [
        (
            GROKKED,
            "Hallucinations come first: kinships. Recall jumps in kinships.",
            [
                "training accuracy exceeds 0.99 at step 10 [10, 10]",
                "recall exceeds half of its last value (0.93",
                ") at step 1000 [1000, 1000]",
                "hallucinations per labelled unseen context exceed half of their greatest (0.90",
                "hallucinations come first, recall takes 100 [100, 100] times as many steps",
                "recall jumps in 2 of 3 runs",  # 0.9 times 0.95 is below 0.9
            ],
        ),
        (
            TOGETHER,
            "Cannot be told apart: kinships. Recall jumps in no world.",
            [
                "training accuracy exceeds 0.99 at step 100 [100, 100]",
                "; both at the same evaluation; no jump of recall",
            ],
        ),
        (
            RECALL_FIRST,
            "Recall comes first: kinships. Recall jumps in no world.",
            [
                "training accuracy never exceeds 0.99 (its greatest is 0.8",
                "recall comes first, hallucinations take 100 [100, 100] times as many steps",
            ],
        ),
        (
            NEVER,
            "Cannot be told apart: kinships. Recall jumps in no world.",
            [
                "; recall ends below 0.05; hallucinations per labelled unseen context stay at 0; "
                "which comes first is undefined; no jump of recall."
            ],
        ),
    ],
)
def test_dynamics_tells_what_comes_first_and_whether_recall_jumps(
    outputs: Path, curves: dict[str, tuple[float, ...]], start: str, parts: list[str]
) -> None:
    dynamics_runs(outputs, {"data.name": "kinships"}, curves)
    told = draw_experiment("dynamics").verdict
    assert told.startswith(f"{start}\nkinships: training accuracy ")
    for part in parts:
        assert part in told


def test_dynamics_leaves_open_what_seeds_disagree_on(outputs: Path) -> None:
    for seed, curves in enumerate((GROKKED, RECALL_FIRST)):
        evaluations = {
            step: {"train/accuracy": fit, "generalization/recall": right, "hallucination/per_context": bad}
            for step, fit, right, bad in zip(STEPS, *curves.values(), strict=True)
        }
        made.finished_run(outputs, "dynamics", {"data.name": "kinships", "seed": seed}, evaluations)
    told = dynamics.verdict(outputs / "dynamics")
    assert "which comes first cannot be told, recall takes 1 [" in told
    assert "training accuracy exceeds 0.99 at step 10 in 1 of 2 runs;" in told
    one = dynamics.verdict(outputs / "dynamics", {"seed": 0})
    assert "which comes first cannot be told, recall takes 100 times as many steps (one seed); recall jumps in 1" in one


def test_dynamics_without_a_truth_or_with_too_many_worlds_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "dynamics", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'dynamics' has both recall and hallucinations: .*\.$"):
        draw_experiment("dynamics")
    for width in range(4, 56, 4):
        dynamics_runs(outputs, {"data.name": "kinships", "model.width": width}, TOGETHER, seeds=1)
    with pytest.raises(ConfigError, match=r"have 13 worlds and configs, more .*, as in --where data\.name=kinships\.$"):
        draw_experiment("dynamics")


def contradictions_runs(
    outputs: Path,
    values: dict[float, tuple[float, float, int]],
    overrides: dict[str, Any] | None = None,
    seeds: int = 3,
) -> None:
    """Recall, hallucinations per context and artifacts by share, times 0.9, 1 and 1.1 in the three seeds."""
    for share, (right, wrong, count) in values.items():
        for seed in range(seeds):
            by = 0.9 + 0.1 * seed
            last = {
                "generalization/recall": right * by,
                "hallucination/per_context": wrong * by,
                "artifacts/count": round(count * by),
            }
            chosen = {"data.name": "relations", "data.contradictions": share, "seed": seed, **(overrides or {})}
            evaluations = {1: dict.fromkeys(last, 0), 1000: last}
            made.finished_run(outputs, "contradictions", chosen, evaluations)


def test_contradictions_draws_the_last_evaluation_against_the_share(outputs: Path) -> None:
    contradictions_runs(outputs, {0.0: (0.8, 0.5, 1000), 0.5: (0.72, 0.2, 600), 1.0: (0.4, 0, 100)}, {"model.width": 8})
    contradictions_runs(outputs, {0.0: (0.7, 0.4, 900), 0.5: (0.7, 0.4, 900)}, {"model.width": 16})
    made.finished_random_run(outputs, "contradictions", {}, ratio=lambda _: 18)  # cannot contradict itself
    drawing = draw_experiment("contradictions")
    check(drawing, "contradictions")
    left, right = contradictions.draw(outputs / "contradictions").axes
    assert left.get_xscale() == "linear"
    assert drawn(left, style.GENERALIZATION) == [pytest.approx([0.8, 0.72, 0.4])]
    assert drawn(left, style.HALLUCINATION) == [pytest.approx([0.5, 0.2, 0])]
    assert drawn(left, style.HALLUCINATION, "--") == [pytest.approx([0.4, 0.4])]
    assert drawn(right, style.COLOURS[-1]) == [pytest.approx([1000, 600, 100])]
    assert drawn(right, style.COLOURS[-1], "--") == [pytest.approx([900, 900])]
    lines = drawing.verdict.splitlines()
    assert lines[:2] == [
        "Contradictions remove hallucinations: holds in 2 of 3 settings and does not hold in 1.",
        "They cost recall: holds in 2 of 3 settings and does not hold in 1.",
    ]
    # Within a seed the factors cancel, so that the intervals have no width.
    assert lines[2].startswith(
        "width 8: 50% of the contradictions remove 60 [60, 60] % of the hallucinations per labelled unseen context and "
        "10 [10, 10] % of the recall of licensed inferences; 600 ["
    )
    assert "width 8: 100% of the contradictions remove 100 [100, 100] % of the hallucinations" in lines[3]
    assert "width 16: 50% of the contradictions remove 0 [0, 0] % of the hallucinations" in lines[5]


def test_contradictions_near_to_none_are_told_apart_on_their_axis(outputs: Path) -> None:
    shares = [0, 0.001, 0.01, 0.1, 1]
    contradictions_runs(outputs, {share: (0.8, 0.5 * (1 - share), 1000) for share in shares}, seeds=1)
    axes = contradictions.draw(outputs / "contradictions").axes[0]
    assert axes.get_xscale() == "symlog"
    assert axes.get_xticks().tolist() == shares
    told = contradictions.verdict(outputs / "contradictions")
    assert told.startswith("Contradictions remove hallucinations: cannot be said from these runs.")
    assert "0.1% of the contradictions remove 0.1 % (one seed) of the hall" in told


def test_contradictions_of_no_hallucination_remove_an_undefined_part(outputs: Path) -> None:
    contradictions_runs(outputs, {0.0: (0.8, 0, 100), 0.5: (0.8, 0, 100)})
    told = contradictions.verdict(outputs / "contradictions")
    assert told.startswith("Contradictions remove hallucinations: cannot be said from these runs.")
    assert "50% of the contradictions remove an undefined part of the hallucinations" in told


def test_contradictions_without_their_key_their_metrics_or_a_run_without_them_are_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "contradictions", {}, ratio=lambda _: 18)
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'contradictions' has data\.contradictions: "):
        draw_experiment("contradictions")
    overrides = {"data.name": "relations", "data.contradictions": 0.7}
    made.finished_run(outputs, "contradictions", overrides, {10: {"artifacts/count": 3}})
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'contradictions' has both recall and hallucinations"):
        draw_experiment("contradictions")
    contradictions_runs(outputs, {0.5: (0.8, 0.5, 100)})
    with pytest.raises(
        ConfigError, match=r"has no finished run with data\.contradictions=0, against which .* add it\.$"
    ):
        draw_experiment("contradictions")


def test_a_curve_that_is_generalization_or_hallucination_has_its_colour(outputs: Path) -> None:
    made.kinships_sweep(outputs, seeds=[0, 1])
    where = {"model.width": 32}
    colours = {"generalization/recall": style.GENERALIZATION, "hallucination/share": style.HALLUCINATION}
    for y, colour in colours.items():
        [axes] = figure_xy(outputs / "kinships", "data.held_out_fraction", y, where=where).axes
        assert [len(drawn(axes, other)) for other in colours.values()] == [
            other == colour for other in colours.values()
        ]
    left, middle, right = kinships.draw(outputs / "kinships").axes
    assert {left.yaxis.label.get_color(), right.xaxis.label.get_color()} == {style.GENERALIZATION}
    assert {middle.yaxis.label.get_color(), right.yaxis.label.get_color()} == {style.HALLUCINATION}
    assert style.GENERALIZATION != style.HALLUCINATION


def recommendation_runs(
    outputs: Path, model: dict[str, Any], right: float, wrong: float, seeds: int = 3, **data: Any
) -> None:
    """So many right and wrong recommendations for each of 200 users, times 0.9, 1 and 1.1 in the three seeds."""
    for seed in range(seeds):
        by = 0.9 + 0.1 * seed
        last = {
            "generalization/count": right * 200 * by,
            "generalization/recall": right * by / 4,
            "hallucination/count": wrong * 200 * by,
            "hallucination/share": wrong / (right + wrong) if right + wrong else float("nan"),
            "train/above_threshold": 1600,
        }
        chosen = {"data.name": "ratings", **{f"data.{key}": value for key, value in data.items()}, "seed": seed}
        run = made.finished_run(outputs, "recommendation", chosen | model, {1000: last})
        sizes = {"corpus/contexts": 200, "corpus/train_ngrams": 3200, "corpus/held_out_ngrams": 800}
        run.write_facts(made.random_facts({}) | sizes, None)


def test_recommendation_draws_both_models_against_their_sizes(outputs: Path) -> None:
    for size, right, wrong in ((2, 1, 3), (4, 2, 0.5), (64, 0, 0)):
        recommendation_runs(outputs, {"model.name": "cp", "model.rank": size}, right, wrong)
        recommendation_runs(outputs, {"model.width": size, "model.heads": 1}, right, wrong / 2)
    drawing = draw_experiment("recommendation")
    check(drawing, "recommendation")
    left, middle, right_axes = recommendation.draw(outputs / "recommendation").axes
    assert left.get_xscale() == "log"
    assert drawn(left, style.GENERALIZATION) == [pytest.approx([0.25, 0.5, 0])]
    assert drawn(left, style.GENERALIZATION, "--") == [pytest.approx([0.25, 0.5, 0])]
    assert drawn(middle, style.COLOURS[-1]) == [pytest.approx([0.25, 0.8])], "no precision where nothing is recommended"
    assert drawn(middle, style.COLOURS[-1], "--") == [pytest.approx([0.4, 2 / 2.25])]
    assert drawn(right_axes, style.HALLUCINATION) == [pytest.approx([3, 0.5, 0])]
    assert drawn(right_axes, style.HALLUCINATION, "--") == [pytest.approx([1.5, 0.25, 0])]
    assert right_axes.get_xlabel() == "rank of the CP tensor or width of the transformer"
    lines = drawing.verdict.splitlines()
    assert lines[:2] == [
        "Wherever held-out likes are recommended, so is what is not liked: holds in all 4 settings.",
        "The largest rank or width recommends less than the one that finds most: holds in all 2 settings.",
    ]
    assert lines[2].startswith("CP tensor, rank 4: 0.5 [0.5, 0.5] of the likes in the data and 0.50 [0.38, 0.62] of")
    assert "recommendations: a precision of 0.8" in lines[2]
    assert lines[2].endswith(", 0.50 [0.38, 0.62] wrong recommendations per user.")
    assert lines[3].endswith("those held out are above the threshold; recommendations: none at all.")
    assert lines[4].startswith("transformer, width 4: ")
    assert lines[6].startswith("By chance precision is 0.048.")


def test_recommendation_without_a_wrong_one_does_not_hold(outputs: Path) -> None:
    recommendation_runs(outputs, {"model.name": "cp", "model.rank": 4}, 2, 0)
    told = recommendation.verdict(outputs / "recommendation").splitlines()
    assert told[0] == "Wherever held-out likes are recommended, so is what is not liked: does not hold."
    assert len(told) == 3, "there is no other size"


def test_recommendation_of_nothing_cannot_be_said(outputs: Path) -> None:
    recommendation_runs(outputs, {"model.name": "cp", "model.rank": 4}, 0, 0)
    told = recommendation.verdict(outputs / "recommendation").splitlines()
    assert told[0] == "Held-out likes are recommended: cannot be said from these runs, at any rank or width."


def test_recommendation_tells_other_keys_apart(outputs: Path) -> None:
    for likes, wrong in ((10, 1), (20, 2)):
        recommendation_runs(outputs, {"model.name": "cp", "model.rank": 4}, 2, wrong, seeds=1, likes=likes)
    figure = recommendation.draw(outputs / "recommendation")
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == [
        "CP tensor, likes 10",
        "CP tensor, likes 20",
    ]


def test_recommendation_in_another_world_is_refused(outputs: Path) -> None:
    made.finished_random_run(outputs, "recommendation", {}, ratio=lambda _: 18)
    with pytest.raises(
        ConfigError, match=r"^No run of the sweep 'recommendation' has held-out likes: choose data=rati"
    ):
        draw_experiment("recommendation")
