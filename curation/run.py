"""Curate: score what is not scored yet, judge, shard, and pin the result as a snapshot. Safe to run again."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from curation.decide.explain import explain
from curation.decide.judge import Judged, judge, verdicts
from curation.decide.judging import HeldOut, Look
from curation.policy.policy import Policy
from curation.scorers import Unavailable, is_configured, load, scoring
from curation.scorers.stored import mark_unusable
from curation.scorers.table import missing_tables, tables
from curation.shards import writer as shards
from curation.shards.plan import Plan, planned
from curation.shards.rows import Faults
from curation.sources import pool
from flywheel.core import weights
from flywheel.core.cluster import cluster
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, read_json, replacing, write_json, write_parquet
from flywheel.core.progress import plain_step
from flywheel.core.scorer import Scorer, full_version
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace

__all__ = ["Curated", "curate", "explain", "funnel"]

ALWAYS = ("header", "pixels", "text")  # cheap, and needed by deduplication, decontamination and analysts
FEW = 16_384  # new pictures up to which local processes take the place of Ray, whose processes cost as much as 500
_FORMAT = 6  # raised when equal inputs would give other decisions or other shard bytes

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Curated:
    """A snapshot: its id, its shard manifest, and counts with input = admitted + dropped + quarantined."""

    snapshot: str
    manifest: str
    input: int
    admitted: int
    dropped: int
    quarantined: int
    funnel: tuple[dict[str, Any], ...]
    not_configured: tuple[str, ...]
    uncaptioned: int = 0  # rows of the pool without a caption


@dataclass(frozen=True)
class StageReport:
    """The work of one stage: its funnel, what trains on it, and the shard files written for it.

    rows: {bucket: rows that the stage trains on}. files: shard files that begin with this stage; written: those that
    were missing; later stages read them too. faults: rows that cannot be made into training rows.
    """

    stage: str
    funnel: tuple[Mapping[str, Any], ...]
    rows: Mapping[int, int]
    files: int
    written: int
    faults: Faults

    @property
    def line(self) -> str:
        """The stage in one line."""
        trains = ", ".join(f"{count} rows at {bucket}" for bucket, count in self.rows.items()) or "no rows"
        return f"{self.stage}: {self.entered} enter, {self.dropped} stopped; trains on {trains}"

    @property
    def entered(self) -> int:
        """Rows that reach the stage's first filter, over its buckets."""
        first = {row["bucket"]: row["entered"] for row in reversed(self.funnel)}
        return sum(first.values())

    @property
    def dropped(self) -> int:
        """Rows that its filters stop, over its buckets."""
        return sum(row["dropped"] for row in self.funnel)


def curate(
    workspace: Workspace,
    policy: Policy,
    *,
    held_out: frozenset[str] = frozenset(),
    exclude_prompts: frozenset[str] = frozenset(),
    looks: frozenset[Look] = frozenset(),
    captioned: bool = False,
    progress: Progress | None = None,
    workers: int = 2,
    step: Callable[..., Any] = plain_step,
) -> Curated:
    """Apply `policy` to the pool and write the admitted samples as shards.

    held_out: ids of samples or images reserved for evaluation; they, their edit pairs and anything that resembles them
    never reach a shard. exclude_prompts: evaluation prompts; samples with such a caption never reach one either.
    looks: of evaluation pictures that need not be in the pool; what resembles one never reaches a shard either.
    captioned: rows without a caption never reach one either; filters of captions let them pass.
    step: calls a stage's work as `step(stage, function, *arguments)`, which returns a `StageReport`.
    Equal pool, policy and scorer versions give the same snapshot id and equal bytes; a finished snapshot is only looked
    up. Errors: `UsageError` when nothing was ingested.
    """
    content = pool.shards(workspace)
    if not workspace.batches():
        raise UsageError(f"the pool of {workspace.root} is empty: ingest a source first")
    scorers, reasons = configure(policy, weights.obtain(policy.scorer_values(), progress))
    versions = {name: full_version(scorer) for name, scorer in scorers.items()}
    uncaptioned = pool.uncaptioned(workspace)
    withheld = HeldOut(held_out, frozenset(normalise(p) for p in exclude_prompts), looks, captioned and uncaptioned > 0)
    snapshot = digest(
        _FORMAT,
        [(s.sha256, [p.name for p in s.captions]) for s in content],
        [pool.manifest(b)["quarantined"] for b in workspace.batches()],
        policy.sha256,
        versions,
        sorted(withheld.ids),
        sorted(withheld.prompts),
        *sorted(withheld.looks),
        *(["captioned"] if withheld.captioned else []),
    )[:16]
    record = workspace.snapshot(snapshot)
    if not record.exists():
        with scored(workspace, policy, progress=progress, workers=workers):
            judged, manifest = _sharded(workspace, snapshot, policy, scorers, withheld, progress, workers, step)
        _commit(workspace, snapshot, policy, withheld, judged, manifest, versions, reasons, uncaptioned)
    elif missing_tables(workspace, scorers):  # someone removed them, as they may
        with scored(workspace, policy, progress=progress, workers=workers):
            tables(workspace, scorers)
    return _read(workspace, record)


@contextmanager
def scored(
    workspace: Workspace, policy: Policy, *, progress: Progress | None = None, workers: int = 2
) -> Iterator[None]:
    """Score what is not scored yet; a `curate` inside the context uses the same Ray."""
    scorers, _ = configure(policy, weights.obtain(policy.scorer_values(), progress))
    options = {name: policy.scorers.get(name, {}) for name in scorers}
    waiting = sum(shard.rows for shard, _ in scoring.pending(workspace, options))
    with _workers(workers, waiting) if waiting else nullcontext():
        scoring.score(workspace, options, progress=progress, workers=workers)
        yield


