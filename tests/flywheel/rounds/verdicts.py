"""Rounds with given verdicts, for tests."""

from __future__ import annotations

from pathlib import Path

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds.routing import record_detected, record_retest
from tests.flywheel.cases.test_events import signal


def finished_rounds(root: Path, *verdicts: str) -> Workspace:
    """Rounds on two prompts: "a" is fixed in round 2, "b" is broken by it."""
    workspace = Workspace(root)
    passed = {1: {"a": False, "b": True}, 2: {"a": True, "b": False}, 3: {"a": True, "b": True}}
    for n, verdict in enumerate(verdicts, 1):
        rows = [signal(p, "count", ok, round=n) for p, ok in passed[n].items()]
        Ledger(workspace, "signals").append(rows, key=f"evaluation/{n}")
        row = {"round": n, "verdict": verdict, "checkpoint": f"checkpoints/{n}", "snapshot": "s", "result": "{}"}
        Ledger(workspace, "rounds").append([row], key=f"round/{n}")
        if verdict == "PROMOTE":
            record_retest(workspace, n)
            record_detected(workspace, n)
    return workspace
