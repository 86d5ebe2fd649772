"""Training shards: admitted samples, resized and encoded for their bucket, grouped by layout, pinned by a manifest.

A row is stored once per bucket: files group rows by bucket, layout and the set of stages that train on them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter, ImageOps

from curation.captioning.written import ROW, SOURCE, with_written
from curation.policy.policy import Policy
from curation.scorers.scoring import References, fetch_images, image_index, reason
from curation.shards.layout import layout
from curation.sources import pool
from flywheel.core.cluster import cluster, run_all
from flywheel.core.environment import raise_environment_error
from flywheel.core.files import file_digest, replacing
from flywheel.core.image import BadImage, decode, fitted, open_image, turned, upright_size
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import RIGHTS, ROW_GROUP, SHARD
from flywheel.core.storage import located, readable
from flywheel.core.workspace import Workspace

_FILE_PIXELS = 64 * 1024 * 1024  # target pixels per file: a file is one task's work
_PNG_LEVEL = 3
_JPEG = {"quality": 95, "subsampling": 0}  # 4:4:4: coloured edges stay sharp

_COLUMNS = (
    *ROW, "image", "reference_ids", "stream", "width", "height", "mask", *(f.name for f in RIGHTS),
)  # fmt: skip

Progress = Callable[[int, int, str], None]
Content = list[tuple[pool.Shard, list[int]]]  # pool shard, ascending row numbers
Faults = dict[tuple[str, int], str]  # (key of a pool shard, row) → why its picture cannot be fitted
Place = tuple[str, int]  # key of a pool shard, row
Marks = dict[Place, tuple[int, float]]  # → (turn, weight)
Equals = dict[Place, list[tuple[pool.Shard, int]]]  # → other rows of the same picture, whose captions it takes too


class Unfit(Exception):
    """Admitted rows whose pictures cannot be resized and encoded: `faults`."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(f"{len(faults)} admitted rows cannot be made into training rows")
        self.faults = faults


@dataclass(frozen=True)
class Planned:
    """A shard file to write: its entry in the manifest without what only the written file tells, and its rows."""

    path: str
    stages: tuple[str, ...]
    bucket: int
    width: int
    height: int
    task: str
    references: int
    content: Content
    marks: Marks
    places: References
    equals: Equals

    @property
    def arguments(self) -> tuple[int, int, Content, Marks, References, Equals]:
        """What the worker needs to make its rows."""
        return self.width, self.height, self.content, self.marks, self.places, self.equals

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(len(rows) for _, rows in self.content)


def write_files(
    workspace: Workspace,
    snapshot: str,
    files: Sequence[Planned],
    *,
    progress: Progress | None = None,
    workers: int = 2,
) -> tuple[int, Faults]:
    """Write the files that are missing: (how many; rows that cannot be written, whose files stay absent)."""
    folder = workspace.shard_manifest(snapshot).parent
    todo = [f for f in files if not (folder / f.path).exists()]
    calls = [(str(folder / f.path), *f.arguments) for f in todo]
    faults: Faults = {}
    if calls:
        with cluster(workers):
            for done, (index, outcome) in enumerate(run_all(_write_file, calls), 1):
                faults |= _killers(*calls[index]) if isinstance(outcome, Exception) else outcome
                if progress:
                    progress(done, len(calls), "shard files written")
    return len(todo), faults


def write_manifest(workspace: Workspace, snapshot: str, policy: Policy, files: Sequence[Planned]) -> Path:
    """Write the manifest of files that are all there; returns its path."""
    path = workspace.shard_manifest(snapshot)
    Manifest(
        snapshot=snapshot,
        policy=policy.name,
        policy_sha256=policy.sha256,
        files=tuple(_shard_file(path.parent, f) for f in files),
        balanced=tuple(s.name for s in policy.stages if any(f.weighs for f in s.filters)),
    ).write(path)
    return path


def fit(image: bytes, width: int, height: int, turn: int = 0) -> bytes:
    """Encoded picture of exactly width × height: upright, scaled to cover, cropped to the centre. Errors: `BadImage`.

    turn: degrees clockwise, beyond EXIF. A JPEG stays JPEG: it is lossy already, and PNG would be several times larger.
    All other formats, rendered text above all, become lossless PNG.
    """
    lossy = open_image(image).format in ("JPEG", "MPO")
    picture = fitted(turned(decode(image), turn), width, height)
    out = io.BytesIO()
    if lossy:
        picture.save(out, "JPEG", **_JPEG)
    else:
        picture.save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()


