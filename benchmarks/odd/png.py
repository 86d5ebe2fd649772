"""PNG by hand (Pillow writes only a part of what others do): depths, colour keys, colour chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.odd import profile
from benchmarks.odd.scene import Case, alpha, scene

START = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6  # colour types


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    samples: np.ndarray, depth: int, color: int, before: Sequence[bytes] = (), after: Sequence[bytes] = ()
) -> bytes:
    """PNG of whole samples [H, W] or [H, W, C] at a depth; further chunks before and after the pixels."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., -depth:].reshape(height, -1)
        packed = np.packbits(bits, axis=-1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1).tobytes()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"".join([START, head, *before, chunk(b"IDAT", zlib.compress(lines)), *after, chunk(b"IEND", b"")])


def beside_pixels(data: bytes, piece: bytes, *, late: bool = False) -> bytes:
    """The PNG with one more chunk, after its header or before its end."""
    place = len(data) - 12 if late else 33
    return data[:place] + piece + data[place:]


def depths() -> Iterator[Case]:
    """PNG: every colour type at every depth, with and without transparency."""
    rgb = np.asarray(scene(1)).astype(np.uint32)
    gray = np.asarray(scene(1).convert("L")).astype(np.uint32)
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        samples = np.round(gray * top / 255).astype(np.uint32)
        key = int(np.bincount(samples.ravel()).argmax())
        yield Case("PNG gray depth", f"gray{depth}.png", png(samples, depth, GRAY))
        yield Case(
            "PNG tRNS", f"gray{depth}-key.png", png(samples, depth, GRAY, [chunk(b"tRNS", struct.pack(">H", key))])
        )
    for depth in (1, 2, 4, 8):
        indexed = scene(1).quantize(2**depth)
        colors = chunk(b"PLTE", bytes(indexed.getpalette()[: 3 * 2**depth]))
        clear = chunk(b"tRNS", bytes(60 * i % 256 for i in range(2**depth)))
        yield Case("PNG palette", f"palette{depth}.png", png(np.asarray(indexed), depth, PALETTE, [colors]))
        yield Case("PNG tRNS", f"palette{depth}-alpha.png", png(np.asarray(indexed), depth, PALETTE, [colors, clear]))
    for depth, scale in ((8, 1), (16, 257)):
        deep = rgb * scale + (np.arange(rgb.size).reshape(rgb.shape) % 100 if depth == 16 else 0)
        deep = np.minimum(deep, 2**depth - 1)
        key = deep[40, 60]
        deep[10:30, 50:90] = key
        clear = chunk(b"tRNS", struct.pack(">3H", *key))
        opacity = alpha().astype(np.uint32)[..., None] * scale
        yield Case("PNG RGB depth", f"rgb{depth}.png", png(deep, depth, RGB))
        yield Case("PNG tRNS", f"rgb{depth}-key.png", png(deep, depth, RGB, [clear]))
        yield Case("PNG alpha", f"rgba{depth}.png", png(np.dstack([deep, opacity]), depth, RGBA))
        yield Case("PNG alpha", f"la{depth}.png", png(np.dstack([gray * scale, opacity]), depth, GRAY_ALPHA))


def color_chunks() -> Iterator[Case]:
    """PNG colour without a profile: gAMA, cHRM, sRGB, cICP."""
    gamma = chunk(b"gAMA", struct.pack(">I", 55556))  # 1 / 1.8
    plain = chunk(b"gAMA", struct.pack(">I", 45455))
    linear = chunk(b"gAMA", struct.pack(">I", 100000))
    white = (31270, 32900)
    p3 = chunk(b"cHRM", struct.pack(">8I", *white, 68000, 32000, 26500, 69000, 15000, 6000))
    srgb = chunk(b"cHRM", struct.pack(">8I", *white, 64000, 33000, 30000, 60000, 15000, 6000))
    tagged = chunk(b"sRGB", b"\0")
    icc = chunk(b"iCCP", b"p\0\0" + zlib.compress(profile.matrix(profile.ADOBE)))
    sets = {
        "gamma": [gamma], "gamma-linear": [linear], "gamma-2.2": [plain], "primaries": [p3],
        "gamma-and-primaries": [gamma, p3], "linear-and-srgb-primaries": [linear, srgb], "plain-p3": [plain, p3],
        "srgb": [tagged], "srgb-over-gamma": [tagged, gamma, p3], "icc-over-gamma": [icc, gamma, p3],
        "cicp-p3": [chunk(b"cICP", bytes((12, 13, 0, 1)))], "cicp-srgb": [chunk(b"cICP", bytes((1, 13, 0, 1)))],
        "cicp-over-icc": [chunk(b"cICP", bytes((12, 13, 0, 1))), icc],
        "cicp-2020": [chunk(b"cICP", bytes((9, 1, 0, 1)))],
    }  # fmt: skip
    rgb = np.asarray(scene(4))
    for name, pieces in sets.items():
        yield Case("PNG colour chunks", f"{name}.png", png(rgb, 8, RGB, pieces))
    gray = np.asarray(scene(4).convert("L"))
    for name in ("gamma", "linear-and-srgb-primaries"):
        yield Case("PNG colour chunks", f"gray-{name}.png", png(gray, 8, GRAY, sets[name]))
