"""Pools that several modules' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.balanced import KINDS
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.world import expected_ends, world


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """A pool of sixteen pictures in four categories."""
    root = tmp_path_factory.mktemp("balance")
    words = [w for w, count in KINDS.items() for _ in range(count)]
    files = {f"{n:02d}-{w}.png": encoded(texture(n, 80, 80)) for n, w in enumerate(words)}
    source = write_folder(root / "src", files, {f: f"a {f[3:-4]} in the sun, number {f[:2]}" for f in files})
    workspace = Workspace(root / "w")
    ingest(workspace, source)
    yield SimpleNamespace(workspace=workspace, root=root)


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """A curated workspace, its source and what was expected of it; tests leave both as they are."""
    root = tmp_path_factory.mktemp("curated")
    files, captions = world()
    source = write_folder(root / "src", files, captions)
    workspace = Workspace(root / "w")
    ingest(workspace, source)
    result = curate(workspace, load_policy("demo"))
    yield SimpleNamespace(workspace=workspace, source=source, result=result, files=files, expected=expected_ends())
