"""Verify a workspace: every manifest, hash, count, ledger and image. Reads everything, changes nothing."""

from __future__ import annotations

import hashlib
import re
import socket
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.erased import banned, unfinished
from flywheel.core.exports import SHARDS, remembered
from flywheel.core.files import file_digest, read_json
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.storage import located, readable
from flywheel.core.workspace import Workspace
from flywheel.operate.victims import loose_files, parquet_files

if TYPE_CHECKING:
    import pyarrow as pa

ERROR, NOTE = "error", "note"  # a note is harmless, such as what a killed run leaves and the next one removes

_IDS = ("sample_id", "image_id", "reference_ids")
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")

# Key columns of a ledger: no two rows may agree in all of them. Other ledgers: the first column.
_KEYS = {
    "snapshots": ("snapshot",),
    "signals": ("signal_id", "round", "arm"),
    "case_events": ("event_id",),
    "rounds": ("round",),
    "runs": ("version", "kind"),
}


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what it is, and how to repair it."""

    severity: str  # error | note
    path: str  # relative to the workspace
    problem: str
    advice: str


@dataclass(frozen=True)
class Report:
    """Number of files checked, and the findings."""

    files: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """True if there is no error; notes are harmless."""
        return not any(f.severity == ERROR for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {"sound": self.sound, "files": self.files, "findings": [asdict(f) for f in self.findings]}


def fsck(workspace: Workspace, *, progress: Callable[..., None] | None = None) -> Report:
    """Verify all files of a workspace. `progress` is called as `progress(files, None, note)` after each one."""
    check = _Check(workspace, progress)
    parts = (_leftovers, _pool, _scores, _snapshots, _shards, _checkpoints, _ledgers, _rounds, _pictures, _erased)
    for part in parts:
        part(check)
    return Report(check.files, tuple(check.findings))


class _Check:
    """The workspace being checked, and the findings so far."""

    def __init__(self, workspace: Workspace, progress: Callable[..., None] | None) -> None:
        self.workspace = workspace
        self.progress = progress
        self.files = 0
        self.findings: list[Finding] = []

    def fault(self, path: Path, problem: str, advice: str, severity: str = ERROR) -> None:
        name = str(path.relative_to(self.workspace.root))
        self.findings.append(Finding(severity, name, problem, advice))

    def opened(self, path: Path) -> None:
        self.files += 1
        if self.progress:
            self.progress(self.files, None, "files checked")

    def json(self, path: Path, advice: str) -> Any:
        """The content of a JSON file; None, and a fault, if it cannot be read."""
        self.opened(path)
        try:
            return read_json(path)
        except (OSError, ValueError) as error:
            self.fault(path, f"cannot be read as JSON: {error}", advice)
            return None

    def hashed(self, path: Path, entry: dict[str, Any], advice: str) -> bool:
        """True if a file has the size and the hash listed in its manifest; otherwise a fault."""
        self.opened(path)
        if not path.is_file():
            self.fault(path, "missing, but listed in its manifest", advice)
        elif path.stat().st_size != entry["bytes"]:
            self.fault(path, f"has {path.stat().st_size} bytes instead of {entry['bytes']}", advice)
        elif file_digest(path) != entry["sha256"]:
            self.fault(path, "its content does not match the sha256 in its manifest", advice)
        else:
            return True
        return False

    def table(self, path: Path, advice: str) -> pa.Table | None:
        """A whole Parquet file, page checksums verified; None, and a fault, if it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.opened(path)
        try:
            with pq.ParquetFile(readable(path), page_checksum_verification=True) as file:
                return file.read()  # every column: a flipped byte may be in any
        except (OSError, pa.ArrowException) as error:
            self.fault(path, f"cannot be read completely: {error}", advice)
            return None


def _leftovers(check: _Check) -> None:
    for path in sorted(check.workspace.root.rglob(".*.tmp")):
        check.fault(path, "temporary file of a killed run", "nothing to do: the next run removes it", NOTE)


# Data ---------------------------------------------------------------------------------------------------------------
def _pool(check: _Check) -> None:
    again = "restore it from a copy, or remove the batch's folder and run again: the batch is ingested again"
    for batch in sorted(p for p in check.workspace.path("pool").glob("*") if p.is_dir()):
        path = batch / "manifest.json"
        if not path.exists():
            check.fault(batch, "unfinished batch", "nothing to do: the next run finishes it", NOTE)
            continue
        manifest = check.json(path, again)
        if manifest is None:
            continue
        _unlisted(check, batch, {s["path"] for s in manifest["shards"]} | {"quarantine.parquet", "plan.parquet"})
        for shard in manifest["shards"]:
            if check.hashed(batch / shard["path"], shard, again):
                _count(check, batch / shard["path"], shard["rows"], again)
        quarantine = check.table(batch / "quarantine.parquet", again)
        if quarantine is not None and quarantine.num_rows != manifest["quarantined"]:
            counts = f"{manifest['quarantined']} quarantined rows, but quarantine.parquet has {quarantine.num_rows}"
            check.fault(path, f"counts {counts}", again)
        if manifest["rows"] != sum(s["rows"] for s in manifest["shards"]):
            check.fault(path, "its row count is not the sum over its shards", again)


