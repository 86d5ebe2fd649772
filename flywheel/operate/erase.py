"""Erase pictures from a workspace: every file that was made of them is rewritten or removed, and they never come back.

An erasure first writes its journal and its tombstone, then rewrites. Every step finds out by itself whether it was
done, so an interrupted erasure is completed by running it again.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.decide.judging import HeldOut
from curation.export.export import again
from curation.sources.files import state
from curation.sources.mix import separators
from flywheel.catalog.lineage import checkpoints_of
from flywheel.core.erased import unfinished
from flywheel.core.errors import UsageError
from flywheel.core.exports import SHARDS, TABLES, remembered
from flywheel.core.files import digest, discard, file_digest, read_json, write_json
from flywheel.core.ledger import Ledger
from flywheel.core.mirror import mirror
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.storage import readable, remote
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace
from flywheel.operate import erase_fetched, erase_played, erase_suite
from flywheel.operate.rewriting import renumbered, rewrite, unnamed
from flywheel.operate.victims import find, looks_of, loose_files, near_duplicates, trace, without
from flywheel.remedies.review import Queue
from flywheel.rounds.lease import running

Progress = Callable[[int, int, str], None]
_PLACED = ("decisions", "stages")  # tables of a snapshot that name rows of the pool by number


@dataclass(frozen=True)
class Erased:
    """What an erasure did. exports: written again or removed; unreached: exports on other machines or moved away.

    near_duplicates: pictures that look like an erased one and stay. sources: files of sources that still hold one.
    played: pictures of the playground that showed one.
    """

    erasure: str
    images: tuple[str, ...]
    rows: int
    samples: int
    rewritten: int
    removed: int
    prompts: tuple[str, ...]
    checkpoints: tuple[str, ...]
    exports: tuple[str, ...]
    unreached: tuple[str, ...]
    near_duplicates: tuple[str, ...]
    sources: tuple[str, ...]
    played: tuple[str, ...]


def erase(
    workspace: Workspace,
    names: Sequence[str],
    *,
    by: str,
    why: str,
    force: bool = False,
    duplicates: bool = False,
    progress: Progress | None = None,
) -> list[Erased]:
    """Complete interrupted erasures, then erase the pictures that the names mean; one result for each erasure.

    force: also those of the held-out suite, whose prompts then go. duplicates: near-duplicates go too. Errors:
    `UsageError` before anything is changed: unknown names, a run at work, pictures of the suite without force.
    """
    if (row := running(workspace)) is not None:
        raise UsageError(f"a run is working on this workspace (process {row['pid']} on {row['host']}): stop it first")
    results = [_complete(workspace, journal, progress) for journal in unfinished(workspace)]
    if names:
        if blank(by) or blank(why):
            raise UsageError("name yourself and the reason: --by NAME --why TEXT")
        results.append(_complete(workspace, _begin(workspace, names, by, why, force, duplicates), progress))
    elif not results:
        raise UsageError("name what to erase: ids, files or addresses, or --from FILE with one a line")
    return results


def _begin(
    workspace: Workspace, names: Sequence[str], by: str, why: str, force: bool, duplicates: bool
) -> dict[str, Any]:
    """Find everything, then write the journal and the tombstone; nothing is removed yet."""
    meant = erase_played.meant(workspace, names)
    victims = find(workspace, meant, erase_fetched.images(workspace, meant), duplicates=duplicates)
    victims.fetched = erase_fetched.holding(workspace, victims)
    prompts, looks = erase_suite.prompts_of(workspace, victims), looks_of(workspace, victims)
    if prompts and not force:
        raise UsageError(
            f"the held-out suite shows what is to be erased (prompts {', '.join(prompts)}): without them, later rounds"
            " are judged by another suite than earlier ones; pass --force to erase them from the suite too"
        )
    looks = erase_played.looks_of(workspace, victims.images) | looks
    trace(workspace, victims, looks)
    played = erase_played.find(workspace, looks, victims.images)
    for name, because in played.items():
        victims.blobs.setdefault(because, set()).update(erase_played.blobs(workspace, [name]))
    journal = {
        "by": by,
        "why": why,
        "asked": list(names),
        "images": list(victims.images),
        "samples": victims.samples,
        "uris": victims.uris,
        "removed": victims.removed,
        "files": {name: file_digest(workspace.path(name)) for name in victims.files},
        "items": sorted(i for i, x in Queue(workspace).items().items() if x.sample_id in victims.samples),
        "prompts": prompts,
        "played": sorted(played),
        "played_prompts": erase_played.prompts_of(workspace, played),
        "looks": HeldOut(looks=frozenset(looks.values())).record().get("looks", []),
        "checkpoints": checkpoints_of(workspace, set(victims.samples)),
        "near": near_duplicates(workspace, victims.images),
        "rows": len(victims.rows),
        "at": datetime.now(UTC).isoformat(),
        "finished": False,
    }
    blobs = {i: sorted(victims.blobs.get(i, ())) for i in victims.images}
    journal |= {"id": digest(journal["images"], journal["at"])[:16], "blobs": blobs}
    write_json(workspace.path("erasures", f"{journal['id']}.json"), journal)
    return journal


def _bury(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Write the tombstones, once."""
    samples: dict[str, list[str]] = {}
    for sample, image in journal["samples"].items():
        samples.setdefault(image, []).append(sample)
    common = {"erasure": journal["id"], "asked": json.dumps(journal["asked"], ensure_ascii=False)}
    common |= {k: journal[k] for k in ("by", "why", "checkpoints")}
    rows = [
        common
        | {"erasure_id": digest(journal["id"], image)[:16], "image_id": image}
        | {"sample_ids": sorted(samples.get(image, ())), "blobs": journal["blobs"][image]}
        for image in journal["images"]
    ]
    Ledger(workspace, "erasures").append(rows, key=f"erasure/{journal['id']}")


