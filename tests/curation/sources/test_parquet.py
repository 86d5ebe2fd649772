"""Parquet with embedded pictures as sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import open_source, pool
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture
from tests.curation.sources.pooled import rows


@pytest.mark.parametrize("form", ["binary", "struct"])
def test_parquet_with_embedded_bytes(workspace: Workspace, tmp_path: Path, form: str) -> None:
    data = [encoded(texture(n)) for n in range(150)] + [None, b""]
    image = data if form == "binary" else [None if d is None else {"bytes": d, "path": "x.png"} for d in data]
    table = pa.table({"image": image, "text": [f"picture {n}" for n in range(152)]})
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=40)
    ingested = ingest(workspace, tmp_path / "s.parquet")
    assert (ingested.new, ingested.quarantined) == (150, 2)
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
    ingested = ingest(workspace, tmp_path / "s.parquet")
    got = {r["source_uri"].partition("#")[2]: r for r in rows(workspace)}
    assert ingested.found == 100 + 2 * 97 + 2 == ingested.new + ingested.quarantined
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
    assert ingest(workspace, tmp_path / "s.parquet").known == ingested.found


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
    captions = [[{"kind": "poem", "text": "roses"}], [{"kind": "text", "text": "a sign"}]]
    table = pa.table(
        {"png": [encoded(texture(n)) for n in range(2)], "captions": captions, "stream": ["t2i", "synthetic"]}
    )
    pq.write_table(table, tmp_path / "s.parquet")
    assert ingest(workspace, tmp_path / "s.parquet").quarantined == 1
    (row,) = rows(workspace)
    assert (row["caption"], row["captions"][0]["kind"], row["stream"]) == ("a sign", "text", "synthetic")
    assert "'poem'" in pool.quarantined_at_ingest(workspace)[0]["reason"]


def test_a_text_is_taken_from_the_next_column_where_one_is_empty(workspace: Workspace, tmp_path: Path) -> None:
    empty = pa.array([None, "", "own"], pa.string())
    table = {"image": [encoded(texture(n)) for n in range(3)], "caption": empty, "TEXT": ["a", "b", "not it"]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    assert ingest(workspace, tmp_path / "s.parquet").new == 3
    assert sorted(row["caption"] for row in rows(workspace)) == ["a", "b", "own"]


def test_parquet_without_images(workspace: Workspace, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "s.parquet")
    with pytest.raises(UsageError, match="no image column"):
        ingest(workspace, tmp_path / "s.parquet")


@pytest.mark.parametrize("form", ["text", "struct", "struct without a caption"])
def test_rights_stand_in_a_json_column_as_in_a_tar(workspace: Workspace, tmp_path: Path, form: str) -> None:
    said = {"caption": "one", "License": "CC-BY-NC-4.0", "url": "http://h/1"}
    if form == "struct without a caption":
        del said["caption"]
    table = {"jpg": [encoded(texture(1))], "json": [json.dumps(said) if form == "text" else said], "txt": ["one"]}
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    ingest(workspace, tmp_path / "s.parquet")
    (row,) = rows(workspace)
    assert (row["caption"], row["license"], row["source_url"]) == ("one", "CC-BY-NC-4.0", "http://h/1")
