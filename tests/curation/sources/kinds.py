"""The same pictures in every layout that a source may have."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.curation.corpus import encoded, texture
from tests.curation.sources.pooled import write_tar

PICTURES = {f"{n}.png": encoded(texture(n, 48, 40)) for n in range(4)}
CAPTIONS = {name: f"picture {name[0]}" for name in PICTURES}


def tar_members() -> dict[str, bytes]:
    return PICTURES | {f"{name[0]}.txt": text.encode() for name, text in CAPTIONS.items()}


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def compressed(data: bytes, kind: str) -> bytes:
    if kind == "zst":
        return pa.compress(data, "zstd", asbytes=True)
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)


def write_kinds(root: Path) -> dict[str, Path]:
    """A source of each kind, by name; each has the four pictures with their captions."""
    lines = [{"file_name": n, "text": CAPTIONS[n]} for n in PICTURES]
    csv = "file_name,text\n" + "".join(f'{n},"{CAPTIONS[n]}"\n' for n in PICTURES)
    folders: dict[str, dict[str, bytes]] = {
        "txt": tar_members(),
        "json": PICTURES | {f"{n[0]}.json": json.dumps({"caption": c}).encode() for n, c in CAPTIONS.items()},
        "caption": PICTURES | {f"{n}.caption": c.encode() for n, c in CAPTIONS.items()},
        "metadata-jsonl": PICTURES | {"metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()},
        "metadata-csv": {f"train/{n}": d for n, d in PICTURES.items()} | {"train/metadata.csv": csv.encode()},
        "zips": {"all.zip": zipped(tar_members()), "README.md": b"about"},
    }
    for name, files in folders.items():
        for file, data in files.items():
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / file).write_bytes(data)
    _write_tars(root)
    _write_parquets(root)
    return {p.name: p for p in sorted(root.iterdir())}


def _write_tars(root: Path) -> None:
    """A folder of tars as they are, and one compressed in each way."""
    members = list(tar_members().items())
    halves = [dict(m for m in members if m[0][0] in "01"), dict(m for m in members if m[0][0] in "23")]
    (root / "tars").mkdir()
    for number, half in enumerate(halves):
        write_tar(root / "tars" / f"{number:05d}.tar", half)
        table = pa.table({"url": ["http://x/"], "caption": ["x"], "key": [str(number)]})
        pq.write_table(table, root / "tars" / f"{number:05d}.parquet")  # as img2dataset writes beside its tars
        (root / "tars" / f"{number:05d}_stats.json").write_text("{}")
    whole = write_tar(root / "whole.tar", tar_members())
    for kind in ("gz", "bz2", "xz", "zst"):
        (root / f"tar-{kind}").mkdir()
        (root / f"tar-{kind}" / f"all.tar.{kind}").write_bytes(compressed(whole.read_bytes(), kind))


def _write_parquets(root: Path) -> None:
    images, texts = list(PICTURES.values()), list(CAPTIONS.values())
    (root / "parquets" / "data").mkdir(parents=True)
    for part in range(2):
        half = slice(2 * part, 2 * part + 2)
        table = pa.table({"image": images[half], "text": texts[half], "url": ["http://x/"] * 2})
        pq.write_table(table, root / "parquets" / "data" / f"train-{part:05d}-of-00002.parquet")
    struct = [{"bytes": d, "path": n} for n, d in PICTURES.items()]
    (root / "hf").mkdir()
    pq.write_table(pa.table({"image": struct, "text": texts}), root / "hf" / "data.parquet")
    (root / "paths" / "images").mkdir(parents=True)
    for name, data in PICTURES.items():
        (root / "paths" / "images" / name).write_bytes(data)
    struct = [{"bytes": None, "path": f"images/{n}"} for n in PICTURES]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(struct, kind), "text": texts}), root / "paths" / "data.parquet")
