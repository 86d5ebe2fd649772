"""Tags of samples: who gave them, what holds, what is refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.catalog import tags
from flywheel.catalog.database import connect, query
from flywheel.core.errors import UsageError
from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.schema import POOL
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A pool of four samples, one of which came from two places."""
    made = Workspace(tmp_path / "w")
    rows = [{"sample_id": i, "source_uri": f"{n}.png"} for n, i in enumerate("abcda")]
    write_parquet(made.path("pool", "b", "0.parquet"), pa.Table.from_pylist(rows, schema=POOL))
    write_json(made.path("pool", "b", "manifest.json"), {"shards": [{"path": "0.parquet", "rows": 5, "sha256": "0"}]})
    return made


def has(workspace: Workspace) -> list[tuple[str, str, str]]:
    return [tuple(r.values()) for r in query(workspace, 'SELECT sample_id, tag, "by" FROM tags ORDER BY ALL')]


def test_the_last_event_of_a_sample_decides_and_all_of_them_stay(workspace: Workspace):
    assert has(workspace) == []
    assert tags.tag(workspace, " to  look at ", ["a", "b", "a"], by="ada") == 2
    assert tags.tag(workspace, "to look at", ["a", "c"], by="bob") == 1, "a has it already: that is no event"
    assert tags.tag(workspace, "to look at", "bd", by="bob", kind=tags.REMOVED) == 1, "d lacks it"
    assert tags.tag(workspace, '天气, "rare"; \'', ["d"], by="ada") == 1
    assert has(workspace) == [("a", "to look at", "ada"), ("c", "to look at", "bob"), ("d", '天气, "rare"; \'', "ada")]
    assert tags.tag(workspace, "to look at", "b", by="carl") == 1
    assert ("b", "to look at", "carl") in has(workspace)
    kinds = [(r["sample_id"], r["kind"], r["by"]) for r in Ledger(workspace, "tag_events").rows()]
    assert [k for k in kinds if k[0] == "b"] == [("b", "added", "ada"), ("b", "removed", "bob"), ("b", "added", "carl")]
    assert not [f for f in fsck(workspace).findings if "ledger" in f.path]


def test_a_selection_is_tagged_by_its_query(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    with closing(connect(workspace, ("samples", "tags"))) as con:
        select, values = "SELECT sample_id FROM samples WHERE source_uri >= ?", ["2"]
        monkeypatch.setattr(tags, "MOST", 2)
        with pytest.raises(UsageError, match="3 samples are more than 2"):
            tags.change(workspace, con, "late", select, values, by="ada", kind=tags.ADDED)
        monkeypatch.setattr(tags, "MOST", 3)
        assert tags.change(workspace, con, "late", select, values, by="ada", kind=tags.ADDED) == 3
    assert [sample for sample, _, _ in has(workspace)] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("name", "ids", "by", "kind", "said"),
    [
        (" ", "a", "ada", "added", "name the tag"),
        ("t", "a", "\t", "added", "say who you are"),
        ("t" * 65, "a", "ada", "added", "at most 64"),
        ("t\u202e", "a", "ada", "added", "printable"),
        ("t", "a", "ada", "made", "unknown change"),
        ("t", "az", "ada", "added", "no sample of the pool has the id 'z'"),
    ],
)
def test_what_is_no_tag_is_refused(workspace: Workspace, name: str, ids: str, by: str, kind: str, said: str):
    with pytest.raises(UsageError, match=said):
        tags.tag(workspace, name, ids, by=by, kind=kind)
    assert not Ledger(workspace, "tag_events").exists()
