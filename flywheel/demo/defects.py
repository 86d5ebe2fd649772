"""Planted defects: one or more files of each kind that the first stage must catch, each with its expected outcome."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from curation.synthesis.canvas import encode
from flywheel.demo.photographs import crops

ORIENTATION = 0x0112  # EXIF tag
T = TypeVar("T")


@dataclass(frozen=True)
class Defect:
    """A planted file.

    `outcome`: quarantined, dropped, or admitted (sound, or corrected). `caption` None: the file has no caption row.
    """

    file: str
    data: bytes
    caption: str | None
    kind: str
    outcome: str
    twin: str | None = None  # file that it duplicates


def defects(seed: int, card: tuple[str, bytes, str], spare: list[tuple[bytes, str]]) -> Iterator[Defect]:
    """Every kind of defect.

    `card`: (file, PNG, caption) of a sound card to duplicate. `spare`: (PNG, caption) of two cards without a file yet.
    """
    rng = np.random.default_rng(seed)
    pictures = [picture for picture, _ in crops(9, seed=f"{seed}/defects")]
    photo = jpeg(pictures[0])
    yield Defect("truncated-1.jpg", photo[: len(photo) * 3 // 5], "a photograph", "truncated", "quarantined")
    yield Defect("truncated-2.png", encode(pictures[1])[:-2000], "a photograph", "truncated", "quarantined")
    yield Defect("empty.jpg", b"", "a photograph", "zero bytes", "quarantined")
    page = b"<html><body>404 not found</body></html>\n"
    yield Defect("page.jpg", page, "a photograph", "not an image", "quarantined")
    yield Defect("bomb.png", bomb(40_000), "a very large picture", "decompression bomb", "quarantined")

    file, data, caption = card
    yield Defect("copy.png", data, caption, "exact duplicate", "dropped", twin=file)
    large = pictures[2].resize((320, 320), Image.Resampling.LANCZOS)
    officer = "a portrait of an officer"
    yield Defect("near-original.png", encode(large), officer, "none", "admitted")
    small = large.resize((288, 288), Image.Resampling.BICUBIC)
    yield Defect("near-copy.jpg", jpeg(small, 60), officer, "near duplicate", "dropped", "near-original.png")

    white, blue = (encode(Image.new("RGB", (128, 128), c)) for c in ((250, 250, 250), (20, 60, 110)))
    yield Defect("blank-1.png", white, "a white card", "blank", "dropped")
    yield Defect("blank-2.png", blue, "a blue card", "blank", "dropped")
    for i, side in enumerate((128, 192), 1):
        noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        yield Defect(f"noise-{i}.png", encode(noise), "a picture of noise", "noise", "dropped")
    yield Defect("tiny.png", encode(pictures[3].resize((24, 24))), "a photograph", "too small", "dropped")
    yield Defect("thin.jpg", jpeg(pictures[4].resize((640, 20))), "a photograph of a ribbon", "too small", "dropped")

    (first, words), (second, _) = spare
    yield Defect("long-caption.png", first, f"{words}, " + ", ".join([words] * 250), "over-long caption", "dropped")
    yield Defect("no-caption.png", second, None, "missing caption", "dropped")

    upright = pictures[5].resize((256, 192))
    turned = jpeg(upright.transpose(Image.Transpose.ROTATE_90), orientation=6)
    yield Defect("turned.jpg", turned, "a photograph taken with a turned camera", "EXIF rotation", "admitted")
    turned_badly = jpeg(pictures[6], orientation=9)
    yield Defect("bad-exif.jpg", turned_badly, "a photograph", "invalid EXIF orientation", "dropped")


def jpeg(image: Image.Image, quality: int = 90, orientation: int | None = None) -> bytes:
    """JPEG bytes, with an EXIF orientation if one is given."""
    out, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    image.save(out, "JPEG", quality=quality, exif=exif)
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of under 1 KB whose header declares side × side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def shuffled(values: list[T], seed: str) -> list[T]:
    """The values in an order fixed by `seed`."""
    return random.Random(seed).sample(values, len(values))
