"""Verify a workspace: every file's hash, then manifests, counts and ledgers. Reads everything, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation.sources import pool
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.operate.commits import verify_ledgers
from flywheel.operate.erasures import verify_erasures
from flywheel.operate.findings import NOTE, Check, Report
from flywheel.operate.verified import verify_files


def fsck(workspace: Workspace, *, progress: Callable[..., None] | None = None) -> Report:
    """Verify all files of a workspace. `progress` is called as `progress(files, None, note)` after each one."""
    check = Check(workspace, progress)
    tables = (_pool, _scores, _snapshots, _shards)
    for part in (_leftovers, verify_files, *tables, _checkpoints, verify_ledgers, _rounds, verify_erasures):
        check.each([workspace.root], lambda _: part(check))  # noqa: B023 - called at once
    return Report(check.files, tuple(check.findings))


def _leftovers(check: Check) -> None:
    for path in sorted(check.workspace.root.rglob(".*.tmp")):
        check.fault(path, "temporary file of a killed run", "nothing to do: the next run removes it", NOTE)


# Data ---------------------------------------------------------------------------------------------------------------
def _pool(check: Check) -> None:
    again = "restore it from a copy, or remove the batch's folder and run again: the batch is ingested again"

    def batch(folder: Path) -> None:
        path = folder / "manifest.json"
        if not path.exists() and not check.damaged(path):
            check.fault(folder, "unfinished batch", "nothing to do: the next run finishes it", NOTE)
            return
        manifest = check.json(path, again)
        if manifest is None:
            return
        names = {s["path"] for s in manifest["shards"]} | {"quarantine.parquet", "plan.parquet"}
        _unlisted(check, folder, {check.workspace.relative(folder / name) for name in names})
        for shard in manifest["shards"]:
            if check.hashed(folder / shard["path"], shard, again):
                _count(check, folder / shard["path"], shard["rows"], again)
        quarantine = check.table(folder / "quarantine.parquet", again)
        if quarantine is not None and quarantine.num_rows != manifest["quarantined"]:
            counts = f"{manifest['quarantined']} quarantined rows, but quarantine.parquet has {quarantine.num_rows}"
            check.fault(path, f"counts {counts}", again)
        if manifest["rows"] != sum(s["rows"] for s in manifest["shards"]):
            check.fault(path, "its row count is not the sum over its shards", again)

    check.each(sorted(p for p in check.workspace.path("pool").glob("[!.]*") if p.is_dir()), batch)


def _scores(check: Check) -> None:
    again = "remove it and run again: missing scores are computed"
    rows = {
        name: sum(s["rows"] for s in part)
        for path in check.workspace.path("pool").glob("*/manifest.json")
        for name, part in pool.packed(path.parent, _quiet(check, path))
    }

    def scores(path: Path) -> None:
        table = check.table(path, again)
        if table is None:
            return
        expected = rows.get(path.stem.partition("+")[0])  # after the +: the generated captions that were scored
        if expected is None:
            check.fault(path, "belongs to no shard of the pool", "remove it", NOTE)
        elif table["row"].to_pylist() != list(range(expected)):
            check.fault(path, f"does not have the {expected} rows of its shards in order", again)

    check.each(sorted(check.workspace.path("scores").glob("*/*.parquet")), scores)
    written = "remove it and run `flywheel caption` again: missing captions are requested"
    for path in sorted(check.workspace.path("captions").glob("*/*/[!.]*.parquet")):
        check.table(path, written)
    for path in sorted(check.workspace.path("tables").glob("*.parquet")):
        check.table(path, "remove it: the next run derives it again")


def _snapshots(check: Check) -> None:
    again = "restore it from a copy, or remove the snapshot's record and run again: the pool is decided again"

    def snapshot(path: Path) -> None:
        record = check.json(path, again)
        if record is None:
            return
        counts, folder = record["counts"], path.with_suffix("")
        tables = {name: check.table(folder / f"{name}.parquet", again) for name in ("decisions", "quarantine")}
        for name in ("stages", "funnel"):
            check.table(folder / f"{name}.parquet", again)
        if counts["input"] != counts["admitted"] + counts["dropped"] + counts["quarantined"]:
            check.fault(path, f"input is not the sum of admitted, dropped and quarantined: {counts}", again)
        if tables["decisions"] is not None:
            outcomes = tables["decisions"]["outcome"].to_pylist()
            decided = {k: outcomes.count(k) for k in ("admitted", "dropped")}
            if len(outcomes) != sum(decided.values()) or any(decided[k] != counts[k] for k in decided):
                check.fault(folder / "decisions.parquet", f"has {decided}, but its record {counts}", again)
        if tables["quarantine"] is not None and tables["quarantine"].num_rows != counts["quarantined"]:
            problem = f"has {tables['quarantine'].num_rows} rows, but its record {counts}"
            check.fault(folder / "quarantine.parquet", problem, again)
        pinned = {s["shard"]: s["sha256"] for s in record["pool"]}
        for manifest in check.workspace.path("pool").glob("*/manifest.json"):
            for shard in _quiet(check, manifest).get("shards", []):
                key = f"{manifest.parent.name}-{Path(shard['path']).stem}"
                if pinned.pop(key, shard["sha256"]) != shard["sha256"]:
                    check.fault(path, f"pins a different content of pool shard {key}", again)
        for key in pinned:
            check.fault(path, f"pins pool shard {key}, which is missing", again)
        if not check.workspace.path(record["manifest"]).exists():
            check.fault(path, f"its shard manifest {record['manifest']} is missing", again)
        pins = {folder / name: sha256 for name, sha256 in record.get("files", {}).items()}
        pins |= {check.workspace.path(record["manifest"]): record.get("manifest_sha256")}
        for file, sha256 in pins.items():
            if sha256 and file.exists() and not check.damaged(file) and check.sha256(file) != sha256:
                check.fault(file, "is not the file pinned by the snapshot's record", again)

    check.each(sorted(check.workspace.path("snapshots").glob("*.json")), snapshot)


def _shards(check: Check) -> None:
    again = "remove its manifest and run again: missing files are written again, with the same bytes"

    root, seen = check.workspace.path("shards"), set[tuple[str, ...]]()
    listed: dict[Path, set[str]] = {root: set()}  # folder → files below it that manifests list

    def shards(path: Path) -> None:
        manifest = check.json(path, again)
        if manifest is None:
            return
        own = listed.setdefault(root if path.is_relative_to(root) else path.parent, set())
        for file in manifest["files"]:
            own.add(check.workspace.relative(path.parent / file["path"]))
            entry = (str(path.parent), file["path"], file["sha256"], str(file["bytes"]), str(file["rows"]))
            if entry in seen:  # snapshots share files
                continue
            seen.add(entry)
            if check.hashed(path.parent / file["path"], file, again):
                _count(check, path.parent / file["path"], file["rows"], again)

    check.each(check.workspace.shard_manifests(), shards)
    for folder, files in listed.items():
        below = {check.workspace.relative(p) for p in folder.glob("*.parquet")}  # tables of a remedy
        _unlisted(check, folder, files | below, "remove it, or let `flywheel maintain` do so: nothing reads it")


def _unlisted(check: Check, folder: Path, listed: set[str], advice: str = "remove it: nothing reads it") -> None:
    """Report Parquet files below a folder that are not listed; listed: workspace paths."""
    for path in sorted(folder.rglob("*.parquet")):
        if check.workspace.relative(path) not in listed:
            check.fault(path, "in no manifest", advice, NOTE)


def _count(check: Check, path: Path, rows: int, advice: str) -> None:
    import pyarrow.parquet as pq

    count = pq.read_metadata(readable(path)).num_rows
    if count != rows:
        check.fault(path, f"has {count} rows instead of {rows}", advice)


def _quiet(check: Check, path: Path) -> dict[str, Any]:
    """A manifest, or {} if it cannot be read, which another check reports."""
    try:
        return {} if check.damaged(path) else read_json(path)
    except (OSError, ValueError):
        return {}


# Models and rounds ----------------------------------------------------------------------------------------------------
def _checkpoints(check: Check) -> None:
    again = "restore it from a copy, or remove the folder and train again"

    def checkpoint(path: Path) -> None:
        config = check.json(path, again)
        if config is None:
            return
        for name, entry in config.get("files", {}).items():
            check.hashed(path.parent / name, entry, again)
        if "files" not in config:
            unhashed = "written before checkpoints had hashes: its weights were not verified"
            check.fault(path, unhashed, "nothing to do", NOTE)

    check.each(sorted(check.workspace.path("checkpoints").glob("*/*/config.json")), checkpoint)


def _rounds(check: Check) -> None:
    again = "restore it from a copy"
    ledger = Ledger(check.workspace, "rounds")
    if check.any_damaged(ledger.path):
        return
    rows = {check.workspace.round(row["round"]).plan: row for row in ledger.rows()}

    def finished(plan: Path) -> None:
        row = rows[plan]
        for path in (plan, check.workspace.round(row["round"]).result):
            check.json(path, again)
        for key, name in (("checkpoint", row["checkpoint"]), ("snapshot", f"snapshots/{row['snapshot']}.json")):
            if not check.workspace.path(name).exists():
                check.fault(plan.parent, f"its {key} {name} is missing", again)

    check.each(rows, finished)
