"""The dashboard's map over a large pool: time and weight of its first page, its picture, a part,
a lasso of 60 corners, and the browser of both.

python benchmarks/map_page.py [--rows 1000000] [--cases 100000] [--keep FOLDER]

The places and decisions are made up; the pages, views and pictures are the dashboard's own. Goals: a first page in
1 s and of 1.5 MB, with its picture. `_cpu_s` depends less on what else the machine does. placing_s: `place` of as many
vectors of 384 numbers among 4,000 landmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from starlette.testclient import TestClient

from dashboards.app import create_app
from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.remedies.pool_map import LANDMARKS, place


def fill(workspace: Workspace, rows: int, cases: int) -> None:
    """A snapshot of that many decided rows, and as many points in clumps; one case in ten rows of events."""
    rng = np.random.default_rng(0)
    ids = pa.array([f"{n:064x}" for n in range(rows)])
    clumps = rng.uniform(-1, 1, (60, 2))
    xy = (clumps[rng.integers(60, size=rows)] + 0.06 * rng.standard_normal((rows, 2))).astype(np.float32)
    kept = rng.random(rows) < 0.8
    decided = {
        "sample_id": ids,
        "source_uri": pa.array([f"{n}.jpg" for n in range(rows)]),
        "stage_reached": pa.array(np.where(kept, rng.choice(["S2", "S3", "S4", "S5", "S6"], rows), "S1")),
        "outcome": pa.array(np.where(kept, "admitted", "dropped")),
        **{name: pa.nulls(rows, pa.string()) for name in ("filter", "survivor", "survivor_uri")},
        **{name: pa.nulls(rows, pa.float64()) for name in ("score", "threshold")},
        "shard": pa.array(["none"] * rows),
        "row": pa.array(np.zeros(rows, np.int32)),
    }
    write_parquet(workspace.snapshot("s", "decisions"), pa.table(decided))
    write_json(workspace.snapshot("s"), {"batches": [], "pool": [], "scorers": {}})
    counts = {"input": rows, "admitted": int(kept.sum()), "dropped": int((~kept).sum()), "quarantined": 0}
    Ledger(workspace, "snapshots").append([{"snapshot": "s", "policy": "none", "manifest": "m"} | counts], key="s")
    folder = workspace.path("derived", "maps", f"{rows:09d}-00000000")
    write_parquet(folder / "landmarks.parquet", pa.table({"x": xy[:1, 0], "y": xy[:1, 1]}))
    none = pa.nulls(rows, pa.string())
    points = {"sample_id": ids, "case_id": none, "x": xy[:, 0], "y": xy[:, 1]}
    write_parquet(folder / "samples-0.parquet", pa.table(points))
    names = [f"{n:016x}" for n in range(cases)]
    places = {"x": xy[:cases, 0], "y": xy[:cases, 1]}
    write_parquet(folder / "cases.parquet", pa.table({"sample_id": none[:cases], "case_id": pa.array(names), **places}))
    tracks = rng.choice(["rl", "pretraining", "human"], cases).tolist()
    events = [
        {"event_id": f"{i}-{kind}", "case_id": i, "round": 1, "kind": kind, "capability": "count", "track": track,
         "prompt_id": i, "prompt": f"prompt {i}", "evidence": "{}"}
        for i, track in zip(names, tracks) for kind in ("detected", "routed")
    ]  # fmt: skip
    Ledger(workspace, "case_events").append(events, key="cases")


def main() -> None:
    """Fill a workspace, visit the map, print the object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(args.keep or Path(folder, "w"))
        if not workspace.path("derived", "maps").exists():
            fill(workspace, args.rows, args.cases)
        figures: dict[str, float] = {"rows": args.rows, "cases": args.cases}
        with TestClient(create_app(workspace), base_url="http://127.0.0.1") as visitor:
            box = "x0=-0.3&x1=-0.1&y0=-0.3&y1=-0.1"
            pages = {"first": "/map", "first_picture": "/map.png", "again": "/map", "again_picture": "/map.png"}
            pages |= {"part": f"/map?{box}", "part_picture": f"/map.png?{box}"}
            pages |= {"track": "/map?colour=track", "track_picture": "/map.png?colour=track"}
            pages |= {"browse": "/samples?within=-0.3,-0.1,-0.3,-0.1"}
            around = "+".join(f"{0.8 * math.cos(k / 10):.4f},{0.8 * math.sin(k / 10):.4f}" for k in range(60))
            pages |= {"lasso": f"/map?within={around}", "browse_lasso": f"/samples?within={around}"}
            for name, path in pages.items():
                began, spent = time.perf_counter(), time.process_time()
                answer = visitor.get(path)
                figures[f"{name}_s"] = round(time.perf_counter() - began, 2)
                figures[f"{name}_cpu_s"] = round(time.process_time() - spent, 2)
                figures[f"{name}_bytes"] = len(answer.content)
                assert answer.status_code == 200, (path, answer.text[:200])
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((min(args.rows, 65_536), 384), dtype=np.float32)
    marks, plane = vectors[:LANDMARKS], rng.random((LANDMARKS, 2), np.float32)
    began = time.perf_counter()
    place(vectors, marks, plane)
    figures["placing_s"] = round((time.perf_counter() - began) * args.rows / len(vectors), 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
