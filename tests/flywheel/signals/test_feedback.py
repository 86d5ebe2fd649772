"""User feedback: by file and by HTTP, once by event id, and nothing acknowledged is lost when the server is killed."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback import Feedback, import_file, signal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def rows(workspace: Workspace) -> list[dict]:
    return Ledger(workspace, "signals").rows()


def test_what_an_event_says():
    def passed(**event: object) -> bool | None:
        return signal(Feedback(event_id="1", prompt="a cat", **event))["passed"]

    assert passed(thumbs="up") is True and passed(thumbs="down") is False and passed() is None
    assert passed(rerolls=2) is False and passed(edited_prompt="a black cat") is False
    assert passed(thumbs="up", rerolls=2) is True  # in the end it was right
    row = signal(Feedback(event_id="1", prompt="a cat", thumbs="down", reason="two cats"))
    assert json.loads(row["evidence"]) == {"event_id": "1", "thumbs": "down", "reason": "two cats"}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"image": "/etc/passwd"}, "not a path inside the workspace"),
        ({"image": "a/../../b.png"}, "not a path inside the workspace"),
        ({"references": ["../b.png"]}, "not a path inside the workspace"),
        ({"checkpoint": "x" * 10_000}, "at most 1000"),
        ({"prompt": " \t\u3000"}, "nothing but spaces"),
        ({"event_id": "  "}, "nothing but spaces"),
    ],
    ids=str,
)
def test_what_an_event_must_not_say(event: dict, why: str):
    with pytest.raises(ValidationError, match=why):
        Feedback(**{"event_id": "1", "prompt": "a cat"} | event)


def test_a_file_counts_each_event_once_and_quarantines_bad_rows(workspace: Workspace, tmp_path: Path):
    good = [{"event_id": str(n % 8), "prompt": "a cat", "thumbs": "down"} for n in range(10)]
    lines = [*map(json.dumps, good), "{", '{"event_id": "x"}', '{"event_id": "y", "prompt": "a", "thumbs": "left"}']
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(lines))
    result = import_file(workspace, path)
    assert (result.imported, result.duplicates, result.quarantined) == (8, 2, 3)
    listed = [json.loads(line) for line in Path(result.quarantine).read_text().splitlines()]
    assert [r["row"] for r in listed] == [11, 12, 13] and listed[1]["reason"] == "prompt: Field required"
    again = import_file(workspace, path)
    assert (again.imported, again.duplicates) == (0, 10) and len(rows(workspace)) == 8


def test_parquet_and_json_lines_are_the_same_events(workspace: Workspace, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    events = [{"event_id": "1", "prompt": "a", "thumbs": "up"}, {"event_id": "2", "prompt": "b", "rerolls": 1}]
    pq.write_table(pa.Table.from_pylist(events, schema=pa.schema(
        [("event_id", pa.string()), ("prompt", pa.string()), ("thumbs", pa.string()), ("rerolls", pa.int64())]
    )), tmp_path / "f.parquet")  # fmt: skip
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert import_file(workspace, tmp_path / "f.parquet").imported == 2
    assert import_file(workspace, tmp_path / "f.jsonl").duplicates == 2
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        import_file(workspace, tmp_path / "bad.parquet")
