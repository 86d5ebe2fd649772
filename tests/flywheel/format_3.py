"""Workspaces of format 3: each snapshot has a folder of shards of its own, whose rows have a column `weight`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.files import discard, file_digest, read_json, replacing, write_json
from flywheel.core.schema import ROW_GROUP


def downgrade(workspace: Path) -> None:
    """Rewrite a workspace of format 4 into format 3, in place: shards, manifests, records, marker."""
    shared: set[Path] = set()
    for path in sorted(workspace.glob("shards/*.json")):
        manifest, folder = read_json(path), path.with_suffix("")
        weights = manifest.pop("weights")
        for number, file in enumerate(manifest["files"]):
            shared.add(old := path.parent / file["path"])
            file["path"] = f"{file['bucket']}/{Path(file['path']).stem.rpartition('-')[0]}-{number:05d}.parquet"
            _write_older(pq.read_table(old), weights.get(str(file["bucket"]), {}), folder / file["path"])
            file |= _content(folder / file["path"])
        write_json(folder / "manifest.json", manifest)
        record = workspace / "snapshots" / path.name
        value = read_json(record) | {"manifest": f"shards/{path.stem}/manifest.json"}
        write_json(record, value | {"manifest_sha256": file_digest(folder / "manifest.json")})
        discard(path)
    for path in shared:
        discard(path)
    write_json(workspace / "workspace.json", {"format": 3})


def _write_older(table: pa.Table, weights: dict[str, float], path: Path) -> None:
    weight = pa.array([weights.get(group, 1.0) for group in table["balance"].to_pylist()], pa.float64())
    place = table.schema.get_field_index("balance")
    older = table.set_column(place, "weight", weight).drop_columns(["made_from"])
    with replacing(path) as tmp:
        pq.write_table(older, tmp, row_group_size=ROW_GROUP)


def _content(path: Path) -> dict[str, Any]:
    return {"sha256": file_digest(path), "bytes": path.stat().st_size}
