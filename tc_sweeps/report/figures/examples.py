"""The paper's examples (3) and (4): 'mouse eat cheese', which one wants, and 'Jack John siblings', which is made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report import style
from tc_sweeps.report.frame import find_sweep, listed, load_finished, swept_keys
from tc_sweeps.report.intervals import Interval, student_t, what_is_drawn
from tc_sweeps.report.where import Where
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder

CLAIM = (
    "'mouse eats cheese' and 'mice eat cheese' have the same structure as 'Jack Jill siblings' and 'Jane John "
    "siblings': both are completed with artifacts, of which the former generalize and the latter are made up. Only "
    "data that contradict an artifact preclude it (Section 3)."
)

GENERALIZATION, HALLUCINATION, TRAINED = "generalization", "hallucination", "training sentence"
NAMED = {  # what each sentence is where a model holds it as an artifact
    "mouse eat cheese": GENERALIZATION,
    "mice eats cheese": GENERALIZATION,
    "Jack John siblings": HALLUCINATION,
    "Jane Jill siblings": HALLUCINATION,
    "Jack John friends": GENERALIZATION,
}
WOULD_BE = [sentence for sentence in NAMED if sentence != "Jack John friends"]
CONTRADICTED, CONTRADICTION = "Jack John siblings", "Jack John friends"
COLOURS = {GENERALIZATION: style.GENERALIZATION, HALLUCINATION: style.HALLUCINATION, TRAINED: style.GREY}


@style.styled
def draw(sweep: Path | SweepFolder, where: Where | None = None) -> Figure:
    """Return the probability of each named sentence by seed, a panel for each set of training sentences.

    Small points are seeds; a large one with its bar is their mean with the 95 % Student t interval. On the right stands
    in how many seeds the sentence is an artifact, P > `artifacts.threshold`.
    """
    table = _table(sweep, where)
    trainings = list(dict.fromkeys(table["training"]))
    rows = [table.loc[table["training"] == training, "sentence"].nunique() for training in trainings]
    figure = style.new_figure(7.6, 1.1 + 0.42 * sum(rows) + 0.45 * len(rows))
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, training in zip(panels, trainings, strict=True):
        _draw_panel(axes, table[table["training"] == training])
        axes.set_title(f"trained on {_quoted(training)}", loc="left")
    panels[-1].set_xlabel("probability of the last word")
    kinds = [kind for kind in COLOURS if (table["kind"] == kind).any()]
    handles = [style.line(kind, COLOURS[kind], marker="o", linestyle="none") for kind in kinds]
    handles.append(style.line("threshold of an artifact", linestyle="--", linewidth=1))
    runs = table.groupby(["training", "sentence"])["seed"].size()
    style.headline(figure, f"{what_is_drawn(runs.tolist(), 'row')}; small points are runs", where)
    style.legend_below(figure, handles)
    return figure


def verdict(sweep: Path | SweepFolder, where: Where | None = None) -> str:
    """Return whether both examples are completed with artifacts, whether a contradiction precludes one, and numbers.

    A sentence is called an artifact where the whole interval of its probability lies above the threshold.
    """
    table = _table(sweep, where)
    contradicted = table["training"].map(lambda training: CONTRADICTION in training)
    plain = [_is_artifact(table[~contradicted & (table["sentence"] == sentence)]) for sentence in WOULD_BE]
    after = {sentence: _is_artifact(table[contradicted & (table["sentence"] == sentence)]) for sentence in WOULD_BE[2:]}
    precluded = None if after[CONTRADICTED] is None else not after[CONTRADICTED]
    lines = [
        f"Both examples are completed with their artifacts: {_answer(plain)}.",
        f"'{CONTRADICTION}' precludes '{CONTRADICTED}': {_answer([precluded])}.",
        f"It leaves 'Jane Jill siblings' an artifact: {_answer([after['Jane Jill siblings']])}.",
    ]
    for training, part in table.groupby("training", sort=False):
        told = [_told(sentence, rows) for sentence, rows in part.groupby("sentence", sort=False)]
        lines.append(f"Trained on {_quoted(training)}: {'; '.join(told)}.")
    return "\n".join([*lines, "Probabilities are means with 95 % Student t intervals over seeds."])


# ---------------------------------------------------------------------------------------------------------------- parts


def _table(sweep: Path | SweepFolder, where: Where | None) -> pd.DataFrame:
    """Return one row for each finished run of an example and each sentence named here that has its words.

    Columns: `training` (the run's training sentences), `sentence`, `kind`, `seed`, `probability`, `threshold` and
    `artifact`, whether the run's table of artifacts has it.
    """
    runs = load_finished(sweep, where)
    path = find_sweep(sweep).path
    found = [row for _, run in runs.iterrows() for row in _sentences(RunFolder(path / str(run["run_id"])), run)]
    if not found:
        raise ConfigError(
            f"No finished run of the sweep '{path.name}' is of one of the paper's examples: "
            "train data=mice, data=siblings or data=siblings_friends."
        )
    table = pd.DataFrame(found)
    for _, part in table.groupby("training"):
        if keys := swept_keys(runs[runs["run_id"].isin(part["run_id"])]):
            raise ConfigError(f"The runs of one panel differ in {listed(keys)}: hold each, as in --where {keys[0]}=...")
    return table


def _sentences(run: RunFolder, config: pd.Series[Any]) -> list[dict[str, Any]]:
    words = run.read_vocabulary() or []
    number = {word: token for token, word in enumerate(words)}
    named = {tuple(number.get(word, -1) for word in sentence.split()): sentence for sentence in NAMED}
    named = {tokens: sentence for tokens, sentence in named.items() if -1 not in tokens}
    if not named:
        return []
    fibers = run.read_table("fibers")
    ngrams = [(*context, token) for context, token in zip(fibers["context_tokens"], fibers["token"], strict=True)]
    if len(ngrams) < len(words) ** 3:  # a larger world, of which some fibers only are kept
        return []
    fibers.index = pd.Index(ngrams, tupleize_cols=False)
    training = [" ".join(words[token] for token in ngram) for ngram in fibers.index[fibers["data_count"] > 0]]
    artifacts = set(map(tuple, run.read_table("artifacts")["tokens"]))
    return [
        {
            "run_id": run.run_id,
            "training": tuple(training),
            "sentence": sentence,
            "kind": TRAINED if sentence in training else NAMED[sentence],
            "seed": config["seed"],
            "probability": float(fibers["probability"][tokens]),
            "threshold": float(config["artifacts.threshold"]),
            "artifact": tokens in artifacts,
        }
        for tokens, sentence in named.items()
    ]


def _draw_panel(axes: Axes, table: pd.DataFrame) -> None:
    sentences = list(dict.fromkeys(table["sentence"]))
    for threshold in table["threshold"].unique():
        axes.axvline(threshold, color=style.GREY, linestyle="--", linewidth=1)
    for place, sentence in enumerate(sentences):
        rows = table[table["sentence"] == sentence].sort_values("seed")
        kind = rows["kind"].iloc[0]
        # Seeds side by side under their mean: most of them have nearly the same probability.
        spread = place + np.linspace(0.05, 0.35, len(rows))
        axes.plot(rows["probability"], spread, ".", color=COLOURS[kind], markersize=4, alpha=0.6)
        value = _interval(rows)
        if value.seeds > 1:
            bar = [[value.mean - value.low], [value.high - value.mean]]
            axes.errorbar(value.mean, place - 0.15, xerr=bar, fmt="none", ecolor=COLOURS[kind], elinewidth=1, capsize=3)
        axes.plot(value.mean, place - 0.15, "o", color=COLOURS[kind], markersize=7, clip_on=False)
        told = TRAINED if kind == TRAINED else _count(rows)
        axes.annotate(told, (1.02, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    axes.set_yticks(range(len(sentences)), sentences)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(sentences) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def _interval(rows: pd.DataFrame) -> Interval:
    """Return the mean of probabilities with its interval, which ends at 0 and 1 as they do."""
    return student_t(rows["probability"]).within(0, 1)


def _is_artifact(rows: pd.DataFrame) -> bool | None:
    """Return whether the whole interval lies above the threshold (True) or below (False); None if neither."""
    if rows.empty:
        return None
    value, threshold = _interval(rows), rows["threshold"].iloc[0]
    if value.above(threshold):
        return True
    return False if value.below(threshold) else None


def _answer(answers: list[bool | None]) -> str:
    if all(answers):
        return "holds"
    return "does not hold" if False in answers else "cannot be said from these runs"


def _count(rows: pd.DataFrame) -> str:
    return f"artifact in {rows['artifact'].sum()} of {len(rows)} seeds"


def _told(sentence: object, rows: pd.DataFrame) -> str:
    kind = rows["kind"].iloc[0]
    what = f"a {kind}" if kind == TRAINED else f"{_count(rows)}, as a {kind}"
    return f"'{sentence}' {_interval(rows)} ({what})"


def _quoted(sentences: object) -> str:
    assert isinstance(sentences, tuple)
    return ", ".join(f"'{sentence}'" for sentence in sentences)
