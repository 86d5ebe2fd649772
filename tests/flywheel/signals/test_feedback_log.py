"""The write-ahead log: a torn line was never acknowledged, a live segment is left alone."""

from pathlib import Path

import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback import signal_id
from flywheel.signals.feedback_log import Segment, fold


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def rows(workspace: Workspace) -> list[dict]:
    return Ledger(workspace, "signals").rows()


def test_a_torn_line_was_never_acknowledged_and_a_live_segment_is_left_alone(workspace: Workspace):
    folder = workspace.path("feedback", "log")
    live = Segment(folder)
    live.write(b'{"event_id":"1","prompt":"a"}\n{"event_id":"2","prompt":"b"}\nbroken\n{"event_id":"3","pro')
    assert fold(workspace) == 0 and live.path.exists()
    live.close()
    assert fold(workspace) == 2 and not list(folder.glob("[!.]*"))
    assert {r["signal_id"] for r in rows(workspace)} == {signal_id("1"), signal_id("2")}
    assert b"broken" in next(workspace.path("feedback", "quarantine").glob("[!.]*")).read_bytes()
