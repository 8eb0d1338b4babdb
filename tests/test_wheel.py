"""A wheel carries everything: it runs outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "tc_sweeps/conf/config.yaml" in names
    assert "tc_sweeps/conf/experiment/figure2.yaml" in names
    assert "tc_sweeps/corpus/files/kinships.tsv" in names
    assert {f"tc_sweeps/report/html/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "outputs", "conf"))]
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from tc_sweeps import cli; "
        f"assert cli.__file__.startswith({str(tmp_path)!r}), cli.__file__; "
        "sys.argv = ['tc-sweeps', *sys.argv[1:]]; cli.main()"
    )
    short = ["data=eats", "training.steps=4", "training.evaluations=1", "tracking.mode=none"]
    for typed in (["run", *short], ["report", "scratch"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *typed], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs/scratch").glob("*/model.safetensors"))) == 1
    assert (tmp_path / "outputs/scratch/report.html").is_file()
