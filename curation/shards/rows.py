"""Training rows of one shard file, made in a worker from the pool, or copied from a file that holds them already.

What is costly of a row is the encoding of its pictures. Where an older file of any snapshot holds them, encoded from
the same bytes in the same way, they are copied; everything else of a row comes from the pool.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.captioning.written import ROW, SOURCE, with_written
from curation.scorers.scoring import fetch_images, reason
from curation.shards.fit import fit, fit_mask
from curation.sources import pool
from flywheel.core.environment import raise_environment_error
from flywheel.core.files import file_digest, replacing
from flywheel.core.image import BadImage, open_image, upright_size
from flywheel.core.schema import RIGHTS, ROW_GROUP, SHARD
from flywheel.core.storage import located, readable

_PICTURES = ("image", "references", "mask")
_COLUMNS = (*ROW, "image", "stream", "width", "height", "mask", *(f.name for f in RIGHTS))

Faults = dict[tuple[str, int], str]  # (key of a pool shard, row) → why its picture cannot be fitted


class Unfit(Exception):
    """Admitted rows whose pictures cannot be resized and encoded: `faults`."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(f"{len(faults)} admitted rows cannot be made into training rows")
        self.faults = faults


@dataclass(frozen=True)
class Work:
    """One file to write. rows: as `curation.shards.plan` spools them. shards: those of the pool that the rows name.

    width, height: pixels. older: {path: SHA-256} of the files that the rows may copy pictures from.
    """

    path: str
    width: int
    height: int
    rows: pa.Table
    shards: Mapping[str, pool.Shard]
    older: Mapping[str, str]

    def alone(self, number: int) -> Work:
        """The same work for one of its rows."""
        return Work(self.path, self.width, self.height, self.rows.slice(number, 1), self.shards, self.older)


def write_file(work: Work) -> Faults:
    """Write one shard file, a row group at a time; returns the rows that cannot be written, if any.

    With such rows the file stays absent, which marks it as still to be written.
    """
    faults: Faults = {}
    try:
        with replacing(located(work.path)) as tmp:
            with pq.ParquetWriter(tmp, SHARD, **_options()) as writer:
                for group in _row_groups(shard_rows(work, faults)):
                    writer.write_table(pa.Table.from_pylist(group, schema=SHARD), row_group_size=ROW_GROUP)
            if faults:
                raise Unfit(faults)
    except Unfit:
        pass
    return faults


@lru_cache(maxsize=1)
def _options() -> dict[str, Any]:
    """How columns are stored: pictures as they are, because they are compressed already."""
    empty = io.BytesIO()
    pq.write_table(SHARD.empty_table(), empty)
    leaves = [column.path for column in pq.ParquetFile(empty).schema]
    rest = [leaf for leaf in leaves if leaf.partition(".")[0] not in _PICTURES]
    return {"compression": dict.fromkeys(rest, "zstd"), "use_dictionary": rest, "write_statistics": rest}


def try_rows(work: Work) -> Faults:
    """Make the rows and write nothing; returns those that cannot be made."""
    faults: Faults = {}
    for _ in shard_rows(work, faults):
        pass
    return faults


def shard_rows(work: Work, faults: Faults) -> Iterator[dict[str, Any]]:
    """Training rows in order; rows that fail are left out and added to `faults`."""
    older = _Older(work.older)
    for key, planned in _by_shard(work.rows):
        copies = [older.pictures(p["older"], p["older_row"]) for p in planned]
        rows = _pool_rows(work.shards[key], [p["row"] for p in planned], all(copies))
        wanted = [r for p, copy in zip(planned, copies) if copy is None for r in p["reference_places"]]
        images = fetch_images({r["image_id"]: (str(work.shards[r["shard"]].path), r["row"]) for r in wanted})
        more = _further_captions(planned, work.shards)
        for row, place, copy in zip(rows, planned, copies):
            row["captions"] = _joined(row["captions"], more.get(place["row"], []))
            try:
                pictures = copy or encoded(row, images, place, work.width, work.height)
                yield _shard_row(row, place, work.width, work.height) | pictures
            except Exception as error:  # noqa: BLE001 - decoders raise anything; this row is dropped with its reason
                raise_environment_error(error)
                faults[key, place["row"]] = reason(error)


