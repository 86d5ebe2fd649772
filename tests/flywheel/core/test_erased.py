"""The tombstones of erased pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.erased import banned, erased_images, journals, require_finished, unfinished
from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


def test_ids_and_encodings_that_no_file_may_hold(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    assert erased_images(workspace) == frozenset() and banned(workspace) == (frozenset(), frozenset())
    row = {"erasure_id": "1", "image_id": "a" * 64, "sample_ids": ["b" * 64], "blobs": ["c" * 64]}
    Ledger(workspace, "erasures").append([row, row | {"image_id": "d" * 64, "sample_ids": [], "blobs": []}], key="1")
    assert erased_images(workspace) == {"a" * 64, "d" * 64}
    assert banned(workspace) == ({"a" * 64, "b" * 64, "d" * 64}, {"a" * 64, "c" * 64, "d" * 64})


def test_an_unfinished_erasure_stops_what_would_train_on_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    require_finished(workspace)
    path = workspace.path("erasures", "1.json")
    write_json(path, {"id": "1", "finished": False})
    assert journals(workspace) == [path] and len(unfinished(workspace)) == 1
    with pytest.raises(UsageError, match="flywheel erase -w"):
        require_finished(workspace)
    write_json(path, {"id": "1", "finished": True})
    require_finished(workspace)