def _complete(workspace: Workspace, journal: dict[str, Any], progress: Progress | None) -> Erased:
    """Do what the journal says, from wherever it stands."""
    _bury(workspace, journal)
    steps: list[Callable[[Workspace, Mapping[str, Any]], Any]] = [
        _rewrite_tables,
        _renumber_snapshots,
        _drop_derived,
        _relist_pool,
        _relist_shards,
        _relist_snapshots,
        erase_suite.erase,
        erase_played.erase,
        _drop_pictures,
        _redact_ledgers,
        _drop_copies,
    ]
    for done, step in enumerate(steps, 1):
        step(workspace, journal)
        if progress:
            progress(done, len(steps) + 1, step.__name__.strip("_").replace("_", " "))
    exports, unreached = _exports(workspace, journal)
    write_json(
        workspace.path("erasures", f"{journal['id']}.json"), journal | {"finished": True, "uris": [], "looks": []}
    )
    return Erased(
        erasure=journal["id"],
        images=tuple(journal["images"]),
        rows=journal["rows"],
        samples=len(journal["samples"]),
        rewritten=len(journal["files"]),
        removed=len(journal["items"]) + len(journal["prompts"]),
        prompts=tuple(journal["prompts"]),
        checkpoints=tuple(journal["checkpoints"]),
        exports=tuple(exports),
        unreached=tuple(unreached),
        near_duplicates=tuple(journal["near"]),
        sources=tuple(filter(_is_there, journal["uris"])),
        played=tuple(journal.get("played", ())),
    )


def _is_there(uri: str) -> bool:
    """Whether an input, or the container that holds it, is still at its source; URLs of others are not asked."""
    if uri.startswith(("http://", "https://")):
        return False
    with suppress(UsageError):  # a server that does not answer
        return any(state(uri[:end]).fault is None for end in (len(uri), *separators(uri)))
    return False


