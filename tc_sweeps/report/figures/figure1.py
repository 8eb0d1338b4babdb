"""The paper's Figure 1: a data tensor, the fibers that training sees, and a model's completion of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import find_sweep, load_finished
from tc_sweeps.report.where import Where
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "A model that is consistent with the fibers it has seen completes the data tensor with artifacts: confident "
    "triples that the data do not hold (Figure 1)."
)
LARGEST_VOCABULARY = 16  # tokens along an axis whose names can still be read
MOST_SENTENCES = 12

TRAINING, SEEN, ARTIFACT = style.BLUE, "#C9DDEB", style.ORANGE


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the figure of the first finished run: (a) the data tensor, (b) its seen fibers, (c) the completion.

    A cell at (first, second, third) is the triple of these tokens. In (c) a cell stands where P(third | first, second)
    is above `artifacts.threshold`: blue where the triple is in the data, orange where it is an artifact.
    """
    run, threshold = _first_run(sweep, where)
    counts_VVV, probabilities_VVV = _tensors(run)
    data_VVV = counts_VVV > 0
    seen_VVV = np.broadcast_to(data_VVV.any(axis=2, keepdims=True), data_VVV.shape)
    confident_VVV = probabilities_VVV > threshold
    panels = [
        ("(a) data tensor", [(data_VVV, TRAINING, 0.95)]),
        ("(b) the fibers that training sees", [(data_VVV, TRAINING, 0.95), (seen_VVV & ~data_VVV, SEEN, 0.25)]),
        (
            f"(c) the model's completion, P > {threshold:g}",
            [(confident_VVV & data_VVV, TRAINING, 0.8), (confident_VVV & ~data_VVV, ARTIFACT, 0.95)],
        ),
    ]
    names = run.read_vocabulary() or [str(token) for token in range(len(data_VVV))]
    artifacts = bool((confident_VVV & ~data_VVV).any())
    figure = style.new_figure(13, 4.8, solid=True)
    figure.subplots_adjust(left=0, right=0.97, bottom=0.1, top=0.88, wspace=0.08)
    for place, (title, cells) in enumerate(panels):
        axes: Any = figure.add_subplot(1, 3, place + 1, projection="3d")
        for filled, colour, alpha in cells:
            if filled.any():
                axes.voxels(filled, facecolors=colour, edgecolors="#00000055", linewidth=0.4, alpha=alpha)
        axes.set_title(title, pad=-6)
        _name_axes(axes, names)
    legend = [
        Patch(facecolor=TRAINING, label="training triple"),
        Patch(facecolor=SEEN, label="zero that training enforces"),
        *([Patch(facecolor=ARTIFACT, label="artifact: confident, and not in the data")] if artifacts else []),
    ]
    style.headline(figure, "", where)
    style.legend_below(figure, legend)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return how many artifacts the first finished run has, and their sentences, most confident first."""
    run, threshold = _first_run(sweep, where)
    counts_VVV, probabilities_VVV = _tensors(run)
    names = run.read_vocabulary() or [str(token) for token in range(len(counts_VVV))]
    training = counts_VVV > 0
    fitted = int((training & (probabilities_VVV > threshold)).sum())
    found = np.argwhere(~training & (probabilities_VVV > threshold))
    order = np.argsort([-probabilities_VVV[tuple(cell)] for cell in found], kind="stable")
    sentences = [" ".join(names[token] for token in found[place]) for place in order]
    fit = f"At P > {threshold:g} the model gives {fitted} of its {int(training.sum())} training triples"
    if not sentences:
        return f"Does not hold in this run. {fit} and no artifact."
    more = f"; and {len(sentences) - MOST_SENTENCES} more" if len(sentences) > MOST_SENTENCES else ""
    plural = "s" * (len(sentences) != 1)
    start = (
        "Holds." if fitted == training.sum() else "Cannot be said: the model is not consistent with all its triples."
    )
    return f"{start} {fit} and {len(sentences)} artifact{plural}: {'; '.join(sentences[:MOST_SENTENCES])}{more}."


def _first_run(sweep: Path | SweepFolder, where: Where | None) -> tuple[RunFolder, float]:
    """Return the first finished run whose completed tensor can be drawn, and the threshold of its artifacts."""
    runs = load_finished(sweep, where)
    fits = (runs["artifacts.order"] == 3) & (runs["corpus/vocab_size"] <= LARGEST_VOCABULARY)
    if not fits.any():
        raise ConfigError(
            f"Figure 1 draws triples of at most {LARGEST_VOCABULARY} tokens; "
            f"no finished run of the sweep '{sweep.name}' is so small: lower data.vocab_size."
        )
    first = runs[fits].iloc[0]
    return RunFolder(find_sweep(sweep).path / str(first["run_id"])), float(first["artifacts.threshold"])


def _tensors(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Return the data tensor and the completed tensor, both [V, V, V] with the last token on the last axis."""
    fibers = run.read_table("fibers")
    vocab_size = int(run.read_facts()["corpus/vocab_size"] or 0)
    places = (*np.array(fibers["context_tokens"].tolist()).T, fibers["token"].to_numpy())
    counts_VVV, probabilities_VVV = np.zeros((2, vocab_size, vocab_size, vocab_size))
    counts_VVV[places] = fibers["data_count"]
    probabilities_VVV[places] = fibers["probability"]
    return counts_VVV, probabilities_VVV


def _name_axes(axes: Any, names: list[str]) -> None:
    for axis, place in ((axes.xaxis, "first"), (axes.yaxis, "second"), (axes.zaxis, "third")):
        axis.set_ticks(np.arange(len(names)) + 0.5, names)
        axis.set_label_text(f"{place} token")
        axis.pane.set_facecolor("white")
    axes.set(xlim=(0, len(names)), ylim=(0, len(names)), zlim=(0, len(names)))
    axes.tick_params(labelsize=7, pad=0)
    axes.tick_params(axis="z", pad=6)
    axes.xaxis.labelpad = axes.yaxis.labelpad = 10
    axes.zaxis.labelpad = 14
    axes.view_init(elev=24, azim=-58)
    axes.set_box_aspect((1, 1, 1), zoom=0.9)
