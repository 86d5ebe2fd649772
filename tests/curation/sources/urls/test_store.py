"""What a workspace knows of URLs."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation.sources.files import state
from curation.sources.urls.store import ANSWERS, Store, batches_of
from flywheel.core.errors import UsageError
from flywheel.core.files import write_parquet
from flywheel.core.workspace import Workspace


def answer(uri: str, status: str, size: int = 0, attempts: int = 1) -> dict[str, object]:
    return {
        "uri": uri,
        "status": status,
        "reason": "",
        "code": 0,
        "attempts": attempts,
        "size": size,
        "image": b"x" * size,
    }


def test_the_latest_answer_counts_and_rows_of_one_url_are_one(tmp_path: Path) -> None:
    store = Store(Workspace(tmp_path / "w"))
    with store.connect() as con:
        assert con.execute("select count(*) from latest").fetchone() == (0,)
    write_parquet(
        store.root / "00001-a" / "00000.parquet",
        pa.Table.from_pylist([answer("u", "failed", 0, 3), answer("v", "fetched", 2)], ANSWERS),
    )
    write_parquet(
        store.root / "00002-b" / "00000.parquet",
        pa.Table.from_pylist([answer("x", "failed"), answer("u", "fetched", 5)], ANSWERS),
    )
    with store.connect() as con:
        (page,) = batches_of(con, "select uri, status, size, attempts, row from latest order by uri")
    assert page == [("u", "fetched", 5, 4, 1), ("v", "fetched", 2, 1, 1), ("x", "failed", 0, 1, 0)]

    (tmp_path / "a.csv").write_text("url,text,license\nhttp://h/1,one,\nhttp://h/2,two,mit\nhttp://h/1,uno,cc0\n")
    (tmp_path / "b.csv").write_text("url,text\nhttp://h/3,three\nhttp://h/2,zwei\n")
    lists = [state(str(tmp_path / name)) for name in ("b.csv", "a.csv")]
    with store.connect() as con:
        (page,) = batches_of(con, f"select uri, captions, license from ({store.rows(lists)}) order by place")
    assert page == [
        ("http://h/3", ["three"], None),
        ("http://h/2", ["zwei", "two"], "mit"),
        ("http://h/1", ["one", "uno"], "cc0"),
    ]
    before = {p: p.stat().st_mtime_ns for p in store.listed(lists)}
    assert {p: p.stat().st_mtime_ns for p in store.listed(lists)} == before  # converted once


def test_a_list_that_cannot_be_read_costs_itself(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({"url": ["http://h/1"]}))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 damaged")
    write_parquet(tmp_path / "c.parquet", pa.table({"image": [b"x"]}))
    store = Store(Workspace(tmp_path / "w"))
    files = [state(str(tmp_path / name)) for name in ("a.parquet", "b.parquet", "c.parquet")]
    with store.connect() as con:
        found = con.execute(f"select uri, fault from ({store.rows(files)}) order by uri").fetchall()
    assert [uri for uri, _ in found] == [str(tmp_path / "b.parquet"), str(tmp_path / "c.parquet"), "http://h/1"]
    assert [bool(fault) for _, fault in found] == [True, True, False]
    with pytest.raises(UsageError, match="column of URLs"):
        Store(Workspace(tmp_path / "other")).listed(files[1:2])
