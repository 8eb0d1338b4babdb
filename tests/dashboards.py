"""Reads what W&B keeps of a view: which metrics, config keys and tables its panels, columns and groups name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels of a view in order."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


def runset(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the only run set of a view."""
    [found] = spec["section"]["runSets"]
    return dict(found)


def named(spec: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a view names by kind: `history`, `summary`, `config` (as `model.value.width`), `table` and `run`."""
    names: dict[str, set[str]] = {kind: set() for kind in ("history", "summary", "config", "table", "run")}
    for kind, name in _named(spec):
        names[kind].add(name)
    return names


def _named(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in panels(spec):
        config = panel["config"]
        match panel["viewType"]:
            case "Run History Line Plot":
                yield from (("history", name) for name in [config["xAxis"], *config["metrics"]])
            case "Scatter Plot":
                yield from (_split(config[axis]) for axis in ("xAxis", "yAxis"))
            case "Parallel Coordinates Plot":
                yield from (_split(column["accessor"]) for column in config["columns"])
            case "Vega2":
                [query] = config["userQuery"]["queryFields"]
                [table] = [field for field in query["fields"] if field["name"] == "summaryTable"]
                yield "table", table["args"][0]["value"]
    found = runset(spec)
    yield from ((key["section"], key["name"]) for key in found["grouping"])
    yield from map(_split, found["runFeed"]["columnOrder"])
    yield from ((item["key"]["section"], item["key"]["name"]) for item in found["filters"]["filters"])


def _split(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition(":")
    return kind, rest
