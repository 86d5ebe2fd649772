"""A round's mix as files that training scripts of others read: a folder of images, or WebDataset shards.

Rows are written in the mix's proportions, so that a script that draws uniformly trains on the mix: a slice with fewer
rows than its share asks for is repeated, one with more is thinned by a keyed hash.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.records import BASE, Manifest
from flywheel.core.schema import slice_column
from flywheel.core.storage import located, readable

PER_SHARD = 1000  # rows of a WebDataset shard
_READ = ("sample_id", "task", "caption", "image", "references", "mask")


def export(mix: Sequence[Mapping[str, Any]], folder: Path, *, kind: str, samples: int, seed: int) -> Path:
    """Write the mix to `folder`; a finished one is kept. Returns the folder.

    kind: `images`: pictures and `metadata.jsonl` with `file_name` and `text`, as Hugging Face's imagefolder reads it;
    or `webdataset`: `.tar` shards with `png` or `jpg`, `txt` and `json` of each row. References of an edit are
    `<name>.ref0.png` … beside it. samples: rows in all; 0: as many as the mix has. Errors: `UsageError` without rows.
    """
    if folder.exists():
        return folder
    chosen = [(source, _choose(source, amount, seed)) for source, amount in _amounts(mix, samples)]
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    rows = (row for source, times in chosen for row in _rows(source, times))
    (_write_images if kind == "images" else _write_shards)(unfinished, rows)
    os.replace(unfinished, folder)
    return folder


def _amounts(mix: Sequence[Mapping[str, Any]], samples: int) -> list[tuple[Mapping[str, Any], int]]:
    """Rows to write of each source."""
    sizes = [len(_ids(source)) for source in mix]
    if empty := [s for s, size in zip(mix, sizes) if not size]:
        raise UsageError(f"{empty[0]['manifest']} has no rows of {empty[0]['slice']}: there is nothing to train on")
    total = samples or sum(sizes)
    return [(source, max(1, round(source["share"] * total))) for source in mix]


def _ids(source: Mapping[str, Any]) -> list[str]:
    """Ids of a source's rows, in the order of its files."""
    return [row["sample_id"] for row in _stored(source, ("sample_id",))]


def _choose(source: Mapping[str, Any], amount: int, seed: int) -> dict[str, int]:
    """{sample id: how often it is written}."""
    ids = sorted(set(_ids(source)), key=lambda i: digest("export", seed, i))
    whole, rest = divmod(amount, len(ids))
    return {i: whole + (n < rest) for n, i in enumerate(ids) if whole + (n < rest)}


def _stored(source: Mapping[str, Any], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a source's slice, a row group at a time."""
    path = located(source["manifest"])
    for shard in Manifest.read(path).files:
        file = pq.ParquetFile(readable(path.parent / shard.path))
        names = set(file.schema_arrow.names)
        slices = slice_column(names)
        wanted = [c for c in (*columns, slices) if c in names]
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group, columns=wanted).to_pylist():
                if row.get(slices) in (source["slice"], None) or source["slice"] == BASE:
                    yield row


def _rows(source: Mapping[str, Any], times: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for row in _stored(source, _READ):
        if row["sample_id"] in times and row["sample_id"] not in seen:
            seen.add(row["sample_id"])
            for copy in range(times[row["sample_id"]]):
                yield row | {"name": f"{source['slice']}-{row['sample_id'][:40]}-{copy}".replace("/", "_")}


def _files(row: Mapping[str, Any]) -> dict[str, bytes]:
    """{file name without the row's own: content} of a row's pictures, its own first."""
    files = {_ending(row["image"]): row["image"]}
    files |= {f"ref{n}.{_ending(r)}": r for n, r in enumerate(row.get("references") or ())}
    return files | ({"mask.png": row["mask"]} if row.get("mask") else {})


def _ending(image: bytes) -> str:
    return "png" if image.startswith(b"\x89PNG") else "jpg"


def _write_images(folder: Path, rows: Iterator[dict[str, Any]]) -> None:
    with open(folder / "metadata.jsonl", "w") as metadata:
        for row in rows:
            files = _files(row)
            for name, content in files.items():
                (folder / f"{row['name']}.{name}").write_bytes(content)
            own, *others = (f"{row['name']}.{name}" for name in files)
            line = {"file_name": own, "text": row["caption"], "task": row["task"]}
            references = [name for name in others if ".ref" in name]
            line |= {"references": references} if references else {}
            metadata.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_shards(folder: Path, rows: Iterator[dict[str, Any]]) -> None:
    for number in itertools.count():
        shard = list(itertools.islice(rows, PER_SHARD))
        if not shard:
            return
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for row in shard:
                about = {"sample_id": row["sample_id"], "task": row["task"], "text": row["caption"]}
                texts = {"txt": row["caption"].encode(), "json": json.dumps(about, ensure_ascii=False).encode()}
                for name, content in (_files(row) | texts).items():
                    member = tarfile.TarInfo(f"{row['name'].replace('.', '_')}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
