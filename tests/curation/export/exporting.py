"""A snapshot to export: two layouts and edit pairs, three licences, a second kind of caption for every other row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from curation.export.export import export_shards
from curation.export.exported import Exported
from curation.export.request import request
from flywheel.core.files import file_digest, write_json, write_parquet
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import ROW_GROUP, SHARD
from flywheel.core.workspace import Workspace
from tests.training.snapshots import card_rows

ROWS = 150  # of each shard file
LICENCES = ("CC0-1.0", None, "CC-BY-4.0")
SNAPSHOT = "5eed"


def snapshot(root: Path) -> Workspace:
    """A workspace with one snapshot of three shard files."""
    workspace, files = Workspace(root / "w"), []
    folder = workspace.shard_manifest(SNAPSHOT).parent
    for number, (task, size) in enumerate([("t2i", (64, 64)), ("t2i", (96, 48)), ("ti2i", (64, 64))]):
        rows = [_complete(r, n, size) for n, r in enumerate(card_rows(ROWS, task=task, size=size, seed=number))]
        path = folder / "64" / f"{number}.parquet"
        write_parquet(path, pa.Table.from_pylist(rows, schema=SHARD), row_group_size=ROW_GROUP)
        shape = {"bucket": 64, "width": size[0], "height": size[1], "task": task, "references": int(task == "ti2i")}
        place = {"path": f"64/{number}.parquet", "sha256": file_digest(path), "bytes": path.stat().st_size}
        files.append(ShardFile(rows=ROWS, stages=("S1", "S2"), **shape, **place))
    Manifest(snapshot=SNAPSHOT, files=tuple(files)).write(workspace.shard_manifest(SNAPSHOT))
    counts = {"input": 500, "admitted": 450}
    write_json(workspace.snapshot(SNAPSHOT), {"policy": "mine", "policy_sha256": "f00", "counts": counts})
    funnel = {"stage": ["S2"], "bucket": [64], "filter": ["entropy|x"], "status": ["applied"]}
    write_parquet(
        workspace.snapshot(SNAPSHOT, "funnel"),
        pa.table(funnel | {"entered": [500], "dropped": [50], "quarantined": [0]}),
    )
    return workspace


def _complete(row: dict, number: int, size: tuple[int, int]) -> dict:
    captions = [{"kind": "general", "text": row["caption"], "origin": "source"}]
    if number % 2:
        captions.append({"kind": "knowledge", "text": f"known: {row['caption']}", "origin": "model@1"})
    sizes = {"width": size[0], "height": size[1], "source_width": 2000, "source_height": 1000}
    stated = {"license": LICENCES[number % 3], "source_url": f"https://a.example/{number}"}
    return row | sizes | stated | {"stream": row["task"], "captions": captions}


def export(workspace: Workspace, format: str, folder: Path, **options: object) -> Exported:
    """Export it in several parts."""
    wanted = {"snapshot": SNAPSHOT, "part_bytes": 40_000} | options
    return export_shards(workspace, *request(workspace, format=format, **wanted), folder)  # type: ignore[arg-type]


def peer(code: str, folder: Path) -> str:
    """Output of a program that another project's user would write: it runs in the folder, without our code."""
    quiet = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hub"), "TQDM_DISABLE": "1"}
    out = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=quiet)
    assert out.returncode == 0, out.stderr[-2000:]
    return out.stdout
