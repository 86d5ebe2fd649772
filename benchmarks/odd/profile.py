"""Small colour profiles (ICC version 2) for the odd pictures: matrix, gray curve and table profiles, damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import numpy as np
from PIL import ImageCms
from skimage.color import rgb2lab

_D50 = (0.9642, 1.0, 0.8249)
_GRID = 9  # points of a table profile along each axis
# Columns of the matrix to XYZ at D50: red, green, blue.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


def matrix(columns: Sequence[Sequence[float]], gamma: float = 2.2) -> bytes:
    """RGB profile from primaries (XYZ at D50) and a gamma."""
    xyz = [(name, _xyz(c)) for name, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns)]
    return _profile(b"RGB ", b"XYZ ", [*xyz, *((name, _curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC"))])


def gray(gamma: float) -> bytes:
    """Gray profile with a gamma."""
    return _profile(b"GRAY", b"XYZ ", [(b"kTRC", _curve(gamma))])


def table(space: bytes, to_rgb: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """Profile of an 8-bit table to Lab; `to_rgb` maps inputs [N, channels] in 0..1 to sRGB [N, 3] in 0..1."""
    channels = {b"RGB ": 3, b"CMYK": 4}[space]
    steps = np.linspace(0, 1, _GRID)
    inputs = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1).reshape(-1, channels)
    lab = rgb2lab(np.clip(to_rgb(inputs), 0, 1)[None])[0]  # of its own white, as profiles want it
    body = np.clip(np.round(lab * (2.55, 1, 1) + (0, 128, 128)), 0, 255).astype(np.uint8).tobytes()
    identity = bytes(range(256))
    head = (
        b"mft1\0\0\0\0"
        + struct.pack(">4B", channels, 3, _GRID, 0)
        + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    )
    lut = head + identity * channels + body + identity * 3
    return _profile(space, b"Lab ", [(b"A2B0", lut)])


def inks(values: np.ndarray) -> np.ndarray:
    """sRGB [N, 3] of CMYK [N, 4], all in 0..1: a press whose cyan is bluish, magenta reddish and black brown."""
    c, m, y, k = values.T
    rgb = np.stack([1 - 0.95 * c - 0.1 * m, 1 - 0.35 * c - 0.9 * m, 1 - 0.1 * c - 0.4 * m - 0.95 * y], axis=-1)
    return np.clip(rgb, 0, 1) * (1 - k[:, None] * (0.85, 0.88, 0.9))


def warm(values: np.ndarray) -> np.ndarray:
    """sRGB [N, 3] of RGB [N, 3]: redder and darker, as a table can hold."""
    return values ** np.array([0.9, 1.1, 1.3]) * (1, 0.95, 0.85)


def rgb_profiles() -> dict[str, bytes]:
    """Name → profile, for RGB pictures."""
    return {
        "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "P3": matrix(DISPLAY_P3),
        "Adobe": matrix(ADOBE, 563 / 256),
        "swapped primaries": matrix(SRGB[::-1]),
        "linear": matrix(SRGB, 1.0),
        "table": table(b"RGB ", warm),
        "damaged": matrix(ADOBE)[:200],
        "of gray": gray(1.0),
    }


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(space: bytes, connection: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    name = b"benchmark"
    about = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(80)
    every = [(b"desc", about), (b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", _xyz(_D50)), *tags]
    place, index, data = 132 + 12 * len(every), b"", b""
    for signature, tag in every:
        index += signature + struct.pack(">II", place + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I", place + len(data)) + bytes(4) + b"\x02\x40\0\0" + kind + space + connection
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(48) + struct.pack(">I", len(every)) + index + data
