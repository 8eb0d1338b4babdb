"""The README is true: its tree is the tree, its commands run, its keys and files exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [text for named, text in fenced if named == language]


def test_the_tree_names_what_is_there() -> None:
    [tree] = [block for block in blocks("") if block.startswith("conf/")]
    parent, named = "", {"": set[str](), "tc_sweeps/": set[str]()}
    for line in tree.splitlines():
        name = line.split()[0]
        inside = line.startswith("  ")
        parent = parent if inside else ""
        named[parent if inside else ""].add(name)
        assert (ROOT / parent / name if inside else ROOT / name).exists(), name
        if not inside:
            parent = name
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {f"{path.split('/')[0]}/" for path in tracked if "/" in path and not path.startswith(".")}
    assert folders == named[""]
    package = {
        path.split("/")[1] + ("/" if path.count("/") > 1 else "") for path in tracked if path[:10] == "tc_sweeps/"
    }
    assert {name for name in package if not name.startswith("__")} == named["tc_sweeps/"]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_it_names_exists() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"^make (\w+)", README, flags=re.MULTILINE)) <= set(targets)


def test_the_demo_leaves_a_report_of_each_sweep() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    written = re.findall(r"^\t@\$\(BIN\)/tc-sweeps report (.+)$", makefile, flags=re.MULTILINE)
    assert set(written) == set(re.findall(r" sweep=(demo_\w+)", makefile))


def test_the_environment_it_activates_is_the_one_that_make_makes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [folder] = re.findall(r"^BIN := (\S+)$", makefile, flags=re.MULTILINE)
    activated = re.findall(r"^\. (\S+)", "".join(blocks("bash")), flags=re.MULTILINE)
    assert activated == [f"{folder}/activate"]


@pytest.mark.slow
def test_its_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """All shell blocks but the two `make` commands, which CI runs itself, then the Python blocks, in a fresh folder."""
    mine = next(block for block in blocks("yaml") if "sweep: mine" in block)
    (tmp_path / "my_conf/experiment").mkdir(parents=True)
    (tmp_path / "my_conf/experiment/mine.yaml").write_text(mine)
    commands = [line for block in blocks("bash") for line in block.splitlines() if not line.startswith(("make ", ". "))]
    short = "training.steps=2 training.evaluations=1 tracking=none 'hydra.sweeper.params.seed=\"0,1\"'"
    commands.append(f"python -m tc_sweeps --config-dir my_conf -m experiment=mine {short}")
    assert len(commands) >= 6
    commands.append(f"python - <<'END'\n{''.join(blocks('python'))}END")
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    environment["BROWSER"] = "true"  # a command that shows nothing
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert len(list(tmp_path.glob("outputs/widths/figures/*.png"))) == 1
