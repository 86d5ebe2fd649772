"""A finished micro run, once per session. Tests that change a workspace or its source work on copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flywheel.core.workspace import Workspace
from flywheel.demo.world import write_world
from tests.flywheel.micro import run


@pytest.fixture(scope="session")
def micro_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the micro run."""
    folder = tmp_path_factory.mktemp("world") / "source"
    write_world(folder, seed=0, size="quick")
    return folder


@pytest.fixture(scope="session")
def micro_run(micro_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """(workspace of two finished rounds, summary of the run)."""
    workspace = tmp_path_factory.mktemp("finished") / "w"
    return workspace, run(micro_world, workspace)


@pytest.fixture
def copied(micro_run: tuple[Path, dict], tmp_path: Path) -> Workspace:
    """A copy of the finished workspace, to change."""
    shutil.copytree(micro_run[0], tmp_path / "copy", ignore=shutil.ignore_patterns(".prefect"))
    return Workspace(tmp_path / "copy")
