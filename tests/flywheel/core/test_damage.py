"""Errors that say that a file of a workspace is damaged or gone."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.core import damage
from flywheel.core.files import json_lines, read_json
from flywheel.core.workspace import Workspace


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"{"])
def test_a_file_that_is_not_what_was_written_is_named(tmp_path: Path, content: bytes | None):
    path = Workspace(tmp_path / "w").path("x.parquet")
    if content is not None:
        path.write_bytes(content)
    reads = (pq.read_table, lambda p: duckdb.sql(f"FROM read_parquet('{p}')").fetchall(), read_json)
    for read in reads[: 2 if content == b"{" else 3]:
        with pytest.raises((OSError, ValueError, duckdb.Error)) as raised:
            read(path)
        assert "`flywheel fsck` names all such files" in (damage.told(raised.value) or "")
    path.write_bytes(b'{"a": 1}\n\n{"a"')
    with pytest.raises(ValueError, match=f"'{path}' is not JSON") as raised:
        json_lines(path)
    assert str(path) in (damage.told(raised.value) or "")


def test_other_errors_are_none(tmp_path: Path):
    with pytest.raises(OSError) as gone:
        (tmp_path / "nowhere").read_bytes()
    for error in (gone.value, json.JSONDecodeError("bad", "x", 0), pa.ArrowInvalid("no such column"), KeyError("a")):
        assert damage.told(error) is None
