"""Parquet files without some of their rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flywheel.core.files import write_parquet
from flywheel.operate.rewriting import renumbered, rewrite, unnamed, was_rewritten


def odd_only(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(pc.bit_wise_and(table["n"], 1), 1))


@pytest.mark.parametrize(("rows", "size"), [(0, 64), (1, 64), (200, 64), (1000, 7), (128, 128)])
def test_row_groups_stay_full_and_columns_stored_as_they_were(tmp_path: Path, rows: int, size: int) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"n": range(rows), "image": [bytes([n % 256]) * 99 for n in range(rows)], "list": [["x"]] * rows})
    table = table.cast(pa.schema([("n", pa.int64()), ("image", pa.large_binary()), ("list", pa.list_(pa.string()))]))
    write_parquet(path, table, row_group_size=size, encoded=["image"])
    before = pq.read_metadata(path)
    assert not was_rewritten(path, "e1") and rewrite(path, "e1", odd_only)
    after = pq.read_metadata(path)
    assert pq.read_table(path).to_pylist() == [r for r in table.to_pylist() if r["n"] % 2]
    sizes = [after.row_group(n).num_rows for n in range(after.num_row_groups)]
    assert all(s == size for s in sizes[:-1]) and sum(sizes) == rows // 2
    if rows > 1:
        for column in range(after.num_columns):
            assert after.row_group(0).column(column).compression == before.row_group(0).column(column).compression
    assert was_rewritten(path, "e1") and not rewrite(path, "e1", lambda table: table.slice(0, 0))
    assert pq.read_metadata(path).num_rows == rows // 2
    assert rewrite(path, "e2", odd_only) and was_rewritten(path, "e1") and was_rewritten(path, "e2")


def test_a_failed_change_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, pa.table({"n": [1, 2]}))
    before = path.read_bytes()

    def fails(table: pa.Table) -> pa.Table:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(path, "e1", fails)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_rows_behind_removed_ones_move_up() -> None:
    """In each shard by itself."""
    table = pa.table({"shard": ["a", "a", "a", "b"], "row": pa.array([0, 2, 5, 5], pa.int32())})
    assert renumbered(table, {"a": [1, 3], "c": [0]})["row"].to_pylist() == [0, 1, 3, 5]


def test_survivors_that_go_lose_their_address_alone() -> None:
    table = pa.table({"survivor": ["x", "y", None], "survivor_uri": ["x.png", "y.png", None]})
    assert unnamed(table, ["x"]).to_pylist() == [
        {"survivor": "x", "survivor_uri": None},
        {"survivor": "y", "survivor_uri": "y.png"},
        {"survivor": None, "survivor_uri": None},
    ]
