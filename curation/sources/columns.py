"""Names that data sets give to the same column; a letter's case does not matter."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    return next((lower[n] for n in names if n in lower), None)
