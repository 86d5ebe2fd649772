"""Workspaces of format 1: as version 0.1 wrote them, a shard row's slice is named `track`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from flywheel.core.files import file_digest, read_json, write_json
from flywheel.core.schema import ROW_GROUP
from tests.flywheel import format_3


def downgrade(workspace: Path) -> None:
    """Rewrite a workspace of this version into format 1, in place: shards, remedies, manifests, plans, marker."""
    format_3.downgrade(workspace)
    for path in [*workspace.glob("shards/*/manifest.json"), *workspace.glob("remedies/*/manifest.json")]:
        manifest = read_json(path)
        for file in manifest["files"]:
            rename_column(shard := path.parent / file["path"])
            file |= {"sha256": file_digest(shard), "bytes": shard.stat().st_size}
        _rename_key(manifest["files"])
        write_json(path, manifest)
    for path in workspace.glob("remedies/*/candidates.parquet"):
        rename_column(path)
    for path in workspace.glob("snapshots/*.json"):
        record = read_json(path)
        write_json(path, record | {"manifest_sha256": file_digest(workspace / record["manifest"])})
    for path in workspace.glob("rounds/*/plan.json"):
        plan = read_json(path)
        _rename_key(plan["mix"])
        write_json(path, plan)
    write_json(workspace / "workspace.json", {"format": 1})
    for folder in list(workspace.rglob(".hashes")):  # format 1 recorded no hashes
        shutil.rmtree(folder)


def rename_column(path: Path) -> None:
    """Rename the column `slice` of a Parquet file to `track`."""
    table = pq.read_table(path)
    names = ["track" if name == "slice" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), path, row_group_size=ROW_GROUP)


def _rename_key(entries: list[dict]) -> None:
    for entry in entries:
        if "slice" in entry:
            entry["track"] = entry.pop("slice")
