"""Training shards: admitted samples, resized and encoded for their bucket, grouped by layout, pinned by a manifest.

A row is stored once per bucket: files group rows by bucket, layout and the set of stages that train on them. Snapshots
share the files that they have in common (`curation.shards.plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from curation.policy.policy import Policy
from curation.shards.plan import Plan, Planned, listed
from curation.shards.rows import Faults, Work, try_rows, write_file
from flywheel.core import hashes
from flywheel.core.cluster import cluster, run_all
from flywheel.core.errors import UsageError
from flywheel.core.files import discard, file_digest
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.workspace import Workspace

Progress = Callable[[int, int, str], None]


def write_files(
    workspace: Workspace, plan: Plan, files: Sequence[Planned], *, progress: Progress | None = None, workers: int = 2
) -> tuple[int, Faults]:
    """Write those of the files that are missing: (how many; rows that cannot be written, whose files stay absent)."""
    todo = [f for f in files if f.path in plan.missing]
    faults: Faults = {}
    if todo:
        folder = workspace.path("shards")
        with cluster(workers):
            calls = ((work,) for work in plan.work(folder, todo))
            for done, (index, outcome) in enumerate(run_all(write_file, calls), 1):
                if isinstance(outcome, Exception):
                    outcome = _killers(next(plan.work(folder, [todo[index]])))
                faults |= outcome
                if progress:
                    progress(done, len(todo), "shard files written")
    return len(todo), faults


def write_manifest(workspace: Workspace, snapshot: str, policy: Policy, plan: Plan) -> Path:
    """Write the manifest of files that are all there; returns its path."""
    path = workspace.shard_manifest(snapshot)
    known, written = listed(path.parent), lru_cache(maxsize=None)(hashes.read)
    Manifest(
        snapshot=snapshot,
        policy=policy.name,
        policy_sha256=policy.sha256,
        files=tuple(_entry(path.parent / f.path, f, known.get(f.path), written) for f in plan.files),
        balanced=tuple(s.name for s in policy.stages if any(f.weighs for f in s.filters)),
        weights=plan.weights,
    ).write(path)
    return path


def _entry(path: Path, file: Planned, known: ShardFile | None, written: Callable[[Path], hashes.Records]) -> ShardFile:
    """The manifest's entry of a file: what another manifest or its writer has recorded about it is not read again."""
    if known is not None:
        size, sha256 = known.bytes, known.sha256
    elif (record := written(path.parent).newest.get(path.name)) and record.kind == hashes.FILE:
        size, sha256 = record.size, record.sha256
    else:
        size, sha256 = path.stat().st_size, file_digest(path)
    return ShardFile(**asdict(file), sha256=sha256, bytes=size)


def discard_files(workspace: Workspace, paths: Iterable[str]) -> None:
    """Remove those of the files that no manifest lists."""
    folder = workspace.path("shards")
    kept = listed(folder)
    for path in paths:
        if path not in kept:
            discard(folder / path)


def _killers(work: Work) -> Faults:
    """Some row of this file kills the process that resizes it: try each alone to find out which."""
    faults: Faults = {}
    places = list(zip(work.rows["shard"].to_pylist(), work.rows["row"].to_pylist(), strict=True))
    for index, outcome in run_all(try_rows, ((work.alone(n),) for n in range(len(places)))):
        died = {places[index]: "crashed the process that resizes and encodes it"}
        faults |= died if isinstance(outcome, Exception) else outcome
    if not faults:
        raise UsageError(
            f"the process that writes {work.path} was killed twice, and by none of its rows alone: free memory, then "
            "run the same command again; finished work is kept"
        )
    return faults
