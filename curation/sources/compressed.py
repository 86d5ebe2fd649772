"""Archives that are compressed as a whole (.gz, .bz2, .xz, .zst): decompressed once to a temporary file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from curation.sources.copies import NOTE, spooled
from curation.sources.files import File, open_file

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_BLOCK = 64 * 1024  # at damage, what was read of a block is lost
_MOST_TIMES = 100  # pictures hardly shrink: what grows more than this, beyond a gigabyte, is a decompression bomb
_FREE_BYTES = 1024**3


def compression(head: bytes) -> str | None:
    """Name of the compression of a file that begins with these bytes; None if there is none."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def open_archive(file: File, faults: list[str], most: int | None = None) -> BinaryIO:
    """Open for random access, decompressed. Errors: `OSError`.

    faults: gets a sentence if the compressed data is damaged; what comes before the damage can be read. most: bytes of
    compressed data after which to stop.
    """
    opened = open_file(file)
    kind = compression(opened.read(6))
    opened.seek(0)
    if kind is None:
        return opened

    def write(place: Path) -> None:
        place.with_suffix(NOTE).write_text(_decompress(kind, opened, file.size, place, most))

    with opened:
        place = spooled(file.version, f"{kind}:{most}", write)
    faults[:] = filter(None, [place.with_suffix(NOTE).read_text()])
    return open(place, "rb")


def _decompress(kind: str, raw: BinaryIO, size: int, place: Path, most: int | None) -> str:
    """Write the decompressed bytes; returns what is wrong with the rest, or nothing."""
    import pyarrow as pa

    with open(place, "wb") as out:
        try:
            with _reader(kind, raw) as source:
                while block := source.read(_BLOCK):
                    out.write(block)
                    if most is not None and out.tell() >= most:
                        return ""
                    if out.tell() > max(_FREE_BYTES, _MOST_TIMES * size):
                        return f"the archive grows more than {_MOST_TIMES}-fold: read up to there"
        except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
            return f"the compressed data ends or is damaged after {out.tell()} bytes: {error}"
    return ""


def _reader(kind: str, raw: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    if kind == "zstd":
        return cast(BinaryIO, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))
    if kind == "gzip":
        return cast(BinaryIO, gzip.open(raw))
    return cast(BinaryIO, bz2.open(raw) if kind == "bz2" else lzma.open(raw))
