"""Schemas: every column says what it means, and names agree wherever a table is described twice."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flywheel.core import schema
from flywheel.core.schema import CAPTIONS, LEDGERS, POOL, QUARANTINE, SCORE_KEYS, SHARD, column, slice_column

TABLES = {"pool": POOL, "quarantine": QUARANTINE, "captions": CAPTIONS, "shard": SHARD, **LEDGERS}


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_a_name_of_its_own_and_a_meaning(name: str) -> None:
    table = TABLES[name]
    assert len(set(table.names)) == len(table.names)
    assert all(field.metadata[b"doc"].strip() for field in table)


def test_every_ledger_records_when() -> None:
    for name, table in LEDGERS.items():
        assert table.field("at").type == pa.timestamp("us", "UTC"), name


def test_the_values_of_a_column_are_those_that_its_meaning_lists() -> None:
    listed = {
        (LEDGERS["case_events"], "kind"): schema.CASE_EVENTS,
        (LEDGERS["rounds"], "verdict"): schema.VERDICTS,
        (LEDGERS["reviews"], "kind"): schema.REVIEW_EVENTS,
        (SHARD, "task"): (),
        (POOL, "task"): schema.TASKS,
    }
    for (table, name), values in listed.items():
        doc = table.field(name).metadata[b"doc"].decode()
        assert doc and all(value in doc for value in values), (name, doc)


def test_columns_keep_their_meaning() -> None:
    field = column("n", pa.int64(), "a number", nullable=False)
    assert (field.name, field.type, field.nullable, field.metadata) == ("n", pa.int64(), False, {b"doc": b"a number"})
    assert [f.name for f in SCORE_KEYS] == ["row", "sample_id", "error"]


def test_the_slice_of_an_old_shard_is_its_track() -> None:
    assert slice_column(SHARD.names) == "slice" and slice_column(["sample_id", "track"]) == "track"
