"""One odd row costs that row, in every source, and each loss has an entry of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import pool
from curation.sources.ingest import Ingested, ingest
from flywheel.core.errors import UsageError
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder

PICTURES = [encoded(texture(n)) for n in range(6)]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def captions(workspace: Workspace) -> dict[str, str]:
    """Caption by the end of its row's address."""
    tables = [pq.read_table(readable(s.path), columns=["source_uri", "caption"]) for s in pool.shards(workspace)]
    return {r["source_uri"].rpartition("/")[2]: r["caption"] for t in tables for r in t.to_pylist()}


def reasons(workspace: Workspace) -> str:
    return "\n".join(f"{r['source_uri']}: {r['reason']}" for r in pool.quarantined_at_ingest(workspace))


def counted(found: Ingested) -> tuple[int, int]:
    assert found.found == found.new + found.known + found.quarantined
    return found.new, found.quarantined


def tar_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample(name: str, number: int) -> list[tuple[str, bytes]]:
    return [(f"{name}.png", PICTURES[number]), (f"{name}.txt", f"picture {name}".encode())]


# Folders -------------------------------------------------------------------------------------------------------------
def test_links_that_lead_nowhere_and_deep_folders(workspace: Workspace, tmp_path: Path):
    source = write_folder(tmp_path / "s", {"good.png": PICTURES[0]})
    (source / "self.png").symlink_to(source / "self.png")
    (source / "one.png").symlink_to(source / "two.png")
    (source / "two.png").symlink_to(source / "one.png")
    os.mkfifo(source / "pipe.png")
    place = os.getcwd()
    try:
        os.chdir(source)
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(place)
    try:
        found = ingest(workspace, source)
    finally:
        subprocess.run(["rm", "-rf", source / "d"], check=True)  # Python's own removal calls itself too deeply
    told = reasons(workspace)
    assert counted(found)[0] == 1 and "symbolic links" in told and "not a regular file" in told


def test_a_mask_or_caption_that_is_a_pipe_does_not_wait_for_its_writer(workspace: Workspace, tmp_path: Path):
    source = write_folder(tmp_path / "s", {"a.png": PICTURES[0], "b.png": PICTURES[0], "c.png": PICTURES[1]})
    os.mkfifo(source / "mask.png")
    row = {"file": "a.png", "caption": "make it red", "references": ["b.png"], "mask": "mask.png"}
    (source / "captions.jsonl").write_text(json.dumps(row) + "\n")
    os.mkfifo(source / "c.txt")
    ingest(workspace, source)
    assert "mask" in reasons(workspace) and "c.png: caption file c.txt: not a regular file" in reasons(workspace)


def test_odd_lines_of_a_captions_file_cost_themselves(workspace: Workspace, tmp_path: Path):
    names = ["0.png", "1.png", "2.png", "caf\u00e9.png", "sub/4.png", "5.png"]
    source = write_folder(tmp_path / "s", dict(zip(names, PICTURES)))
    lines = [
        json.dumps({"file": "0.png", "caption": "a first\u2028line"}, ensure_ascii=False),
        '{"file": "1.png", "caption": null}',
        '{"file": "gone.png", "caption": "never arrived"}',
        "[" * 60_000 + "]" * 60_000,
        '{"file": "cafe\u0301.png", "caption": "another form of the same name"}',
        '{"file": "sub\\\\4.png", "caption": "a slash of another system"}',
        '{"file": "5.png", "caption": "the last"}',
    ]
    (source / "captions.jsonl").write_text("\n".join(lines) + "\n")
    assert counted(ingest(workspace, source)) == (6, 3)
    assert captions(workspace) == {
        "0.png": "a first\u2028line",
        "1.png": "",
        "2.png": "",
        "caf\u00e9.png": "another form of the same name",
        "4.png": "a slash of another system",
        "5.png": "the last",
    }
    told = reasons(workspace)
    assert "line 2" in told and "line 3: names 'gone.png'" in told and "line 4: nested too deeply" in told
    (source / "captions.jsonl").write_text("\n".join([lines[2]] * 10) + "\n")
    with pytest.raises(UsageError, match="10 of 10 lines cannot be used; line 1"):
        ingest(Workspace(tmp_path / "v"), source)


# Tar -----------------------------------------------------------------------------------------------------------------
def test_joined_archives_are_read_on(workspace: Workspace, tmp_path: Path):
    (tmp_path / "s.tar").write_bytes(tar_of(*sample("a", 0)) + tar_of(*sample("b", 1)))
    assert counted(ingest(workspace, tmp_path / "s.tar")) == (2, 0)
    assert set(captions(workspace).values()) == {"picture a", "picture b"}


def test_a_damaged_header_costs_its_member_and_says_so(workspace: Workspace, tmp_path: Path):
    data = bytearray(tar_of(*(m for n in range(5) for m in sample(f"s{n}", n))))
    data[data.index(b"s2.png") + 150] ^= 4  # in the checksum's field or the sizes before it
    (tmp_path / "s.tar").write_bytes(data)
    new, lost = counted(ingest(workspace, tmp_path / "s.tar"))
    assert new == 4 and lost >= 1 and "not a readable member" in reasons(workspace)


def test_bytes_behind_the_end_marker_are_named(workspace: Workspace, tmp_path: Path):
    (tmp_path / "s.tar").write_bytes(tar_of(*sample("a", 0)) + b"something else" * 100)
    assert counted(ingest(workspace, tmp_path / "s.tar")) == (1, 1)
    assert "not a readable member" in reasons(workspace)


