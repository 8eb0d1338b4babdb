"""Hydra's own suites for launchers and sweepers, on ours: with a task function without `many`, all of them hold."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

import hydra_plugins.tc_sweeps  # noqa: F401 -- registers now what the suites' fixture puts back after every test

SWEEPERS = ["hydra/sweeper=basic", "hydra/sweeper=grid"]
FOLDER = "hydra.job.chdir=true"  # the suites are of a time when this was the default


def test_hydra_finds_the_plugins() -> None:
    assert "StackedLauncher" in [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]
    assert "GridSweeper" in [plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)]


@pytest.mark.parametrize("overrides", [[sweeper, FOLDER] for sweeper in SWEEPERS], ids=SWEEPERS)
@pytest.mark.parametrize("launcher_name", ["stacked", "basic"])
class TestLauncher(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    "overrides", [[sweeper, FOLDER, "hydra.sweeper.max_batch_size=2"] for sweeper in SWEEPERS], ids=SWEEPERS
)
@pytest.mark.parametrize("launcher_name", ["stacked"])
class TestBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize("task_launcher_cfg", [{}], ids=[""])
@pytest.mark.parametrize("extra_flags", [["-m", "hydra/launcher=stacked", s] for s in SWEEPERS], ids=SWEEPERS)
class TestIntegration(IntegrationTestSuite):
    pass
