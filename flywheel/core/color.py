"""Colour profiles: the one that a picture carries, and the way from it to sRGB by littleCMS."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from flywheel.core.container import chunks_before_pixels

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # mode → colour space of a profile that fits it
_GRAY_TYPES = (0, 4)  # colour types of PNG without colour
_LARGEST = 2**24  # bytes of a profile, unpacked
_PRIMARIES = {  # ITU-T H.273: x, y of white, red, green, blue
    1: (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # gamma, a, b, c, d of ICC's parametric type 3
_VIDEO_CURVE = (2.4,)  # how screens show it (BT.1886), not how cameras record it
_CURVES = {
    1: _VIDEO_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: _VIDEO_CURVE,
    8: (1.0,),
    13: _SRGB_CURVE,
    14: _VIDEO_CURVE,
    15: _VIDEO_CURVE,
}
_PLAIN_GAMMA, _NEAR = 0.45455, 0.005  # of gAMA: what writers of sRGB put there, about
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


def png_profile(data: bytes) -> bytes | None:
    """The profile of a PNG: of cICP, iCCP, sRGB, or gAMA and cHRM, the first that is sound; None for plain sRGB.

    Curves for high dynamic range (PQ, HLG) are not followed.
    """
    chunks = chunks_before_pixels(data)
    gray = data[25] in _GRAY_TYPES
    codes = chunks.get(b"cICP", b"")
    if len(codes) == 4 and codes[0] in _PRIMARIES and codes[1] in _CURVES and codes[2:] == b"\0\1":
        plain = (codes[0], codes[1]) == (1, 13)
        return None if plain else matrix_profile(_PRIMARIES[codes[0]], _CURVES[codes[1]], gray=gray)
    packed = chunks.get(b"iCCP", b"").partition(b"\0")[2][1:]
    if packed and (profile := _unpacked(packed)):
        return profile
    if b"sRGB" in chunks:
        return None
    return _profile_of_numbers(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""), gray=gray)


def _profile_of_numbers(gamma_chunk: bytes, primaries_chunk: bytes, *, gray: bool) -> bytes | None:
    gamma = int.from_bytes(gamma_chunk, "big") / 100_000 if len(gamma_chunk) == 4 else 0.0
    if not 0.05 < gamma < 20:
        return None  # primaries alone say nothing: browsers do the same
    places = tuple(v / 100_000 for v in struct.unpack(">8I", primaries_chunk)) if len(primaries_chunk) == 32 else ()
    if not places or min(places[1::2]) <= 0 or np.allclose(places, _PRIMARIES[1], atol=1e-3):
        places = ()
    curve = _SRGB_CURVE if abs(gamma - _PLAIN_GAMMA) < _NEAR else (1 / gamma,)
    if not places and curve is _SRGB_CURVE:
        return None
    return matrix_profile(places or _PRIMARIES[1], curve, gray=gray)


def matrix_profile(primaries: tuple[float, ...], curve: tuple[float, ...], *, gray: bool = False) -> bytes:
    """ICC profile of primaries (x, y of white, red, green, blue) and a curve (ICC's parametric type 0 or 3)."""
    kind = b"para\0\0\0\0" + struct.pack(">HH", 3 if len(curve) > 1 else 0, 0)
    tone = kind + b"".join(map(_fixed, curve))
    if gray:
        return _profile(b"GRAY", {b"kTRC": tone})
    white, *colors = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2]))
    matrix = np.stack(colors, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    adapt = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD)
    columns = (adapt @ matrix).T
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(_fixed, c)) for name, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns)}
    return _profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tone))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB: by the profile where it fits the picture's mode, else by the usual conversion of the mode."""
    transform = _transform(profile, image.mode) if profile or image.mode == "LAB" else None
    converted = ImageCms.applyTransform(image, transform) if transform else image
    assert converted is not None  # None is for transforms in place
    return converted if converted.mode == "RGB" else converted.convert("RGB")


@lru_cache(maxsize=32)
def profile_name(profile: bytes | None) -> str:
    """Description inside a profile; empty without a profile, "damaged" for one that cannot be read."""
    try:
        return ImageCms.getProfileDescription(io.BytesIO(profile)).strip() if profile else ""
    except (ImageCms.PyCMSError, OSError):
        return "damaged"


@lru_cache(maxsize=32)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None for a profile that is damaged, of another colour space, or sRGB already."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        if source.profile.xcolor_space.strip() != _SPACES.get(mode):
            return None
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "RGB":
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), transform)).astype(int)
        if np.abs(moved - cube).max() <= 1:
            return None
    return transform


def _unpacked(packed: bytes) -> bytes:
    """The profile of an iCCP chunk; empty where it is damaged or over-large."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed, _LARGEST)
    except zlib.error:
        return b""
    return profile if profile[36:40] == b"acsp" else b""


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """ICC version 4 file of a display profile."""
    name = "from the file's numbers".encode("utf-16-be")
    about = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(name), 28) + name
    every = {b"desc": about, b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(_fixed, _D50))} | tags
    index, body, start = b"", b"", 132 + 12 * len(every)
    for signature, tag in every.items():
        index += struct.pack(">4sII", signature, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"", 0x04300000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    return (head + b"".join(map(_fixed, _D50))).ljust(128, b"\0") + struct.pack(">I", len(every)) + index + body
