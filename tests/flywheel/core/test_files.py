"""Files are written whole, and digests name what they are made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import (
    ParquetStream,
    digest,
    file_digest,
    given_file,
    read_json,
    replacing,
    write_json,
    write_parquet,
)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text("utf-8") == '{\n "a": "é",\n "b": 1\n}\n'
    with pytest.raises(ZeroDivisionError), replacing(path) as tmp:
        tmp.write_bytes(b"half")
        assert read_json(path) == {"a": "é", "b": 1}  # readers still see the old one
        raise ZeroDivisionError
    assert read_json(path) == {"a": "é", "b": 1} and [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_digests_do_not_depend_on_the_order_of_keys(tmp_path: Path):
    assert digest({"a": 1, "b": [2, "é"]}) == digest({"b": [2, "é"], "a": 1}) != digest({"a": 1, "b": ["é", 2]})
    assert digest("a", "b") != digest("ab") and len(digest()) == 64
    assert digest("a", 1) == hashlib.sha256(b'["a",1]').hexdigest()
    (tmp_path / "f").write_bytes(b"content")
    assert file_digest(tmp_path / "f") == hashlib.sha256(b"content").hexdigest()


def test_equal_tables_give_equal_bytes(tmp_path: Path):
    table = pa.table({"n": list(range(300)), "image": [b"png" * n for n in range(300)]})
    for name in ("a", "b"):
        write_parquet(tmp_path / name, table, row_group_size=64, encoded=("image",))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    metadata = pq.read_metadata(tmp_path / "a")
    assert pq.read_table(tmp_path / "a") == table and metadata.num_row_groups == 5
    codecs = [metadata.row_group(0).column(i).compression for i in range(2)]
    assert codecs == ["ZSTD", "UNCOMPRESSED"]


def test_a_missing_file_is_asked_for(tmp_path: Path):
    (tmp_path / "f.jsonl").write_text("")
    assert given_file(tmp_path / "f.jsonl", "a suite") == tmp_path / "f.jsonl"
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match=f"{path} is not a file: pass a suite"):
            given_file(path, "a suite")


def test_a_stream_of_tables_gives_the_bytes_of_its_rows(tmp_path: Path):
    schema, rows = pa.schema([("n", pa.int64()), ("t", pa.string())]), [{"n": n, "t": f"x{n % 3}"} for n in range(50)]
    written = []
    for name, cuts in (("a", [0, 50]), ("b", [0, 1, 7, 7, 30, 41, 50]), ("c", [0, 16, 32, 48, 50])):
        with ParquetStream(tmp_path / name, schema, row_group_size=16) as stream:
            for a, b in zip(cuts, cuts[1:]):
                stream.write(pa.Table.from_pylist(rows[a:b], schema=schema))
        assert stream.rows == 50
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] == written[2] and pq.read_table(tmp_path / "a").to_pylist() == rows
    assert pq.ParquetFile(tmp_path / "a").num_row_groups == 4
    with ParquetStream(tmp_path / "none", schema):
        pass
    assert pq.read_table(tmp_path / "none").schema == schema and not pq.read_metadata(tmp_path / "none").num_rows
