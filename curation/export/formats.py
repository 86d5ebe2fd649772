"""The formats: how each writes a part, and the lines that load it.

References: the WebDataset convention (fields of a sample share a key), the Parquet features of Hugging Face `datasets`,
its `imagefolder`, and the MDS shards of MosaicML `streaming`, version 2.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.export.rows import FIELDS, Sample, suffix
from flywheel.core.files import write_json
from flywheel.core.schema import ROW_GROUP


@dataclass(frozen=True)
class PartFile:
    """A file of a part: path relative to the export's folder, bytes and SHA-256; rows: in the whole part."""

    path: str
    bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Format:
    """A format. write: (folder, number of the part, samples, most references of a row) → files below the folder.

    index: writes what lists all parts. loading: three lines of Python that load the export in its folder.
    media: type of its files; glob: which of its files hold samples.
    """

    write: Callable[[Path, int, Iterator[Sample], int], None]
    loading: Callable[[int], Sequence[str]]
    media: str
    glob: str
    index: Callable[[Path, Sequence[PartFile], int], None] = lambda folder, files, references: None


# WebDataset ----------------------------------------------------------------------------------------------------------
def _write_tar(folder: Path, number: int, samples: Iterator[Sample], references: int) -> None:
    with tarfile.open(folder / f"train-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            for name, data in _members(sample):
                info = tarfile.TarInfo(f"{sample.key}.{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    yield suffix(sample.image), sample.image
    for n, reference in enumerate(sample.references):
        yield f"reference{n}.{suffix(reference)}", reference
    if sample.mask is not None:
        yield f"mask.{suffix(sample.mask)}", sample.mask
    yield "txt", sample.meta["text"].encode()
    yield "json", json.dumps(sample.meta, ensure_ascii=False, sort_keys=True).encode()


def _load_tar(parts: int) -> Sequence[str]:
    names = "train-00000.tar" if parts == 1 else f"train-{{00000..{parts - 1:05d}}}.tar"
    return (
        "import webdataset as wds",
        f'data = wds.WebDataset("{names}", shardshuffle=False).decode("pil").to_tuple("jpg;png", "txt", "json")',
        "picture, text, fields = next(iter(data))",
    )


# Parquet -------------------------------------------------------------------------------------------------------------
_PLAIN = pa.schema(
    [
        pa.field("image", pa.large_binary(), metadata={"doc": "picture, PNG or JPEG"}),
        pa.field("references", pa.list_(pa.large_binary()), metadata={"doc": "references of an edit, in order"}),
        pa.field("mask", pa.large_binary(), metadata={"doc": "gray PNG, white where the edit changed the picture"}),
        *FIELDS,
    ]
)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {"image": {"_type": "Image"}, "references": [{"_type": "Image"}], "mask": {"_type": "Image"}}


def _value(kind: pa.DataType) -> Any:
    """The `datasets` feature of a type."""
    if pa.types.is_list(kind):
        return [_value(kind.value_type)]
    if pa.types.is_struct(kind):
        return {kind.field(n).name: _value(kind.field(n).type) for n in range(kind.num_fields)}
    return {"_type": "Value", "dtype": str(kind)}


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The same type with the short text that every version of `datasets` knows."""
    if pa.types.is_list(kind):
        return pa.list_(pa.field("item", _plain_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _plain_type(f.type)) for f in kind])
    return pa.string() if pa.types.is_large_string(kind) else kind


_FIELDS = pa.schema([pa.field(f.name, _plain_type(f.type)) for f in FIELDS])
_HF = pa.schema(
    [
        pa.field("image", _IMAGE),
        pa.field("references", pa.list_(pa.field("item", _IMAGE))),
        pa.field("mask", _IMAGE),
        *_FIELDS,
    ]
).with_metadata(
    {"huggingface": json.dumps({"info": {"features": _FEATURES | {f.name: _value(f.type) for f in _FIELDS}}})}
)


def _hf_row(sample: Sample) -> dict[str, Any]:
    def picture(data: bytes | None, name: str) -> dict[str, Any] | None:
        return None if data is None else {"bytes": data, "path": f"{sample.key}{name}.{suffix(data)}"}

    references = [picture(r, f".reference{n}") for n, r in enumerate(sample.references)]
    pictures = {"image": picture(sample.image, ""), "references": references, "mask": picture(sample.mask, ".mask")}
    return pictures | dict(sample.meta)


def _plain_row(sample: Sample) -> dict[str, Any]:
    return {"image": sample.image, "references": list(sample.references), "mask": sample.mask, **sample.meta}


def _parquet_writer(schema: pa.Schema, row: Callable[[Sample], dict[str, Any]]) -> Callable[..., None]:
    encoded = ("image", "references", "mask")
    plain = [f.name for f in schema if f.name not in encoded]

    def write(folder: Path, number: int, samples: Iterator[Sample], references: int) -> None:
        path = folder / "data" / f"train-{number:05d}.parquet"
        path.parent.mkdir()
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": plain, "write_statistics": plain}
        with pq.ParquetWriter(path, schema, **options) as writer:
            while group := [row(s) for s in islice(samples, ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))

    return write


def _load_hf(parts: int) -> Sequence[str]:
    return (
        "from datasets import load_dataset",
        'data = load_dataset("parquet", data_files="data/*.parquet", split="train")',
        'picture, text = data[0]["image"], data[0]["text"]',
    )


def _load_parquet(parts: int) -> Sequence[str]:
    return (
        "import pyarrow.dataset",
        'data = pyarrow.dataset.dataset("data", format="parquet").to_batches(batch_size=64)',
        'picture, text = (next(data)[name][0].as_py() for name in ("image", "text"))',
    )


# Image folder --------------------------------------------------------------------------------------------------------
def _write_folder(folder: Path, number: int, samples: Iterator[Sample], references: int) -> None:
    """Pictures, references and masks as files; `metadata.parquet` names them: in JSON Lines, a column has no type."""
    here = folder / "train" / f"{number:05d}"
    here.mkdir(parents=True)
    pictures = [pa.field("file_name", pa.string())]
    if references:
        pictures.append(pa.field("references_file_names", pa.list_(pa.string())))
        pictures.append(pa.field("mask_file_name", pa.string()))
    schema = pa.schema([*pictures, *_FIELDS])
    with pq.ParquetWriter(here / "metadata.parquet", schema, compression="zstd") as writer:
        while group := [_saved(here, s) for s in islice(samples, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _saved(folder: Path, sample: Sample) -> dict[str, Any]:
    """Write the pictures of a sample; returns its row of the metadata."""
    named = [_picture(folder, f"{sample.key}.reference{n}", r) for n, r in enumerate(sample.references)]
    mask = _picture(folder, f"{sample.key}.mask", sample.mask) if sample.mask else None
    own = _picture(folder, sample.key, sample.image)
    return {"file_name": own, "references_file_names": named, "mask_file_name": mask, **sample.meta}


def _picture(folder: Path, name: str, data: bytes) -> str:
    path = folder / f"{name}.{suffix(data)}"
    path.write_bytes(data)
    return path.name


def _load_folder(parts: int) -> Sequence[str]:
    return (
        "from datasets import load_dataset",
        'data = load_dataset("imagefolder", data_dir="train", split="train")',
        'picture, text = data[0]["image"], data[0]["text"]',
    )


# MDS -----------------------------------------------------------------------------------------------------------------
_MOST = 2**32 - 1  # offsets in a shard are 32 bits


def _mds_columns(references: int) -> dict[str, str]:
    """Column → encoding, in the order of the file."""
    pictures = ["image", "mask", *(f"reference_{n}" for n in range(references))]
    texts = {"fields": "json", "key": "str", "sample_id": "str", "text": "str"}
    return dict(sorted((dict.fromkeys(pictures, "bytes") | texts).items()))


def _mds_config(references: int) -> dict[str, Any]:
    columns = _mds_columns(references)
    return {
        "column_encodings": list(columns.values()),
        "column_names": list(columns),
        "column_sizes": [None] * len(columns),
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": None,
        "version": 2,
    }


def _mds_row(sample: Sample, references: int) -> bytes:
    values: dict[str, bytes] = {f"reference_{n}": b"" for n in range(references)}
    values |= {f"reference_{n}": r for n, r in enumerate(sample.references)}
    values |= {"image": sample.image, "mask": sample.mask or b"", "fields": json.dumps(dict(sample.meta)).encode()}
    values |= {name: sample.meta[name].encode() for name in ("key", "sample_id", "text")}
    ordered = [values[name] for name in _mds_columns(references)]
    return np.array([len(v) for v in ordered], np.uint32).tobytes() + b"".join(ordered)


def _write_mds(folder: Path, number: int, samples: Iterator[Sample], references: int) -> None:
    body, ends = folder / "body", [0]
    with open(body, "wb") as out:
        for sample in samples:
            ends.append(ends[-1] + out.write(_mds_row(sample, references)))
    config = json.dumps(_mds_config(references), sort_keys=True).encode()
    offsets = np.array(ends, np.int64) + 4 + 4 * len(ends) + len(config)
    if offsets[-1] > _MOST:
        raise ValueError(f"part {number} has {offsets[-1]} bytes, more than an MDS shard can address")
    with open(folder / f"shard.{number:05d}.mds", "wb") as out, open(body, "rb") as data:
        _write_all(out, np.uint32(len(ends) - 1).tobytes(), offsets.astype(np.uint32).tobytes(), config)
        shutil.copyfileobj(data, out, 2**20)
    body.unlink()


def _write_all(out: BinaryIO, *blocks: bytes) -> None:
    for block in blocks:
        out.write(block)


def _index_mds(folder: Path, files: Sequence[PartFile], references: int) -> None:
    config = _mds_config(references)
    shards = [
        config | {"raw_data": {"basename": f.path, "bytes": f.bytes, "hashes": {}}, "samples": f.rows, "zip_data": None}
        for f in files
    ]
    write_json(folder / "index.json", {"shards": shards, "version": 2})


def _load_mds(parts: int) -> Sequence[str]:
    return (
        "from streaming import StreamingDataset",
        'data = StreamingDataset(local=".", batch_size=1, shuffle=False)',
        'picture, text = data[0]["image"], data[0]["text"]',
    )


FORMATS: Mapping[str, Format] = {
    "webdataset": Format(_write_tar, _load_tar, "application/x-tar", "*.tar"),
    "hf": Format(_parquet_writer(_HF, _hf_row), _load_hf, "application/x-parquet", "data/*.parquet"),
    "imagefolder": Format(_write_folder, _load_folder, "application/x-parquet", "train/*/metadata.parquet"),
    "mds": Format(_write_mds, _load_mds, "application/octet-stream", "*.mds", _index_mds),
    "parquet": Format(_parquet_writer(_PLAIN, _plain_row), _load_parquet, "application/x-parquet", "data/*.parquet"),
}


def files_of(folder: Path) -> Iterable[Path]:
    """Every file of a part, sorted."""
    return sorted(p for p in folder.rglob("*") if p.is_file())
