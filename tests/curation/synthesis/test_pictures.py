"""Pictures that synthesis starts from: in which order, and from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from curation.synthesis.pictures import Picture, in_folder, in_pool, shuffled
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import textures, write_folder

FILES = textures(4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four pictures, an edit of one of them, and a damaged file."""
    captions: dict[str, object] = {name: f"the {name}" for name in FILES}
    captions["edit.png"] = {"caption": "make it", "references": ["picture-000.jpg"]}
    files = FILES | {"edit.png": FILES["picture-001.jpg"], "none.jpg": b""}
    return write_folder(tmp_path / "source", files, captions)


def test_a_folder_gives_its_pictures_but_no_edits(source: Path) -> None:
    found = [p for p in in_folder(source, source / "captions.jsonl") if not p.path.endswith("none.jpg")]
    assert [(Path(p.path).name, p.caption) for p in found] == [(name, f"the {name}") for name in FILES]
    assert found[2].read() == FILES["picture-002.jpg"]
    with pytest.raises(UsageError, match="is not a folder: pass a folder of photographs"):
        in_folder(source / "none.jpg")


def test_a_pool_gives_its_readable_pictures_of_the_first_stream(source: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="has no pictures to start from"):
        in_pool(workspace, None)
    ingest(workspace, source)
    found = in_pool(workspace, None)
    assert sorted(p.caption for p in found) == [f"the {name}" for name in FILES]
    assert {p.caption.removeprefix("the "): p.read() for p in found} == FILES


def test_a_shuffle_keeps_the_pictures_of_a_shard_together() -> None:
    pictures = [Picture(f"shard-{s}", row, "") for s in range(4) for row in range(5)]
    mixed = shuffled(pictures, "a")
    assert mixed == shuffled(pictures, "a") != shuffled(pictures, "b")
    assert set(mixed) == set(pictures) and mixed != pictures
    shards = [p.path for p in mixed]
    assert [s for n, s in enumerate(shards) if n == 0 or shards[n - 1] != s] == list(dict.fromkeys(shards))
    files = [Picture(f"{n}.png", None, "") for n in range(20)]
    assert shuffled(files, "a") != files and set(shuffled(files, "a")) == set(files)
