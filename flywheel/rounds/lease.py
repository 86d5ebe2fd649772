"""One run at a time: a run acquires the workspace by compare-and-swap, and takes over from a killed run.

A run that works renews a heartbeat. One that stood still for so long that another run took over can record nothing
more: every append to a ledger asks first whether the heartbeat is still its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from flywheel.core.config import Lines, read_toml, toml_text
from flywheel.core.errors import UsageError
from flywheel.core.files import discard, given_file, write_bytes
from flywheel.core.heartbeat import beating, is_beating
from flywheel.core.ledger import Ledger
from flywheel.core.settings_paths import Paths
from flywheel.core.storage import failures
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace
from flywheel.presets import PATHS as PRESET_PATHS
from flywheel.presets import load_preset
from flywheel.rounds.job import Job

UNSIGNED = timedelta(hours=24)  # after this long, a run of version 0.1 on another machine counts as dead
STOP = "stop"  # kind of the row by which somebody asks a run to stop
_SETTINGS = ("preset", "policy")  # fields of a job that may name a file
_COPIES = "runs/settings/"
_GLANCE = 12.0  # seconds that `running` watches the heartbeat of another machine: two beats


@contextmanager
def hold(workspace: Workspace, job: Job) -> Iterator[int]:
    """Hold the workspace during a run; yields the run's number. Errors: `UsageError` if another run holds it."""
    ledger = Ledger(workspace, "runs")
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    rows = ledger.rows()
    if (current := holder(rows)) and _alive(current, workspace):
        raise UsageError(_busy(current))
    number = max((r["version"] for r in rows), default=0) + 1
    row = me | {"version": number, "kind": "acquired", "job": json.dumps(asdict(_with_own_files(workspace, job)))}
    if not ledger.append([row], key=f"run/{number}"):
        raise UsageError(_busy(holder(ledger.rows()) or me))
    with beating(heartbeat(workspace)) as check:
        workspace.fence = check
        try:
            yield number
        finally:
            workspace.fence = None
            with suppress(UsageError, *failures()):  # taken over meanwhile, or out of reach: the next run sees that
                check()
                ledger.append([row | {"kind": "released"}], key=f"run/{number}/released")


def holder(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The `acquired` row of the run that has not released the workspace, dead or alive; None if it is free."""
    held = (r for r in rows if r["kind"] != STOP)
    last = max(held, key=lambda r: (r["version"], r["kind"] == "released"), default=None)
    return last if last and last["kind"] == "acquired" else None


def running(workspace: Workspace) -> dict[str, Any] | None:
    """The `acquired` row of the run that is working on the workspace now, or None."""
    row = holder(Ledger(workspace, "runs").rows())
    return row if row and _alive(row, workspace, silent=_GLANCE) else None


def unlock(workspace: Workspace, *, by: str, why: str) -> dict[str, Any]:
    """Take the workspace from the run that holds it, dead or alive; returns that run's row.

    A run that still works stops at its next record. Errors: `UsageError` if no run holds the workspace, or `by` or
    `why` is empty.
    """
    if blank(by) or blank(why):
        raise UsageError("name yourself and the reason: --by NAME --why TEXT")
    ledger = Ledger(workspace, "runs")
    row = holder(ledger.rows())
    if row is None:
        raise UsageError("no run holds this workspace: there is nothing to unlock")
    note = json.dumps({"unlocked_by": by, "why": why}, ensure_ascii=False)
    discard(heartbeat(workspace))
    columns = {k: row[k] for k in ("version", "host", "pid", "started")}
    ledger.append([columns | {"kind": "released", "job": note}], key=f"run/{row['version']}/released")
    return row


def last_job(workspace: Workspace) -> Job:
    """The job of the workspace's last run. Errors: `UsageError` before the first run."""
    rows = [r for r in Ledger(workspace, "runs").rows() if r["kind"] != STOP]
    if not rows:
        raise UsageError(
            f"no run has started in {workspace.root} yet: start one with `flywheel run --source DIR -w WORKSPACE`"
        )
    job = json.loads(max(rows, key=lambda r: (r["version"], r["kind"] == "acquired"))["job"])
    files = {k: str(workspace.path(job[k])) for k in _SETTINGS if (job[k] or "").startswith(_COPIES)}
    return Job(**{**job, **files, "workspace": str(workspace.root)})


def _with_own_files(workspace: Workspace, job: Job) -> Job:
    """The job with copies of its settings files in the workspace: named from anywhere, and moved with it.

    Those are also a policy that the preset names, and the policies that a policy is based on.
    """
    from curation.policy.reader import PATHS as POLICY_PATHS
    from curation.policy.reader import load_policy

    copies: dict[str, Any] = {}
    for field in _SETTINGS:
        name = getattr(job, field)
        if field == "policy" and not name and job.preset.endswith(".toml"):
            name = load_preset(job.preset).policy
        if name and name.endswith(".toml"):
            source = given_file(Path(name), f"a .toml file, or the name of a built-in {field}")
            if field == "policy":
                load_policy(source)  # its bases exist, and end
            copies[field] = _copied(workspace, source, PRESET_PATHS if field == "preset" else POLICY_PATHS)
    return replace(job, **copies)


def _copied(workspace: Workspace, source: Path, paths: Paths) -> str:
    """Name in the workspace of a settings file's copy, in which its paths are absolute.

    If another file is its base, that is copied and named there.
    """
    values = read_toml(source)
    text, base = paths.text(toml_text(source), values, source.parent), values.get("base")
    if isinstance(base, str) and base.endswith(".toml"):
        folder, name = _copied(workspace, source.parent / base, paths).removeprefix(_COPIES).split("/")
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        line = Lines(text).at(("base",))
        lines[(line or 1) - 1] = f"base = {json.dumps(f'../{folder}/{name}', ensure_ascii=False)}\n"
        text = "".join(lines)
    data = text.encode()
    place = f"{_COPIES}{hashlib.sha256(data).hexdigest()[:12]}/{source.name}"
    if not (copy := workspace.path(place)).exists():
        write_bytes(copy, data)
    return place


def heartbeat(workspace: Workspace) -> Path:
    """The file that the holder renews."""
    return workspace.path("runs", "heartbeat.json")


def _alive(row: Mapping[str, Any], workspace: Workspace, *, silent: float | None = None) -> bool:
    if heartbeat(workspace).exists():
        return is_beating(heartbeat(workspace), silent=silent)
    if row["host"] != socket.gethostname():
        signs = [row["at"], *(c["at"] for c in Ledger(workspace, "costs").rows()[-1:])]
        return datetime.now(UTC) - max(signs) < UNSIGNED
    try:
        return abs(psutil.Process(row["pid"]).create_time() - row["started"]) < 1
    except psutil.NoSuchProcess:
        return False


def _busy(row: Mapping[str, Any]) -> str:
    return (
        f"another run is working on this workspace (process {row['pid']} on {row['host']}): wait until it ends, or "
        "stop it, then run this again; if it is gone for good, `flywheel unlock` takes the workspace back"
    )