# Tables --------------------------------------------------------------------------------------------------------------
def _rewrite_tables(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Every Parquet file without the rows that go; scores are numbered through again."""
    for name in journal["files"]:
        path = workspace.path(name)
        if path.exists():
            rewrite(path, journal["id"], _Change(workspace, path, journal))


class _Change:
    """What an erasure changes in the row groups of a file, in order."""

    def __init__(self, workspace: Workspace, path: Path, journal: Mapping[str, Any]) -> None:
        names = pq.read_schema(readable(path)).names
        self.key = next(n for n in ("sample_id", "uri", "source_uri") if n in names)
        self.gone = list(journal["samples"]) if self.key == "sample_id" else journal["uris"]
        folder = path.relative_to(workspace.root).parts[0]
        self.scores, self.placed = folder == "scores", folder == "snapshots" and path.stem in _PLACED
        self.removed, self.rows = journal["removed"], 0

    def __call__(self, group: pa.Table) -> pa.Table:
        group = without(group, self.key, self.gone)
        if self.scores:
            numbers = pa.array(range(self.rows, self.rows + group.num_rows), pa.int32())
            group = group.set_column(group.schema.get_field_index("row"), group.schema.field("row"), numbers)
            self.rows += group.num_rows
        if self.placed:
            group = unnamed(renumbered(group, self.removed), self.gone)
        return group


def _renumber_snapshots(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Tables of snapshots that name rows behind the removed ones by number."""
    for record in workspace.snapshots():
        if {s["shard"] for s in read_json(record)["pool"]} & journal["removed"].keys():
            for name in _PLACED:
                path = workspace.snapshot(record.stem, name)
                rewrite(path, journal["id"], _Change(workspace, path, journal))


def _drop_derived(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """What is derived from the pool and written again when it is missing, and what shows many pictures on one page."""
    drop = list(workspace.path("tables").glob("*.parquet"))
    drop += [workspace.report, *workspace.path("exports").glob("*.duckdb")]
    drop += [*workspace.path("derived").glob("cases-*.parquet"), *workspace.path("derived").glob("maps/*/*.parquet")]
    sums = set(journal["files"].values())
    drop += [p for p in workspace.root.rglob("*.arrow") if p.stem in sums]  # latents of a shard, named by its hash
    for path in drop:
        discard(path)


# Manifests -----------------------------------------------------------------------------------------------------------
def _relist_pool(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    for batch in {workspace.path(name).parent for name in journal["files"] if name.startswith("pool/")}:
        path = batch / "manifest.json"
        if not path.exists():
            continue  # an unfinished batch: ingest lists its shards
        manifest = read_json(path)
        for shard in manifest["shards"]:
            file = batch / shard["path"]
            if workspace.relative(file) in journal["files"]:
                shard |= {"rows": _rows(file), "bytes": file.stat().st_size, "sha256": file_digest(file)}
        manifest["rows"] = sum(s["rows"] for s in manifest["shards"])
        manifest["quarantined"] = _rows(batch / "quarantine.parquet")
        write_json(path, manifest)


def _relist_shards(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    empty: set[Path] = set()
    for path in workspace.shard_manifests():
        manifest = Manifest.read(path)
        files = [_relisted(workspace, path.parent, f, journal) for f in manifest.files]
        if tuple(files) != manifest.files:
            value = {k: v for k, v in vars(manifest).items() if k != "files"}
            Manifest(files=tuple(f for f in files if f.rows), **value).write(path)
        empty |= {path.parent / f.path for f in files if not f.rows}
    for path in sorted(empty):  # last: several snapshots may share a file
        discard(path)


def _relisted(workspace: Workspace, folder: Path, file: ShardFile, journal: Mapping[str, Any]) -> ShardFile:
    path = folder / file.path
    if workspace.relative(path) not in journal["files"] or not path.exists():
        return file
    return ShardFile(**vars(file) | {"rows": _rows(path), "bytes": path.stat().st_size, "sha256": file_digest(path)})


def _relist_snapshots(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Records of snapshots: hashes and counts of what they are now."""
    shards = {
        f"{m.parent.name}-{Path(s['path']).stem}": s
        for m in workspace.path("pool").glob("*/manifest.json")
        for s in read_json(m)["shards"]
    }
    for path in workspace.snapshots():
        record, folder = read_json(path), path.with_suffix("")
        erase_suite.forget(folder / "evaluation.json", journal)
        for entry in record["pool"]:
            if entry["shard"] in journal["removed"] and (now := shards.get(entry["shard"])):
                entry |= {"rows": now["rows"], "sha256": now["sha256"]}
        outcomes = pq.read_table(readable(folder / "decisions.parquet"), columns=["outcome"])["outcome"]
        counts = {o: pc.sum(pc.equal(outcomes, o)).as_py() or 0 for o in ("admitted", "dropped")}
        counts["quarantined"] = _rows(folder / "quarantine.parquet")
        changed = {
            "counts": counts | {"input": sum(counts.values())},
            "files": {name: file_digest(folder / name) for name in record["files"]},
            "manifest_sha256": file_digest(workspace.path(record["manifest"])),
        }
        if record | changed != read_json(path):
            write_json(path, record | changed)


def _rows(path: Path) -> int:
    return pq.read_metadata(readable(path)).num_rows


# Pictures, ledgers, copies -------------------------------------------------------------------------------------------
def _drop_pictures(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Picture files of the review queue, and every file whose bytes are those of an erased picture."""
    for folder in workspace.remedies():
        for item in journal["items"]:
            for path in folder.glob(f"review/{item}*.png"):
                discard(path)
    blobs = {b for found in journal["blobs"].values() for b in found} | set(journal["images"])
    for path in loose_files(workspace):
        if file_digest(path) in blobs:
            discard(path)


def _redact_ledgers(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Captions of reviewed samples, and prompts of suite and playground that go: events stay, without their texts."""
    prompts = [*journal["prompts"], *journal.get("played_prompts", ())]
    texts: dict[str, tuple[str, list[str], tuple[str, ...]]] = {"reviews": ("item", journal["items"], ("caption",))}
    texts |= {"signals": ("prompt_id", prompts, ("prompt", "evidence"))}
    texts |= {"case_events": ("prompt_id", prompts, ("prompt",)), "probes": ("prompt_id", prompts, ("enhanced",))}
    for name, (key, values, columns) in texts.items():
        if values:
            Ledger(workspace, name).redact(partial(_blank, key=key, values=values, columns=columns))


def _blank(table: pa.Table, key: str, values: Iterable[str], columns: Sequence[str]) -> pa.Table:
    """The table with empty texts in these columns of the rows whose key is one of the values."""
    here = pc.is_in(table[key].cast(pa.string()), value_set=pa.array(list(values), pa.string()))
    for name in columns:
        place = table.schema.get_field_index(name)
        empty = pa.scalar("{}" if name == "evidence" else "", table.schema.field(name).type)
        kept = pc.if_else(pc.and_(here, pc.is_valid(table[name])), empty, table[name])
        table = table.set_column(place, table.schema.field(name), kept)
    return table


def _drop_copies(workspace: Workspace, journal: Mapping[str, Any]) -> None:
    """Copies on this machine of files on S3 that were rewritten, and temporary files of killed writers."""
    workspace.sweep()
    if remote(workspace.root):
        for name in journal["files"]:
            mirror(workspace.path(name)).unlink(missing_ok=True)


def _exports(workspace: Workspace, journal: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(exports that were written again or removed, exports that hold pictures and are out of reach)."""
    shards = {name for name in journal["files"] if name.startswith(("shards/", "remedies/"))}
    reached, unreached = [], []
    for kind in (SHARDS, TABLES):
        for place, host in remembered(workspace, kind):
            if host != socket.gethostname() or not place.exists():
                if shards or kind == TABLES:
                    unreached.append(f"{place} on {host}")
            elif kind == TABLES:
                discard(place)
                reached.append(str(place))
            elif shards and _export_again(workspace, place, shards):
                reached.append(str(place))
    return reached, unreached


def _export_again(workspace: Workspace, place: Path, shards: set[str]) -> int:
    with suppress(UsageError):  # nothing is left of it
        return again(workspace, place, shards)
    return 1
