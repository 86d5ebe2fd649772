"""List, find and compare snapshots. `flywheel fsck` checks that their files are the pinned ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.policy import sql
from curation.policy.policy import Policy
from curation.policy.what_if import EXAMPLES, changes
from curation.run import ALWAYS
from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.records import Manifest
from flywheel.core.storage import read_parquet
from flywheel.core.workspace import Workspace

_COUNTS = ("input", "admitted", "dropped", "quarantined")


def listed(workspace: Workspace) -> list[dict[str, Any]]:
    """Every snapshot, oldest first: id, policy, counts, shard files."""
    out = []
    for record in map(read_json, _in_order(workspace)):
        files = len(Manifest.read(workspace.path(record["manifest"])).files)
        out.append({k: record[k] for k in ("snapshot", "policy")} | record["counts"] | {"shard_files": files})
    return out


def _in_order(workspace: Workspace) -> list[Path]:
    """Records in the order in which the ledger has them first, then those that it lacks; a copy has the same order."""
    names = dict.fromkeys(row["snapshot"] for row in Ledger(workspace, "snapshots").rows())
    places = {name: place for place, name in enumerate(names)}
    there = hashes.written(workspace.path("snapshots"), workspace.snapshots())
    return sorted(there, key=lambda path: places.get(path.stem, len(places)))


def find(workspace: Workspace, name: str) -> dict[str, Any]:
    """The record of the snapshot whose id is or begins with `name`. Errors: `UsageError` that lists the snapshots."""
    records = sorted(workspace.snapshots())
    matches = [p for p in records if p.stem.startswith(name)] if name else []
    if len(matches) != 1:
        known = ", ".join(p.stem for p in records) or "there is none: run `flywheel run` first"
        raise UsageError(f"{'several snapshots begin' if matches else 'no snapshot begins'} with {name!r}: {known}")
    return read_json(matches[0])


def diff(workspace: Workspace, before: str, after: str, *, examples: int = EXAMPLES) -> dict[str, Any]:
    """Differences: {counts, policy, scorers, pool, samples, shards}; each a list of rows, empty if nothing differs.

    `samples` counts the inputs that moved from one outcome (admitted, a filter, quarantined, not there) to another, and
    lists the first few. Errors: `UsageError` for an unknown snapshot.
    """
    a, b = find(workspace, before), find(workspace, after)
    return {
        "before": a["snapshot"],
        "after": b["snapshot"],
        "counts": [{"count": c, "before": a["counts"][c], "after": b["counts"][c]} for c in _COUNTS],
        "policy": changes(*(_pinned(workspace, r["snapshot"]) for r in (a, b))),
        "scorers": _differing("scorer", a["scorers"], b["scorers"]),
        "pool": _differing("shard", *({s["shard"]: s["rows"] for s in r["pool"]} for r in (a, b))),
        "samples": _moved(workspace, a["snapshot"], b["snapshot"], examples),
        "shards": _differing("file", *(_rows_of_files(workspace, r) for r in (a, b))),
    }


def policy_of(workspace: Workspace, snapshot: str) -> Policy | None:
    """The policy that a snapshot was made by; None if the snapshot does not record it."""
    return _pinned(workspace, snapshot) if workspace.path("snapshots", snapshot, "policy.json").exists() else None


def scorers_of(workspace: Workspace, snapshot: str) -> list[tuple[str, str]]:
    """(name, full version) of the scorers of a snapshot, in the order of its policy; none if its record is lost."""
    policy, record = policy_of(workspace, snapshot), workspace.snapshot(snapshot)
    versions: dict[str, str] = read_json(record).get("scorers", {}) if record.exists() else {}
    names = dict.fromkeys((*ALWAYS, *policy.scorer_names())) if policy else versions
    return [(name, versions[name]) for name in names if name in versions]


def _pinned(workspace: Workspace, snapshot: str) -> Policy:
    return Policy.from_record(read_json(workspace.path("snapshots", snapshot, "policy.json")))


def _rows_of_files(workspace: Workspace, record: dict[str, Any]) -> dict[str, str]:
    files = Manifest.read(workspace.path(record["manifest"])).files
    return {f.path: f"{f.rows} rows, {f.sha256[:12]}" for f in files}


def _differing(key: str, before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    names = dict.fromkeys([*before, *after])
    rows = ({key: n, "before": before.get(n), "after": after.get(n)} for n in names)
    return [row for row in rows if row["before"] != row["after"]]


def _moved(workspace: Workspace, before: str, after: str, examples: int) -> list[dict[str, Any]]:
    """Inputs grouped by old and new outcome, largest group first; only those that moved."""

    def rows(snapshot: str, name: str) -> str:
        return read_parquet([str(workspace.snapshot(snapshot, name))])

    def ends(snapshot: str, other: str) -> str:
        """One row per (address, sample id); of a quarantined input, the id that only the other snapshot has, if any."""
        decisions, others = rows(snapshot, "decisions"), rows(other, "decisions")
        return f"""SELECT source_uri, coalesce(sample_id, '') AS id, min("end") AS "end" FROM (
                SELECT source_uri, sample_id, coalesce(filter, outcome) AS "end" FROM {decisions}
                UNION ALL SELECT source_uri, sample_id, 'quarantined' FROM {rows(snapshot, "quarantine")} LEFT JOIN (
                    SELECT source_uri, min(sample_id) AS sample_id FROM {others} ANTI JOIN (FROM {decisions})
                    USING (source_uri, sample_id) GROUP BY 1) USING (source_uri)) GROUP BY 1, 2"""

    with sql.connect(workspace) as con:
        moved = con.sql(
            f"""SELECT coalesce(a."end", 'not there') AS before, coalesce(b."end", 'not there') AS after,
                   count(*) AS samples,
                   list(coalesce(nullif(id, ''), source_uri) ORDER BY source_uri, id)[:{examples}] AS examples
            FROM ({ends(before, after)}) a FULL JOIN ({ends(after, before)}) b USING (source_uri, id)
            WHERE a."end" IS DISTINCT FROM b."end" GROUP BY 1, 2 ORDER BY samples DESC, 1, 2"""
        )
        return moved.to_arrow_table().to_pylist()
