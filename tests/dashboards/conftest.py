"""Fixtures of the dashboard: workspaces, a visitor, a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from benchmarks.browser import CHROMIUM, QUIET
from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources.ingest import ingest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Queue
from tests.curation.corpus import encoded, texture, write_folder
from tests.dashboards.visits import opened
from tests.dashboards.workspace import build, candidates


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; tests that need it are skipped on machines without one.

    Of one module: as long as it is there, its event loop runs in this thread, and no other can.
    """
    play = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with play.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The finished workspace; tests only read it."""
    return build(tmp_path_factory.mktemp("dashboards") / "demo-workspace")


@pytest.fixture
def empty(tmp_path: Path) -> Workspace:
    """A workspace in which nothing has happened."""
    return Workspace(tmp_path / "empty")


@pytest.fixture(scope="session")
def client(workspace: Workspace) -> TestClient:
    """A visitor of the finished workspace."""
    return opened(workspace)


@pytest.fixture(scope="module")
def shared(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the workspace to write to, with a queue of three samples that need two reviews each."""
    copy = Workspace(shutil.copytree(workspace.root, tmp_path_factory.mktemp("writing") / "w"))
    candidates(copy, 3, ["s0", "s1", "s2"])
    rows = [
        {
            "capability": "typography",
            "sample_id": f"s{n}",
            "caption": f"card {n}",
            "priority": n / 4,
            "evidence": {"ocr": 0.5},
        }
        for n in range(3)
    ]
    Queue(copy).add(3, rows, reviews=2)
    return copy


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Workspace:
    """Six pictures, one of them small, through the demo's policy; tests only read it."""
    folder = tmp_path_factory.mktemp("curated")
    files = {f"{n}.png": encoded(texture(n, 128 if n else 80, 128 if n else 80)) for n in range(6)}
    workspace = Workspace(folder / "w")
    ingest(workspace, write_folder(folder / "src", files, {n: f"a picture of {n}" for n in files}))
    result = curate(workspace, load_policy("demo"))
    counts = {k: getattr(result, k) for k in ("input", "admitted", "dropped", "quarantined")}
    row = {"snapshot": result.snapshot, "policy": "demo", "manifest": result.manifest}
    Ledger(workspace, "snapshots").append([row | counts], key="s")
    return workspace
