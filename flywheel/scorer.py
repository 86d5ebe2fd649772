"""What a scorer is, and what it sees. One scorer serves three uses: curation filter, evaluation verifier, RL reward."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from flywheel.environment import raise_environment_error

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PIXELS = 100_000_000  # decompression-bomb limit per image
WORKING_SIDE = 512  # long side, pixels, at which pixel statistics are defined
_JPEGS = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF tag


class BadImage(ValueError):
    """The bytes are no usable image; the message names the fault (zero bytes, not an image, too large, truncated)."""


@dataclass(frozen=True)
class Item:
    """One sample as a scorer sees it: encoded bytes plus text; each decode happens at most once and is shared.

    `header` and `pixels` raise `BadImage`.
    """

    image: bytes
    caption: str = ""
    task: str = "t2i"
    references: tuple[bytes, ...] = ()

    @cached_property
    def header(self) -> Image.Image:
        """The opened, undecoded PIL image: format, size, EXIF."""
        return open_image(self.image)

    @property
    def is_jpeg(self) -> bool:
        """A JPEG in color or gray: what can be decoded at reduced scale."""
        return self.header.format in _JPEGS and self.header.mode in ("RGB", "L")

    @cached_property
    def upright(self) -> Image.Image:
        """RGB PIL image, fully decoded, EXIF orientation applied, at native resolution."""
        return decode(self.image)

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3], upright, long side at most `WORKING_SIDE` pixels (area average): the one shared decode."""
        return _reduced(self.at_least(WORKING_SIDE), WORKING_SIDE)

    def at_least(self, side: int) -> np.ndarray:
        """uint8 [H, W, 3], upright, at the least scale that the format decodes to with a long side not below `side`.

        A decode of its own: for who needs less than `pixels`, and nothing else of the picture.
        """
        found = _turbo(self.header, self.image, side) if self.is_jpeg else None
        return np.asarray(self.upright) if found is None else found


def open_image(data: bytes) -> Image.Image:
    """Open encoded bytes without decoding. Errors: `BadImage` for zero bytes, non-images and decompression bombs."""
    if not data:
        raise BadImage("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of large images; the limit below is ours
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except UnidentifiedImageError as error:  # its message holds a memory address: equal faults need equal reasons
        raise BadImage("not an image: no known image format") from error
    except Exception as error:  # noqa: BLE001 - PIL plugins raise anything on hostile bytes; all of it means "not an image"
        raise BadImage(f"not an image: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"too large: {image.width}x{image.height} is over {MAX_PIXELS} pixels")
    return image


def decode(data: bytes) -> Image.Image:
    """Fully decode to upright RGB. Errors: `BadImage`, truncated data included."""
    return _load(open_image(data))


def decode_working(data: bytes) -> np.ndarray:
    """Decode to upright RGB uint8 [H, W, 3] with long side at most `WORKING_SIDE` pixels."""
    return Item(data).pixels


def _turbo(header: Image.Image, data: bytes, side: int) -> np.ndarray | None:
    """A JPEG as upright RGB uint8 [H, W, 3], at the least of 1, 1/2, 1/4 and 1/8 of its size that is not below `side`.

    None where the decoder has any complaint (cut short, corrupt): PIL, slower, then says what to make of it.
    """
    import simplejpeg

    width, height = header.size
    factor = next((f for f in (8, 4, 2) if max(width, height) >= f * side), 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turn = header.getexif().get(_ORIENTATION, 1)
        found = simplejpeg.decode_jpeg(data, min_width=-(-width // factor), min_height=-(-height // factor))
    except Exception:  # noqa: BLE001 - not lost: PIL decodes the same bytes next, and its verdict counts
        return None
    return _turned(found, turn)


def _turned(image: np.ndarray, orientation: object) -> np.ndarray:
    """[H, W, C] as EXIF orientations 1 to 8 want it; any other value turns nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _load(image: Image.Image) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # noqa: BLE001 - decoders raise anything on hostile bytes; all of it is one bad image
        raise BadImage(f"truncated or corrupt: {error}") from error


class Scorer(Protocol):
    """Turns items into columns. Pure: same item, same columns; thresholds are no part of it.

    `name` prefixes its columns in a policy (`header.short_edge`); `version` changes whenever a value could change.
    """

    name: str
    version: str
    fields: tuple[pa.Field, ...]

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One dict per item (keys: `fields`), or the exception that this item alone raised, in its place."""
        ...


def per_item(items: Sequence[Item], one: Any) -> list[dict[str, Any] | Exception]:
    """Apply `one(item) -> dict` to each item; a failure costs exactly its own row.

    Errors: `UsageError` for what is no fault of a row: a package that does not load, weights that are missing.
    """
    out: list[dict[str, Any] | Exception] = []
    for item in items:
        try:
            out.append(one(item))
        except Exception as error:  # noqa: BLE001 - the error becomes the row's `error` column, never lost
            raise_environment_error(error)
            out.append(error)
    return out