def _workers(count: int, pictures: int) -> AbstractContextManager[None]:
    """The workers for so many new pictures."""
    return cluster(count, few=pictures <= FEW, ready="curation.ready")


def _sharded(
    workspace: Workspace,
    snapshot: str,
    policy: Policy,
    scorers: Mapping[str, Scorer],
    withheld: HeldOut,
    progress: Progress | None,
    workers: int,
    step: Callable[..., Any],
) -> tuple[Judged, Path]:
    """Judge the pool and write the shards of what it admits: the decisions, and the manifest's path."""
    outdated: set[str] = set()
    while True:
        judged = judge(workspace, policy, scorers, withheld)
        with planned(workspace, judged.path("admitted")) as plan:
            with _workers(workers, plan.encodes) if plan.missing else nullcontext():  # one for all stages
                arguments = (workspace, judged, plan, progress, workers)
                reports = [step(s.name, curate_stage, s.name, *arguments) for s in policy.stages]
            faults = {place: why for report in reports for place, why in report.faults.items()}
            if not faults:
                manifest = shards.write_manifest(workspace, snapshot, policy, plan)
                shards.discard_files(workspace, sorted(outdated))
                return judged, manifest
            outdated |= set(plan.missing)
        # Judge again without these rows: one of their duplicates may now be admitted.
        mark_unusable(workspace, scorers["pixels"], faults)


def curate_stage(
    stage: str, workspace: Workspace, judged: Judged, plan: Plan, progress: Progress | None, workers: int
) -> StageReport:
    """Write the shard files of the rows that enter training at this stage; later stages share them."""
    own = [f for f in plan.files if f.stages[0] == stage]
    rows: Counter[int] = Counter()
    for file in plan.files:
        if stage in file.stages:
            rows[file.bucket] += file.rows
    written, faults = shards.write_files(workspace, plan, own, progress=progress, workers=workers)
    funnel_ = tuple(r for r in judged.funnel.to_pylist() if r["stage"] == stage)
    return StageReport(stage, funnel_, dict(sorted(rows.items())), len(own), written, faults)


def configure(
    policy: Policy, unreachable: Mapping[object, str] = MappingProxyType({})
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """(scorers that can run, reason why each of the others cannot), by name.

    unreachable: reason for each `weights:NAME` that could not be fetched.
    """
    scorers: dict[str, Scorer] = {}
    reasons: dict[str, str] = {}
    for name in dict.fromkeys((*ALWAYS, *policy.scorer_names())):
        options = policy.scorers.get(name, {})
        if not is_configured(name, options):
            reasons[name] = f"{name} is not configured: fill in [scorers.{name}] of the policy"
            continue
        try:
            scorers[name] = load(name, **options)
        except Unavailable as error:
            reasons[name] = next((unreachable[v] for v in options.values() if v in unreachable), str(error))
    return scorers, reasons


def funnel(workspace: Workspace, policy: Policy, held_out: HeldOut = HeldOut()) -> list[dict[str, Any]]:
    """What `policy` would do to the scored pool, filter by filter, without reading an image.

    Errors: `UsageError` where a score file is missing.
    """
    return verdicts(workspace, policy, configure(policy)[0], held_out).funnel.to_pylist()


def _commit(
    workspace: Workspace,
    snapshot: str,
    policy: Policy,
    held_out: HeldOut,
    judged: Judged,
    manifest: Path,
    versions: Mapping[str, str],
    reasons: Mapping[str, str],
    uncaptioned: int,
) -> None:
    """Write the snapshot's tables, then its record: a snapshot exists as soon as its record does."""
    counts = judged.counts
    if counts["input"] != _inputs(workspace):
        raise AssertionError(f"{_inputs(workspace)} inputs, but {counts}: rows were lost or doubled")
    folder = workspace.path("snapshots", snapshot)
    for name in ("decisions", "stages"):
        with replacing(folder / f"{name}.parquet") as tmp:
            shutil.copyfile(judged.path(name), tmp)
    for name in ("funnel", "quarantine"):
        write_parquet(folder / f"{name}.parquet", getattr(judged, name))
    write_json(folder / "policy.json", policy.record())
    write_json(folder / "evaluation.json", held_out.record())
    write_json(
        workspace.snapshot(snapshot),
        {
            "snapshot": snapshot,
            "policy": policy.name,
            "policy_sha256": policy.sha256,
            "scorers": dict(versions),
            "not_configured": dict(reasons),
            "uncaptioned": uncaptioned,
            "batches": [batch.name for batch in workspace.batches()],
            "pool": [
                {"shard": s.key, "rows": s.rows, "sha256": s.sha256, "texts": s.texts} for s in pool.shards(workspace)
            ],
            "manifest": str(manifest.relative_to(workspace.root)),
            "manifest_sha256": file_digest(manifest),
            "files": {path.name: file_digest(path) for path in sorted(folder.glob("[!.]*"))},
            "counts": dict(counts),
            "funnel": judged.funnel.to_pylist(),
        },
    )


def _inputs(workspace: Workspace) -> int:
    """Number of inputs counted in the pool's manifests."""
    return sum(m["rows"] + m["quarantined"] for m in map(pool.manifest, workspace.batches()))


def _read(workspace: Workspace, record: Path) -> Curated:
    value = read_json(record)
    return Curated(
        snapshot=value["snapshot"],
        manifest=str(workspace.path(value["manifest"])),
        **value["counts"],
        funnel=tuple(value["funnel"]),
        not_configured=tuple(f"{name}: {reason}" for name, reason in value["not_configured"].items()),
        uncaptioned=value.get("uncaptioned", 0),
    )
