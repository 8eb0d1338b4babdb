"""What W&B shows of a sweep: every name in it is that of a number which W&B's own files hold, and the table agrees."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb

from tc_sweeps.store import SweepFolder, tracking, views
from tests.behaviour.conftest import Launch, without_torch
from tests.dashboards import named, panels
from tests.wandb_files import WandbRun, read_run
from tests.wandb_server import Server, logged_in

SMALL = ["training.steps=40", "training.evaluations=2", "model.width=8", "training.learning_rate=3e-2"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(views, "ANSWER_SECONDS", 60)  # of a machine that does much else, too
    with logged_in(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def kinships(launch: Launch, server: Server, shell: Path) -> SweepFolder:
    """A small sweep of an experiment, trained without a network."""
    axes = ["data.held_out_fraction=0.1,0.5", "seed=0,1"]
    code, _, err = launch("run", "-m", "experiment=kinships", "sweep=kin", *SMALL, *axes)
    assert code == 0, err
    tracking.drain()
    return SweepFolder(shell / "outputs" / "kin")


def at(tree: Mapping[str, Any], path: str) -> Any:
    """Return what stands in a nested dict under a dotted path; KeyError where nothing does."""
    for name in path.split("."):
        tree = tree[name]
    return tree


def kept(sweep: SweepFolder) -> dict[str, Any]:
    return dict(json.loads((sweep.path / "dashboard.json").read_text())["view"]["spec"])


def mirrors(sweep: SweepFolder) -> list[WandbRun]:
    return [read_run(run.path) for run in sweep.runs()]


def table(sweep: SweepFolder, run_id: str) -> list[dict[str, float]]:
    with (sweep.path / run_id / "metrics.csv").open() as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def test_every_name_in_the_view_is_in_what_w_and_b_wrote_and_the_numbers_are_the_table_s(
    kinships: SweepFolder, launch: Launch, server: Server
) -> None:
    assert launch("dashboard", "kin")[0] == 0
    names = named(kept(kinships))
    runs = mirrors(kinships)
    logged = {name for run in runs for row in run.history for name in row}
    assert names["history"] <= logged, names["history"] - logged
    assert names["history"] >= {"step", "generalization/recall", "hallucination/share", "artifacts/per_ngram"}
    summarized = {name for run in runs for name in run.summary}
    assert names["summary"] <= summarized, names["summary"] - summarized
    assert names["summary"] >= {"corpus/train_ngrams", "model/non_embedding_parameters", "hallucination/per_context"}
    assert names["run"] <= {"displayName", "state", "group"}
    assert names["table"] == {"survival"}
    [chart] = [panel["config"] for panel in panels(kept(kinships)) if panel["viewType"] == "Vega2"]
    for run in runs:
        assert (run.group, run.project, run.axes["*"]) == ("kin", "tc_sweeps", "step")
        for name in names["config"]:
            at(run.config, name.replace("value.", "").removesuffix(".value"))
        survival = run.summary["survival"]
        assert survival["_type"] == "table-file"
        written = json.loads((run.path / "files" / survival["path"]).read_text())
        assert set(chart["fieldSettings"].values()) == set(written["columns"]) == {"threshold", "count"}
        rows = table(kinships, run.name)
        assert [{key: row[key] for key in row if key != "survival"} for row in run.history] == rows
        assert {name: run.summary[name] for name in rows[-1]} == rows[-1]

    # The server keeps a config as the view addresses it: each outermost key with its value wrapped.
    assert launch("sync", "kin")[0] == 0
    assert names["config"] == {"data.value.held_out_fraction", "seed.value"}
    for run in runs:
        sent = json.loads(server.runs[run.id]["config"])
        assert at(sent, "seed.value") == run.config["seed"]
        assert at(sent, "data.value.held_out_fraction") == run.config["data"]["held_out_fraction"]


def test_the_same_command_twice_makes_one_view_and_one_report(
    kinships: SweepFolder, launch: Launch, server: Server
) -> None:
    code, out, err = launch("dashboard", "kin")
    assert (code, err) == (0, "")
    view, report, hint = out.splitlines()
    address = server.environment["WANDB_BASE_URL"]
    assert view.startswith(f"View:   {address}/me/tc_sweeps?nw=")
    assert report.startswith(f"Report: {address}/me/tc_sweeps/reports/kin--")
    assert view.endswith(" (made)")
    assert report.endswith(" (made)")
    assert hint == "4 runs are not at W&B yet: tc-sweeps sync kin"
    assert launch("sync", "kin")[0] == 0

    again = launch("dashboard", "kin")
    assert again == (0, f"{view[:-7]} (unchanged)\n{report[:-7]} (unchanged)\n", "")
    assert [saved["saves"] for saved in server.views.values()] == [1, 1]
    [saved] = server.saved("project-view")
    assert json.loads(saved["spec"]) == kept(kinships)
    [told] = server.saved("runs")
    command = kinships.plan["command"]
    assert command.startswith("tc-sweeps run -m experiment=kinships sweep=kin")
    for text in (command, "Generalizations and hallucinations are both artifacts", "At the last evaluation"):
        assert text in told["spec"]

    more = ["data.held_out_fraction=0.1,0.5", "training.weight_decay=0.0,0.1"]
    assert launch("run", "-m", "experiment=kinships", "sweep=kin", *SMALL, *more, "seed=0")[0] == 0
    tracking.drain()
    code, out, _ = launch("dashboard", "kin")
    assert code == 0
    assert out.splitlines()[:2] == [f"{view[:-7]} (updated)", f"{report[:-7]} (updated)"]
    assert len(server.views) == 2
    assert "training.value.weight_decay" in server.saved("project-view")[0]["spec"]


def test_without_an_account_the_view_is_described_beside_the_sweep(
    kinships: SweepFolder, launch: Launch, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    wandb.teardown()
    code, out, err = launch("dashboard", "kin")
    assert (code, err) == (0, "")
    assert out == (
        f"W&B has no API key for {server.environment['WANDB_BASE_URL']}: `wandb login` stores one, or set "
        "WANDB_API_KEY; until then outputs/kin/dashboard.json holds what tc-sweeps dashboard kin would show there.\n"
    )
    assert server.requests == 0
    first = (kinships.path / "dashboard.json").read_text()
    launch("dashboard", "kin")
    assert (kinships.path / "dashboard.json").read_text() == first
    assert json.loads(first)["report"]["displayName"] == "kin"


def test_a_server_that_is_gone_is_said_in_one_sentence(
    kinships: SweepFolder, launch: Launch, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "ANSWER_SECONDS", 2)
    server.die()
    code, out, err = launch("dashboard", "kin")
    address = server.environment["WANDB_BASE_URL"]
    assert (code, out) == (1, "")
    assert err == f"{address} did not take the dashboard (it does not answer). The same command tries again."


def test_a_sweep_of_no_experiment_has_a_view_and_says_why_no_report(
    launch: Launch, server: Server, shell: Path
) -> None:
    quick = ["training.steps=20", "training.evaluations=2", "data.vocab_size=12", "data.num_sentences=30"]
    name = "lr=0.1 <b>x"
    code, _, err = launch("run", f'sweep="{name}"', *quick, "model.width=8")
    assert code == 0, err
    tracking.drain()
    code, out, _ = launch("dashboard", name)
    assert code == 0
    assert "Report: none. The sweep 'lr=0.1 <b>x' is of no experiment that has a figure" in out
    [view] = server.saved("project-view")
    spec = json.loads(view["spec"])
    assert spec["section"]["runSets"][0]["filters"]["filters"][0]["value"] == name
    assert launch("dashboard", "lr=0.2")[2] == launch("status", "lr=0.2")[2]


def test_a_dashboard_needs_no_torch(shell: Path) -> None:
    (shell / "outputs" / "demo").mkdir(parents=True)
    (shell / "outputs" / "demo" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    made = without_torch("dashboard", "demo")
    assert (made.returncode, made.stderr) == (
        1,
        "The sweep 'demo' has no runs yet: there is nothing to show at W&B.\n",
    )
