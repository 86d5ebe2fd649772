"""Erased pictures in cells of every kind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.operate.content import banned_cells

DATA = b"the picture"
BLOBS = frozenset([hashlib.sha256(DATA).hexdigest()])
KINDS = {
    "plain": pa.array([DATA, None, b"x"], pa.binary()),
    "large": pa.array([b"x", DATA, None], pa.large_binary()),
    "list": pa.array([[b"x", DATA], [], None], pa.list_(pa.large_binary())),
    "struct": pa.array(
        [{"bytes": DATA, "path": "a"}, None, None], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    ),
    "structs": pa.array([[{"bytes": DATA}], [], None], pa.list_(pa.struct([("bytes", pa.binary())]))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_found_by_content(tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table({"any name": KINDS[kind]}), tmp_path / "a.parquet", row_group_size=2)
    assert banned_cells(tmp_path / "a.parquet", frozenset(), BLOBS) == [
        "holds 1 erased pictures in its column any name"
    ]
    assert banned_cells(tmp_path / "a.parquet", frozenset(), frozenset(["0" * 64])) == []


def test_ids_are_found_alone_in_lists_and_before_a_digest(tmp_path: Path) -> None:
    table = pa.table({"sample_id": ["a", "b/c0ffee"], "reference_ids": [["x", "b"], []], "note": ["b", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = banned_cells(tmp_path / "a.parquet", frozenset("b"), BLOBS)
    assert [f.rpartition(" ")[2] for f in found] == ["sample_id", "reference_ids"]


def test_a_damaged_file_is_left_to_other_checks(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    assert banned_cells(tmp_path / "a.parquet", frozenset(), BLOBS) == []