def fit_mask(mask: bytes, width: int, height: int) -> bytes:
    """The mask for a picture resized by `fit`: gray PNG, only black and white. Errors: `BadImage`.

    A resized mask grows by three pixels, as far as the picture's resampling spreads a change.
    """
    gray = decode(mask).convert("L")
    if gray.size != (width, height):
        gray = ImageOps.fit(gray, (width, height), Image.Resampling.BOX).point(lambda v: 255 * (v > 0))
        gray = gray.filter(ImageFilter.MaxFilter(7))
    out = io.BytesIO()
    gray.point(lambda v: 255 * (v > 0)).save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()


def plan_files(workspace: Workspace, admitted: pa.Table) -> list[Planned]:
    """Files in a fixed order: one layout and one set of stages each, rows in pool order.

    `admitted`: shard, row, bucket, stages (names joined by spaces), width, height, task, references, reference_ids,
    turn, weight, further.
    """
    shards = {s.key: s for s in pool.shards(workspace)}
    size = lru_cache(maxsize=None)(layout)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in admitted.to_pylist():
        width, height = size(row["width"], row["height"], row["bucket"])
        key = (row["bucket"], width, height, row["task"], row["references"], row["stages"])
        groups.setdefault(key, []).append(row)
    index = image_index(workspace) if any(key[4] for key in groups) else {}
    files = []
    for key in sorted(groups):
        bucket, width, height, task, references, stages = key
        limit = max(1, _FILE_PIXELS // (width * height * ROW_GROUP)) * ROW_GROUP
        for number, rows in enumerate(_cut(groups[key], limit)):
            name = f"{width}x{height}-{task}{references}-{stages.replace(' ', '')}-{number:05d}.parquet"
            files.append(
                Planned(
                    path=f"{bucket}/{name}",
                    stages=tuple(stages.split()),
                    bucket=bucket,
                    width=width,
                    height=height,
                    task=task,
                    references=references,
                    content=_by_shard(rows, shards),
                    marks={(r["shard"], r["row"]): (r["turn"], r["weight"]) for r in rows},
                    places={i: index[i] for r in rows for i in r["reference_ids"]},
                    equals={
                        (r["shard"], r["row"]): [(shards[f["shard"]], f["row"]) for f in r["further"]]
                        for r in rows
                        if r["further"]
                    },
                )
            )
    return files


def _cut(rows: Sequence[dict[str, Any]], size: int) -> Iterator[Sequence[dict[str, Any]]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))


def _by_shard(rows: Sequence[dict[str, Any]], shards: Mapping[str, pool.Shard]) -> Content:
    grouped: dict[str, list[int]] = {}
    for row in rows:
        grouped.setdefault(row["shard"], []).append(row["row"])
    return [(shards[key], numbers) for key, numbers in grouped.items()]


def _killers(
    path: str, width: int, height: int, content: Content, marks: Marks, places: References, equals: Equals
) -> Faults:
    """Some row of this file kills the process that resizes it: try each alone to find out which."""
    rows = [(shard, number) for shard, numbers in content for number in numbers]
    calls = [(width, height, [(shard, [number])], marks, places, equals) for shard, number in rows]
    faults: Faults = {}
    for index, outcome in run_all(_try_rows, calls):
        shard, number = rows[index]
        died = {(shard.key, number): "crashed the process that resizes and encodes it"}
        faults |= died if isinstance(outcome, Exception) else outcome
    if not faults:
        raise RuntimeError(
            f"the process that wrote {path} was killed twice, but by none of its rows alone: free memory"
        )
    return faults


# In the workers ------------------------------------------------------------------------------------------------------
def _write_file(
    path: str, width: int, height: int, content: Content, marks: Marks, places: References, equals: Equals
) -> Faults:
    """Write one shard file, a row group at a time; returns the rows that cannot be written, if any."""
    faults: Faults = {}
    try:
        with replacing(located(path)) as tmp:
            with pq.ParquetWriter(tmp, SHARD, compression="zstd") as writer:
                for group in _row_groups(_shard_rows(content, marks, places, equals, width, height, faults)):
                    writer.write_table(pa.Table.from_pylist(group, schema=SHARD), row_group_size=ROW_GROUP)
            if faults:
                raise Unfit(faults)
    except Unfit:
        pass  # the file stays absent, which marks it as still to be written
    return faults


