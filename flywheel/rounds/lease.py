"""One run at a time: a workspace is acquired by compare-and-swap; what a killed run held, the next one takes over."""

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

SILENT = timedelta(hours=24)  # a run on another machine that gave no sign of life for so long is gone


@contextmanager
def hold(workspace: Workspace, job: Job) -> Iterator[int]:
    """Hold the workspace for a run; yields the run's number. Errors: `UsageError` while another run holds it."""
    ledger = Ledger(workspace, "runs")
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    rows = ledger.rows()
    if (other := holder(rows)) and _alive(other, workspace):
        raise UsageError(_busy(other))
    number = max((r["version"] for r in rows), default=0) + 1
    row = me | {"version": number, "kind": "acquired", "job": json.dumps(asdict(job))}
    if not ledger.append([row], key=f"run/{number}"):
        raise UsageError(_busy(holder(ledger.rows()) or me))
    try:
        yield number
    finally:
        ledger.append([row | {"kind": "released"}], key=f"run/{number}/released")


def holder(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The `acquired` row of the run that has not released the workspace, or None. A dead one is still its holder."""
    last = max(rows, key=lambda r: (r["version"], r["kind"] == "released"), default=None)
    return last if last and last["kind"] == "acquired" else None


def running(workspace: Workspace) -> dict[str, Any] | None:
    """The row of the run that works on the workspace right now, or None."""
    found = holder(Ledger(workspace, "runs").rows())
    return found if found and _alive(found, workspace) else None


def last_job(workspace: Workspace) -> Job:
    """What the workspace's last run was asked for. Errors: `UsageError` when it never ran."""
    rows = Ledger(workspace, "runs").rows()
    if not rows:
        raise UsageError(f"nothing ever ran in {workspace.root}: start with `flywheel run --source DIR -w WORKSPACE`")
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
        f"another run works on this workspace (process {row['pid']} on {row['host']}): wait until it ends or stop it, "
        "then run again"
    )
