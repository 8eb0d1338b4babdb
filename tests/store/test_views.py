"""Saving with real parts: wandb-workspaces and W&B's public API as they are, and a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tc_sweeps.config import ConfigError
from tc_sweeps.report.dashboard import Shown, Story, compose
from tc_sweeps.store import SweepFolder, account, views
from tc_sweeps.store.views import Published, Server, figure_run, keep, spec
from tests import wandb_server
from tests.wandb_server import logged_in


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb_server.Server]:
    monkeypatch.setattr(views, "ANSWER_SECONDS", 60)  # of a machine that does much else, too
    with logged_in(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "outputs" / "demo")
    folder.path.mkdir(parents=True)
    return folder


SHOWN = Shown("demo", "toys", None, ["model.width"], ["artifacts/per_ngram"], [], [], survival=True)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    draw(tmp_path / "demo.png", 1)
    return Story("a claim", "a verdict", tmp_path / "demo.png", "python -m tc_sweeps -m sweep=demo")


def draw(path: Path, inches: int) -> None:
    Figure(figsize=(inches, 1)).savefig(path)


def publish(sweep: SweepFolder, shown: Shown = SHOWN, story: Story | None = None) -> Published:
    """What a fresh call of the command does."""
    server = Server(account.server(), shown.entity)
    return server.publish(sweep, compose(shown, story, server.entity))


def saves(stand_in: wandb_server.Server, kind: str = "project-view") -> list[int]:
    return [view["saves"] for view in stand_in.saved(kind)]


def test_a_view_is_made_once_and_then_left_alone(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    first, second = publish(sweep), publish(sweep)
    [view] = stand_in.saved("project-view")
    assert json.loads(view["spec"]) == spec(compose(SHOWN, None, "me").view)
    assert (view["displayName"], view["entityName"], view["projectName"]) == ("demo", "me", "toys")
    assert (first.view.done, second.view.done) == ("made", "unchanged")
    assert first.view.url == second.view.url == f"{account.server()}/me/toys?nw={view['name'][3:-2]}"
    assert saves(stand_in) == [1]
    kept = json.loads((sweep.path / "dashboard.json").read_text())
    assert kept["view"]["spec"] == json.loads(view["spec"])
    assert kept["saved"]["view"]["url"] == first.view.url


def test_a_new_axis_updates_the_view(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    before = publish(sweep)
    after = publish(sweep, SHOWN._replace(axes=["model.width", "training.weight_decay"]))
    assert (after.view.done, after.view.url) == ("updated", before.view.url)
    assert saves(stand_in) == [2]
    [view] = stand_in.saved("project-view")
    assert "training.value.weight_decay" in view["spec"]


def test_a_view_is_found_by_its_name_from_another_machine(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    publish(sweep)
    (sweep.path / "dashboard.json").unlink()
    assert publish(sweep).view.done == "unchanged"
    (sweep.path / "dashboard.json").write_text("{half")
    assert publish(sweep, SHOWN._replace(axes=["seed"])).view.done == "updated"
    assert saves(stand_in) == [2]


def test_a_view_that_was_deleted_is_made_anew(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    publish(sweep)
    stand_in.views.clear()
    assert publish(sweep).view.done == "made"
    assert saves(stand_in) == [1]


def test_what_was_changed_by_hand_stays_until_there_is_something_new(
    sweep: SweepFolder, stand_in: wandb_server.Server
) -> None:
    publish(sweep)
    [view] = stand_in.saved("project-view")
    view["spec"] = json.dumps({"moved": "by hand"})
    assert publish(sweep).view.done == "unchanged"
    assert json.loads(view["spec"]) == {"moved": "by hand"}
    assert publish(sweep, SHOWN._replace(survival=False)).view.done == "updated"
    assert "moved" not in stand_in.saved("project-view")[0]["spec"]


def test_two_sweeps_of_a_project_have_a_view_each(
    sweep: SweepFolder, stand_in: wandb_server.Server, tmp_path: Path
) -> None:
    other = SweepFolder(tmp_path / "outputs" / "lr=0.1 <b>")
    other.path.mkdir()
    publish(sweep)
    hostile = publish(other, SHOWN._replace(sweep="lr=0.1 <b>"))
    assert saves(stand_in) == [1, 1]
    assert " " not in hostile.view.url
    assert '"value":"lr=0.1 <b>"' in stand_in.saved("project-view")[1]["spec"]


def test_the_entity_of_the_runs_is_that_of_the_view(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    publish(sweep, SHOWN._replace(entity="lab"))
    assert stand_in.saved("project-view")[0]["entityName"] == "lab"


def test_a_report_is_made_once_with_its_figure(sweep: SweepFolder, stand_in: wandb_server.Server, story: Story) -> None:
    first = publish(sweep, story=story)
    assert first.report is not None
    assert first.report.done == "made"
    [report] = stand_in.saved("runs")
    dashboard = compose(SHOWN, story, "me")
    assert json.loads(report["spec"]) == spec(dashboard.report)
    assert report["displayName"] == "demo"
    for text in ("a claim", "a verdict", "python -m tc_sweeps -m sweep=demo", '"id":"internal-toys"'):
        assert text in report["spec"]

    run = figure_run("toys", "demo")
    assert run in report["spec"]
    assert "groupName" not in stand_in.runs[run]
    [image] = [name for name in stand_in.files[run] if name.startswith("media/images/figure_")]
    assert stand_in.files[run][image] == story.figure.read_bytes()
    assert stand_in.summary[run]["figure"]["path"] == image
    assert (stand_in.exit_codes[run], stand_in.completed[run]) == (0, 1)

    second = publish(sweep, story=story)
    assert second.report == first.report._replace(done="unchanged")
    assert saves(stand_in, "runs") == [1]
    assert stand_in.completed[run] == 1


def test_a_report_is_updated_and_found_again(sweep: SweepFolder, stand_in: wandb_server.Server, story: Story) -> None:
    publish(sweep, story=story)
    told = publish(sweep, story=story._replace(verdict="another verdict"))
    assert told.report is not None
    assert told.report.done == "updated"
    assert saves(stand_in, "runs") == [2]
    assert "another verdict" in stand_in.saved("runs")[0]["spec"]
    assert stand_in.completed[figure_run("toys", "demo")] == 1  # the figure is the same

    (sweep.path / "dashboard.json").unlink()
    stand_in.saved("runs")[0]["displayName"] = "a better title"  # given to it by hand
    publish(sweep, story=story)
    assert saves(stand_in, "runs") == [3]

    draw(story.figure, 2)
    redrawn = publish(sweep, story=story)
    assert redrawn.report is not None
    assert redrawn.report.done == "updated"


def test_the_mode_of_nodes_without_a_network_does_not_matter(
    sweep: SweepFolder, stand_in: wandb_server.Server, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert publish(sweep, story=story).view.done == "made"
    assert stand_in.files[figure_run("toys", "demo")]


def test_nothing_is_left_where_the_user_stands(
    sweep: SweepFolder, stand_in: wandb_server.Server, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    publish(sweep, story=story)
    assert not list(here.iterdir())


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_is_named_in_one_sentence(
    sweep: SweepFolder, stand_in: wandb_server.Server, status: int
) -> None:
    stand_in.refused["/graphql"] = status
    with pytest.raises(ConfigError, match=r"^http://127.* did not take the dashboard \(.*not allowed here\)\. The "):
        publish(sweep)


def test_a_server_that_is_gone_costs_a_bounded_time(
    sweep: SweepFolder, stand_in: wandb_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "ANSWER_SECONDS", 2)
    address = account.server()
    stand_in.die()
    with pytest.raises(ConfigError, match=rf"^{address} did not take the dashboard \(it does not answer\)\. The same"):
        publish(sweep)
    assert not (sweep.path / "dashboard.json").exists()


def test_what_was_saved_is_not_forgotten_without_an_account(sweep: SweepFolder, stand_in: wandb_server.Server) -> None:
    url = publish(sweep).view.url
    later: dict[str, Any] = json.loads(keep(sweep, compose(SHOWN._replace(survival=False), None)).read_text())
    assert later["saved"]["view"]["url"] == url
    assert publish(sweep, SHOWN._replace(survival=False)).view.done == "updated"
    assert saves(stand_in) == [2]