def _try_rows(width: int, height: int, content: Content, marks: Marks, places: References, equals: Equals) -> Faults:
    faults: Faults = {}
    for _ in _shard_rows(content, marks, places, equals, width, height, faults):
        pass
    return faults


def _row_groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == ROW_GROUP:
            yield group
            group = []
    if group:
        yield group


def _shard_rows(
    content: Content, marks: Marks, places: References, equals: Equals, width: int, height: int, faults: Faults
) -> Iterator[dict[str, Any]]:
    """Training rows; rows that fail are left out and added to `faults`."""
    for shard, numbers in content:
        there = pq.read_schema(readable(shard.path)).names  # older pools have no mask or rights
        columns = [c for c in _COLUMNS if c in there]
        rows = pq.read_table(readable(shard.path), columns=columns).take(numbers).to_pylist()
        images = fetch_images({i: places[i] for r in rows for i in r["reference_ids"]})
        more = _further_captions({n: equals[shard.key, n] for n in numbers if (shard.key, n) in equals})
        for number, row in zip(numbers, with_written(rows, shard.captions)):
            key = (shard.key, number)
            row["captions"] = _joined(row["captions"], more.get(number, []))
            try:
                yield _shard_row(row, images, *marks[key], width, height)
            except Exception as error:  # noqa: BLE001 - decoders raise anything; this row is dropped with its reason
                raise_environment_error(error)
                faults[key] = reason(error)


def _further_captions(equals: Mapping[int, Sequence[tuple[pool.Shard, int]]]) -> dict[int, list[dict[str, str]]]:
    """Row number → the captions of its equals, in their order; each pool shard is read once."""
    wanted = {shard.key: shard for rows in equals.values() for shard, _ in rows}
    tables = {}
    for key, shard in wanted.items():
        rows = pq.read_table(readable(shard.path), columns=list(ROW)).to_pylist()
        tables[key] = [row["captions"] for row in with_written(rows, shard.captions)]
    return {n: [c for shard, row in rows for c in tables[shard.key][row]] for n, rows in equals.items()}


def _joined(own: Sequence[dict[str, str]], more: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """A row's captions and those of its equals, each text once, those of the source first."""
    first: dict[tuple[str, str], dict[str, str]] = {}
    for caption in (*own, *more):
        first.setdefault((caption["kind"], caption["text"]), caption)
    return sorted(first.values(), key=lambda c: c["origin"] != SOURCE)


def _shard_row(
    row: Mapping[str, Any], images: Mapping[str, bytes], turn: int, weight: float, width: int, height: int
) -> dict[str, Any]:
    _require_listed_size(row)
    sides = (row["width"], row["height"]) if turn % 180 == 0 else (row["height"], row["width"])
    return {k: row[k] for k in ("sample_id", "task", "caption", "captions", "stream")} | {
        "image": fit(row["image"], width, height, turn),
        "references": [fit(images[i], width, height) for i in row["reference_ids"]],
        "slice": "base",
        "mask": fit_mask(row["mask"], width, height) if row.get("mask") else None,
        "width": width,
        "height": height,
        "source_width": sides[0],
        "source_height": sides[1],
        "weight": weight,
        **{f.name: row.get(f.name) for f in RIGHTS},
    }


def _require_listed_size(row: Mapping[str, Any]) -> None:
    """Errors: `BadImage` if the picture is not of the size that the pool lists, by which its layout was chosen."""
    listed, size = (row["width"], row["height"]), upright_size(open_image(row["image"]))
    if size != listed:  # `decode` refuses pixels that are not of the size in their header
        raise BadImage(
            f"the picture has {size[0]}x{size[1]} pixels, but the pool lists {listed[0]}x{listed[1]}: ingest it again"
        )


def _shard_file(folder: Path, file: Planned) -> ShardFile:
    path = folder / file.path
    planned = {
        f.name: getattr(file, f.name) for f in fields(file) if f.name not in ("content", "marks", "places", "equals")
    }
    return ShardFile(
        **planned,
        sha256=file_digest(path),
        bytes=path.stat().st_size,
        rows=file.rows,
        least_weight=min(weight for _, weight in file.marks.values()),
    )
