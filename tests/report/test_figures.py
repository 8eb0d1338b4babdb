from __future__ import annotations

from pathlib import Path

import made
import matplotlib as mpl
import matplotlib.image
import pytest

from tc_sweeps.config import ConfigError
from tc_sweeps.report import draw_experiment, draw_xy, experiments
from tc_sweeps.report.figures import Drawing

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


def test_figure3_of_falling_curves_holds_and_leaves_out_what_does_not_fit(outputs: Path) -> None:
    made.widths_sweep(outputs, slope=-0.5)
    drawing = draw_experiment("figure3")
    check(drawing, "figure3")
    assert drawing.verdict.startswith("Holds at every threshold.")
    assert "Left out as not fully fitted: width 4 (3 of 3 runs)." in drawing.verdict
    assert "at P > 0.1 it falls from 41.7 to 39.7" in drawing.verdict


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
    with pytest.raises(ConfigError, match=r"^No run of the sweep 'figure2' has finished"):
        draw_experiment("figure2")


def test_any_metric_against_any_key(outputs: Path) -> None:
    made.sizes_sweep(outputs)
    made.kinships_sweep(outputs, seeds=[0, 1])
    path = draw_xy("figure2", "data.num_sentences", "artifacts/per_ngram", "objective.positions")
    assert path.name == "artifacts_per_ngram_against_data_num_sentences_by_objective_positions.png"
    check_png(path)
    assert path.with_suffix(".pdf").exists()
    check_png(draw_xy("kinships", "step", "generalization/recall", ["data.held_out_fraction", "model.width"]))
    check_png(draw_xy("figure2", "objective.positions", "model/parameters"))


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
