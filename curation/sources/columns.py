"""Names that data sets give to the same column; a letter's case does not matter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

IMAGE_NAMES = (
    "image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes",
    "edited_image", "edited_img", "target_image", "target_img", "target", "output_image",
)  # fmt: skip
REFERENCE_NAMES = (
    "references", "reference_images", "reference_image", "source_image", "source_img", "src_img", "original_image",
    "input_image", "input_images",
)  # fmt: skip
MASK_NAMES = ("mask", "mask_image", "mask_img")
CAPTION_NAMES = ("caption", "text", "prompt", "txt", "json")
INSTRUCTION_NAMES = ("instruction", "edit_instruction", "edit_prompt", *CAPTION_NAMES)
TEXT_NAMES = ("prompt", "text", "txt")  # keys of a .json that downloaders write the caption under


def first(names: Sequence[str], there: Collection[str]) -> str | None:
    """The first of the names that a column has, in any letter case."""
    lower = {n.lower(): n for n in sorted(there)}
    return next((lower[n.lower()] for n in names if n.lower() in lower), None)


def every(names: Sequence[str], there: Collection[str]) -> tuple[str, ...]:
    """The columns that have one of the names, in the order of the names."""
    return tuple(found for name in names if (found := first((name,), there)) is not None)


def spoken(names: Sequence[str], row: Mapping[str, Any]) -> str | None:
    """The first of the names under which a row says something."""
    return first(names, [name for name, value in row.items() if says(value)])


def says(value: Any) -> bool:
    """Whether a value holds a text: is one, lists one, or has one under a name of captions."""
    if isinstance(value, Mapping):
        return any(says(v) for n, v in value.items() if n.lower() in ("captions", *CAPTION_NAMES))
    if isinstance(value, list):
        return any(map(says, value))
    return isinstance(value, str) and bool(value.strip())
