"""Croissant metadata, checked and read by its own library."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from curation.export.croissant import metadata
from curation.export.formats import FORMATS
from flywheel.core.files import file_digest
from flywheel.core.workspace import Workspace
from tests.curation.export.exporting import ROWS, export, snapshot

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return snapshot(tmp_path_factory.mktemp("croissant"))


@pytest.mark.parametrize("name", FORMATS)
def test_its_library_accepts_the_metadata(workspace: Workspace, tmp_path: Path, name: str) -> None:
    exported = export(workspace, name, tmp_path / "out")
    path = tmp_path / "out" / "croissant.json"
    dataset = mlcroissant.Dataset(jsonld=path)  # raises on errors
    assert not dataset.metadata.ctx.issues.errors
    value = json.loads(path.read_text())
    assert value["license"] == ["CC-BY-4.0", "CC0-1.0"] and metadata(exported, [])["name"] == value["name"]
    files = [f for f in value["distribution"] if f["@type"] == "cr:FileObject"]
    assert len(files) == exported.parts
    assert all(file_digest(path.parent / f["contentUrl"]) == f["sha256"] for f in files)
    if value["recordSet"]:
        rows = list(dataset.records("samples"))
        licences = Counter(str(r["samples/license"]) for r in rows)
        assert len(rows) == 3 * ROWS and licences["b'CC0-1.0'"] == ROWS
