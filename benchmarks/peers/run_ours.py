"""Ours: SCORERS (JSON: name → options) on WORKERS processes.

A folder of pictures is ingested, scored and searched for duplicates. A workspace, which is ingested already, is only
scored.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from marks import serve

from curation.decide.dedup import related
from curation.decide.thumbnails import Thumbnails
from curation.scorers.scoring import score
from curation.sources.ingest import ingest
from flywheel.core.cluster import cluster
from flywheel.core.workspace import Workspace


def duplicates(workspace):
    """Find the near pairs of the pool."""
    files = sorted(workspace.path("scores").glob("pixels@*/*.parquet"))
    if not files:
        return
    table = pq.read_table([str(f) for f in files], columns=["phash", "thumbnail"])
    colours = np.frombuffer(b"".join(table["thumbnail"].to_pylist()), np.uint8).reshape(len(table), -1)
    related(table["phash"].to_numpy(), Thumbnails.of(colours), np.zeros(len(table), np.int64), hamming=4, colour=24)


def run(folder):
    """Process every picture of a folder or workspace."""
    if Path(folder, "workspace.json").exists():
        shutil.rmtree(Path(folder, "scores"), ignore_errors=True)
        score(Workspace(folder), scorers, workers=workers)
        return
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace(scratch)
        ingest(workspace, Path(folder))
        score(workspace, scorers, workers=workers)
        duplicates(workspace)


scorers, workers = json.loads(sys.argv[1]), int(sys.argv[2])
with cluster(workers):
    serve(run, sys.argv[3:])
