"""As much of W&B's server as is needed, on this machine: runs with their history and files, saved views and reports."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tc_sweeps.store import account

API_KEY = "local-" + "0" * 40  # W&B accepts any key of this length; only its server knows better


class Server(ThreadingHTTPServer):
    """Keeps what arrives, by the id of the run."""

    daemon_threads = True
    request_queue_size = 256  # with fewer, twenty runs at once wait a second for a connection

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.requests = 0
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.exit_codes: dict[str, int] = {}
        self.completed: Counter[str] = Counter()  # how often each run was brought to its end
        self.projects: dict[str, None] = {}  # in the order of their making
        self.views: dict[str, dict[str, Any]] = {}  # saved views and reports by id; `saves`: how often each was saved
        self.refused: dict[str, int] = {}  # part of a path -> the status that such requests are answered with
        self.refusals = 0
        self.held: set[str] = set()  # runs whose history waits for `let_go`
        self.let_go = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": API_KEY}

    def rows(self, run: str) -> list[dict[str, Any]]:
        """Return the history of a run without W&B's own keys (`_step`, `_timestamp`, ...)."""
        lines = [line for _, line in sorted(self.history[run].items())]
        return [{key: value for key, value in line.items() if not key.startswith("_")} for line in lines]

    def config(self, run: str) -> dict[str, Any]:
        """Return the config of a run without W&B's own part."""
        sent = json.loads(self.runs[run]["config"])
        return {key: item["value"] for key, item in sent.items() if not key.startswith("_")}

    def saved(self, kind: str) -> list[dict[str, Any]]:
        """Return what was saved as a `project-view`, or as a report (`runs`), in the order of its making."""
        return [view for view in self.views.values() if view["type"] == kind]

    def die(self) -> None:
        self.let_go.set()
        self.shutdown()
        self.server_close()


@contextmanager
def logged_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server that W&B is logged in to, in surroundings that know of no other."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    server = Server()
    for name, value in {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), **server.environment}.items():
        monkeypatch.setenv(name, value)
    account.leave()  # what it knows of the surroundings is that of an earlier test
    yield server
    server.die()
    account.leave()


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.is_refused():
            return
        if self.path == "/graphql":
            asked = json.loads(body)
            self.reply(self.graphql(asked["query"], asked.get("variables") or {}))
        elif stream := re.fullmatch(r"/files/.*/([^/]+)/file_stream", self.path):
            if stream[1] in self.server.held:
                self.server.let_go.wait()
            self.take(stream[1], json.loads(body))
            self.reply({"exitcode": None, "limits": {}})
        else:
            self.reply({})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.is_refused():
            return
        asked = parse_qs(urlsplit(self.path).query)
        self.server.files.setdefault(asked["run"][0], {})[asked["file"][0]] = body
        self.reply({})

    def is_refused(self) -> bool:
        self.server.requests += 1
        for part, status in list(self.server.refused.items()):
            if part in self.path:
                self.server.refusals += 1
                self.reply({"errors": [{"message": "not allowed here"}]}, status)
                return True
        return False

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "me"}}
        if "createRunFiles" in query:
            run, url = variables["run"], f"{self.server.environment['WANDB_BASE_URL']}/storage"
            files = [{"name": name, "uploadUrl": f"{url}?run={run}&file={name}"} for name in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        if "upsertBucket" not in query:
            return self.answer_about_views(query, variables)
        name = variables["name"]
        self.server.projects[variables["project"]] = None
        known = self.server.runs.setdefault(name, {})
        known |= {key: value for key, value in variables.items() if value is not None}
        bucket = {"id": "b", "name": name, "displayName": name, "config": "{}", "historyLineCount": 0}
        return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}}

    def answer_about_views(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer what wandb-workspaces and the public API ask."""
        server, name = self.server, variables.get("projectName") or variables.get("project")
        there = name in server.projects
        match re.search(r"\b(upsertView|upsertModel|allViews|internalId|models|viewer)\b", query):
            case None:
                return {"errors": [{"message": "not known here"}]}
            case found:
                asked = found[1]
        match asked:
            case "viewer":
                data: dict[str, Any] = {"viewer": {"id": "u", "entity": "me", "username": "me"}}
            case "models":
                page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
                about = {"__typename": "Project", "entityName": "me", "createdAt": "2026-01-01", "isBenchmark": False}
                nodes = [{**about, "id": name, "name": name, "user": None} for name in server.projects]
                data = {"models": {"pageInfo": page, "edges": [{"node": node} for node in nodes]}}
            case "upsertModel":
                server.projects[variables["input"]["name"]] = None
                data = {"result": {"project": None, "model": None, "inserted": True}}
            case "internalId":
                data = {"project": {"id": "p", "internalId": f"internal-{name}"} if there else None}
            case "allViews":
                found_views = [
                    {"cursor": id, "node": {"id": id, **view}}
                    for id, view in server.views.items()
                    if (view["projectName"], view["type"]) == (name, variables["viewType"])
                    and variables["viewName"] in (None, view["name"])
                ]
                page = {"endCursor": None, "hasNextPage": False}
                data = {"project": {"allViews": {"edges": found_views, "pageInfo": page}} if there else None}
            case _:
                id = variables.pop("id", None)
                if not there or (id is not None and id not in server.views):
                    return {"errors": [{"message": "there is no such project or view"}]}
                inserted = id is None
                id = id or f"view-{len(server.views)}"
                saves = server.views.get(id, {"saves": 0})["saves"] + 1
                server.views[id] = {**variables, "saves": saves}
                place = {"id": "p", "name": name, "entityName": variables["entityName"]}
                view = {"id": id, **variables, "project": place, "updatedAt": "2026-01-01T00:00:00Z"}
                data = {"upsertView": {"view": view, "inserted": inserted}}
        return {"data": data}

    def take(self, run: str, sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        if part := files.get("wandb-history.jsonl"):
            lines = self.server.history.setdefault(run, {})
            lines |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
        if part := files.get("wandb-summary.json"):
            self.server.summary.setdefault(run, {}).update(json.loads(part["content"][-1]))
        if sent.get("complete"):
            self.server.exit_codes[run] = sent["exitcode"]
            self.server.completed[run] += 1

    def reply(self, value: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass
