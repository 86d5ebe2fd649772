"""Captions that a source brings later, or corrects: a new version of the text beside the pool, which never changes.

`captions/source/<version>/<pool shard>.<digest>.parquet` (see `curation.captioning.written`): the latest version of a
row's captions counts. Scorers that read captions score these shards again; no picture is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from curation.captioning.written import SOURCE, corrected, write_sidecar
from curation.sources import Input, pool
from flywheel.core.workspace import Workspace

Texts = tuple[tuple[str, str], ...]  # (kind, text), primary first


def corrections(workspace: Workspace, known: Iterable[tuple[Input, Texts]]) -> dict[str, Texts]:
    """URI → new captions of the T2I inputs whose captions are not those that are known. `known`: those of the plan.

    An input that comes without captions keeps what it has: its captions file may merely not be there this time.
    """
    taken = corrected_before(workspace)
    return {
        item.uri: item.captions
        for item, planned in known
        if item.task == "t2i" and item.captions and item.captions != taken.get(item.uri, planned)
    }


def corrected_before(workspace: Workspace) -> dict[str, Texts]:
    """URI → captions, where a source brought others before."""
    return {uri: _texts(captions) for uri, captions in corrected(_versions(workspace)).items()}


def take_up(workspace: Workspace, texts: Mapping[str, Texts], samples: Mapping[str, str] | None = None) -> int:
    """Record new captions by URI as the next version; returns how many rows of the pool have new ones.

    samples: URI → sample id of the row that is meant, where it is known; else the last row of that URI.
    """
    if not texts:
        return 0
    samples, places = samples or {}, dict[str, tuple[pool.Shard, str]]()
    for row in pool.rows_of(workspace, texts, "sample_id", "task"):
        if row["task"] == "t2i" and samples.get(row["source_uri"], row["sample_id"]) == row["sample_id"]:
            places[row["source_uri"]] = row["shard"], row["sample_id"]
    version = f"{1 + max((int(p.name) for p in _folders(workspace)), default=0):05d}"
    by_shard: dict[str, list[dict[str, str]]] = {}
    for uri, (shard, sample_id) in places.items():
        common = {"sample_id": sample_id, "use": SOURCE, "model": "", "prompt": version, "source_uri": uri}
        by_shard.setdefault(shard.key, []).extend(common | {"kind": k, "caption": t} for k, t in texts[uri])
    for key, rows in by_shard.items():
        write_sidecar(workspace.path("captions", SOURCE, version), key, rows)
    return len(places)


def _texts(captions: Sequence[Mapping[str, str]]) -> Texts:
    return tuple((c["kind"], c["text"]) for c in captions)


def _folders(workspace: Workspace) -> list[Path]:
    return [p for p in workspace.path("captions", SOURCE).glob("*") if p.name.isdigit()]


def _versions(workspace: Workspace) -> list[Path]:
    return sorted(p for folder in _folders(workspace) for p in folder.glob("[!.]*.parquet"))