def _scores(check: _Check) -> None:
    again = "remove it and run again: missing scores are computed"
    rows = {
        f"{path.parent.name}-{Path(s['path']).stem}": s["rows"]
        for path in check.workspace.path("pool").glob("*/manifest.json")
        for s in _quiet(path).get("shards", [])
    }
    for path in sorted(check.workspace.path("scores").glob("*/*.parquet")):
        table = check.table(path, again)
        if table is None:
            continue
        expected = rows.get(path.stem.partition("+")[0])  # after the +: the generated captions that were scored
        if expected is None:
            check.fault(path, "belongs to no shard of the pool", "remove it", NOTE)
        elif table["row"].to_pylist() != list(range(expected)):
            check.fault(path, f"does not have the shard's {expected} rows in order", again)
    for path in sorted(check.workspace.path("captions").glob("*/*/[!.]*.parquet")):
        check.table(path, "remove it and run `flywheel caption` again: missing captions are requested")
    for path in sorted(check.workspace.path("tables").glob("*.parquet")):
        check.table(path, "remove it: the next run derives it again")


def _snapshots(check: _Check) -> None:
    again = "restore it from a copy, or remove the snapshot's record and run again: the pool is decided again"
    for path in sorted(check.workspace.path("snapshots").glob("*.json")):
        record = check.json(path, again)
        if record is None:
            continue
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
            for shard in _quiet(manifest).get("shards", []):
                key = f"{manifest.parent.name}-{Path(shard['path']).stem}"
                if pinned.pop(key, shard["sha256"]) != shard["sha256"]:
                    check.fault(path, f"pins a different content of pool shard {key}", again)
        for key in pinned:
            check.fault(path, f"pins pool shard {key}, which is missing", again)
        if not check.workspace.path(record["manifest"]).exists():
            check.fault(path, f"its shard manifest {record['manifest']} is missing", again)
        hashes = {folder / name: sha256 for name, sha256 in record.get("files", {}).items()}
        hashes |= {check.workspace.path(record["manifest"]): record.get("manifest_sha256")}
        for file, sha256 in hashes.items():
            if sha256 and file.exists() and file_digest(file) != sha256:
                check.fault(file, "is not the file pinned by the snapshot's record", again)


def _shards(check: _Check) -> None:
    again = "remove its manifest and run again: missing files are written again, with the same bytes"
    for path in check.workspace.shard_manifests():
        manifest = check.json(path, again)
        for file in manifest["files"] if manifest else ():
            if check.hashed(path.parent / file["path"], file, again):
                _count(check, path.parent / file["path"], file["rows"], again)
        if manifest:
            tables = {p.name for p in path.parent.glob("*.parquet")}
            _unlisted(check, path.parent, {f["path"] for f in manifest["files"]} | tables)


def _unlisted(check: _Check, folder: Path, listed: set[str]) -> None:
    for path in sorted(folder.rglob("*.parquet")):
        if str(path.relative_to(folder)) not in listed:
            check.fault(path, "in no manifest", "remove it: nothing reads it", NOTE)


def _count(check: _Check, path: Path, rows: int, advice: str) -> None:
    import pyarrow.parquet as pq

    count = pq.read_metadata(readable(path)).num_rows
    if count != rows:
        check.fault(path, f"has {count} rows instead of {rows}", advice)


