"""Rows of a query as dictionaries, and evidence, whatever is in its column."""

import duckdb
import pytest

from dashboards.rows import evidence, rows


def test_rows_keep_names_order_and_parameters() -> None:
    with duckdb.connect() as con:
        found = rows(con, "SELECT n, n * 2 AS double FROM range(3) t(n) WHERE n >= ? ORDER BY n DESC", [1])
        assert found == [{"n": 2, "double": 4}, {"n": 1, "double": 2}]
        assert rows(con, "SELECT 1 AS one WHERE false") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"expected": "CAT"}', {"expected": "CAT"}),
        ("too many cats", {"note": "too many cats"}),
        ("[1, 2]", {"note": [1, 2]}),
        ("", {}),
        (None, {}),
    ],
)
def test_evidence_is_always_an_object(text: str | None, value: dict) -> None:
    assert evidence(text) == value