def test_the_same_name_twice_is_read_once_and_quarantined_once(workspace: Workspace, tmp_path: Path):
    (tmp_path / "s.tar").write_bytes(tar_of(*sample("a", 0), *sample("b", 1), ("a.png", PICTURES[2])))
    assert counted(ingest(workspace, tmp_path / "s.tar")) == (2, 1)
    assert "same name" in reasons(workspace)


def test_a_header_of_negative_size_ends(workspace: Workspace, tmp_path: Path):
    data = bytearray(tar_of(*sample("a", 0), ("b.png", PICTURES[1])))
    start = data.index(b"b.png")
    data[start + 124 : start + 136] = b"\xff" * 11 + b"\x00"
    header = data[start : start + 512]
    header[148:156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    (tmp_path / "s.tar").write_bytes(data)
    new, lost = counted(ingest(workspace, tmp_path / "s.tar"))
    assert new == 1 and lost >= 1


def test_a_json_without_a_caption_leaves_it_to_the_txt(workspace: Workspace, tmp_path: Path):
    members = [*sample("a", 0), ("a.json", b'{"url": "x", "width": 3}')]
    members += [("b.png", PICTURES[1]), ("b.json", b'{"prompt": "from the prompt"}')]
    members += [("c.png", PICTURES[2]), ("c.json", b"[" * 60_000)]
    (tmp_path / "s.tar").write_bytes(tar_of(*members))
    assert counted(ingest(workspace, tmp_path / "s.tar")) == (2, 1)
    assert set(captions(workspace).values()) == {"picture a", "from the prompt"}
    assert "nested too deeply" in reasons(workspace)


def test_fields_of_a_sample_are_no_pictures(workspace: Workspace, tmp_path: Path):
    fields = [("a.mask.png", PICTURES[3]), ("a.clip.npy", b"numbers"), ("a.cls", b"7"), ("my.photo.png", PICTURES[4])]
    (tmp_path / "s.tar").write_bytes(tar_of(*sample("a", 0), *fields))
    assert counted(ingest(workspace, tmp_path / "s.tar")) == (2, 0)
    assert set(captions(workspace).values()) == {"picture a", ""}


# Parquet -------------------------------------------------------------------------------------------------------------
def test_captions_of_any_logical_text_type(workspace: Workspace, tmp_path: Path):
    texts = ["one", "two", "one"]
    forms = {
        "dictionary": {"caption": pa.array(texts).dictionary_encode()},
        "view": {"caption": pa.array(texts, pa.string_view())},
        "case": {"TEXT": texts},
        "list": {"caption": [[t, "more"] for t in texts]},
        "struct": {"json": [{"caption": t} for t in texts]},
        "several": {"captions": [[t, None, "more"] for t in texts]},
        "structs": {"captions": [[{"caption": t, "id": 7}] for t in texts]},
        "fixed": {"caption": pa.array([[t, "more"] for t in texts], pa.list_(pa.string(), 2))},
        "views": {"caption": pa.array([[t] for t in texts], pa.list_view(pa.string()))},
        "bytes": {"caption": [t.encode() for t in texts]},
        "json": {"json": [json.dumps({"caption": t, "width": 3}) for t in texts]},
        "inner": {"json": [{"captions": [t, "more"], "width": 3} for t in texts]},
        "twice": {"caption": texts},
    }
    for number, (name, column) in enumerate(forms.items()):
        pictures = [encoded(texture(100 + 3 * number + n)) for n in range(3)]
        table = pa.table({"image": pa.array(pictures).dictionary_encode() if number % 2 else pictures, **column})
        if name == "twice":  # a column that nobody reads
            table = table.append_column("width", [texts]).append_column("width", [texts])
        pq.write_table(table, tmp_path / f"{name}.parquet")
        here = Workspace(tmp_path / name)
        assert counted(ingest(here, tmp_path / f"{name}.parquet")) == (3, 0)
        assert list(captions(here).values()) == texts, name


def test_a_caption_that_is_not_utf8_costs_its_row(workspace: Workspace, tmp_path: Path):
    buffers = [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\10\0\0\0"), pa.py_buffer(b"caf\xe9fine")]
    texts = pa.Array.from_buffers(pa.string(), 2, buffers)
    pq.write_table(pa.table({"image": PICTURES[:2], "caption": texts}), tmp_path / "s.parquet")
    assert counted(ingest(workspace, tmp_path / "s.parquet")) == (1, 1)
    assert "not UTF-8" in reasons(workspace) and list(captions(workspace).values()) == ["fine"]


def test_a_file_name_that_is_not_utf8_costs_nothing(workspace: Workspace, tmp_path: Path):
    names = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")])
    image = pa.StructArray.from_arrays([pa.array(PICTURES[:1]), names], ["bytes", "path"])
    pq.write_table(pa.table({"image": image, "caption": ["x"]}), tmp_path / "s.parquet")
    assert counted(ingest(workspace, tmp_path / "s.parquet")) == (1, 0)


def test_a_damaged_page_costs_its_row_group(workspace: Workspace, tmp_path: Path):
    table = pa.table({"image": PICTURES, "caption": [f"picture {n}" for n in range(6)]})
    path = tmp_path / "s.parquet"
    pq.write_table(table, path, row_group_size=2, compression="gzip", use_dictionary=False)
    group = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    place = group.data_page_offset + group.total_compressed_size // 2
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    assert counted(ingest(workspace, path)) == (4, 2)
    assert "row group 1" in reasons(workspace)


def test_a_duplicate_column_is_named(workspace: Workspace, tmp_path: Path):
    columns = [pa.array(PICTURES), pa.array(["a"] * 6), pa.array(["b"] * 6)]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "text", "text"]), tmp_path / "s.parquet")
    with pytest.raises(UsageError, match="several columns named 'text'"):
        ingest(workspace, tmp_path / "s.parquet")
