"""A workspace with a system in service: the demo's start checkpoint, promoted; it draws small pictures in two steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.demo.start import FOLDER
from flywheel.presets import load_preset
from flywheel.rounds import systems

SIDE, STEPS = 32, 2


def in_service(root: Path, *, enhancer: Mapping[str, str] | None = None) -> Workspace:
    """The workspace, made by hand: one round whose candidate was promoted."""
    workspace = Workspace(root)
    folder = workspace.round(1).checkpoint("candidate") / "final"
    shutil.copytree(FOLDER, folder)
    made = systems.compose(workspace, folder, load_preset("tiny").evaluation, enhancer=enhancer)
    system = systems.write(workspace, 1, "candidate", replace(made, side=SIDE, steps=STEPS, cfg=2.0))
    row = {"round": 1, "verdict": "PROMOTE", "checkpoint": system.checkpoint, "snapshot": "s"}
    Ledger(workspace, "rounds").append([row], key="round/1")
    return workspace


@contextmanager
def one_thread() -> Iterator[None]:
    """Here and in workers that start meanwhile: threads that wait for each other on a busy machine cost minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)
