"""Trained without a network, uploaded later: every number that a run wrote arrives, once, under its name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tc_sweeps.store import SweepFolder, tracking
from tests.behaviour.conftest import QUICK, Launch, without_torch
from tests.wandb_server import Server, logged_in


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with logged_in(tmp_path, monkeypatch) as server:
        yield server


def test_a_sweep_that_was_trained_offline_is_uploaded_by_one_command(
    shell: Path, launch: Launch, server: Server
) -> None:
    code, _, err = launch("run", "-m", "sweep=demo", "seed=0,1", *QUICK)
    assert code == 0, err
    tracking.drain()
    assert server.requests == 0

    assert launch("sync", "demo", "--dry-run")[:2] == (
        0,
        "".join(f"outputs/demo/{path}\n" for path in in_order(shell)) + "2 runs to upload.\n",
    )
    assert launch("sync", "demo")[:2] == (0, "2 runs uploaded.\n")
    assert launch("sync", "demo")[:2] == (0, "0 runs uploaded, 2 were there already.\n")
    for run_id in in_order(shell):
        name = f"demo-{run_id}"
        lines = (shell / "outputs" / "demo" / run_id / "metrics.csv").read_text().splitlines()
        columns = lines[0].split(",")
        rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]
        defined = [{key: float(cell) for key, cell in row.items() if cell} for row in rows]
        assert [{key: row[key] for key in row if key != "survival"} for row in server.rows(name)] == defined
        assert "survival" in server.rows(name)[-1]
        assert server.runs[name]["groupName"] == "demo"
        assert server.completed[name] == 1

    [first, _] = in_order(shell)
    (shell / "outputs" / "demo" / first / "wandb" / "uploaded.json").unlink()
    server.die()
    code, out, err = launch("sync", "demo", "--timeout", "1", "--retries", "0")
    assert (code, out) == (1, "0 runs uploaded, 1 was there already.\n")
    assert err.startswith(f"1 run was not uploaded: {first} (http://127.0.0.1:")
    assert err.endswith(" took no run for 1 s). The same command tries again.")
    assert launch("sync", "dmo")[2] == launch("status", "dmo")[2]


def in_order(shell: Path) -> list[str]:
    """The runs in the order of the plan."""
    return list(SweepFolder(shell / "outputs" / "demo").plan["run_ids"])


def test_uploading_needs_no_torch(shell: Path) -> None:
    (shell / "outputs" / "demo").mkdir(parents=True)
    (shell / "outputs" / "demo" / "plan.json").write_text('{"experiment": null, "launch": null, "run_ids": []}')
    made = without_torch("sync", "demo")
    assert (made.returncode, made.stdout) == (0, "0 runs uploaded.\n"), made.stderr
