"""Every kind of source through ingest, on this machine, on S3 and over HTTP; mixes of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation.sources import open_source, pool
from curation.sources.files import missing
from curation.sources.ingest import Ingested, ingest
from flywheel.core.errors import UsageError
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.kinds import CAPTIONS, PICTURES, tar_members, write_kinds, zipped
from tests.curation.sources.pooled import reasons, rows, write_tar

KINDS = {
    "caption", "hf", "json", "metadata-csv", "metadata-jsonl", "parquets", "paths", "tar-bz2", "tar-gz", "tar-xz",
    "tar-zst", "tars", "txt", "whole.tar", "zips",
}  # fmt: skip
ODD = {"paths": 4}  # its pictures are files of the folder too


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = write_kinds(tmp_path_factory.mktemp("kinds"))
    assert set(found) == KINDS
    return found


@pytest.fixture(scope="module")
def http(kinds: dict[str, Path]) -> Iterator[str]:
    """Address of a plain file server, which has no ranges and lists folders as HTML."""
    root = next(iter(kinds.values())).parent
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def counted(found: Ingested) -> tuple[int, int, int]:
    assert found.found == found.new + found.known + found.quarantined
    return found.new, found.known, found.quarantined


def captions(workspace: Workspace) -> dict[str, set[str]]:
    """Captions by the end of the picture's address."""
    told: dict[str, set[str]] = {}
    for row in rows(workspace):
        told.setdefault(row["image_id"], set()).update(c["text"] for c in row["captions"])
    return told


