"""What an erasure has to reach: the rows of the pool that show a picture, and everything that was made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.decide.judging import Look
from curation.sources import MAX_BYTES
from flywheel.core import lens
from flywheel.core.errors import UsageError
from flywheel.core.hashes import FOLDER
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

HAMMING, COLOUR = 8, 48  # two pictures look alike: bits of the perceptual hash, levels of the thumbnail
PICTURES = ("image", "references")  # columns that hold pictures
_WHOLE = 64  # hex digits of a SHA-256


@dataclass(frozen=True)
class Row:
    """A row of the pool that goes: it shows an erased picture, as its own or as a reference."""

    shard: str
    row: int
    sample_id: str
    image_id: str
    source_uri: str
    reference_ids: tuple[str, ...]


@dataclass
class Victims:
    """The pictures to erase, the rows of the pool that go with them, and what was made of them.

    images: SHA-256 of the pictures. blobs: image id → SHA-256 of every encoding of it. samples: ids of rows of the pool
    and of remedies that go. files: workspace paths of Parquet files that hold such rows, with their SHA-256. fetched:
    URLs whose answers hold one, in the pool or not.
    """

    images: tuple[str, ...]
    rows: list[Row]
    samples: dict[str, str] = field(default_factory=dict)  # sample id → the picture because of which it goes
    blobs: dict[str, set[str]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    @property
    def removed(self) -> dict[str, list[int]]:
        """Key of a pool shard → numbers of the rows that go, ascending."""
        out: dict[str, list[int]] = {}
        for row in sorted(self.rows, key=lambda r: (r.shard, r.row)):
            out.setdefault(row.shard, []).append(row.row)
        return out

    @property
    def uris(self) -> list[str]:
        """Inputs that gave the rows, or would give one."""
        return sorted({*self.fetched, *(r.source_uri for r in self.rows)})


def find(
    workspace: Workspace, names: Sequence[str], known: Mapping[str, set[str]] | None = None, *, duplicates: bool = False
) -> Victims:
    """The victims that the names mean: ids or their first characters, files of a source, addresses.

    known: names → pictures that they mean beside those of the pool. duplicates: what curation dropped as a
    near-duplicate of one, or kept instead of one, goes too. A whole SHA-256 that the pool does not know is a picture
    that no ingest may take. Errors: `UsageError` for names that mean nothing or several pictures.
    """
    with lens.connect(workspace) as con:
        shards = _shards(workspace)
        if shards:
            source = read_parquet([str(path) for _, path in shards], file_row_number="true", union_by_name="true")
            there = {name for name, *_ in con.execute(f"DESCRIBE FROM {source}").fetchall()}
            address = "source_url" if "source_url" in there else "CAST(NULL AS VARCHAR) AS source_url"
            columns = f"file_index, file_row_number AS row, sample_id, image_id, source_uri, {address}, reference_ids"
            con.execute(f"CREATE TEMP TABLE pool AS SELECT {columns} FROM {source}")
        else:
            con.execute(
                "CREATE TEMP TABLE pool (file_index BIGINT, row BIGINT, sample_id VARCHAR, image_id VARCHAR,"
                " source_uri VARCHAR, source_url VARCHAR, reference_ids VARCHAR[])"
            )
        images = sorted({i for name in dict.fromkeys(names) for i in _meant(con, name, (known or {}).get(name, ()))})
        if duplicates:
            images = _with_duplicates(workspace, con, images)
        con.register("erased", pa.table({"id": pa.array(images, pa.string())}))
        found = con.execute(
            "SELECT DISTINCT ON (file_index, row) file_index, row, sample_id, image_id, source_uri, reference_ids FROM"
            " pool WHERE image_id IN (FROM erased) OR list_has_any(reference_ids, (SELECT list(id) FROM erased))"
            " ORDER BY file_index, row"
        ).fetchall()
    rows = [Row(shards[n][0], r, s, i, u, tuple(refs or ())) for n, r, s, i, u, refs in found]
    return Victims(tuple(images), rows)


def _shards(workspace: Workspace) -> list[tuple[str, Path]]:
    """(key, path) of every shard of the pool, also of batches whose ingest was interrupted."""
    paths = sorted(workspace.path("pool").glob("*/[0-9]*.parquet"))
    return [(f"{p.parent.name}-{p.stem}", p) for p in paths]


def shard_paths(workspace: Workspace) -> dict[str, Path]:
    """Path of every shard of the pool, by key."""
    return dict(_shards(workspace))


def _meant(con: Any, name: str, known: Iterable[str]) -> list[str]:
    """Ids of the pictures that a name means."""
    exact = "SELECT DISTINCT image_id FROM pool WHERE sample_id = $1 OR image_id = $1 OR source_uri = $1"
    found = con.execute(f"{exact} OR source_url = $1 OR source_uri = $2", [name, _path(name)]).fetchall()
    if found or known:
        return [*known, *(i for (i,) in found)]  # an address may have given several pictures: all of them are meant
    begins = "starts_with(sample_id, $1) OR starts_with(image_id, $1)" if len(name) >= 4 else "false"
    ends = "ends_with(source_uri, '/' || $1) OR ends_with(source_uri, '::' || $1)"
    close = con.execute(f"SELECT DISTINCT image_id FROM pool WHERE {begins} OR {ends} LIMIT 3", [name]).fetchall()
    if len(close) > 1:
        raise UsageError(f"{name!r} means {len(close)} or more pictures: give a whole id, path or address")
    if close:
        return [close[0][0]]
    if len(name) == _WHOLE and all(c in "0123456789abcdef" for c in name):
        return [name]
    raise UsageError(f"no picture of the pool is meant by {name!r}: give its id, its file or its address")


def _path(name: str) -> str:
    return str(Path(name).expanduser().absolute())


def _with_duplicates(workspace: Workspace, con: Any, images: list[str]) -> list[str]:
    """With the pictures that curation took for near-duplicates of one of these, in any snapshot."""
    files = [str(p) for r in workspace.snapshots() if (p := workspace.snapshot(r.stem, "decisions")).exists()]
    if not files:
        return images
    con.register("asked", pa.table({"id": pa.array(images, pa.string())}))
    pairs = f"SELECT DISTINCT sample_id, survivor FROM {read_parquet(files)} WHERE survivor IS NOT NULL"
    more = con.execute(
        f"""WITH pairs AS ({pairs}), mine AS (SELECT sample_id FROM pool WHERE image_id IN (FROM asked)),
        near AS (SELECT sample_id FROM pairs WHERE survivor IN (FROM mine)
                 UNION SELECT survivor FROM pairs WHERE sample_id IN (FROM mine))
        SELECT DISTINCT image_id FROM pool WHERE sample_id IN (FROM near)"""
    ).fetchall()
    return sorted({*images, *(i for (i,) in more)})


def near_duplicates(workspace: Workspace, images: Iterable[str]) -> list[str]:
    """Ids of the pictures in the pool that curation took for near-duplicates of these."""
    asked = sorted(images)
    with_them = find(workspace, asked, duplicates=True).images if asked else ()
    return sorted(set(with_them) - set(asked))


# What was made of the pictures ---------------------------------------------------------------------------------------
def parquet_files(workspace: Workspace) -> Iterator[Path]:
    """Every Parquet file that may hold rows of pictures: not ledgers, nor what is derived again by itself."""
    for path in sorted(workspace.root.rglob("*.parquet")):
        if path.relative_to(workspace.root).parts[0] not in ("ledger", "tables") and not path.name.startswith("."):
            yield path


def loose_files(workspace: Workspace) -> Iterator[Path]:
    """Files that may be a picture as a whole: not Parquet, whose cells are checked one by one, nor larger than one."""
    for path in sorted(p for p in workspace.root.rglob("*") if p.is_file() and p.suffix != ".parquet"):
        if path.stat().st_size <= MAX_BYTES and not {"_delta_log", FOLDER} & set(path.parts):
            yield path


def trace(workspace: Workspace, victims: Victims, looks: Mapping[str, Look]) -> None:
    """Complete the victims: samples of remedies, files, and the SHA-256 of everything that was made of the pictures.

    looks: of the pictures, by id.
    """
    asked = set(victims.images)
    for row in victims.rows:
        because = row.image_id if row.image_id in asked else next(r for r in row.reference_ids if r in asked)
        victims.samples.setdefault(row.sample_id, because)
    for path in sorted(workspace.path("remedies").glob("*/candidates.parquet")):
        _trace_candidates(path, victims, looks)
    references = {r.sample_id: r for r in victims.rows}
    for path in parquet_files(workspace):
        _trace_file(workspace, path, victims, references)


def looks_of(workspace: Workspace, victims: Victims) -> dict[str, Look]:
    """Image id → what the picture looks like."""
    wanted = {r.image_id: (r.shard, r.row) for r in victims.rows if r.image_id in victims.images}
    paths = shard_paths(workspace)
    shown = {}
    for image_id, (shard, row) in wanted.items():
        column = pq.read_table(readable(paths[shard]), columns=["image"])["image"]
        shown[image_id] = column[row].as_py()
    return {i: look for i, look in zip(shown, look_of(shown.values())) if look}


def look_of(pictures: Iterable[bytes]) -> list[Look | None]:
    """What each picture looks like; None for one that cannot be read."""
    from curation.scorers import load
    from flywheel.core.scorer import Item

    scores = load("pixels", only=[]).score([Item(p) for p in pictures])
    return [Look(s["phash"], s["thumbnail"]) if isinstance(s, dict) else None for s in scores]


def alike(a: Look, b: Look) -> bool:
    """Whether two pictures look alike, as a policy without a check of duplicates has it."""
    if (a.phash ^ b.phash).bit_count() > HAMMING:
        return False
    one, other = (np.frombuffer(x.thumbnail, np.uint8).astype(np.int16) for x in (a, b))
    return bool(np.abs(one - other).max() <= COLOUR)


def _trace_candidates(path: Path, victims: Victims, looks: Mapping[str, Look]) -> None:
    """Samples of a remedy that were made of a victim: varied from it, or showing a picture that looks like it."""
    with pq.ParquetFile(readable(path)) as file:
        for batch in file.iter_batches(64, columns=["sample_id", "image", "references", "evidence"]):
            for row in batch.to_pylist():
                of = json.loads(row["evidence"] or "{}").get("of")
                because = victims.samples.get(row["sample_id"]) or victims.samples.get(of)
                shown = look_of([row["image"], *row["references"]]) if because is None and looks else ()
                for look in filter(None, shown):
                    because = because or next((i for i, known in looks.items() if alike(look, known)), None)
                if because is not None:
                    victims.samples[row["sample_id"]] = because


def _trace_file(workspace: Workspace, path: Path, victims: Victims, rows: Mapping[str, Row]) -> None:
    names = pq.read_schema(readable(path)).names
    key = next((n for n in ("sample_id", "uri", "source_uri") if n in names), None)
    if key is None:
        return
    wanted = pa.array(victims.samples if key == "sample_id" else victims.uris, pa.string())
    with pq.ParquetFile(readable(path)) as file:
        hit = False
        for group in range(file.num_row_groups):
            there = pc.is_in(_ids(file.read_row_group(group, columns=[key])[key], key), value_set=wanted)
            if not pc.any(there).as_py():
                continue
            hit = True
            pictures = [n for n in PICTURES if n in names]
            if key == "sample_id" and pictures:
                found = file.read_row_group(group, columns=["sample_id", *pictures]).filter(there)
                for row in found.to_pylist():
                    _add_blobs(victims, row, rows.get(row["sample_id"]))
    if hit:
        victims.files.append(workspace.relative(path))


def _ids(column: pa.ChunkedArray, key: str) -> pa.ChunkedArray:
    """What a key column names; sample ids in files of vectors have a digest of the content behind a slash."""
    text = column.cast(pa.string())
    return pc.replace_substring_regex(text, pattern="/.*$", replacement="") if key == "sample_id" else text


def without(table: pa.Table, key: str, values: Iterable[str]) -> pa.Table:
    """The table without the rows whose key is one of the values."""
    return table.filter(pc.invert(pc.is_in(_ids(table[key], key), value_set=pa.array(list(values), pa.string()))))


def _add_blobs(victims: Victims, row: Mapping[str, Any], known: Row | None) -> None:
    """The SHA-256 of the pictures of a row that are erased ones: not those of other pictures that go with it."""
    because = victims.samples[row["sample_id"]]
    blobs = victims.blobs.setdefault(because, set())
    if known is None or known.image_id in victims.images:
        blobs.add(_sha(row["image"]))  # not the mask: one that is all white may be that of other pictures too
    for place, reference in enumerate(row.get("references") or ()):
        if known is None or known.reference_ids[place] in victims.images:
            blobs.add(_sha(reference))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
