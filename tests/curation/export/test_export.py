"""An export is completed after a kill, with the same bytes; it says what it wrote, and takes no folder of others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from curation.export import export as module
from curation.export.request import FORMATS
from flywheel.core.errors import UsageError
from flywheel.core.exports import SHARDS, remembered
from flywheel.core.files import file_digest
from flywheel.core.workspace import Workspace
from tests.curation.export.exporting import ROWS, export, snapshot


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return snapshot(tmp_path_factory.mktemp("export"))


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): file_digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_export_is_completed_with_the_same_bytes(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = export(workspace, name, tmp_path / "whole")
    form, calls = module.FORMATS[name], []

    def dies(folder: Path, number: int, rows: Any, references: int) -> None:
        calls.append(number)
        form.write(folder, number, rows, references)
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "FORMATS", {name: replace(form, write=dies)})
    with pytest.raises(KeyboardInterrupt):
        export(workspace, name, tmp_path / "out")
    assert not (tmp_path / "out" / "export.json").exists()
    monkeypatch.undo()
    exported = export(workspace, name, tmp_path / "out")
    assert calls == [0, 1] and exported.written == exported.parts - 1  # the first part was not written again
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert export(workspace, name, tmp_path / "out").written == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert whole.bytes == sum(p["bytes"] for r in record(tmp_path / "whole")["parts"] for p in r["files"])


def record(folder: Path) -> dict:
    return json.loads((folder / "export.json").read_text())


def test_it_says_what_it_wrote_and_where_is_remembered(workspace: Workspace, tmp_path: Path) -> None:
    exported = export(workspace, "parquet", tmp_path / "out")
    assert exported.licences == {"CC-BY-4.0": ROWS, "CC0-1.0": ROWS, "unknown": ROWS}
    assert exported.tasks == {"t2i": 2 * ROWS, "ti2i": ROWS}
    for part in record(tmp_path / "out")["parts"]:
        for file in part["files"]:
            path = tmp_path / "out" / file["path"]
            assert (path.stat().st_size, file_digest(path)) == (file["bytes"], file["sha256"])
    assert tmp_path / "out" in [place for place, _ in remembered(workspace, SHARDS)]


def test_rows_without_the_kind_of_caption_are_left_out_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    exported = export(workspace, "hf", tmp_path / "out", captions="knowledge")
    assert (exported.rows, exported.left_out) == (2 * ROWS, ROWS)  # edits keep their instruction
    with pytest.raises(UsageError, match="another export"):
        export(workspace, "hf", tmp_path / "out")


def test_a_folder_with_other_things_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        export(workspace, "hf", tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        export(workspace, "hf", tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be made .*: pass another folder"):
        export(workspace, "hf", Path("/proc/none/out"))
    places = [place for place, _ in remembered(workspace, SHARDS)]
    assert not {tmp_path / "mine", tmp_path / "file", Path("/proc/none/out")} & set(places)  # erasing would go there
    assert tree(tmp_path / "mine").keys() == {"thesis.txt"}


def test_an_export_without_rows_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    copy = shutil.copytree(workspace.root, tmp_path / "w")
    manifest = json.loads((copy / "shards" / "5eed.json").read_text())
    manifest["files"] = [f for f in manifest["files"] if f["task"] == "t2i"]
    (copy / "shards" / "5eed.json").write_text(json.dumps(manifest))
    for name in FORMATS:
        with pytest.raises(UsageError, match="no row of S2 at 64 has a caption of kind structured"):
            export(Workspace(copy), name, tmp_path / "out", captions="structured")
        assert tree(tmp_path / "out") == {} and not list((tmp_path / "out").iterdir())  # free for the next
