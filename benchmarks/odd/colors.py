"""Colour profiles in every container."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.odd import profile
from benchmarks.odd.png import GRAY, RGB, chunk, png
from benchmarks.odd.scene import Case, alpha, encoded, scene

# Why the browser is not followed.
_NO_PROFILE = "it refuses the file for its profile; the pixels are sound"


def profiles() -> Iterator[Case]:
    """RGB profiles in every container, with alpha and palettes too."""
    picture = scene(3)
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha()))
    containers = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    for name, icc in profile.rgb_profiles().items():
        for form, options in containers.items():
            data = encoded(picture, form, icc_profile=icc, **options)
            if form == "AVIF" and name in ("damaged", "of gray"):
                yield Case(f"{form} profile", f"{name}.avif", data, "source", picture, _NO_PROFILE)
            else:
                yield Case(f"{form} profile", f"{name}.{form.lower()}", data)
        yield Case("TIFF profile", f"{name}.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")
        yield Case("PNG alpha and profile", f"{name}-alpha.png", encoded(rgba, "PNG", icc_profile=icc))
    icc = profile.matrix(profile.DISPLAY_P3)
    yield Case("PNG palette and profile", "p3-palette.png", encoded(picture.quantize(64), "PNG", icc_profile=icc))
    yield Case("PNG palette and profile", "p3-palette-alpha.png", encoded(rgba.quantize(64), "PNG", icc_profile=icc))
    yield Case("WEBP alpha and profile", "p3-alpha.webp", encoded(rgba, "WEBP", icc_profile=icc, lossless=True))
    deep = np.asarray(picture).astype(np.uint32) * 257
    packed = b"p\0\0" + zlib.compress(icc)
    yield Case("PNG deep and profile", "p3-16.png", png(deep, 16, RGB, [chunk(b"iCCP", packed)]))


def gray_profiles() -> Iterator[Case]:
    """Gray pictures with gray profiles."""
    picture = scene(5).convert("L")
    la = picture.copy()
    la.putalpha(Image.fromarray(alpha()))
    for gamma in (1.0, 1.8, 2.2):
        icc = profile.gray(gamma)
        yield Case("gray and profile", f"gray-{gamma}.jpeg", encoded(picture, "JPEG", quality=95, icc_profile=icc))
        yield Case("gray and profile", f"gray-{gamma}.png", encoded(picture, "PNG", icc_profile=icc))
        yield Case("gray and profile", f"gray-{gamma}-alpha.png", encoded(la, "PNG", icc_profile=icc))
        deep = np.asarray(picture).astype(np.uint32) * 257
        piece = chunk(b"iCCP", b"g\0\0" + zlib.compress(icc))
        yield Case("gray and profile", f"gray-{gamma}-16.png", png(deep, 16, GRAY, [piece]))
        yield Case("gray and profile", f"gray-{gamma}.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")


def cmyk() -> Iterator[Case]:
    """Four inks, with and without a profile."""
    picture = scene(6).convert("CMYK")
    icc = profile.table(b"CMYK", profile.inks)
    yield Case("CMYK", "cmyk.jpeg", encoded(picture, "JPEG", quality=95))
    yield Case("CMYK", "cmyk-press.jpeg", encoded(picture, "JPEG", quality=95, icc_profile=icc))
    yield Case(
        "CMYK",
        "cmyk-rgb-profile.jpeg",
        encoded(picture, "JPEG", quality=95, icc_profile=profile.matrix(profile.ADOBE)),
    )
    yield Case("CMYK", "cmyk.tiff", encoded(picture, "TIFF"), "source", picture.convert("RGB"))
    yield Case("CMYK", "cmyk-press.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")
