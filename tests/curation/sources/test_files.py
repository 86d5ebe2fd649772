"""Files of a source: addresses, listings, versions, copies, and servers that fail."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from curation.sources import BadInput
from curation.sources.files import absolute, find, is_remote, missing, open_file, read, state
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import write_folder


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("photos/") == str(tmp_path / "photos")
    assert absolute("s3:/bucket/x") == absolute("s3://bucket/x") == "s3://bucket/x"  # `Path` collapses slashes
    assert absolute(Path("https://h/a")) == "https://h/a" and absolute("datasets:a/b") == "datasets:a/b"
    assert is_remote("gs://b/x") and not is_remote("/a:/b") and not is_remote("C:x")
    (tmp_path / "a b").mkdir()
    for of_file in (
        f"file://{tmp_path}/a%20b",
        f"file://{tmp_path}/a b",
        f"file:{tmp_path}/a b",
        f"file://localhost{tmp_path}/a b",
    ):
        assert absolute(of_file) == str(tmp_path / "a b")
    assert missing("nowhere") and not missing("no*where") and not missing("s3://b/x") and not missing(str(tmp_path))


def test_a_file_system_that_cannot_be_opened_is_one_sentence() -> None:
    """Some connect at once, or look for what the address names, and raise errors of their own."""
    for address in ("ftp://no.such.host.invalid/x", "zip://no-such-archive.zip", "gs://b/x", "unheard-of://x"):
        with pytest.raises(UsageError, match="cannot be opened: "):
            list(find(address))


def test_listings_of_folders_and_globs(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/1.png": b"1", "a/.hidden": b"x", ".git/x": b"x", "b/2.png": b"22", "c[1].png": b"3"})
    (tmp_path / "loop").symlink_to(tmp_path)
    found = list(find(str(tmp_path)))
    assert [f.name for f in found] == ["a/1.png", "b/2.png", "c[1].png", "loop"]
    assert [(f.size, f.fault) for f in found[:3]] == [(1, None), (2, None), (1, None)]
    assert found[3].fault == "link to a folder: not followed"
    assert [f.name for f in find(f"{tmp_path}/[ab]/*.png")] == ["a/1.png", "b/2.png"]
    assert [f.name for f in find(f"{tmp_path}/[ab]")] == ["a/1.png", "b/2.png"]
    assert [f.name for f in find(f"{tmp_path}/c[1].png")] == ["c[1].png"]  # what exists is no pattern
    with pytest.raises(UsageError, match="does not exist"):
        list(find(f"{tmp_path}/nothing"))


@pytest.fixture
def memory() -> fsspec.AbstractFileSystem:
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    for name, data in {"a.png": b"aa", "sub/b.png": b"b", ".x/c.png": b"c"}.items():
        system.pipe_file(f"/in/{name}", data)
    return system


@pytest.mark.parametrize("pattern", ["", "*", "**/*", "**/*.*"])
def test_a_workspace_inside_a_source_is_none_of_it(tmp_path: Path, pattern: str) -> None:
    write_folder(tmp_path, {"a.png": b"1", "other/workspace.json": b"[]", "other/b.png": b"2", "x/c.png": b"3"})
    before = [f.name for f in find(f"{tmp_path}/{pattern}")]
    for place in ("w", "x/w"):
        Workspace(tmp_path / place)
        write_folder(tmp_path / place, {"shards/row.parquet": b"4"})
    assert [f.name for f in find(f"{tmp_path}/{pattern}")] == before
    assert [f.name for f in find(str(tmp_path / "w" / "shards"))] == ["row.parquet"]
    with pytest.raises(UsageError, match="/w is a workspace, .*: pass the folder .*, or .*/w/pool"):
        list(find(str(tmp_path / "w")))


@pytest.mark.parametrize("pattern", ["", "/", "/*", "/**/*", "/**/*.*", "/*/*.png"])
def test_a_workspace_inside_a_remote_source_is_none_of_it(memory: fsspec.AbstractFileSystem, pattern: str) -> None:
    memory.pipe_file("/in/other/workspace.json", b"[]")
    memory.pipe_file("/in/other/c.png", b"c")
    before = [f.name for f in find(f"memory://in{pattern}")]
    for place in ("w", "sub/w"):
        memory.pipe_file(f"/in/{place}/workspace.json", b'{"format": 4}')
        memory.pipe_file(f"/in/{place}/samples/d.png", b"d")
        memory.pipe_file(f"/in/{place}/e.png", b"e")
    assert [f.name for f in find(f"memory://in{pattern}")] == before
    assert [f.name for f in find("memory://in/w/samples")] == ["d.png"]
    with pytest.raises(UsageError, match="memory://in/w is a workspace"):
        list(find("memory://in/w"))


def test_remote_listings_and_reads(memory: fsspec.AbstractFileSystem) -> None:
    found = list(find("memory://in"))
    assert [f.name for f in found] == ["a.png", "sub/b.png"] and found[0].size == 2
    assert list(read(found)) == [b"aa", b"b"]
    with open_file(found[0]) as file:
        file.seek(1)
        assert file.read() == b"a"
    memory.pipe_file("/in/a.png", b"longer")
    memory.rm_file("/in/sub/b.png")
    changed, gone = read(found)
    assert isinstance(changed, BadInput) and "changed" in str(changed)
    assert isinstance(gone, BadInput) and "unreadable" in str(gone)
    assert state(found[0].uri).mtime_ns != found[0].mtime_ns and state(found[1].uri).fault


def test_a_changed_local_file_is_told(tmp_path: Path) -> None:
    path = write_folder(tmp_path, {"a.png": b"aa"}) / "a.png"
    (file,) = find(str(path))
    os.utime(path, (1, 1))
    (content,) = read([file])
    assert isinstance(content, BadInput) and "changed" in str(content)
    assert state(str(tmp_path / "none")).fault == "unreadable: No such file or directory"
