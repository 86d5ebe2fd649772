"""Ledgers and Parquet files as views."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.lens import connect, duck, latest_snapshot, ledger, select
from flywheel.core.schema import LEDGERS
from flywheel.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


@pytest.mark.parametrize("name", LEDGERS)
def test_a_view_without_files_has_its_columns_and_types(workspace: Workspace, name: str) -> None:
    with closing(connect(workspace, [name])) as con:
        empty = con.sql(f"FROM {name}").to_arrow_table()
    assert empty.num_rows == 0 and empty.schema.names == LEDGERS[name].names
    wide = {pa.large_string(): pa.string()}
    assert [f.type for f in empty.schema] == [wide.get(f.type, f.type) for f in LEDGERS[name]]


def test_a_view_reads_what_the_ledger_holds_and_a_later_one_what_came_since(workspace: Workspace) -> None:
    Ledger(workspace, "rounds").append([{"round": 1, "verdict": "HOLD"}], key="a")
    with closing(connect(workspace, ["rounds"])) as con:
        Ledger(workspace, "rounds").append([{"round": 2}], key="b")
        assert con.execute("SELECT round, verdict FROM rounds").fetchall() == [(1, "HOLD")]
    with closing(connect(workspace, ["rounds"])) as con:
        assert con.execute("SELECT round FROM rounds ORDER BY 1").fetchall() == [(1,), (2,)]
    assert len(ledger(workspace, "rounds")[1]) == 2


def test_columns_that_a_file_lacks_are_null_and_others_are_left_out(workspace: Workspace, tmp_path: Path) -> None:
    for number, columns in enumerate(({"a": [1], "more": [2]}, {"a": [3], "b": ["x"]})):
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    schema = pa.schema([("b", pa.string()), ("a", pa.int64())])
    with closing(connect(workspace)) as con:
        rows = con.execute(select(schema, [str(tmp_path / f"{n}.parquet") for n in (0, 1)]) + " ORDER BY a").fetchall()
    assert rows == [(None, 1), ("x", 3)]


def test_times_are_utc_and_no_python_variable_is_a_table(workspace: Workspace) -> None:
    hidden = pa.table({"a": [1]})
    with closing(connect(workspace)) as con:
        (at,) = con.execute("SELECT TIMESTAMPTZ '2026-01-01 00:00:00'").fetchone()
        assert at.astimezone(UTC) == datetime(2026, 1, 1, tzinfo=UTC)
        with pytest.raises(Exception, match="hidden does not exist"):
            con.execute("FROM hidden")
    assert hidden.num_rows == 1


def test_names_of_types() -> None:
    assert [duck(t) for t in (pa.list_(pa.int32()), pa.bool_(), pa.float64())] == ["INTEGER[]", "BOOLEAN", "DOUBLE"]


def test_the_latest_snapshot_is_the_last_committed_one(workspace: Workspace) -> None:
    assert latest_snapshot(workspace) is None
    for name in ("b", "a"):
        Ledger(workspace, "snapshots").append([{"snapshot": name}], key=name)
    assert latest_snapshot(workspace) == "a"