def check(workspace: Workspace, source: str | Path, kind: str) -> None:
    """All four pictures with their captions arrive, and a second time nothing is new."""
    assert counted(ingest(workspace, source)) == (4 + ODD.get(kind, 0), 0, 0)
    assert sorted(captions(workspace).values(), key=str) == sorted(({c} for c in CAPTIONS.values()), key=str)
    assert {r["image"] for r in rows(workspace)} == set(PICTURES.values())
    assert counted(ingest(workspace, source)) == (0, 4 + ODD.get(kind, 0), 0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_from_a_path(workspace: Workspace, kinds: dict[str, Path], kind: str) -> None:
    check(workspace, kinds[kind], kind)


def test_each_kind_from_s3(s3: str, kinds: dict[str, Path], tmp_path: Path) -> None:
    bucket = located(s3)
    for kind, path in kinds.items():
        bucket.fs.put(str(path), f"{s3}/in/{path.name}", recursive=True)
        check(Workspace(tmp_path / kind), f"{s3}/in/{path.name}", kind)
    assert counted(ingest(Workspace(tmp_path / "glob"), f"{s3}/in/txt/[01].*")) == (2, 0, 0)
    with pytest.raises(UsageError, match="cannot be read|holds no files"):
        open_source(f"{s3}/nothing/there")
    with pytest.raises(UsageError, match="cannot be read|does not answer"):
        open_source("s3://no-such-bucket-anywhere/x")


@pytest.mark.parametrize("kind", ["txt", "whole.tar", "tar-gz", "hf", "zips", "metadata-csv"])
def test_kinds_over_http(workspace: Workspace, kinds: dict[str, Path], http: str, kind: str) -> None:
    check(workspace, f"{http}/{kind}" + ("" if kind.endswith(".tar") else "/"), kind)


def test_a_glob_takes_what_matches(workspace: Workspace, kinds: dict[str, Path]) -> None:
    assert counted(ingest(workspace, f"{kinds['tars']}/*1.tar")) == (2, 0, 0)
    assert counted(ingest(workspace, f"{kinds['txt']}/[0-2].*")) == (3, 0, 0)
    assert counted(ingest(workspace, str(kinds["parquets"] / "**" / "*.parquet"))) == (4, 0, 0)
    with pytest.raises(UsageError, match="no file matches"):
        ingest(workspace, f"{kinds['tars']}/*.nothing")


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    home = tmp_path / "a [x] *?"
    write_folder(home / "b", {f"{n}.png": encoded(texture(60 + n, 48, 40)) for n in range(3)})
    assert counted(ingest(workspace, f"{home}/b/[01].*")) == (2, 0, 0)
    assert not missing(f"{home}/b/[01].*") and missing(f"{home}/c")
    with pytest.raises(UsageError, match="no file matches"):
        ingest(workspace, f"{home}/b/*.nothing")
    with pytest.raises(UsageError, match="does not exist"):
        ingest(workspace, home / "c")


def test_a_folder_of_everything(workspace: Workspace, tmp_path: Path) -> None:
    """Each part counts by itself; what is damaged costs itself; what is nothing is named."""
    other = {f"{n}.png": encoded(texture(40 + n, 48, 40)) for n in range(3)}
    source = write_folder(tmp_path / "s", {"own.png": other["0.png"], "own.txt": b"mine", "notes.txt": b"?"})
    write_tar(source / "a.tar", tar_members())
    (source / "b.tar").write_bytes(b"no tar" * 1000)
    (source / "c.zip").write_bytes(zipped({"x/1.png": other["1.png"], "../2.png": other["2.png"]}))
    (source / "d.zip").write_bytes(b"no zip")
    (source / "e.parquet").write_bytes(b"no parquet")
    (source / "table.csv").write_text("a,b\n1,2\n")
    assert counted(ingest(workspace, source)) == (1 + 4 + 1, 0, 6)
    told = reasons(workspace)
    assert "not a readable tar" in told["b.tar"] and "not a readable zip" in told["d.zip"]
    assert "not a readable Parquet" in told["e.parquet"] and "path traversal" in told["2.png"]
    assert "not an image" in told["notes.txt"] and "without a column of URLs" in told["table.csv"]
    assert counted(ingest(workspace, source)) == (0, 6, 6)[:1] + (12, 0)


def test_references_stay_inside_their_part(workspace: Workspace, tmp_path: Path) -> None:
    pair = {"caption": "make it red", "references": ["0.png"]}
    member = json.dumps(pair).encode()
    source = tmp_path / "s"
    source.mkdir()
    write_tar(source / "a.tar", {"0.png": PICTURES["0.png"], "1.png": PICTURES["1.png"], "1.json": member})
    (source / "b.zip").write_bytes(zipped({"0.png": PICTURES["2.png"], "1.png": PICTURES["3.png"], "1.json": member}))
    assert counted(ingest(workspace, source)) == (4, 0, 0)
    pairs = {r["image_id"]: r["reference_ids"] for r in rows(workspace) if r["task"] == "ti2i"}
    by_image = {r["image"]: r["image_id"] for r in rows(workspace)}
    expected = {by_image[PICTURES[a]]: [by_image[PICTURES[b]]] for a, b in (("1.png", "0.png"), ("3.png", "2.png"))}
    assert pairs == expected


def test_a_killed_ingest_of_a_mix_goes_on(workspace: Workspace, kinds: dict[str, Path], tmp_path: Path) -> None:
    """What a first call planned and did not finish is finished from the parts it names."""
    source = write_folder(tmp_path / "s", PICTURES)
    write_tar(source / "a.tar", tar_members())
    whole = Workspace(tmp_path / "whole")
    ingest(whole, source)

    class Killed(Exception):
        """In place of a kill."""

    def stop(*progress: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        ingest(workspace, source, progress=stop)
    (batch,) = workspace.path("pool").glob("[!.]*")
    next(batch.glob("0*.parquet")).unlink()
    assert counted(ingest(workspace, source)) == (8, 0, 0)
    assert [s.sha256 for s in pool.shards(workspace)] == [s.sha256 for s in pool.shards(whole)]


def test_a_container_alone_that_cannot_be_read_stops(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "s.zip").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a readable zip"):
        ingest(workspace, tmp_path / "s.zip")
    with pytest.raises(UsageError, match="--captions is for folders"):
        open_source(write_tar(tmp_path / "s.tar", tar_members()), tmp_path / "captions.jsonl")
    with pytest.raises(UsageError, match="install gcsfs|cannot be opened"):
        open_source("gs://bucket/x")
    with pytest.raises(UsageError, match="cannot be opened"):
        open_source("nosuch://bucket/x")


def test_names_with_colons_on_s3(workspace: Workspace, s3: str) -> None:
    """Two colons chain addresses for fsspec: `a` was read in the place of `a::b.png`."""
    bucket = located(s3)
    for name, content in {"a": b"another", "a::b.png": PICTURES["0.png"], "a::b.txt": b"mine"}.items():
        bucket.fs.pipe_file(f"{s3}/in/{name}", content)
    ingest(workspace, f"{s3}/in")
    (row,) = rows(workspace)
    assert (row["image"], row["caption"]) == (PICTURES["0.png"], "mine")
    with pytest.raises(UsageError, match="cannot be read: nothing is there"):
        open_source(f"{s3}/nothing")
    with pytest.raises(UsageError, match="ftp://127.0.0.1:9/x cannot be opened"):
        open_source("ftp://127.0.0.1:9/x")
