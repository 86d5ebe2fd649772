"""Sources that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import textures, write_folder


def test_missing_and_empty_sources(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"x")
    for path, message in (("nowhere", "does not exist"), ("empty", "holds no files"), ("a.zip", "not a readable zip")):
        with pytest.raises(UsageError, match=message):
            ingest(workspace, tmp_path / path)
    with pytest.raises(UsageError, match="captions file .* does not exist"):
        ingest(workspace, write_folder(tmp_path / "s", textures(1)), tmp_path / "none.jsonl")
