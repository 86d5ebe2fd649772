"""Deep TIFF samples in every layout, written by tifffile, look as their 8-bit twins do."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from flywheel.core.image import BadImage, decode, describe, open_image, upright_size
from flywheel.core.tiff import deep_tiff
from tests.curation.corpus import texture

GRAY = np.asarray(texture(1, 60, 40).convert("L"))
RGB = np.asarray(texture(2, 60, 40))
KINDS = {
    "int8": lambda v: (v.astype(int) - 128).astype("int8"),
    "uint16": lambda v: v.astype("uint16") * 257,
    "int16": lambda v: (v.astype(int) * 257 - 32768).astype("int16"),
    "uint32": lambda v: v.astype("uint32") * 16843009,
    "int32": lambda v: (v.astype("int64") * 16843009 - 2**31).astype("int32"),
    "uint64": lambda v: v.astype("uint64"),
    "float16": lambda v: (v / 255).astype("float16"),
    "float32": lambda v: (v / 255).astype("float32"),
    "float64": lambda v: v / 255,
}


def written(values: np.ndarray, order: str = "<", **options: object) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out, byteorder=order) as writer:
        writer.write(values.astype(values.dtype.newbyteorder(order)), metadata=None, **options)
    return out.getvalue()


def differs(data: bytes, expected: np.ndarray) -> int:
    shown = np.asarray(decode(data)).astype(int)
    return int(np.abs(shown - (expected if expected.ndim == 3 else expected[..., None])).max())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("sense", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("kind", KINDS)
def test_gray_of_every_type(kind: str, sense: str, order: str):
    data = written(KINDS[kind](GRAY), order, photometric=sense)
    assert differs(data, GRAY if sense == "minisblack" else 255 - GRAY) <= 1
    assert describe(data).depth == np.dtype(kind).itemsize * 8


@pytest.mark.parametrize("layout", ["contig", "separate", "tile", "zlib"])
@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "float32"])
def test_colour_of_every_layout(kind: str, layout: str):
    values, options = KINDS[kind](RGB), {"photometric": "rgb"}
    if layout == "separate":
        values, options = np.moveaxis(values, -1, 0), options | {"planarconfig": "separate"}
    elif layout == "tile":
        options |= {"tile": (16, 16)}
    elif layout == "zlib":
        options |= {"compression": "zlib", "rowsperstrip": 7}
    assert differs(written(values, **options), RGB) <= 1


@pytest.mark.parametrize("associated", [False, True])
def test_alpha_is_shown_on_white(associated: bool):
    alpha = np.tile(np.linspace(0, 255, 60).astype("uint8"), (40, 1))
    values = np.dstack([RGB, alpha]).astype("uint16") * 257
    if associated:
        values[..., :3] = np.round(values[..., :3] * (alpha[..., None] / 255))
    data = written(values, photometric="rgb", extrasamples=["assocalpha" if associated else "unassalpha"])
    share = alpha[..., None] / 255
    assert differs(data, np.round(RGB * share + 255 * (1 - share))) <= 2 and describe(data).alpha


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_tiff_is_turned_once(orientation: int):
    deep = written(KINDS["uint16"](RGB), photometric="rgb", extratags=[(0x0112, "H", 1, orientation, True)])
    plain = written(RGB, photometric="rgb", extratags=[(0x0112, "H", 1, orientation, True)])
    assert np.array_equal(np.asarray(decode(deep)), np.asarray(decode(plain)))
    assert upright_size(open_image(deep)) == decode(deep).size == ((40, 60) if orientation > 4 else (60, 40))


def test_pages_and_profiles_of_deep_files():
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(np.zeros((40, 60), "uint16"), metadata=None)
        writer.write(KINDS["uint16"](GRAY), metadata=None)
    assert differs(out.getvalue(), GRAY) <= 1
    assert (describe(out.getvalue()).frames, describe(out.getvalue()).frame) == (2, 1)


def test_cut_files_are_refused():
    for kind in ("uint16", "float64"):
        data = written(KINDS[kind](GRAY))
        with pytest.raises(BadImage):
            decode(data[: len(data) // 2])


def test_plain_files_are_left_to_pillow():
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, "TIFF", compression="tiff_lzw")
    assert deep_tiff(out.getvalue()) is None and deep_tiff(b"II*\0") is None and deep_tiff(b"") is None
    assert np.array_equal(np.asarray(decode(out.getvalue())), RGB)
