"""What Weights & Biases shows of a sweep: one saved view, and a report where the sweep is of an experiment.

Read from the sweep's files alone, so that nothing is named that no run has; `tc_sweeps.store.views` saves it. Runs are
the group of the sweep's name, the axis is `step`, and runs that differ in their seed alone are one curve: W&B groups
them by the axes of the sweep and averages. W&B knows a config key by its place, `model.width` as `model.value.width`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report.frame import listed, load_sweep, swept_keys, together, typed
from tc_sweeps.report.table import KEY_METRICS
from tc_sweeps.store.folder import RunFolder
from tc_sweeps.store.sweep_folder import SweepFolder
from tc_sweeps.store.views import FIGURE, Dashboard, figure_run, require_library, settle_report, settle_view

LONGEST_TITLE = 128  # characters, of a report
MOST_LINES = 100  # drawn in one panel; W&B draws ten where nothing is said
RECALL, SHARE, PER_CONTEXT = "generalization/recall", "hallucination/share", "hallucination/per_context"
PER_NGRAM, COUNT = "artifacts/per_ngram", "artifacts/count"
SIZES = {"corpus/train_ngrams": "corpus size", "model/non_embedding_parameters": "non-embedding parameters"}
SURVIVAL = "survival"  # the key of the table that every evaluation logs: threshold, count


class Shown(NamedTuple):
    """What there is to show of a sweep at W&B."""

    sweep: str  # the group of its runs
    project: str
    entity: str | None  # of W&B; None: the default one of whoever logs in
    axes: list[str]  # config keys that tell runs apart but for the seed, one of each that are zipped
    metrics: list[str]  # defined in a run or more, in the order of metrics.csv
    sizes: list[str]  # facts that artifacts are shown against
    logarithmic: list[str]  # axes and sizes that span most of a decade or more
    survival: bool  # whether a survival curve was logged


class Story(NamedTuple):
    """What a report tells of a sweep: an experiment's claim, what the runs say of it, and the figure of both."""

    claim: str
    verdict: str
    figure: Path
    command: str | None  # that trained the sweep, where it is known


def survey(sweep: SweepFolder) -> Shown:
    """Return what there is to show of a sweep; raises `ConfigError` where nothing is, or not in one project."""
    name = sweep.path.name
    runs = load_sweep(sweep.path)
    if runs.empty:
        raise ConfigError(f"The sweep '{name}' has no runs yet: there is nothing to show at W&B.")
    runs = runs[runs["tracking.mode"] != "none"].reset_index(drop=True)
    if runs.empty:
        raise ConfigError(f"The sweep '{name}' was trained with tracking.mode=none: W&B has none of its runs.")
    entities, projects = _values(runs["tracking.entity"]), _values(runs["tracking.project"])
    if len(entities) * len(projects) > 1:
        several = listed([str(place) for place in (entities if len(entities) > 1 else projects)])
        raise ConfigError(
            f"The runs of the sweep '{name}' are in several places at W&B ({several}), and a view shows one: give "
            "those of one place a sweep name of their own."
        )
    metrics = [metric for metric in METRICS if metric in runs and runs[metric].notna().any()]
    if not metrics:
        raise ConfigError(f"No run of the sweep '{name}' was evaluated yet: there is nothing to show at W&B.")
    axes = [first for first, *_ in together(runs, swept_keys(runs), searched=sweep.is_search)]
    sizes = [size for size in SIZES if size in runs and runs[size].notna().any()]
    return Shown(
        sweep=name,
        project=projects[0],
        entity=entities[0],
        axes=axes,
        metrics=metrics,
        sizes=sizes,
        logarithmic=[key for key in [*axes, *sizes] if _spans_a_decade(runs[key])],
        survival=any(_has_survival(RunFolder(sweep.path / run_id)) for run_id in runs["run_id"]),
    )


def tell(sweep: SweepFolder) -> Story:
    """Draw the figure of a sweep's experiment and return what a report says; `ConfigError` where there is none."""
    from tc_sweeps.report.figures import draw_experiment

    drawing = draw_experiment(sweep.path)
    return Story(drawing.claim, drawing.verdict, drawing.paths[0], sweep.plan.get("command"))


