"""The funnel of a finished workspace: what entered, what was dropped by what, and what a remedy made."""

from collections.abc import Iterator

import duckdb
import pytest

from dashboards.funnel import StagePass, drop_reasons, generated, load_funnel, not_configured, quarantine_reasons
from flywheel.catalog.database import connect
from flywheel.core.workspace import Workspace


@pytest.fixture(scope="module")
def con(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(workspace) as opened:
        yield opened


def test_passes_come_in_order_and_their_rows_add_up(con: duckdb.DuckDBPyConnection) -> None:
    passes = load_funnel(con)
    assert [(p.stage, p.bucket) for p in passes] == [("S1", None), ("S1", 256), ("S2", 256), ("S3", 256)]
    first, second, third, fourth = ((p.entered, p.dropped, p.quarantined, p.left) for p in passes)
    assert first == (312, 60, 12, 240) and second == (240, 15, 0, 225)
    assert third == (225, 42, 0, 183) and fourth == (183, 61, 0, 122)
    assert [f["filter"] for f in passes[0].filters] == ["broken_file", "resolution", "exact_duplicate"]
    assert not_configured(passes) == ["aesthetics", "alignment"]


def test_a_stage_without_filters_is_empty() -> None:
    assert (StagePass("S1", 64, ()).entered, StagePass("S1", 64, ()).left) == (0, 0)


def test_reasons_are_counted_largest_first_with_an_example(con: duckdb.DuckDBPyConnection) -> None:
    dropped = drop_reasons(con)
    assert [(r["filter"], r["n"]) for r in dropped] == [("resolution", 40), ("exact_duplicate", 20), ("entropy", 15)]
    assert (dropped[0]["example"], dropped[0]["score"], dropped[0]["threshold"]) == ("cards/0000.png", 120, 256)
    assert dropped[1]["example"] == "cards/0040.png" and dropped[1]["survivor"] == f"{41:064x}"
    faults = quarantine_reasons(con)
    assert [(r["fault"], r["n"]) for r in faults] == [
        ("truncated or corrupt", 5), ("zero bytes", 4), ("not an image", 3)
    ]  # fmt: skip
    assert (faults[0]["example"], faults[2]["reason"]) == ("bad/1-0.jpg", "not an image: text")


def test_what_a_remedy_made_is_counted_by_capability_and_recipe(con: duckdb.DuckDBPyConnection) -> None:
    counted = {(r["capability"], r["recipe"]): (r["made"], r["admitted"], r["dropped"]) for r in generated(con)}
    assert counted["count", "retrieved"] == counted["typography", "retrieved"] == (20, 18, 2)
    assert counted["count", "text_card"] == (100, 89, 11)
