"""A server that answers every call, and a pool to caption."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.captioning.server import GOOD, Server, completion
from tests.curation.corpus import encoded, texture, write_folder


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.script = lambda n, r: (200, completion(GOOD))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Six pictures: four without a caption, two of them of the same bytes; and an edit pair."""
    pictures = {f"{n}.png": encoded(texture(n)) for n in range(4)}
    files = pictures | {"2b.png": pictures["2.png"], "edit.png": encoded(texture(9))}
    captions = {"0.png": "a caption of its own", "edit.png": {"caption": "mend it", "references": ["0.png"]}}
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", files, captions))
    return workspace
