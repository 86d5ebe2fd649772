"""Score tables: metadata and all deciding scores of a batch in one file, so a policy opens one file, not thousands.

`tables/<batch>@<key>.parquet` is derived from the pool's shards and their score files, and can be deleted at any time:
it is written again. Its key covers shard digests and scorer versions, so a table is never stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.captioning import written
from curation.policy import sql
from curation.scorers.stored import score_path
from curation.sources import pool
from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, replacing
from flywheel.core.schema import POOL, RIGHTS, column
from flywheel.core.scorer import Scorer, full_version
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_FORMAT = 4  # increase it when equal scores would give another table
_SHARDS = 256  # shards in memory together
_ROW_GROUP = 122_880  # rows: DuckDB reads row groups in parallel

# In addition to numbers and words: what deduplication and decontamination need.
_TEXTS = ("text.normalized", "pixels.thumbnail")
_METADATA = ("sample_id", "source_uri", "source", "task", "width", "height", "reference_ids", "image_id", "stream")


def tables(workspace: Workspace, scorers: Mapping[str, Scorer]) -> list[Path]:
    """Write the missing tables; returns the path of one table per batch with rows, oldest first.

    Errors: `UsageError` where a score file is missing.
    """
    paths = _paths(workspace, scorers)
    missing = {batch for batch, path in paths.items() if not path.exists()}
    packs = pool.packs(workspace) if missing else []
    for batch in sorted(missing):
        mine = [pack for pack in packs if pack.shards[0].path.parent == batch]
        _require_scores(workspace, mine, scorers)
        write_table(paths[batch], scorers, _chunks(workspace, mine, scorers))
    return list(paths.values())


def missing_tables(workspace: Workspace, scorers: Mapping[str, Scorer]) -> list[Path]:
    """Those of `tables` that are not there."""
    return [path for path in _paths(workspace, scorers).values() if not path.exists()]


def _paths(workspace: Workspace, scorers: Mapping[str, Scorer]) -> dict[Path, Path]:
    manifests = {batch: pool.manifest(batch) for batch in workspace.batches()}
    return {b: table_path(workspace, b.name, m, scorers) for b, m in manifests.items() if any(_rows(m))}


def table_path(workspace: Workspace, batch: str, manifest: Mapping[str, Any], scorers: Mapping[str, Scorer]) -> Path:
    """Path of the table of a batch with this manifest."""
    sidecars = written.sidecars(workspace, batch).values()
    return _path(workspace, batch, manifest, [(s.name, full_version(s)) for s in scorers.values()], sidecars)


def written_tables(workspace: Workspace, versions: Sequence[tuple[str, str]]) -> list[list[Path]]:
    """The tables that each batch has, oldest batch first: that of these scorers, then the others, newest first.

    versions: (name, full version) of scorers, in the order of their policy.
    """
    folder, of = workspace.path("tables"), dict[str, list[Path]]()
    for path in reversed(hashes.written(folder, folder.glob("*@*.parquet"))):
        of.setdefault(path.name.partition("@")[0], []).append(path)
    sidecars = dict[str, list[Sequence[Path]]]()
    for key, paths in written.sidecars(workspace).items():
        sidecars.setdefault(key.rpartition("-")[0], []).append(paths)
    found = []
    for batch in workspace.batches():
        if there := of.get(batch.name):
            first = _path(workspace, batch.name, pool.manifest(batch), versions, sidecars.get(batch.name, ()))
            found.append(sorted(there, key=lambda path: path != first))
    return found


def _path(
    workspace: Workspace,
    batch: str,
    manifest: Mapping[str, Any],
    versions: Sequence[tuple[str, str]],
    sidecars: Iterable[Sequence[Path]],
) -> Path:
    texts = [written.text_key(paths) for paths in sidecars]
    key = digest(_FORMAT, [(s["path"], s["sha256"]) for s in manifest["shards"]], versions, texts)[:16]
    return workspace.path("tables", f"{batch}@{key}.parquet")


def _rows(manifest: Mapping[str, Any]) -> list[int]:
    return [s["rows"] for s in manifest["shards"]]


def schema(scorers: Mapping[str, Scorer]) -> pa.Schema:
    """Columns of a table: place in the pool, metadata, `draw`, `reason`, then `<scorer>.<column>`."""
    return pa.schema(
        [
            column("shard", pa.string(), "key of the pool shard"),
            column("row", pa.int32(), "row number inside the pool shard"),
            *(POOL.field(name) for name in _METADATA),
            *RIGHTS,
            column("draw", pa.uint64(), "first 64 bits of the sample id: an order that no one chose"),
            column("content", pa.uint64(), "digest of what a training row takes from the pool, beside the picture"),
            column("reason", pa.string(), "why the row cannot be judged; null when it can"),
            *(f.with_name(f"{s.name}.{f.name}") for s in scorers.values() for f in s.fields if _decides(s, f)),
        ]
    )


def write_table(path: Path, scorers: Mapping[str, Scorer], chunks: Iterable[pa.Table]) -> None:
    """Write a batch's table atomically from chunks in pool order; chunks need no `draw`."""
    columns = schema(scorers)
    # dictionary encoding helps only where values repeat
    words = ["shard", "source", "task", "stream", "reason", *(f.name for f in columns if _is_word(f))]
    with replacing(path) as tmp, pq.ParquetWriter(tmp, columns, compression="lz4", use_dictionary=words) as writer:
        for chunk in _regrouped(_complete(c, columns) for c in chunks):
            writer.write_table(chunk, row_group_size=_ROW_GROUP)


