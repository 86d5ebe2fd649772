"""Small shard snapshots: cards with one coloured disc, and edit pairs that recolour it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from flywheel.core.files import file_digest, write_json, write_parquet
from flywheel.core.schema import SHARD

COLORS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220)}
PLACES = {"left": 0.27, "right": 0.73}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def disc(color: str, place: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, (250, 250, 245))
    x, y, r = PLACES[place] * width, height / 2, min(size) * 0.2
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=COLORS[color])
    return image


def card_rows(count: int, *, task: str = "t2i", size=(64, 64), slice_="base", seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        color, before = rng.choice(list(COLORS), 2, replace=False)
        place = rng.choice(list(PLACES))
        edit = task == "ti2i"
        rows.append(
            {
                "sample_id": f"{task}-{slice_}-{seed}-{i}",
                "task": task,
                "caption": f"make the disc {color}" if edit else f"a {color} disc at the {place}",
                "image": png(disc(color, place, size)),
                "references": [png(disc(before, place, size))] if edit else [],
                "slice": slice_ if isinstance(slice_, str) else slice_[i % len(slice_)],
            }
        )
    return rows


def write_snapshot(folder: Path, files: list[dict], balanced: tuple[str, ...] = (), *, older: bool = False) -> Path:
    """Write shards and their manifest; each of `files`: rows, task, bucket, size (width, height), stages.

    `balanced`: stages that draw rows by their weight. `older`: weights are in the shards, as in workspaces of format 3.
    """
    entries, weights = [], dict[str, dict[str, float]]()
    schema = SHARD.append(pa.field("weight", pa.float64())) if older else SHARD
    for number, file in enumerate(files):
        path, bucket = folder / f"{number:05d}.parquet", file.get("bucket", 64)
        rows = [row | ({"balance": str(row["weight"])} if "weight" in row else {}) for row in file["rows"]]
        weights.setdefault(str(bucket), {}).update({row["balance"]: row["weight"] for row in rows if "balance" in row})
        write_parquet(path, pa.Table.from_pylist(rows, schema=schema), row_group_size=64)
        width, height = file.get("size", (64, 64))
        entries.append(
            {
                "path": path.name,
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
                "rows": len(file["rows"]),
                "stages": file.get("stages", ["S1", "S2"]),
                "bucket": bucket,
                "width": width,
                "height": height,
                "task": file["rows"][0]["task"],
                "references": len(file["rows"][0]["references"]),
                "least_weight": min(row.get("weight", 1.0) for row in file["rows"]),
            }
        )
    manifest = folder / "manifest.json"
    content = {"snapshot": "test", "policy": "test", "files": entries, "balanced": list(balanced)}
    write_json(manifest, content | ({} if older else {"weights": weights}))
    return manifest
