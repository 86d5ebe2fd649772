"""Captions written by a model: immutable side-cars of pool shards, joined to the rows for scoring and sharding.

`captions/<use>/<kind>@<model>-<prompt>/<pool shard>.<digest>.parquet`. The source's own captions are never changed.
`use` of a set: `fill` makes it the text condition of pictures without a caption of their own, `replace` of all
pictures, `add` of none: the captions are only added to the training shards. `source` holds what the source itself
brought later (`curation.sources.corrections`): it takes the place of the captions that came with the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.captions import KINDS
from flywheel.core.files import digest, write_parquet
from flywheel.core.schema import CAPTIONS
from flywheel.core.storage import readable
from flywheel.core.text import clean, untold
from flywheel.core.workspace import Workspace

SOURCE = "source"  # origin of captions that came with the picture, and use of those that its source brought later
ROW = ("sample_id", "source_uri", "task", "caption", "captions")  # columns of the pool that `with_written` needs


def set_folder(workspace: Workspace, use: str, kind: str, model: str, prompt: str) -> Path:
    """Folder of the captions of one use, kind, model and prompt version."""
    name = re.sub(r"[^\w.-]+", "_", model)
    return workspace.path("captions", use, f"{kind}@{name}-{digest(model)[:6]}-{prompt}")


def write_sidecar(folder: Path, shard: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the answers for some rows of a pool shard to a file named by its content; `shard`: key of the shard."""
    path = folder / f"{shard}.{digest(rows)[:16]}.parquet"
    write_parquet(path, pa.Table.from_pylist([dict(r) for r in rows], schema=CAPTIONS))
    return path


def sidecars(workspace: Workspace, batch: str = "[!.]") -> dict[str, tuple[Path, ...]]:
    """Key of a pool shard → its side-cars of all sets, sorted by path. `batch`: only shards of this batch."""
    by_shard: dict[str, list[Path]] = {}
    for path in sorted(workspace.path("captions").glob(f"*/*/{batch}*.parquet")):
        by_shard.setdefault(path.name.partition(".")[0], []).append(path)
    return {key: tuple(paths) for key, paths in by_shard.items()}


def text_key(paths: Iterable[Path]) -> str:
    """Identity of the side-cars that can be a text condition; empty without any."""
    deciding = [p.name for p in paths if p.parent.parent.name != "add"]
    return digest(deciding)[:8] if deciding else ""


def with_written(rows: Iterable[Mapping[str, Any]], paths: Sequence[str | Path]) -> Iterator[dict[str, Any]]:
    """Pool rows with the text condition as `caption` and all captions with their origin as `captions`, own ones first.

    rows: with the columns `ROW`. paths: side-cars of the rows' shard. Texts are cleaned; `given` is the condition
    before that. Edit pairs keep their instruction.
    """
    by_sample, later = _read(paths), corrected(paths)
    for row in rows:
        if texts := later.get(row["source_uri"]) if later else None:
            row = dict(row) | {"caption": texts[0]["text"], "captions": texts}
        own = [c | {"origin": SOURCE} for c in row["captions"]]
        written = by_sample.get(row["sample_id"], []) if row["task"] == "t2i" else []
        texts = [{"kind": c["kind"], "text": clean(c["text"]), "origin": c["origin"]} for c in (*own, *written)]
        given = _condition(row["caption"], written)
        yield dict(row) | {"caption": clean(given), "given": given, "captions": texts}


def corrected(paths: Iterable[str | Path]) -> dict[str, list[dict[str, str]]]:
    """Source URI → {kind, text} of its captions as its source last brought them, from the side-cars of use `source`."""
    latest: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for path in paths:
        if Path(path).parent.parent.name == SOURCE:
            for row in pq.read_table(readable(path)).to_pylist():
                version, texts = latest.get(row["source_uri"], ("", []))
                if row["prompt"] > version:
                    version, texts = row["prompt"], []
                texts.append({"kind": row["kind"], "text": row["caption"]})
                latest[row["source_uri"]] = version, texts
    return {uri: texts for uri, (_, texts) in latest.items()}


def _condition(own: str, written: Sequence[Mapping[str, Any]]) -> str:
    """The text condition of a picture with this caption of its own and these written captions."""
    by_use: dict[str, str] = {}
    for caption in written:
        by_use.setdefault(caption["use"], caption["text"])
    return by_use.get("replace") or ("" if untold(own) else own) or by_use.get("fill", "")


def _read(paths: Sequence[str | Path]) -> dict[str, list[dict[str, Any]]]:
    """Sample id → its written captions: general first, then by kind, model and prompt."""
    by_sample: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        for row in pq.read_table(readable(path)).to_pylist():
            if row["error"] is None and row["use"] != SOURCE:
                origin = f"{row['model']}@{row['prompt']}"
                entry = {"kind": row["kind"], "text": row["caption"], "origin": origin, "use": row["use"]}
                by_sample.setdefault(row["sample_id"], []).append(entry)
    for captions in by_sample.values():
        captions.sort(key=lambda c: (KINDS.index(c["kind"]), c["origin"], c["text"]))
    return by_sample
