"""What W&B is to show of a sweep, from its files alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from tc_sweeps.config import METRICS, ConfigError
from tc_sweeps.report.dashboard import Shown, Story, command_of, compose, survey, tell
from tc_sweeps.store.sweep_folder import SweepFolder
from tc_sweeps.store.views import keep, require_library, spec
from tests.dashboards import named, panels, runset
from tests.report.made import begin, finished_random_run, kinships_sweep, sizes_sweep

GROUPS = [
    {"section": "config", "name": "data.value.held_out_fraction"},
    {"section": "config", "name": "model.value.width"},
]


@pytest.fixture
def kinships(outputs: Path) -> SweepFolder:
    return SweepFolder(kinships_sweep(outputs, seeds=(0, 1)))


def view_of(sweep: SweepFolder) -> dict[str, Any]:
    return spec(compose(survey(sweep), None).view)


def titles(view: dict[str, Any]) -> list[str]:
    return [panel["config"].get("chartTitle") or panel["config"]["stringSettings"]["title"] for panel in panels(view)]


def test_a_sweep_with_truth_is_shown_from_recall_to_training(kinships: SweepFolder) -> None:
    view = view_of(kinships)
    sections = {section["name"]: section for section in view["section"]["panelBankConfig"]["sections"]}
    assert list(sections) == ["Generalization and hallucination", "Artifacts", "Axes and results", "Training"]
    assert all(section["isOpen"] for section in sections.values())
    curves, recall, *_ = sections["Generalization and hallucination"]["panels"]
    assert curves["config"]["metrics"] == ["generalization/recall", "hallucination/share"]
    assert curves["config"] | {"groupAgg": "mean", "groupArea": "stderr", "limit": 100} == curves["config"]
    assert recall["config"]["metrics"] == ["generalization/recall"]
    assert titles(view)[4:6] == [
        "generalization/recall against hallucination/share",
        "generalization/recall against hallucination/per_context",
    ]


def test_the_axis_is_our_step_everywhere(kinships: SweepFolder) -> None:
    view = view_of(kinships)
    lines = [panel["config"] for panel in panels(view) if panel["viewType"] == "Run History Line Plot"]
    assert len(lines) > 5
    assert {line["xAxis"] for line in lines} == {"step"}
    settings = view["section"]["settings"]
    assert (settings["xAxis"], settings["xAxisActive"]) == ("step", True)
    for section in view["section"]["panelBankConfig"]["sections"]:
        assert section["localPanelSettings"]["xAxis"] == "step"
        assert section["localPanelSettings"]["useRunsTableGroupingInPanels"]


def test_runs_are_those_of_the_sweep_grouped_by_its_axes(kinships: SweepFolder) -> None:
    runs = runset(view_of(kinships))
    [chosen] = runs["filters"]["filters"]
    assert chosen == {"key": {"section": "run", "name": "group"}, "op": "=", "value": "kinships", "disabled": False}
    assert runs["grouping"] == GROUPS
    assert runs["runFeed"]["columnOrder"][:5] == [
        "run:displayName",
        "run:state",
        "config:data.value.held_out_fraction",
        "config:model.value.width",
        "config:seed.value",
    ]
    assert set(runs["runFeed"]["columnOrder"]) == set(runs["runFeed"]["columnPinned"])


def test_the_filter_is_what_the_library_makes_of_the_same_words(kinships: SweepFolder) -> None:
    words = expr.And(expr.Metric("Group") == "kinships")
    plain = ws.Workspace(entity="", project="p", name="x", runset_settings=ws.RunsetSettings(filters=words))
    assert runset(view_of(kinships))["filters"] == runset(spec(plain))["filters"]


def test_without_truth_only_artifacts_are_shown(outputs: Path) -> None:
    view = view_of(SweepFolder(sizes_sweep(outputs)))
    names = named(view)
    assert not {name for kind in names.values() for name in kind if name.startswith(("generalization/", "test/"))}
    assert names["history"] >= {"step", "artifacts/per_ngram", "artifacts/count", "artifacts/ceiling"}
    assert names["table"] == {"survival"}
    assert {"artifacts/count against corpus size", "artifacts/per_ngram against non-embedding parameters"} <= set(
        titles(view)
    )
    [parallel] = [panel for panel in panels(view) if panel["viewType"] == "Parallel Coordinates Plot"]
    assert parallel["config"]["columns"][0]["accessor"] == "config:data.value.num_sentences"
    [survival] = [panel["config"] for panel in panels(view) if panel["viewType"] == "Vega2"]
    assert (survival["panelDefId"], survival["fieldSettings"]) == ("wandb/line/v0", {"x": "threshold", "y": "count"})


def test_sizes_that_span_a_decade_are_logarithmic(outputs: Path) -> None:
    for sentences in (100, 800):
        finished_random_run(outputs, "wide", {"data.num_sentences": sentences}, ratio=lambda _: 5.0)
    shown = survey(SweepFolder(outputs / "wide"))
    assert shown.logarithmic == ["data.num_sentences", "corpus/train_ngrams"]
    scatters = [panel["config"] for panel in panels(spec(compose(shown, None).view)) if "yAxis" in panel["config"]]
    assert {config["xAxis"]: config.get("xAxisLogScale") for config in scatters} == {
        "summary:corpus/train_ngrams": True,
        "summary:model/non_embedding_parameters": None,
    }


def test_seeds_alone_are_one_group(outputs: Path) -> None:
    for seed in (0, 1):
        finished_random_run(outputs, "seeds", {"seed": seed}, ratio=lambda _: 5.0)
    view = view_of(SweepFolder(outputs / "seeds"))
    assert runset(view)["grouping"] == [{"section": "run", "name": "group"}]
    assert "Parallel Coordinates Plot" not in {panel["viewType"] for panel in panels(view)}


def test_axes_that_go_together_are_grouped_by_once(outputs: Path) -> None:
    for width, rate in ((8, 1e-2), (16, 1e-3)):
        overrides = {"model.width": width, "training.learning_rate": rate}
        finished_random_run(outputs, "zipped", overrides, ratio=lambda _: 5.0)
    assert survey(SweepFolder(outputs / "zipped")).axes == ["model.width"]
    (outputs / "zipped" / "trials.parquet").touch()  # of a search, no value may have come twice
    assert survey(SweepFolder(outputs / "zipped")).axes == ["model.width", "training.learning_rate"]


def test_a_new_axis_changes_the_groups_and_not_the_view_s_identity(outputs: Path) -> None:
    for width in (8, 16):
        finished_random_run(outputs, "grown", {"model.width": width}, ratio=lambda _: 5.0)
    before = compose(survey(SweepFolder(outputs / "grown")), None)
    finished_random_run(outputs, "grown", {"model.width": 8, "training.weight_decay": 0.1}, ratio=lambda _: 5.0)
    after = compose(survey(SweepFolder(outputs / "grown")), None)
    assert [key["name"] for key in runset(spec(after.view))["grouping"]] == [
        "model.value.width",
        "training.value.weight_decay",
    ]
    assert before.view._internal_name == after.view._internal_name
    assert runset(spec(before.view))["id"] == runset(spec(after.view))["id"]


def test_every_process_describes_a_sweep_in_the_same_words(kinships: SweepFolder) -> None:
    """W&B's library draws ids at random, some as soon as it is imported."""
    code = """
import sys
from pathlib import Path
from tc_sweeps.report.dashboard import Story, compose, survey
from tc_sweeps.store import SweepFolder
from tc_sweeps.store.views import keep
sweep = SweepFolder(Path("outputs/kinships"))
print(keep(sweep, compose(survey(sweep), Story("a claim", "a verdict", Path("x.png"), "a command"))).read_text())
assert "torch" not in sys.modules
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert json.loads(said[0])["view"]["displayName"] == "kinships"


def test_the_report_has_claim_verdict_figure_command_and_runs(kinships: SweepFolder) -> None:
    kinships.add_runs([], experiment="kinships", launch="9", command="python -m tc_sweeps -m experiment=kinships")
    kinships.add_runs(
        sorted(path.parent.name for path in kinships.path.glob("*/config.yaml")), experiment=None, launch="9"
    )
    story = tell(kinships)
    assert story.figure == kinships.path / "figures" / "kinships.png"
    dashboard = compose(survey(kinships), story)
    report = spec(dashboard.report)
    text = [block for block in report["blocks"] if block["type"] in ("heading", "paragraph")]
    said = ["".join(child["text"] for child in block["children"]) for block in text]
    assert [line for line in said if line] == [
        "Claim",
        story.claim,
        "Verdict",
        *story.verdict.splitlines(),
        "Figure",
        "Command",
        "python -m tc_sweeps -m experiment=kinships",
        "Runs",
    ]
    figure, runs = [block["metadata"] for block in report["blocks"] if block["type"] == "panel-grid"]
    [image] = figure["panelBankSectionConfig"]["panels"]
    assert image["config"]["mediaKeys"] == ["figure"]
    assert figure["runSets"][0]["filters"]["filters"][0]["key"]["name"] == "name"
    assert runs["runSets"][0]["filters"]["filters"][0]["value"] == "kinships"
    assert runs["runSets"][0]["grouping"] == GROUPS
    assert dashboard.figure == story.figure


HOSTILE = ['lr=0.1 <b>"x"</b>', "a<b and c>d", "${x} %41 `ls`", "\N{PARTY POPPER}", "x" * 120 + "=" * 30]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_whatever_it_says(name: str, tmp_path: Path) -> None:
    """The library would read `=` and `<` in a filter as operators, and refuses some signs in titles."""
    shown = Shown(name, "p", None, ["model.width"], list(METRICS), [], [], survival=True)
    dashboard = compose(shown, Story(name, name, Path("x.png"), name))
    for part in (runset(spec(dashboard.view)), spec(dashboard.report)["blocks"][-2]["metadata"]["runSets"][0]):
        [chosen] = part["filters"]["filters"]
        assert chosen["value"] == name
    assert dashboard.view.name
    assert len(dashboard.report.title) <= 128
    assert {"text": name} in [block["children"][0] for block in spec(dashboard.report)["blocks"]]
    kept = json.loads(keep(SweepFolder(tmp_path), dashboard).read_text())
    assert runset(kept["view"]["spec"])["filters"]["filters"][0]["value"] == name


def test_two_sweeps_are_two_views(tmp_path: Path) -> None:
    dashboards = [
        compose(Shown(name, "p", None, [], ["artifacts/count"], [], [], survival=False), None)
        for name in ("a=b", "a b", "a<b")
    ]
    assert len({dashboard.view._internal_name for dashboard in dashboards}) == 3
    assert len({dashboard.view.name for dashboard in dashboards}) == 1


def test_what_cannot_be_shown_is_said_in_one_sentence(outputs: Path) -> None:
    begin(outputs, "fresh", {})
    with pytest.raises(ConfigError, match="No run of the sweep 'fresh' was evaluated yet"):
        survey(SweepFolder(outputs / "fresh"))
    finished_random_run(outputs, "dark", {"tracking.mode": "none"}, ratio=lambda _: 5.0)
    with pytest.raises(ConfigError, match=r"tracking\.mode=none: W&B has none of its runs"):
        survey(SweepFolder(outputs / "dark"))
    for project, width in (("a", 8), ("b", 16)):
        finished_random_run(outputs, "both", {"tracking.project": project, "model.width": width}, ratio=lambda _: 5.0)
    with pytest.raises(ConfigError, match=r"in several places at W&B \(a and b\)"):
        survey(SweepFolder(outputs / "both"))
    SweepFolder(outputs / "planned").add_runs(["0" * 16], experiment=None, launch=None)
    with pytest.raises(ConfigError, match="'planned' has no runs yet"):
        survey(SweepFolder(outputs / "planned"))


def test_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match=r"needs wandb-workspaces: .* pip install -e '\.\[dashboard\]'\.$"):
        require_library()


def test_the_command_names_the_sweep_as_it_is_typed(outputs: Path) -> None:
    assert command_of(SweepFolder(outputs / "lr=0.1 <b>")) == "tc-sweeps dashboard 'lr=0.1 <b>'"