def _complete(chunk: pa.Table, columns: pa.Schema) -> pa.Table:
    """The chunk with `draw`, and with the schema's columns, order and types."""
    heads = pc.utf8_slice_codeunits(chunk["sample_id"], 0, 16).to_pylist()
    draws = np.frombuffer(bytes.fromhex("".join(heads)), ">u8").astype(np.uint64)
    return chunk.append_column("draw", pa.array(draws, pa.uint64())).select(columns.names).cast(columns)


def _regrouped(chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in chunks of whole row groups."""
    waiting: list[pa.Table] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(w.num_rows for w in waiting) >= _ROW_GROUP:
            joined = pa.concat_tables(waiting)
            full = joined.num_rows // _ROW_GROUP * _ROW_GROUP
            yield joined.slice(0, full)
            waiting = [joined.slice(full)]
    if waiting:
        yield pa.concat_tables(waiting)


def _decides(scorer: Scorer, field: pa.Field) -> bool:
    """Whether a decision can use the column; long text, boxes and embeddings stay in the score files."""
    return names_scores(field) or f"{scorer.name}.{field.name}" in _TEXTS


def names_scores(field: pa.Field) -> bool:
    """Whether the column is a number or a word, which a policy and a query can name."""
    kind = field.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return number or pa.types.is_string(kind)


def _is_word(field: pa.Field) -> bool:
    """Whether the column is a score with few distinct words."""
    return "." in field.name and pa.types.is_string(field.type)


def _require_scores(workspace: Workspace, packs: Sequence[pool.Pack], scorers: Mapping[str, Scorer]) -> None:
    for name, scorer in scorers.items():
        if missing := [p for pack in packs if not (p := score_path(workspace, scorer, pack.shards[0])).exists()]:
            raise UsageError(
                f"{len(missing)} score files of {name} are missing ({missing[0]}): `flywheel curate` with this policy "
                "computes them"
            )


def _chunks(workspace: Workspace, packs: Sequence[pool.Pack], scorers: Mapping[str, Scorer]) -> Iterator[pa.Table]:
    waiting: list[pool.Pack] = []
    with sql.connect(workspace) as con:
        for pack in packs:
            waiting.append(pack)
            if pack is packs[-1] or sum(len(p.shards) for p in waiting) >= _SHARDS:
                yield con.sql(_query(workspace, waiting, scorers, _later(con, _shards(waiting)))).to_arrow_table()
                waiting = []


def _shards(packs: Sequence[pool.Pack]) -> list[pool.Shard]:
    return [shard for pack in packs for shard in pack.shards]


def _later(con: duckdb.DuckDBPyConnection, shards: Sequence[pool.Shard]) -> dict[str, str]:
    """{column: its SQL} of what shards of older versions do not have: what a row states about rights, and its mask."""
    names = (*(f.name for f in RIGHTS), "mask")
    there = set(names)
    if not all(there <= set(pq.read_schema(readable(s.path)).names) for s in (shards[0], shards[-1])):
        described = con.execute(f"DESCRIBE FROM {_read((s.path for s in shards), union_by_name='true')}").fetchall()
        there &= {name for name, *_ in described}
    return {name: f'"{name}"' if name in there else "CAST(NULL AS VARCHAR)" for name in names}


def _content(later: Mapping[str, str]) -> str:
    """SQL of the digest of the columns of the pool that a training row takes over, beside its pictures."""
    captions = "array_to_string([concat(c.kind, chr(30), c.text) for c in captions], chr(29))"
    texts = ["sample_id", "task", "stream", "caption", captions, f"md5({later['mask']})"]
    texts += [later[f.name] for f in RIGHTS]
    return f"md5_number_lower(concat_ws(chr(31), {', '.join(f'coalesce({t}, chr(1))' for t in texts)}))"


def _query(
    workspace: Workspace, packs: Sequence[pool.Pack], scorers: Mapping[str, Scorer], later: Mapping[str, str]
) -> str:
    """SQL for the rows of some packs in pool order, joined by number: the row's place among all of these rows."""
    shards = _shards(packs)
    keys = ", ".join(sql.quoted(s.key) for s in shards)
    rights = [f.name for f in RIGHTS]
    stated = [*(f'{later[name]} AS "{name}"' for name in rights), f"{_content(later)} AS content"]
    own = f"file_index AS shard_number, file_row_number AS row, {_place(s.rows for s in shards)} AS place"
    metadata = f"SELECT {own}, {', '.join([*_METADATA, *stated])} FROM"
    query = f"FROM ({metadata} {_read((s.path for s in shards), union_by_name='true')}) AS pool"
    columns, errors = [], []
    for name, scorer in scorers.items():
        paths = _read(score_path(workspace, scorer, pack.shards[0]) for pack in packs)
        fields = [f for f in scorer.fields if _decides(scorer, f)]
        named = ", ".join(f'"{f.name}" AS "{name}.{f.name}"' for f in fields)
        score = f'SELECT {_place(pack.rows for pack in packs)} AS place, error AS "{name}.error", {named} FROM {paths}'
        query += f" JOIN ({score}) USING (place)"
        columns += [f'"{name}.{f.name}"' for f in fields]
        errors.append(f'"{name}.error"')
    reason = f"coalesce({', '.join(errors)})" if errors else "NULL"
    chosen = ", ".join([*_METADATA, *rights, "content", f"CAST({reason} AS VARCHAR) AS reason", *columns])
    shard = f"([{keys}])[CAST(shard_number AS BIGINT) + 1]"
    return f"SELECT {shard} AS shard, row, {chosen} {query} ORDER BY place"


def _place(sizes: Iterable[int]) -> str:
    """SQL of a row's place among those of all files, which have so many rows."""
    starts = ", ".join(map(str, accumulate(sizes, initial=0)))
    return f"([{starts}]::BIGINT[])[CAST(file_index AS BIGINT) + 1] + file_row_number"


def _read(paths: Iterable[Any], **options: str) -> str:
    return read_parquet(map(str, paths), file_row_number="true", **options)