def compose(shown: Shown, story: Story | None, entity: str = "") -> Dashboard:
    """Return the view and the report in W&B's terms; the same arguments give the same ones.

    `entity` is whose project is meant. Without one nobody is asked and no account is needed, but W&B could not tell
    which project the report's runs are in.
    """
    require_library()
    if story is None:
        return Dashboard(_view(shown, entity))
    return Dashboard(_view(shown, entity), _report(shown, story, entity), story.figure)


def command_of(sweep: SweepFolder) -> str:
    """Return the command that makes or updates what W&B shows."""
    return f"tc-sweeps dashboard {typed(sweep.path)}"


# ------------------------------------------------------------------------------------------------------------- the view


def _view(shown: Shown, entity: str) -> Any:
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    layout = ws.SectionLayoutSettings(columns=3, rows=2)
    axis = ws.SectionPanelSettings(x_axis="step")
    sections = [
        ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout, panel_settings=axis)
        for name, panels in _sections(shown).items()
        if panels
    ]
    columns = ["run:state", *(f"config:{_placed(key)}" for key in [*shown.axes, "seed"])]
    columns += [f"summary:{name}" for name in [*shown.sizes, *_results(shown)]]
    # Without an axis all runs are seeds of one another.
    grouped = [expr.Config(_placed(key)) for key in shown.axes] or [expr.Metric("Group")]
    view = ws.Workspace(
        entity=entity,
        project=shown.project,
        name=_plain(shown.sweep),
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=MOST_LINES),
        runset_settings=ws.RunsetSettings(groupby=grouped, pinned_columns=columns),
    )
    settle_view(view, shown.sweep)
    return view


def _sections(shown: Shown) -> dict[str, list[Any]]:
    """Return the panels by section; those of which no run has the numbers are left out."""
    rest = [metric for metric in shown.metrics if metric.startswith(("train/", "test/"))]
    return {
        "Generalization and hallucination": _generalization(shown),
        "Artifacts": [
            *_lines(shown, [[PER_NGRAM], [COUNT, "artifacts/ceiling"]]),
            *(
                panel
                for size in shown.sizes
                for metric in (COUNT, PER_NGRAM)
                for panel in _scatter(shown, size, metric)
            ),
        ],
        "Survival curves": _survival(shown),
        "Axes and results": _parallel(shown),
        "Training": _lines(shown, [[metric] for metric in rest]),
    }


def _generalization(shown: Shown) -> list[Any]:
    panels = _lines(shown, [[RECALL, SHARE], [RECALL], [SHARE], [PER_CONTEXT]])
    return [*panels, *_scatter(shown, SHARE, RECALL), *_scatter(shown, PER_CONTEXT, RECALL)]


def _lines(shown: Shown, panels: Sequence[Sequence[str]]) -> list[Any]:
    """Return a panel over `step` for each list of metrics, those that are defined."""
    import wandb_workspaces.reports.v2 as wr

    defined = [[metric for metric in metrics if metric in shown.metrics] for metrics in panels]
    return [
        wr.LinePlot(
            title=" and ".join(metrics),
            x="step",
            y=metrics,
            title_x="optimizer step",
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
            max_runs_to_show=MOST_LINES,
        )
        for place, metrics in enumerate(defined)
        if metrics and metrics not in defined[:place]
    ]


def _scatter(shown: Shown, x: str, y: str) -> list[Any]:
    """Return a panel of last values, one against the other, where both are defined."""
    import wandb_workspaces.reports.v2 as wr

    if not {x, y} <= {*shown.metrics, *shown.sizes}:
        return []
    return [
        wr.ScatterPlot(
            title=f"{y} against {SIZES.get(x, x)}",
            x=wr.SummaryMetric(x),
            y=wr.SummaryMetric(y),
            log_x=True if x in shown.logarithmic else None,
        )
    ]


def _survival(shown: Shown) -> list[Any]:
    """Return a panel with the survival curve of each run, at its last evaluation.

    It is a table, which a line plot cannot read: the panel is W&B's own line chart of custom charts, asked for the
    table of every run. Such charts know no groups: seeds are lines of their own.
    """
    import wandb_workspaces.reports.v2 as wr

    if not shown.survival:
        return []
    chart = wr.CustomChart(
        query={"summaryTable": {"tableKey": SURVIVAL}},
        chart_name="wandb/line/v0",
        chart_fields={"x": "threshold", "y": "count"},
        chart_strings={"title": "artifacts above each threshold"},
    )
    return [chart]