def encoded(
    row: Mapping[str, Any], images: Mapping[str, bytes], place: Mapping[str, Any], width: int, height: int
) -> dict[str, Any]:
    """The pictures of a row, fitted and encoded. Errors: `BadImage`."""
    _require_listed_size(row)
    return {
        "image": fit(row["image"], width, height, place["turn"]),
        "references": [fit(images[r["image_id"]], width, height) for r in place["reference_places"]],
        "mask": fit_mask(row["mask"], width, height) if row.get("mask") else None,
    }


class _Older:
    """Pictures in older shard files; a file that is missing or damaged has none."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._sha256 = files
        self._opened: dict[str, pq.ParquetFile | None] = {}
        self._group: tuple[str, int, pa.Table] | None = None

    def pictures(self, path: str | None, row: int | None) -> dict[str, Any] | None:
        """Pictures of a row of a file; None where there are none."""
        if path is None or row is None:
            return None
        if path not in self._opened:
            self._opened[path] = self._open(located(path))
        file = self._opened[path]
        if file is None:
            return None
        group, place = divmod(row, ROW_GROUP)
        if self._group is None or self._group[:2] != (path, group):
            self._group = path, group, file.read_row_group(group, columns=list(_PICTURES))
        return self._group[2].slice(place, 1).to_pylist()[0]

    def _open(self, path: Path) -> pq.ParquetFile | None:
        if not path.exists() or file_digest(path) != self._sha256[str(path)]:
            return None
        return pq.ParquetFile(readable(path))


def _row_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


def _by_shard(rows: pa.Table) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Consecutive rows of one pool shard each."""
    run: list[dict[str, Any]] = []
    for row in rows.to_pylist():
        if run and run[0]["shard"] != row["shard"]:
            yield run[0]["shard"], run
            run = []
        run.append(row)
    if run:
        yield run[0]["shard"], run


def _pool_rows(shard: pool.Shard, numbers: Sequence[int], copied: bool) -> Iterator[dict[str, Any]]:
    """Rows of a pool shard with all their captions; copied: without pictures."""
    with pq.ParquetFile(readable(shard.path)) as file:
        there = file.schema_arrow.names  # older pools have no mask or rights
        columns = [c for c in _COLUMNS if c in there and not (copied and c in _PICTURES)]
        rows = pool.take(file, numbers, columns).to_pylist()
    return with_written(rows, shard.captions)


def _further_captions(
    planned: Sequence[Mapping[str, Any]], shards: Mapping[str, pool.Shard]
) -> dict[int, list[dict[str, str]]]:
    """Row number → the captions of its equals, in their order; each pool shard is read once."""
    equals = {p["row"]: p["further"] for p in planned if p["further"]}
    tables = {}
    for key in {f["shard"] for further in equals.values() for f in further}:
        rows = pq.read_table(readable(shards[key].path), columns=list(ROW)).to_pylist()
        tables[key] = [row["captions"] for row in with_written(rows, shards[key].captions)]
    return {n: [c for f in further for c in tables[f["shard"]][f["row"]]] for n, further in equals.items()}


def _joined(own: Sequence[dict[str, str]], more: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """A row's captions and those of its equals, each text once, those of the source first."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for caption in (*own, *more):
        first.setdefault((caption["kind"], caption["text"]), caption)
    return sorted(first.values(), key=lambda c: c["origin"] != SOURCE)


def _shard_row(row: Mapping[str, Any], place: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """A training row without its pictures."""
    sides = (row["width"], row["height"]) if place["turn"] % 180 == 0 else (row["height"], row["width"])
    return {k: row[k] for k in ("sample_id", "task", "caption", "captions", "stream")} | {
        "slice": "base",
        "width": width,
        "height": height,
        "source_width": sides[0],
        "source_height": sides[1],
        "balance": place["balance"],
        "made_from": place["made_from"],
        **{f.name: row.get(f.name) for f in RIGHTS},
    }


def _require_listed_size(row: Mapping[str, Any]) -> None:
    """Errors: `BadImage` if the picture is not of the size that the pool lists, by which its layout was chosen."""
    listed, size = (row["width"], row["height"]), upright_size(open_image(row["image"]))
    if size != listed:  # `decode` refuses pixels that are not of the size in their header
        raise BadImage(
            f"the picture has {size[0]}x{size[1]} pixels, but the pool lists {listed[0]}x{listed[1]}: ingest it again"
        )