def _quiet(path: Path) -> dict[str, Any]:
    """A manifest, or {} if it cannot be read, which another check reports."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


# Models -------------------------------------------------------------------------------------------------------------
def _checkpoints(check: _Check) -> None:
    again = "restore it from a copy, or remove the folder and train again"
    for path in sorted(check.workspace.path("checkpoints").glob("*/*/config.json")):
        config = check.json(path, again)
        for name, entry in config.get("files", {}).items() if config else ():
            check.hashed(path.parent / name, entry, again)
        if config and "files" not in config:
            check.fault(
                path, "written before checkpoints had hashes: its weights were not verified", "nothing to do", NOTE
            )


# Ledgers ------------------------------------------------------------------------------------------------------------
def _ledgers(check: _Check) -> None:
    again = "restore the ledger's folder from a copy: it is the only record of its events"
    for name, schema in LEDGERS.items():
        ledger = Ledger(check.workspace, name)
        if not ledger.exists():
            continue
        damaged = False
        try:
            for path in map(located, ledger.files()):
                check.opened(path)
                named = path.stem.rpartition("-")[2]
                if len(named) != 64:
                    note = "written before ledgers had hashes: only its rows are verified"
                    check.fault(path, note, "no action", NOTE)
                elif file_digest(path) != named:
                    damaged = True
                    check.fault(path, "its bytes differ from the sha256 in its name", again)
            rows = ledger.table()
        except Exception as error:  # noqa: BLE001 - whatever a damaged log or file raises, it is this ledger's fault
            if not damaged:  # otherwise the file at fault is named already
                check.fault(ledger.path, f"not readable: {type(error).__name__}: {error}", again)
            continue
        keys = [k for k in _KEYS.get(name, (schema.names[0],)) if k in rows.column_names]
        doubled = rows.num_rows - rows.group_by(keys).aggregate([]).num_rows
        if doubled:
            check.fault(ledger.path, f"{doubled} rows repeat the {', '.join(keys)} of another row", again)


def _rounds(check: _Check) -> None:
    again = "restore it from a copy"
    ledger = Ledger(check.workspace, "rounds")
    try:
        rows = ledger.rows()
    except Exception:  # noqa: BLE001 - `_ledgers` reports it
        return
    for row in rows:
        places = check.workspace.round(row["round"])
        for path in (places.plan, places.result):
            check.json(path, again)
        for key, name in (("checkpoint", row["checkpoint"]), ("snapshot", f"snapshots/{row['snapshot']}.json")):
            if not check.workspace.path(name).exists():
                check.fault(places.plan.parent, f"its {key} {name} is missing", again)


# Erased pictures ----------------------------------------------------------------------------------------------------
def _erased(check: _Check) -> None:
    """No file holds an erased picture, an encoding of one, or the id of one: by content, whatever its name."""
    for journal in unfinished(check.workspace):
        path = check.workspace.path("erasures", f"{journal['id']}.json")
        check.fault(path, "the erasure was interrupted", "run `flywheel erase -w W`: it is completed")
    ids, blobs = banned(check.workspace)
    if not blobs:
        return
    again = "run `flywheel erase` for it again, or remove the file"
    for path in parquet_files(check.workspace):
        for found in _banned_cells(path, ids, blobs):
            check.fault(path, found, again)
    for path in loose_files(check.workspace):
        if path.parent.name == "erasures":
            continue
        check.opened(path)
        if file_digest(path) in blobs:
            check.fault(path, "is an erased picture", "remove the file")
        elif path.suffix in (".json", ".jsonl") and ids & set(
            _ID.findall(path.read_bytes().decode("utf-8", "replace"))
        ):
            check.fault(path, "names an erased picture", again)
    for place, host in remembered(check.workspace, SHARDS):
        if host == socket.gethostname() and place.is_dir():
            _exported(check, place, ids, blobs)


def _banned_cells(path: Path, ids: frozenset[str], blobs: frozenset[str]) -> list[str]:
    """What of erased pictures a Parquet file holds, a row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    try:
        with pq.ParquetFile(readable(path)) as file:
            schema = file.schema_arrow
            columns = [f.name for f in schema if f.name in _IDS or _has_bytes(f.type)]
            for group in range(file.num_row_groups) if columns else ():
                table = file.read_row_group(group, columns=columns)
                for name in columns:
                    values, kind = table[name].combine_chunks(), schema.field(name).type
                    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                        values = values.flatten()
                    if pa.types.is_struct(values.type):
                        values = values.field("bytes")
                    if name in _IDS and not _has_bytes(kind):
                        hits = sum(str(v).partition("/")[0] in ids for v in values.to_pylist() if v)
                    else:
                        hits = sum(hashlib.sha256(v.as_buffer()).hexdigest() in blobs for v in values if v.is_valid)
                    if hits:
                        found[name] = found.get(name, 0) + hits
    except (OSError, pa.ArrowException):
        return []  # another check reports it
    return [f"holds {count} erased pictures in its column {name}" for name, count in found.items()]


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether cells of this type may hold pictures."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _exported(check: _Check, folder: Path, ids: frozenset[str], blobs: frozenset[str]) -> None:
    """Check an export that was made here: pictures in its files, members of its archives, rows of its shards."""
    again = "run `flywheel erase` for it again, or remove the export"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        check.opened(path)
        if path.suffix == ".parquet":
            problems = _banned_cells(path, ids, blobs)
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                contents = [(m.name, f.read()) for m in archive if (f := archive.extractfile(m))]
            problems = [f"holds an erased picture: {n}" for n, c in contents if hashlib.sha256(c).hexdigest() in blobs]
        elif path.suffix == ".mds":
            named = set(_ID.findall(path.read_bytes().decode("latin-1")))
            problems = ["names erased pictures"] if ids & named else []
        else:
            problems = ["is an erased picture"] if file_digest(path) in blobs else []
        for problem in problems:
            check.findings.append(Finding(ERROR, str(path), problem, again))


def _pictures(check: _Check) -> None:
    from PIL import Image

    for kind in ("samples", "probes", "suite"):
        for path in sorted(check.workspace.path(kind).rglob("*.png")):
            check.opened(path)
            try:
                with path.open("rb") as file, Image.open(file) as image:
                    image.verify()  # the checksum of every chunk
            except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
                check.fault(path, f"damaged: {error}", "remove it: evaluation draws it again with the same bytes")
