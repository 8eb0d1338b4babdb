"""The page: its template with everything in it that it needs, so that it asks nobody."""

from __future__ import annotations

import base64
import gzip
import html
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from tc_sweeps.report.artifacts import printable

HERE = Path(__file__).parent
SCRIPTS = ("tools.js", "charts.js", "view.js", "curves.js", "panels.js", "run.js", "page.js")  # one script


def page(title: str, sweeps: Sequence[Mapping[str, Any]], data: str) -> str:
    """Return the whole page, with `data` (JSON) packed into it.

    `sweeps` is what the static summary tells, which is read where there is no JavaScript. Everything that a user has
    written stands in it escaped, or in base64.
    """
    parts = {
        "title": _escaped(title),
        "css": _file("page.css"),
        "js": "\n".join(map(_file, SCRIPTS)),
        "summary": summary(sweeps),
        "data": pack(data.encode()),
        "library": _library(),
    }
    # In one pass: what is put in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("page.html"))


def pack(content: bytes) -> str:
    """Return the base64 of a gzip of some bytes, the same for the same bytes."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def summary(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """Return, as HTML, what there is to say of each sweep: claim, verdict, where its runs stand, command, failures."""
    return "\n".join(_section(sweep) for sweep in sweeps)


def _section(sweep: Mapping[str, Any]) -> str:
    runs = sum(sweep["states"].values())
    states = ", ".join(f"{count:,} {state}" for state, count in sweep["states"].items())
    lines = [f"<h2>{_escaped(sweep['name'])}</h2>"]
    for name in ("claim", "verdict"):
        if sweep[name]:
            told = "<br>".join(map(_escaped, sweep[name].splitlines()))
            tag = "pre" if sweep["search"] and name == "verdict" else "p"  # a search's is a table
            lines.append(f'<{tag} class="{name}"><strong>{name.capitalize()}:</strong> {told}</{tag}>')
    lines.append(f'<p class="states">{runs:,} run{"s" * (runs != 1)}: {_escaped(states)}</p>')
    if sweep["command"]:
        lines.append(f'<p class="command"><code>{_escaped(sweep["command"])}</code></p>')
    if sweep["estimated"]:
        lines.append(f"<p>{_escaped(sweep['estimated'])}</p>")
    if sweep["failures"]:
        told = "".join(f"<li>{each['count']:,} failed: {_escaped(each['reason'])}</li>" for each in sweep["failures"])
        lines.append(f'<ul class="failures">{told}</ul>')
    body = "\n".join(lines)
    return f'<section class="sweep">\n{body}\n</section>'


def _escaped(text: str) -> str:
    """Return a text as HTML shows it, characters included that would turn the text around or are none at all."""
    return html.escape(printable(text))


@cache
def _library() -> str:
    return pack(get_plotlyjs().encode())


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
