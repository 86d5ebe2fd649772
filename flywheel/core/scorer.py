"""What a scorer is, and what it sees. One scorer serves three uses: curation filter, evaluation verifier, RL reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from flywheel.core.environment import raise_environment_error
from flywheel.core.image import WORKING_SIDE, decode, is_jpeg, open_image, reduced_jpeg, shrunk

if TYPE_CHECKING:
    import pyarrow as pa


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
        return is_jpeg(self.header)

    @cached_property
    def upright(self) -> Image.Image:
        """RGB PIL image, fully decoded, EXIF orientation applied, at native resolution."""
        return decode(self.image)

    @cached_property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3], upright, long side at most `WORKING_SIDE` pixels (area average): the one shared decode."""
        return shrunk(self.at_least(WORKING_SIDE), WORKING_SIDE)

    def at_least(self, side: int) -> np.ndarray:
        """uint8 [H, W, 3], upright, at the least scale that the format decodes to with a long side not below `side`.

        A decode of its own: for who needs less than `pixels`, and nothing else of the picture.
        """
        found = reduced_jpeg(self.header, self.image, side) if self.is_jpeg else None
        return np.asarray(self.upright) if found is None else found


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
