"""Requests of OpenAI's image API, read strictly: each is an order to draw, or one sentence that says what to do."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywheel.core.errors import UsageError
from flywheel.core.generator import MOST_GUIDANCE, Pixels
from flywheel.core.image import BadImage, decode, open_image
from flywheel.rounds.sample import parse_size

MAX_PICTURES = 10  # of a request, as OpenAI's
MAX_REFERENCES = 16
MAX_PROMPT = 32_000  # characters
MAX_PIXELS = 4 << 20  # of a picture: 2048 x 2048, at any aspect
MAX_STEPS = 200
MAX_SEED = 2**31 - MAX_PICTURES

# Fields of OpenAI's that choose nothing here. Those of `_ONLY` are taken with the one value that this server gives.
IGNORED = (
    "quality", "style", "background", "moderation", "user", "output_compression", "input_fidelity", "partial_images",
)  # fmt: skip
_ONLY = {"response_format": ("b64_json",), "output_format": ("png",), "stream": (False, "false")}
KNOWN = (
    *("prompt", "n", "size", "seed", "num_inference_steps", "guidance_scale", "negative_prompt", "model"),
    *_ONLY,
    *IGNORED,
)


class Refused(Exception):
    """A request that is answered by an error; `param` is the field that is at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True)
class Order:
    """What to draw: `count` pictures of the seeds `seed` … `seed + count − 1`.

    size: (height, width), pixels; None: the system's. references, mask: as of `flywheel.core.generator.Generator`.
    model: the name that the client asked for, empty for any.
    """

    prompt: str
    count: int
    seed: int
    size: tuple[int, int] | None = None
    steps: int | None = None
    guidance: float | None = None
    negative: str | None = None
    references: tuple[Pixels, ...] = ()
    mask: Pixels | None = None
    model: str = ""


def read_order(values: Any, *, images: Sequence[bytes] | None = None, mask: bytes | None = None) -> Order:
    """The order of a request's fields; `images`: pictures of an edit, encoded. Errors: `Refused`."""
    if not isinstance(values, Mapping):
        raise Refused('the body is not a JSON object: send {"prompt": "…"}')
    if unknown := sorted(set(values) - set(KNOWN)):
        raise Refused(f"unknown field {unknown[0]!r}: use {', '.join(KNOWN)}", param=unknown[0])
    given = {k: v for k, v in values.items() if v is not None and v != "" and k not in IGNORED}
    for name, allowed in _ONLY.items():
        if name in given and given[name] not in allowed:
            raise Refused(f"{name} {given[name]!r} is not served: use {allowed[0]!r}", param=name)
    references = _references(images) if images is not None else ()
    return Order(
        prompt=_text(given, "prompt", required=True),
        count=_whole(given, "n", 1, MAX_PICTURES) or 1,
        seed=_seed(given),
        size=_size(given),
        steps=_whole(given, "num_inference_steps", 1, MAX_STEPS),
        guidance=_guidance(given),
        negative=_text(given, "negative_prompt") or None,
        references=references,
        mask=_mask(mask, references[0]) if mask is not None else None,
        model=_text(given, "model"),
    )


def _text(given: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_PROMPT or (required and not value.strip()):
        raise Refused(f"{name}: give a text of at most {MAX_PROMPT:,} characters", param=name)
    return value


def _whole(given: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = given.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
        raise Refused(f"{name}: give a whole number from {low} to {high}", param=name)
    return value


def _seed(given: Mapping[str, Any]) -> int:
    seed = _whole(given, "seed", 0, MAX_SEED)
    return secrets.randbelow(MAX_SEED) if seed is None else seed


def _guidance(given: Mapping[str, Any]) -> float | None:
    value = given.get("guidance_scale")
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= MOST_GUIDANCE:
        raise Refused(f"guidance_scale: give a number from 0 to {MOST_GUIDANCE}", param="guidance_scale")
    return number


def _size(given: Mapping[str, Any]) -> tuple[int, int] | None:
    value = given.get("size", "auto")
    if value == "auto":
        return None
    try:
        height, width = parse_size(value if isinstance(value, str) else repr(value))
    except UsageError as error:
        raise Refused(str(error), param="size") from error
    if height * width > MAX_PIXELS:
        raise Refused(f"size {value} has more than {MAX_PIXELS:,} pixels: ask for a smaller picture", param="size")
    return height, width


def _references(images: Sequence[bytes]) -> tuple[Pixels, ...]:
    if not 1 <= len(images) <= MAX_REFERENCES:
        raise Refused(f"image: send 1 to {MAX_REFERENCES} pictures as files", param="image")
    try:
        return tuple(np.asarray(decode(data)) for data in images)
    except BadImage as error:
        raise Refused(f"image: {error}: send a picture such as PNG or JPEG", param="image") from error


def _mask(data: bytes, reference: Pixels) -> Pixels:
    """255 where the mask is transparent, which is where the edit may paint."""
    try:
        image = open_image(data)
        alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    except Exception as error:  # noqa: BLE001 - a decoder raises anything on hostile bytes
        raise Refused(f"mask: it cannot be read ({error}): send a PNG", param="mask") from error
    if alpha is None:
        raise Refused("mask: it has no transparent part: make what the edit may paint transparent", param="mask")
    height, width = reference.shape[:2]
    if alpha.size != (width, height):
        raise Refused(
            f"mask: it has {alpha.width}x{alpha.height} pixels, the first picture {width}x{height}: make them equal",
            param="mask",
        )
    return np.where(np.asarray(alpha) < 128, 255, 0).astype(np.uint8)
