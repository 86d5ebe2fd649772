"""Check the ledgers: their commits are complete and chained, every listed file is there, and no row counts twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from flywheel.core import hashes
from flywheel.core.commit_log import LOG, PREVIOUS
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.storage import located
from flywheel.operate.findings import NOTE, Check

# Key columns of a ledger: no two rows may agree in all of them. Other ledgers: the first column.
_KEYS = {
    "snapshots": ("snapshot", "at"),  # a policy may lead back to an earlier one
    "signals": ("signal_id", "round", "arm"),
    "case_events": ("event_id",),
    "rounds": ("round",),
    "runs": ("version", "kind"),
}
_CUT_OFF = "run the command that was at work then again; if this is a copy, complete it"
_AGAIN = "restore the ledger's folder from a copy: it is the only record of its events"


def verify_ledgers(check: Check) -> None:
    """Check every ledger of the workspace."""
    ledgers = {Ledger(check.workspace, name).path: name for name in LEDGERS}
    check.each(ledgers, lambda path: _ledger(check, Ledger(check.workspace, ledgers[path])))


def _ledger(check: Check, ledger: Ledger) -> None:
    if not ledger.path.exists():
        return
    if not ledger.exists():
        if any(ledger.path.glob("*.parquet")) or any((ledger.path / LOG).glob("*.json")):
            note = "a first append was interrupted, or the commits are missing: no row of it is read"
            if hashes.read(ledger.path).newest.get(f"{LOG}/{0:020d}.json"):
                check.fault(ledger.path, note, _AGAIN)
            else:
                check.fault(ledger.path, note, "nothing to do: the next append starts it", NOTE)
        return
    added = _commits(check, ledger)
    if added is not None:
        _files(check, ledger, added)


def _commits(check: Check, ledger: Ledger) -> set[str] | None:
    """Names of all files that a commit ever added; None if a commit is missing or changed.

    Each commit holds the hash of one before it.
    """
    log = ledger.path / LOG
    found = {int(p.stem): p for p in sorted(log.glob("*.json")) if p.stem.isdecimal()}
    if (torn := ledger.torn()) is not None:
        check.fault(found.pop(torn), "cut off while it was written: it does not count", _CUT_OFF, NOTE)
    for version in sorted(set(range(max(found))) - found.keys()):
        _fault(check, log / f"{version:020d}.json", "this commit is missing, though there are later ones")
    sums: dict[int, str] = {}
    added: set[str] = set()
    for version, path in found.items():
        try:
            data = path.read_bytes()
            actions = [json.loads(line) for line in data.splitlines()]
            chained = next((a["commitInfo"].get(PREVIOUS, "") for a in actions if "commitInfo" in a), "")
            added |= {a["add"]["path"] for a in actions if "add" in a}
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            _fault(check, path, f"this commit cannot be read: {error}")
            continue
        sums[version] = hashlib.sha256(data).hexdigest()
        before, _, sha256 = chained.partition(":")
        if before and sums.get(int(before)) not in (None, sha256):
            _fault(check, found[int(before)], f"is not the commit that version {version} was added to")
    return None if check.any_damaged(log) else added


def _fault(check: Check, path: Path, problem: str) -> None:
    if not check.damaged(path):
        check.fault(path, problem, _AGAIN)


def _files(check: Check, ledger: Ledger, added: set[str]) -> None:
    for path in map(located, ledger.files()):
        named = path.stem.rpartition("-")[2]
        if len(named) != 64:
            check.fault(path, "written before ledgers had hashes: only its rows are verified", "no action", NOTE)
        elif not path.is_file():
            _fault(check, path, "missing, but listed in the ledger")
        elif check.sha256(path) != named:
            _fault(check, path, "its bytes differ from the sha256 in its name")
    for path in sorted(ledger.path.glob("*.parquet")):
        if path.name not in added and not check.damaged(path):
            advice = "nothing to do: `flywheel maintain` removes it"
            check.fault(path, "no commit lists it: its writer was stopped", advice, NOTE)
    if check.any_damaged(ledger.path):
        return
    rows = ledger.table()
    keys = [k for k in _KEYS.get(ledger.name, (ledger.schema.names[0],)) if k in rows.column_names]
    doubled = rows.num_rows - rows.group_by(keys).aggregate([]).num_rows
    if doubled:
        check.fault(ledger.path, f"{doubled} rows repeat the {', '.join(keys)} of another row", _AGAIN)
