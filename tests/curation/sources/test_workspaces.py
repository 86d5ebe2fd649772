"""What tells a workspace from a folder with a file of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources.workspaces import is_workspace, marks_workspace, no_source
from flywheel.core.workspace import Workspace


def test_a_workspace_is_one_and_a_folder_with_such_a_name_is_none(tmp_path: Path) -> None:
    Workspace(tmp_path / "w")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "workspace.json").write_text("[]")
    assert is_workspace(str(tmp_path / "w"))
    assert not is_workspace(str(tmp_path / "other")) and not is_workspace(str(tmp_path / "none"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 4, "name": "mine"}', b"\xff"])
def test_what_is_no_marker(content: bytes) -> None:
    assert not marks_workspace(lambda: content) and marks_workspace(lambda: b'{"format": 4}')


def test_it_says_what_to_pass_instead() -> None:
    assert "or s3://b/w/pool" in str(no_source("s3://b/w/"))