def _parallel(shown: Shown) -> list[Any]:
    """Return parallel coordinates of the axes and the key metrics."""
    import wandb_workspaces.reports.v2 as wr

    if not shown.axes:
        return []
    columns = [(key, wr.Config(key)) for key in shown.axes]
    columns += [(metric, wr.SummaryMetric(metric)) for metric in _results(shown)]
    return [
        wr.ParallelCoordinatesPlot(
            title="axes and results",
            columns=[
                wr.ParallelCoordinatesPlotColumn(
                    metric, display_name=name, log=True if name in shown.logarithmic else None
                )
                for name, metric in columns
            ],
        )
    ]


# ----------------------------------------------------------------------------------------------------------- the report


def _report(shown: Shown, story: Story, entity: str) -> Any:
    """Return the report; what it says is text to W&B, whatever stands in it."""
    import wandb_workspaces.reports.v2 as wr

    # A run set that names its project has W&B asked for the project's id.
    home = {"entity": entity, "project": shown.project} if entity else {}
    figure = wr.Runset(**home, name="the figure")
    runs = wr.Runset(**home, name="runs", groupby=[f"config.{_placed(key)}" for key in shown.axes] or ["group"])
    image = wr.MediaBrowser(title="figure", media_keys=[FIGURE], num_columns=1, layout=wr.Layout(w=24, h=14))
    panels = [*_generalization(shown)[:1], *_lines(shown, [[PER_NGRAM]]), *_parallel(shown)]
    for panel in panels:
        panel.layout = wr.Layout(w=24, h=10)
    blocks = [
        wr.H2("Claim"),
        wr.P(story.claim),
        wr.H2("Verdict"),
        *(wr.P(line) for line in story.verdict.splitlines() if line),
        wr.H2("Figure"),
        wr.PanelGrid(runsets=[figure], panels=[image], hide_run_sets=True),
    ]
    if story.command is not None:
        blocks += [wr.H2("Command"), wr.P([wr.InlineCode(story.command)])]
    blocks += [wr.H2("Runs"), wr.PanelGrid(runsets=[runs], panels=panels)]
    report = wr.Report(
        project=shown.project,
        entity=entity,
        title=_plain(shown.sweep)[:LONGEST_TITLE],
        description=f"Made and updated by tc-sweeps dashboard, of the sweep {shown.sweep}.",
        blocks=blocks,
        width="fixed",
    )
    settle_report(report, shown.sweep, [("name", figure_run(shown.project, shown.sweep)), ("group", shown.sweep)])
    return report


# ------------------------------------------------------------------------------------------------------------ the words


def _results(shown: Shown) -> list[str]:
    """Return the metrics that say most of a run, those that are defined."""
    return [metric for metric in dict.fromkeys([*KEY_METRICS, PER_CONTEXT]) if metric in shown.metrics]


def _placed(key: str) -> str:
    """Return where W&B keeps a config key: it wraps the value of the outermost one."""
    first, *rest = key.split(".")
    return ".".join([first, "value", *rest])


def _plain(name: str) -> str:
    """Return a name without the signs that W&B allows in no view's name: emoji, and some that sweeps may have."""
    refused = ("So", "Sk", "Sm", "Sc", "Cs")
    return "".join(" " if unicodedata.category(sign) in refused else sign for sign in name).strip() or "sweep"


def _values(column: pd.Series[Any]) -> list[Any]:
    """Return the distinct values of a column in order, None for null."""
    return list(dict.fromkeys(None if value != value else value for value in column))


def _has_survival(run: RunFolder) -> bool:
    return (run.path / "survival.parquet").exists() and not run.read_table("survival").empty


def _spans_a_decade(values: pd.Series[Any]) -> bool:
    """Whether numbers are better spread in their logarithm, as in figures."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    return bool(values.min() > 0 and values.max() / values.min() >= 8)
