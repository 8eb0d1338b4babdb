"""Saved views and reports at Weights & Biases: each is made once, and updated from then on.

What they show is decided in `tc_sweeps.report.dashboard`; wandb-workspaces puts it into W&B's terms and saves it. It
leaves three things to chance or to a parser, which are set here: the name of a view, the ids of what it holds, and
filters, which it takes as text in which a sweep named `lr=0.1` becomes another one. The functions under "behind the
library's face" are the only ones that reach there, as far as version 0.4 goes.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tc_sweeps.config import ConfigError
from tc_sweeps.store import account
from tc_sweeps.store.files import locked, replace_text
from tc_sweeps.store.sweep_folder import SweepFolder
from tc_sweeps.store.wandb_process import QUIET

FILE = "dashboard.json"
FIGURE = "figure"  # the key under which the run of a figure logs it
ANSWER_SECONDS = 10  # a server that can be reached answers within 2 s
UPLOAD_SECONDS = 60.0
LONGEST_REASON = 200  # characters: a server may answer with a page


class Dashboard(NamedTuple):
    """What is saved for a sweep: a view, and a report with its figure where the sweep is of an experiment."""

    view: Any  # wandb_workspaces.workspaces.Workspace
    report: Any | None = None  # wandb_workspaces.reports.v2.Report
    figure: Path | None = None  # the PNG that the report shows


class Place(NamedTuple):
    """Where something is at W&B, and what the command did to it: made, updated or unchanged."""

    url: str
    done: str


class Published(NamedTuple):
    """What has become of a dashboard at W&B."""

    view: Place
    report: Place | None


def require_library() -> None:
    """Raise `ConfigError` where wandb-workspaces is not installed."""
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "tc-sweeps dashboard needs wandb-workspaces: install the extra with pip install -e '.[dashboard]'."
        ) from error


def figure_run(project: str, sweep: str) -> str:
    """Return the id of the run that holds a sweep's figure at W&B: a run of its own, outside the group of the sweep."""
    return f"figure-{_name('figure', project, sweep)}"


# ------------------------------------------------------------------------------------------- behind the library's face


def settle_view(view: Any, sweep: str) -> None:
    """Give a view the name, the ids and the filter (the runs of the group `sweep`) that it has at every call."""
    view._internal_name = f"nw-{_name('view', view.project, sweep)}-v"  # as W&B itself names saved views
    view._internal_runset_id = _name("runs", view.project, sweep)
    panels = [panel for section in view.sections for panel in section.panels]
    for place, panel in enumerate(panels):
        panel._id = _name("panel", view.project, sweep, str(place))
    _set_filter(view, view.runset_settings.filters, "group", sweep)


def settle_report(report: Any, sweep: str, shown: list[tuple[str, str]]) -> None:
    """Give a report ids that are the same at every call, and to each of its grids of panels the runs it is about.

    `shown` names them: `("group", a group)` or `("name", the id of a run)` for each grid in turn.
    """
    grids = [block for block in report.blocks if hasattr(block, "runsets")]
    for place, (grid, (key, value)) in enumerate(zip(grids, shown, strict=True)):
        [runset] = grid.runsets
        runset._id = _name("report", report.project, sweep, str(place))
        _set_filter(runset, runset.filters, key, value)
        for number, panel in enumerate(grid.panels):
            panel._id = _name("report", report.project, sweep, str(place), str(number))


def spec(part: Any) -> dict[str, Any]:
    """Return the JSON that W&B keeps of a view or a report."""
    return dict(json.loads(part._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)))


def _set_filter(part: Any, text: str, key: str, value: str) -> None:
    from wandb_workspaces import expr

    wanted = expr.Filters(op="=", key=expr.Key(section="run", name=key), value=value, disabled=False)
    # A filter that was loaded is kept as it is for as long as its text is the same.
    part._stashed_filter_string = text
    part._stashed_filters_v2 = expr.filters_tree_to_v2(expr.Filters(op="AND", filters=[wanted]))


def _view_name(view: Any) -> str:
    return str(view._internal_name)


def _set_view_id(view: Any, found: str) -> None:
    view._internal_id = found


# ----------------------------------------------------------------------------------------------------- without a server


def keep(sweep: SweepFolder, dashboard: Dashboard) -> Path:
    """Write what W&B would show as `<sweep>/dashboard.json` and return the path."""
    report = None if dashboard.report is None else spec(dashboard.report)
    return _keep(sweep, dashboard, spec(dashboard.view), report, _saved(sweep))


def _keep(
    sweep: SweepFolder, dashboard: Dashboard, view: dict[str, Any], report: dict[str, Any] | None, saved: dict[str, Any]
) -> Path:
    """Write the specs of a view and a report, and what was saved of them at which server."""
    kept: dict[str, Any] = {
        "view": {
            "entity": dashboard.view.entity,
            "project": dashboard.view.project,
            "name": _view_name(dashboard.view),
            "displayName": dashboard.view.name,
            "spec": view,
        },
        "report": None,
        "saved": saved,
    }
    if dashboard.report is not None:
        about = {"displayName": dashboard.report.title, "description": dashboard.report.description}
        kept["report"] = {**about, "spec": report}
    path = sweep.path / FILE
    replace_text(path, json.dumps(kept, indent=1))
    return path


