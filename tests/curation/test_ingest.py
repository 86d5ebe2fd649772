"""Sources into the pool: every input ends in exactly one place, once, whatever happens on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.sources import open_source, pool
from curation.sources.ingest import ingest, pair_id
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import bomb, encoded, texture, textures, tree, turned, write_folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def rows(workspace: Workspace) -> list[dict]:
    return [r for s in pool.shards(workspace) for r in pq.read_table(s.path).to_pylist()]


def reasons(workspace: Workspace) -> dict[str, str]:
    return {Path(r["source_uri"]).name: r["reason"] for r in pool.quarantined_at_ingest(workspace)}


def test_folder_with_captions(workspace: Workspace, tmp_path: Path) -> None:
    files = {"a.png": encoded(texture(1)), "deep/b.png": encoded(texture(2)), ".hidden.png": b"x", ".d/c.png": b"x"}
    captions = {"a.png": "first", "deep/b.png": {"captions": [{"kind": "text", "text": "long"}]}}
    source = write_folder(tmp_path / "src", files, captions)
    found = ingest(workspace, source)
    assert (found.found, found.new, found.known, found.quarantined) == (2, 2, 0, 0)
    first, second = rows(workspace)
    assert first["caption"] == "first"
    assert first["captions"] == [{"kind": "general", "text": "first"}]
    assert second["captions"] == [{"kind": "text", "text": "long"}]
    assert first["source_uri"] == str(source / "a.png")
    assert first["sample_id"] == first["image_id"] == hashlib.sha256(files["a.png"]).hexdigest()
    assert (first["width"], first["height"], first["image"]) == (160, 120, files["a.png"])


def test_unusable_files_are_quarantined_with_their_reason(workspace: Workspace, tmp_path: Path) -> None:
    files = {
        "good.png": encoded(texture(1)),
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "notes.txt": b"hello",
        "bomb.png": bomb(),
    }
    source = write_folder(tmp_path / "src", files)
    (source / "loop").symlink_to(source)
    (source / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    os.mkfifo(source / "pipe.jpg")
    (source / os.fsdecode(b"bad-\xff.jpg")).write_bytes(files["good.png"])
    found = ingest(workspace, source)
    assert (found.found, found.new, found.quarantined) == (9, 1, 8)
    said = reasons(workspace)
    assert said["empty.jpg"] == "zero bytes"
    assert said["page.jpg"] == said["notes.txt"] == "not an image: no known image format"
    assert said["bomb.png"].startswith("too large")
    assert "not followed" in said["loop"]
    assert said["nowhere.jpg"].startswith("unreadable")
    assert said["pipe.jpg"] == "not a regular file"
    assert said["bad-\\xff.jpg"] == "file name is not UTF-8: rename it"


def test_size_is_upright(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, write_folder(tmp_path / "src", {"t.jpg": turned(texture(1), 6)}))
    assert [(r["width"], r["height"]) for r in rows(workspace)] == [(120, 160)]


def test_edit_pairs(workspace: Workspace, tmp_path: Path) -> None:
    files = {f"{name}.png": encoded(texture(n)) for n, name in enumerate("abc")} | {"broken.png": b""}
    captions = {
        "a.png": "a picture",
        "b.png": {"caption": "make it red", "references": ["a.png"]},
        "c.png": {"caption": "mend it", "references": ["a.png", "broken.png"]},
    }
    found = ingest(workspace, write_folder(tmp_path / "src", files, captions))
    assert (found.new, found.quarantined) == (2, 2)  # the broken reference takes its pair with it
    plain, pair = rows(workspace)
    assert (plain["task"], pair["task"], pair["stream"]) == ("t2i", "ti2i", "ti2i")
    assert pair["reference_ids"] == [plain["image_id"]]
    assert pair["sample_id"] == pair_id(pair["image_id"], pair["reference_ids"], "make it red") != pair["image_id"]
    assert pair["captions"] == [{"kind": "instruction", "text": "make it red"}]
    assert reasons(workspace)["c.png"].endswith("is unusable: zero bytes")


def test_masks_of_edit_pairs(workspace: Workspace, tmp_path: Path) -> None:
    mask, small = encoded(Image.new("L", (160, 120), 255)), encoded(Image.new("L", (16, 12), 255))
    files = {f"{name}.png": encoded(texture(n)) for n, name in enumerate("abcd")}
    pair = {"caption": "mend it", "references": ["a.png"]}
    captions = {"b.png": pair | {"mask": "m.png"}, "c.png": pair | {"mask": "small.png"}, "d.png": pair}
    folder = write_folder(tmp_path / "src", files | {"m.png": mask, "small.png": small}, captions)
    assert ingest(workspace, folder).found == 4  # masks are no inputs
    found = {Path(r["source_uri"]).name: r["mask"] for r in rows(workspace)}
    assert found == {"a.png": None, "b.png": mask, "d.png": None}
    assert "is 16x12, its picture 160x120" in reasons(workspace)["c.png"]

    members = {n: d for n, d in files.items() if n < "c"} | {"m.png": mask}
    members["b.json"] = json.dumps(pair | {"mask": "m.png"}).encode()
    other = Workspace(tmp_path / "tar")
    assert ingest(other, write_tar(tmp_path / "s.tar", members)).found == 2
    assert {r["source_uri"].split("::")[1]: r["mask"] for r in rows(other)} == {"a.png": None, "b.png": mask}
    (folder / "captions.jsonl").write_text('{"file": "a.png", "caption": "x", "mask": "m.png"}\n')
    with pytest.raises(UsageError, match='line 1: "mask" is not a file name, or there are no "references"'):
        ingest(Workspace(tmp_path / "v"), folder)


def test_one_file_may_be_a_sample_and_the_target_of_several_pairs(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", {"a.png": encoded(texture(1)), "b.png": encoded(texture(2))})
    lines = [
        {"file": "b.png", "caption": "a picture"},
        {"file": "b.png", "caption": "blur it", "references": ["a.png"]},
        {"file": "b.png", "caption": "sharpen it", "references": ["a.png"]},
        {"file": "b.png", "caption": "blur it", "references": ["a.png"]},
    ]
    (source / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ingest(workspace, source).new == 4  # a, b and two distinct pairs
    assert sorted(r["caption"] for r in rows(workspace)) == ["", "a picture", "blur it", "sharpen it"]


def test_ingesting_again_adds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", textures(3) | {"bad.jpg": b""})
    ingest(workspace, source)
    before = tree(workspace.root)
    again = ingest(workspace, source)
    assert (again.found, again.new, again.known, again.quarantined, again.batch) == (4, 0, 4, 0, None)
    assert tree(workspace.root) == before
    os.utime(source / "picture-000.jpg", (1, 1))  # touched, same bytes
    touched = ingest(workspace, source)
    assert (touched.found, touched.new, touched.known, touched.quarantined) == (4, 0, 4, 0)
    assert len(rows(workspace)) == 3


def test_new_and_changed_files_make_a_new_batch(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", textures(2))
    first = ingest(workspace, source)
    write_folder(source, {"picture-000.jpg": encoded(texture(77), "JPEG"), "new.png": encoded(texture(78))})
    second = ingest(workspace, source)
    assert (second.found, second.new, second.known) == (3, 2, 1)
    assert first.batch != second.batch
    assert len(rows(workspace)) == 4


def test_an_exact_duplicate_is_a_row_of_its_own(workspace: Workspace, tmp_path: Path) -> None:
    data = encoded(texture(1))
    ingest(workspace, write_folder(tmp_path / "src", {"a.png": data, "b.png": data}))
    assert len({r["sample_id"] for r in rows(workspace)}) == 1
    assert len(rows(workspace)) == 2


def test_a_file_that_changes_while_it_is_ingested(workspace: Workspace, tmp_path: Path) -> None:
    from curation.sources import BadInput, open_source

    source = write_folder(tmp_path / "src", textures(1))
    opened = open_source(source)
    listed = opened.inputs()
    (source / "picture-000.jpg").write_bytes(encoded(texture(5)))
    (content,) = opened.read(listed)
    assert isinstance(content, BadInput)
    assert "changed" in str(content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file": "nope.png", "caption": "x"}', "line 1: names 'nope.png'"),
        ('{"file": "../a.png", "caption": "x"}', "line 1: names"),
        ('{"file": "a.png", "caption": "x", "references": ["z.png"]}', "'z.png'"),
        ("{not json}", "line 1"),
        ('{"caption": "x"}', 'line 1: no "file" key'),
        ('{"file": "a.png", "caption": 7}', "line 1.*caption"),
        ('{"file": "a.png", "captions": [{"kind": "poem", "text": "x"}]}', "line 1.*poem"),
        ('{"file": "a.png", "caption": "\\ud800"}', "line 1.*Unicode"),
    ],
)
def test_wrong_captions_say_what_and_where(workspace: Workspace, tmp_path: Path, line: str, message: str) -> None:
    source = write_folder(tmp_path / "src", {"a.png": encoded(texture(1))})
    captions = tmp_path / "said.jsonl"
    captions.write_text(line + "\n")
    with pytest.raises(UsageError, match=message):
        ingest(workspace, source, captions)
    assert not pool.batches(workspace)


def test_missing_and_empty_sources(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"x")
    for path, message in (("nowhere", "does not exist"), ("empty", "holds no files"), ("a.zip", "neither a folder")):
        with pytest.raises(UsageError, match=message):
            ingest(workspace, tmp_path / path)
    with pytest.raises(UsageError, match="captions file .* does not exist"):
        ingest(workspace, write_folder(tmp_path / "s", textures(1)), tmp_path / "none.jsonl")


# Tar ----------------------------------------------------------------------------------------------------------------
def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_webdataset_tar(workspace: Workspace, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    picture = encoded(texture(1))
    source = write_tar(
        tmp_path / "s.tar",
        {
            "./0001.png": picture,
            "./0001.txt": b"one\n",
            "0002.jpg": encoded(texture(2), "JPEG"),
            "0002.json": json.dumps({"captions": [{"kind": "general", "text": "two"}]}).encode(),
            "0003.png": picture,
            "0003.json": b"{broken",
            "0004.png": encoded(texture(4)),
            "0004.json": json.dumps({"caption": "turn it", "references": ["0002.jpg"]}).encode(),
            "0004.cls": b"7",
            "../escape.png": picture,
            "/absolute.png": picture,
            "lonely.txt": b"no image",
            "link.png": link,
            "page.jpg": b"<html>",
        },
    )
    found = ingest(workspace, source)
    got = {r["source_uri"].split("::")[1]: r for r in rows(workspace)}
    assert {n: r["caption"] for n, r in got.items()} == {"./0001.png": "one", "0002.jpg": "two", "0004.png": "turn it"}
    assert got["0004.png"]["reference_ids"] == [got["0002.jpg"]["image_id"]]
    bad = {r["source_uri"].split("::")[1]: r["reason"] for r in pool.quarantined_at_ingest(workspace)}
    assert set(bad) == {"0003.png", "../escape.png", "/absolute.png", "lonely.txt", "link.png", "page.jpg"}
    assert "path traversal" in bad["../escape.png"] and "path traversal" in bad["/absolute.png"]
    assert "link" in bad["link.png"]
    assert "caption" in bad["0003.png"]
    assert found.found == found.new + found.quarantined == 9
    assert ingest(workspace, source).known == 9


def test_a_damaged_tar_keeps_what_can_be_read(workspace: Workspace, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{n}.png": encoded(texture(n)) for n in range(4)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = ingest(workspace, path)
    assert found.new >= 1
    assert found.quarantined >= 1
    (tmp_path / "t.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UsageError, match="not a readable uncompressed tar"):
        ingest(workspace, tmp_path / "t.tar")


# Parquet ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["binary", "struct"])
def test_parquet_with_embedded_bytes(workspace: Workspace, tmp_path: Path, form: str) -> None:
    data = [encoded(texture(n)) for n in range(150)] + [None, b""]
    image = data if form == "binary" else [None if d is None else {"bytes": d, "path": "x.png"} for d in data]
    table = pa.table({"image": image, "text": [f"picture {n}" for n in range(152)]})
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=40)
    found = ingest(workspace, tmp_path / "s.parquet")
    assert (found.new, found.quarantined) == (150, 2)
    got = rows(workspace)
    assert [r["image"] for r in got] == data[:150]
    assert got[7]["caption"] == "picture 7"
    assert got[7]["source_uri"] == f"{tmp_path}/s.parquet#7"
    assert [s.rows for s in pool.shards(workspace)] == [64, 64, 22]


def test_parquet_with_edit_pairs(workspace: Workspace, tmp_path: Path) -> None:
    picture = [encoded(texture(n, 48, 40)) for n in range(300)]
    struct = [{"bytes": p, "path": "x.png"} for p in picture]
    references = [[struct[(n + 1) % 100], struct[100 + n]] for n in range(100)]
    references[7] = None  # a plain picture
    references[8] = [{"bytes": b"broken", "path": None}]
    references[9] = [{"bytes": None, "path": "elsewhere.png"}]
    table = pa.table(
        {
            "references": references,
            "mask_img": [None if n == 6 else struct[n] for n in range(100)],
            "target_img": struct[200:],
            "instruction": [f"edit {n}" for n in range(100)],
            "captions": [[{"kind": "general", "text": f"result {n}"}] for n in range(100)],
        }
    )
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=40)
    found = ingest(workspace, tmp_path / "s.parquet")
    got = {r["source_uri"].partition("#")[2]: r for r in rows(workspace)}
    assert found.found == 100 + 2 * 97 + 2 == found.new + found.quarantined
    assert got["5"]["task"] == got["5"]["stream"] == "ti2i"
    assert (got["5"]["caption"], got["5"]["image"]) == ("edit 5", picture[205])
    assert got["5"]["reference_ids"] == [got["5/1"]["image_id"], got["5/2"]["image_id"]]
    assert (got["5/1"]["image"], got["5/2"]["image"]) == (picture[6], picture[105])
    assert [c["text"] for c in got["5"]["captions"]] == ["edit 5", "result 5"]
    assert (got["5"]["mask"], got["6"]["mask"], got["7"]["mask"]) == (picture[5], None, None)
    assert (got["7"]["task"], got["7"]["caption"], got["7"]["reference_ids"]) == ("t2i", "result 7", [])
    bad = {r["source_uri"].partition("#")[2]: r["reason"] for r in pool.quarantined_at_ingest(workspace)}
    assert bad.keys() == {"8", "8/1", "9", "9/1"}
    assert "is unusable: not an image" in bad["8"] and "no embedded bytes" in bad["9"]
    assert ingest(workspace, tmp_path / "s.parquet").known == found.found


def test_parquet_rows_in_any_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"%d" % n for n in range(500)]}), tmp_path / "s.parquet", row_group_size=200)
    source = open_source(tmp_path / "s.parquet")
    listed = source.inputs()
    wanted = [350, 3, 199, 200, 499, 0, 150]
    assert list(source.read([listed[n] for n in wanted])) == [b"%d" % n for n in wanted]
    (beyond,) = source.read([replace(listed[0], position=500 * 256)])
    assert "changed while" in str(beyond)


@pytest.mark.parametrize("names", [("original_image", "edited_image", "edit_prompt"), ("input_image", "image", "text")])
def test_parquet_pairs_with_one_reference(workspace: Workspace, tmp_path: Path, names: tuple[str, ...]) -> None:
    table = pa.table(dict(zip(names, [[encoded(texture(0))], [encoded(texture(1))], ["mend it"]])))
    pq.write_table(table, tmp_path / "s.parquet")
    assert ingest(workspace, tmp_path / "s.parquet").new == 2
    pair, reference = rows(workspace)
    assert (pair["caption"], pair["image"]) == ("mend it", encoded(texture(1)))
    assert pair["reference_ids"] == [reference["image_id"]] and reference["image"] == encoded(texture(0))


def test_parquet_captions_of_no_known_kind(workspace: Workspace, tmp_path: Path) -> None:
    said = [[{"kind": "poem", "text": "roses"}], [{"kind": "text", "text": "a sign"}]]
    table = pa.table({"png": [encoded(texture(n)) for n in range(2)], "captions": said, "stream": ["t2i", "synthetic"]})
    pq.write_table(table, tmp_path / "s.parquet")
    assert ingest(workspace, tmp_path / "s.parquet").quarantined == 1
    (row,) = rows(workspace)
    assert (row["caption"], row["captions"][0]["kind"], row["stream"]) == ("a sign", "text", "synthetic")
    assert "'poem'" in pool.quarantined_at_ingest(workspace)[0]["reason"]


def test_parquet_without_images(workspace: Workspace, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "s.parquet")
    with pytest.raises(UsageError, match="no image column"):
        ingest(workspace, tmp_path / "s.parquet")


# Kill ---------------------------------------------------------------------------------------------------------------
def test_killed_at_any_rename_the_pool_is_the_same(tmp_path: Path) -> None:
    files = {f"picture-{n:03d}.jpg": encoded(texture(n, 48, 40), "JPEG") for n in range(150)} | {"x-bad.jpg": b""}
    source = write_folder(tmp_path / "src", files)
    whole = Workspace(tmp_path / "whole")
    ingest(whole, source)
    expected = tree(whole.path("pool"))
    assert len(expected) == 6  # plan, three shards, quarantine, manifest
    for rename in (1, 3, 4, 5, 7):  # the plan, a shard, a chunk's quarantine, the last shard, the manifest
        killed = Workspace(tmp_path / f"killed-{rename}")
        command = [sys.executable, "-m", "tests.curation.killed", str(killed.root), str(source), "rename", str(rename)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not pool.batches(killed)
        finished = {p: p.stat().st_mtime_ns for p in killed.path("pool").glob("*/0*.parquet")}
        ingest(killed, source)
        assert {p: p.stat().st_mtime_ns for p in finished} == finished, "finished shards were written again"
        killed.sweep()
        assert tree(killed.path("pool")) == expected
