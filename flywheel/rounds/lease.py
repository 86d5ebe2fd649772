"""One run at a time: a run acquires the workspace by compare-and-swap, and takes over from a killed run."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds.job import Job

SILENT = timedelta(hours=24)  # after this long without a sign of life, a run on another machine counts as dead


@contextmanager
def hold(workspace: Workspace, job: Job) -> Iterator[int]:
    """Hold the workspace during a run; yields the run's number. Errors: `UsageError` if another run holds it."""
    ledger = Ledger(workspace, "runs")
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    rows = ledger.rows()
    if (current := holder(rows)) and _alive(current, workspace):
        raise UsageError(_busy(current))
    number = max((r["version"] for r in rows), default=0) + 1
    row = me | {"version": number, "kind": "acquired", "job": json.dumps(asdict(job))}
    if not ledger.append([row], key=f"run/{number}"):
        raise UsageError(_busy(holder(ledger.rows()) or me))
    try:
        yield number
    finally:
        ledger.append([row | {"kind": "released"}], key=f"run/{number}/released")


def holder(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The `acquired` row of the run that has not released the workspace, dead or alive; None if it is free."""
    last = max(rows, key=lambda r: (r["version"], r["kind"] == "released"), default=None)
    return last if last and last["kind"] == "acquired" else None


def running(workspace: Workspace) -> dict[str, Any] | None:
    """The `acquired` row of the run that is working on the workspace now, or None."""
    row = holder(Ledger(workspace, "runs").rows())
    return row if row and _alive(row, workspace) else None


def last_job(workspace: Workspace) -> Job:
    """The job of the workspace's last run. Errors: `UsageError` before the first run."""
    rows = Ledger(workspace, "runs").rows()
    if not rows:
        raise UsageError(
            f"no run has started in {workspace.root} yet: start one with `flywheel run --source DIR -w WORKSPACE`"
        )
    job = json.loads(max(rows, key=lambda r: r["version"])["job"])
    return Job(**{**job, "workspace": str(workspace.root)})


def _alive(row: Mapping[str, Any], workspace: Workspace) -> bool:
    if row["host"] != socket.gethostname():
        signs = [row["at"], *(c["at"] for c in Ledger(workspace, "costs").rows()[-1:])]
        return datetime.now(UTC) - max(signs) < SILENT
    try:
        return abs(psutil.Process(row["pid"]).create_time() - row["started"]) < 1
    except psutil.NoSuchProcess:
        return False


def _busy(row: Mapping[str, Any]) -> str:
    return (
        f"another run is working on this workspace (process {row['pid']} on {row['host']}): wait until it ends, or "
        "stop it, then run this again"
    )