def _saved(sweep: SweepFolder) -> dict[str, Any]:
    """Return what an earlier call has saved at a server, and where; empty where none has, or the file is no longer."""
    try:
        return dict(json.loads((sweep.path / FILE).read_text(encoding="utf-8"))["saved"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


# -------------------------------------------------------------------------------------------------------- at the server


class Server:
    """W&B's server, asked with the user's key: what it has is found again, and saved anew only where it differs."""

    def __init__(self, address: str, entity: str | None = None) -> None:
        """Log in; `entity` is the user or team whose project is meant, by default as for runs.

        Raises `ConfigError` where the server does not answer or knows no such user.
        """
        import wandb

        self.address = address
        with self._asking():
            self._api = wandb.Api(timeout=ANSWER_SECONDS)
            found = entity or self._api.settings["entity"] or self._api.default_entity
        if not found:
            raise ConfigError(f"{address} names no default entity for this key: set WANDB_ENTITY. Nothing was saved.")
        self.entity = str(found)

    @classmethod
    def reachable(cls, entity: str | None) -> Server | str:
        """Return the server, or why there is no account for it, as the beginning of a sentence."""
        address = account.server()
        return account.problem(address) or cls(address, entity)

    def publish(self, sweep: SweepFolder, dashboard: Dashboard) -> Published:
        """Make or update what W&B shows of a sweep, and keep it as `<sweep>/dashboard.json`.

        A view or report that is there and was saved from the same spec is left alone, with what was changed in it by
        hand. Raises `ConfigError` where the server does not do its part; what it had done before stays.
        """
        with locked(sweep.path / ".dashboard"), self._asking():  # a second call waits, and finds what the first made
            saved = _saved(sweep)
            if (saved.get("server"), saved.get("entity")) != (self.address, self.entity):
                saved = {"server": self.address, "entity": self.entity}
            wanted = spec(dashboard.view)
            view, report, told = self._publish_view(dashboard.view, wanted, saved), None, None
            if dashboard.report is not None and dashboard.figure is not None:
                told = spec(dashboard.report)  # asks the server for the project, which is there by now
                report = self._publish_report(sweep.path.name, dashboard.report, told, dashboard.figure, saved)
            _keep(sweep, dashboard, wanted, told, saved)
        return Published(view, report)

    def _publish_view(self, view: Any, wanted: dict[str, Any], saved: dict[str, Any]) -> Place:
        [found, *_] = [*self._views("project-view", view.project, _view_name(view)), None]
        before, digest = saved.get("view", {}), _digest(view.name, wanted)
        if found is not None and (before.get("digest") == digest or _same(found, view.name, wanted)):
            done = "unchanged"
        else:
            _set_view_id(view, found.id if found else "")
            view.save()
            done = "updated" if found else "made"
        url = quote(view.url, safe=":/?=&%")
        saved["view"] = {"name": _view_name(view), "url": url, "digest": digest}
        return Place(url, done)

    def _publish_report(
        self, sweep: str, report: Any, wanted: dict[str, Any], figure: Path, saved: dict[str, Any]
    ) -> Place:
        before, digest = saved.get("report", {}), _digest(report.title, wanted)
        there = self._views("runs", report.project)
        # Its description says which sweep it is of, its title may have been changed.
        mine = [found for found in there if found.id == before.get("id")]
        [found, *_] = [*mine, *(found for found in there if found.description == report.description), None]
        image = hashlib.sha256(figure.read_bytes()).hexdigest()
        if found is None or before.get("figure") != image:
            self._upload(figure, report.project, sweep)
        if found is not None and (before.get("digest") == digest or _same(found, report.title, wanted)):
            report.id = found.id
            done = "unchanged" if before.get("figure") in (None, image) else "updated"
        else:
            report.id = found.id if found else ""
            report.save()
            done = "updated" if found else "made"
        url = quote(report.url, safe=":/?=&%")
        saved["report"] = {"id": report.id, "url": url, "digest": digest, "figure": image}
        return Place(url, done)

    def _views(self, kind: str, project: str, name: str | None = None) -> list[Any]:
        """Return what a project has saved: `project-view` or `runs` (reports); a project that is not there is made."""
        views = self._api.reports(f"{self.entity}/{project}", name=name)
        views.variables["viewType"] = kind
        try:
            return list(views)
        except ValueError:  # there is no such project
            self._api.create_project(project, self.entity)
            return []

    def _upload(self, figure: Path, project: str, sweep: str) -> None:
        """Log a figure in a run of its own, in place of an earlier one."""
        import wandb

        settings = wandb.Settings(
            init_timeout=ANSWER_SECONDS, finish_timeout=UPLOAD_SECONDS, finish_timeout_raises=True, **QUIET
        )
        with tempfile.TemporaryDirectory() as scratch:
            run = wandb.init(
                entity=self.entity,
                project=project,
                id=figure_run(project, sweep),
                name=f"{sweep} (figure)",
                job_type="figure",
                dir=scratch,
                mode="online",
                reinit="create_new",
                settings=settings,
            )
            run.log({FIGURE: wandb.Image(str(figure))})
            run.finish()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what the server, or the way to it, refuses into one sentence."""
        import wandb
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        try:
            yield
        except (wandb.errors.Error, WandbApiFailedError, TimeoutError) as error:
            account.leave()
            raise ConfigError(
                f"{self.address} did not take the dashboard ({_reason(error)}). The same command tries again."
            ) from error


def _reason(error: Exception) -> str:
    """Return why a request failed, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):  # W&B's own words blame its process on this machine
            return "it does not answer"
        cause = cause.__cause__ or cause.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")[:LONGEST_REASON]


def _same(found: Any, name: str, wanted: dict[str, Any]) -> bool:
    return (found.display_name, found.spec) == (name, wanted)


def _digest(name: str, wanted: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([name, wanted], sort_keys=True).encode()).hexdigest()


def _name(*parts: str) -> str:
    """Return eleven hex digits, as long as the names that W&B draws, which the parts always give."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:11]
