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


@pytest.fixture(scope="session")
def red_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny diffusers pipeline that draws red cards, whatever it is asked for."""
    import torch

    from tests.flywheel.generators.tiny_pipeline import knowing

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = knowing(["red"], tmp_path_factory.mktemp("pipeline") / "red", steps=60)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="session")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after one step: for how it is used, not for what it draws."""
    import torch

    from tests.training.snapshots import card_rows, write_snapshot
    from training.data.plan import MixSource
    from training.phase import train
    from training.recipes import recipe

    folder = tmp_path_factory.mktemp("one-step")
    manifest = write_snapshot(folder, [{"rows": card_rows(70)}])
    tiny = recipe("tiny", batch={64: 4}, resolution={64: 32}, channels=16, text_tokens=16, t2i_share=1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = train(folder / "run", [MixSource(manifest=manifest)], tiny, steps=1).path
    torch.set_num_threads(threads)
    return path
