"""Score files: where they are, which of them are missing, and the rows of a shard in them.

`scores/<scorer>@<version>/<pack>.parquet` holds one row per row of the pack's pool shards, in order. A file that exists
is finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.captioning.written import text_key
from curation.scorers import load
from curation.sources import pool
from flywheel.core.files import discard, replacing
from flywheel.core.scorer import Scorer, full_version
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

Options = Mapping[str, Any]

_TEXTS = b"texts"  # metadata of the files of larger packs: identity of the written captions of each shard, as JSON


class Missing(NamedTuple):
    """A score file that is to be written. older: files of the same pack, scored with other written captions."""

    options: str  # of the scorer, as JSON
    path: str
    older: tuple[str, ...] = ()


Pending = dict[str, Missing]  # by scorer


def score_path(workspace: Workspace, scorer: Scorer, shard: pool.Shard) -> Path:
    """Path of the score file that holds the rows of a shard, with those of the shards in its pack."""
    return _folder(workspace, scorer) / f"{pool.score_key(shard.pack, shard.texts, scorer.name)}.parquet"


def _folder(workspace: Workspace, scorer: Scorer) -> Path:
    return workspace.path("scores", f"{scorer.name}@{full_version(scorer)}")


def pending(workspace: Workspace, scorers: Mapping[str, Options]) -> list[tuple[pool.Pack, Pending]]:
    """Packs with missing score files, each with those files."""
    loaded = {name: load(name, **options) for name, options in scorers.items()}
    # List each folder once: on S3, checking single files costs a request each.
    present = {n: {p.name for p in _folder(workspace, scorer).glob("*.parquet")} for n, scorer in loaded.items()}
    older: dict[str, dict[str, list[str]]] = {}  # by scorer and pack
    for name, files in present.items():
        of = older.setdefault(name, {})
        for file in sorted(f for f in files if name in pool.READS_CAPTIONS):
            of.setdefault(file.removesuffix(".parquet").partition("+")[0], []).append(file)
    todo = []
    for pack in pool.packs(workspace):
        missing = {}
        for name, scorer in loaded.items():
            path = score_path(workspace, scorer, pack.shards[0])
            if path.name not in present[name]:
                before = (str(path.with_name(file)) for file in older[name].get(pack.name, ()))
                missing[name] = Missing(json.dumps(dict(scorers[name])), str(path), tuple(before))
        if missing:
            todo.append((pack, missing))
    return todo


def read_scores(path: Path, shard: pool.Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of a shard in one of its score files; only the row groups that hold them are read."""
    with pq.ParquetFile(readable(path)) as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        first = int(np.searchsorted(ends, shard.start, side="right"))
        last = int(np.searchsorted(ends, shard.start + shard.rows, side="left"))
        groups = range(first, min(last + 1, len(sizes)))
        table = file.read_row_groups(groups, columns=list(columns) if columns is not None else None)
    return table.slice(shard.start - sum(sizes[:first]), shard.rows)


@contextmanager
def score_writer(path: Path, schema: pa.Schema, shards: Sequence[pool.Shard]) -> Iterator[pq.ParquetWriter]:
    """Write the score file of these shards atomically, one row group per shard."""
    if len(shards) > 1:
        schema = schema.with_metadata({_TEXTS: json.dumps([text_key(s.captions) for s in shards])})
    with replacing(path) as tmp, pq.ParquetWriter(tmp, schema, compression="zstd", write_page_checksum=True) as writer:
        yield writer


def unchanged(missing: Missing, shards: Sequence[pool.Shard]) -> list[str | None]:
    """For each shard, an older score file whose rows of it still hold; None where it is to be scored."""
    found: list[str | None] = [None] * len(shards)
    for path in missing.older if len(shards) > 1 else ():
        texts = json.loads((pq.read_schema(readable(path)).metadata or {}).get(_TEXTS, b"[]"))
        for n, (shard, text) in enumerate(zip(shards, texts)):
            if text == text_key(shard.captions):
                found[n] = path
    return found


def mark_unusable(workspace: Workspace, scorer: Scorer, faults: Mapping[tuple[str, int], str]) -> None:
    """Set the `error` of rows that failed after scoring; `faults`: (key of the pool shard, row) → reason.

    Deletes the score tables of their batches, which are then written again.
    """
    shards = {s.key: s for s in pool.shards(workspace)}
    by_file: dict[Path, dict[int, str]] = {}
    for (key, row), why in faults.items():
        if shard := shards.get(key):
            by_file.setdefault(score_path(workspace, scorer, shard), {})[shard.start + row] = why
    for batch in sorted({shards[key].path.parent.name for key, _ in faults if key in shards}):
        for derived in workspace.path("tables").glob(f"{batch}@*.parquet"):
            discard(derived)  # first: after a kill in between, no table may be left that is older than its scores
    for path, reasons in by_file.items():
        _set_errors(path, reasons)


def _set_errors(path: Path, reasons: Mapping[int, str]) -> None:
    """Write a score file again, with the errors of these of its rows."""
    with pq.ParquetFile(readable(path)) as file:
        schema, done = file.schema_arrow, 0
        place = schema.get_field_index("error")
        with replacing(path) as tmp, pq.ParquetWriter(tmp, schema, compression="zstd", write_page_checksum=True) as out:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                errors = [reasons.get(done + n, error) for n, error in enumerate(table["error"].to_pylist())]
                out.write_table(table.set_column(place, schema.field(place), pa.array(errors, pa.string())))
                done += table.num_rows
