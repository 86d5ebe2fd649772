"""TIFF: whole, signed and float samples of every width, layouts, alpha, modes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image, ImageCms

from benchmarks.odd.scene import Case, alpha, encoded, scene


def tiffs() -> Iterator[Case]:
    """TIFF of whole, signed and float samples, in both photometric senses, with alpha, planes and tiles, and modes."""
    yield from _gray_samples()
    yield from _colour_and_layouts()
    yield from _modes()


def _gray_samples() -> Iterator[Case]:
    gray = np.asarray(scene(10).convert("L"))
    unit = gray / 255
    kinds = {
        "u8": gray, "u16": gray.astype(np.uint16) * 257, "u32": gray.astype(np.uint32) * 16843009,
        "s8": (gray.astype(np.int16) - 128).astype(np.int8),
        "s16": (gray.astype(np.int32) * 257 - 32768).astype(np.int16),
        "s32": (gray.astype(np.int64) * 16843009 - 2**31).astype(np.int32), "f32": unit.astype(np.float32),
        "f16": unit.astype(np.float16), "f64": unit, "u64": gray.astype(np.uint64),
    }  # fmt: skip
    for name, samples in kinds.items():
        for sense in ("minisblack", "miniswhite"):
            for order in "<>":
                if order == ">" and samples.itemsize == 1:
                    continue
                yield Case(
                    "TIFF samples",
                    f"{name}-{sense}-{'little' if order == '<' else 'big'}.tiff",
                    _tiff(samples, photometric=sense, byteorder=order),
                    "tifffile",
                )


def _colour_and_layouts() -> Iterator[Case]:
    rgb = np.asarray(scene(10))
    gray = np.asarray(scene(10).convert("L"))
    wide = {
        "u16": rgb.astype(np.uint16) * 257,
        "f32": (rgb / 255).astype(np.float32),
        "u8": rgb,
        "s16": (rgb.astype(np.int32) * 257 - 32768).astype(np.int16),
        "u32": rgb.astype(np.uint32) * 16843009,
    }
    opacity = alpha()
    for name, samples in wide.items():
        yield Case("TIFF RGB", f"rgb-{name}.tiff", _tiff(samples, photometric="rgb"), "tifffile")
    for name, samples in {
        "u8": np.dstack([rgb, opacity]),
        "u16": np.dstack([rgb, opacity]).astype(np.uint16) * 257,
    }.items():
        for sense in ("unassalpha", "assocalpha"):
            held = samples.copy()
            if sense == "assocalpha":
                held[..., :3] = np.round(samples[..., :3] * (samples[..., 3:] / np.iinfo(samples.dtype).max))
            yield Case(
                "TIFF alpha",
                f"rgba-{name}-{sense}.tiff",
                _tiff(held, photometric="rgb", extrasamples=[sense]),
                "tifffile",
            )
    yield Case(
        "TIFF alpha",
        "la.tiff",
        _tiff(np.dstack([gray, opacity]), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"),
        "tifffile",
    )
    yield Case(
        "TIFF alpha",
        "unspecified-extra.tiff",
        _tiff(np.dstack([rgb, opacity]), photometric="rgb", extrasamples=["unspecified"]),
        "tifffile",
    )
    yield Case(
        "TIFF layout",
        "planar.tiff",
        _tiff(np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"),
        "tifffile",
    )
    yield Case(
        "TIFF layout",
        "planar-u16.tiff",
        _tiff(np.moveaxis(rgb, -1, 0).astype(np.uint16) * 257, photometric="rgb", planarconfig="separate"),
        "tifffile",
    )
    yield Case(
        "TIFF layout", "tiles.tiff", _tiff(rgb, photometric="rgb", tile=(32, 32), compression="zlib"), "tifffile"
    )
    yield Case("TIFF layout", "big.tiff", _tiff(rgb, photometric="rgb", bigtiff=True), "tifffile")
    yield Case(
        "TIFF layout",
        "predictor-u16.tiff",
        _tiff(gray.astype(np.uint16) * 257, compression="zlib", predictor=True),
        "tifffile",
    )


def _modes() -> Iterator[Case]:
    gray = np.asarray(scene(10).convert("L"))
    unit = gray / 255
    for name in ("tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"):
        yield Case("TIFF layout", f"{name}.tiff", encoded(scene(10), "TIFF", compression=name), "source", scene(10))
    bilevel = scene(10).convert("1")
    for name in ("group3", "group4", None):
        yield Case(
            "TIFF mode", f"1-{name}.tiff", encoded(bilevel, "TIFF", compression=name), "source", bilevel.convert("RGB")
        )
    indexed = scene(10).quantize(64)
    yield Case("TIFF mode", "P.tiff", encoded(indexed, "TIFF"), "source", indexed.convert("RGB"))
    yield Case(
        "TIFF mode", "jpeg.tiff", encoded(scene(10), "TIFF", compression="jpeg", quality=98), "source", scene(10)
    )
    yield Case("TIFF mode", "YCbCr.tiff", encoded(scene(10).convert("YCbCr"), "TIFF"), "source", scene(10))
    lab = ImageCms.profileToProfile(
        scene(10), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    yield Case("TIFF mode", "LAB.tiff", encoded(lab, "TIFF"), "source", scene(10))
    yield from (
        Case(
            "TIFF mode",
            f"bits{bits}.tiff",
            _packed_tiff(gray, bits),
            "source",
            Image.fromarray(np.round(np.round(unit * (2**bits - 1)) * 255 / (2**bits - 1)).astype(np.uint8)).convert(
                "RGB"
            ),
        )
        for bits in (1, 2, 4, 12)
    )


def _tiff(samples: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    order = str(options.pop("byteorder", "<"))
    with tifffile.TiffWriter(out, bigtiff=bool(options.pop("bigtiff", False)), byteorder=order) as writer:
        writer.write(samples.astype(samples.dtype.newbyteorder(order)), metadata=None, **options)
    return out.getvalue()


def _packed_tiff(gray: np.ndarray, bits: int) -> bytes:
    """Gray TIFF of 1 to 12 bits a sample, written by hand."""
    height, width = gray.shape
    samples = np.round(gray / 255 * (2**bits - 1)).astype(np.uint16)
    spread = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=-1)[..., -bits:]
    body = np.packbits(spread.reshape(height, -1), axis=-1).tobytes()
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(body)}
    table = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in fields.items()
    )
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(body) + len(body) % 2)
        + body
        + bytes(len(body) % 2)
        + struct.pack("<H", len(fields))
        + table
        + bytes(4)
    )
