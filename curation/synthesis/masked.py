"""Make edit pairs with masks from photographs: recolour, background, object, text; each with its inverse.

The mask is exact: outside it, source and target are equal, pixel by pixel.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from curation.synthesis import scenes
from curation.synthesis.canvas import encode
from curation.synthesis.photos import MAX_SIDE
from curation.synthesis.phrases import built_in
from curation.synthesis.regions import blend, difference, subject
from curation.synthesis.sample import Sample, Unsuitable
from curation.synthesis.typeset import NoRoom, gradient
from flywheel.core.image import decode

Pair = tuple[Image.Image, Image.Image, Image.Image, str, str]  # before, after, mask, instruction, its inverse

_HUES = {"red": 0, "orange": 12, "yellow": 27, "green": 60, "blue": 112, "purple": 140}  # OpenCV's hue, 0 to 179
_GROUNDS = {
    "light gray": ((236, 236, 238), (202, 202, 206)),
    "light blue": ((206, 228, 248), (156, 196, 236)),
    "dark green": ((40, 84, 62), (18, 48, 36)),
    "orange": ((252, 196, 128), (240, 140, 64)),
    "white": ((255, 255, 255), (240, 240, 240)),
}
_SUBJECT = re.compile(r"^(?:a|an|the)? ?(?:photo|photograph|picture|image) of (?:a|an|the)? ?([\w' -]{2,40})$", re.I)
_PLACES = {"left": 0.27, "right": 0.73}


def recolour(photo: Image.Image, what: str, donor: Image.Image, donor_what: str, rng: random.Random) -> Pair:
    """Give the subject another hue."""
    import cv2

    mask = subject(photo)
    thing, color = _thing(what), rng.choice(list(_HUES))
    hsv = cv2.cvtColor(np.asarray(photo), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = _HUES[color]
    hsv[..., 1] = np.clip(hsv[..., 1].astype(np.int16) // 2 + 110, 0, 255)
    painted = Image.fromarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    after, touched = blend(photo, painted, mask)
    return photo, after, touched, f"make {thing} {color}", f"give {thing} its natural colour back"


def background(photo: Image.Image, what: str, donor: Image.Image, donor_what: str, rng: random.Random) -> Pair:
    """Replace the background by a plain one or by another photograph."""
    mask = subject(photo)
    thing = _thing(what)
    if rng.random() < 0.5:
        name, colors = rng.choice(list(_GROUNDS.items()))
        ground, instruction = gradient(photo.size, *colors), f"replace the background with a plain {name} one"
    else:
        ground = donor.resize(photo.size, Image.Resampling.BICUBIC)
        instruction = f"put {thing} into the place of {_thing(donor_what, 'another photograph')}"
    after, touched = blend(photo, ground, ~mask)
    return photo, after, touched, instruction, f"put {thing} back to where it was: {what or 'the original photograph'}"


def add_object(photo: Image.Image, what: str, donor: Image.Image, donor_what: str, rng: random.Random) -> Pair:
    """Add the subject of another photograph; the inverse removes it."""
    mask = subject(donor)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    piece, shape = donor.crop(box), Image.fromarray(mask.astype(np.uint8) * 255).crop(box)
    scale = rng.uniform(0.35, 0.5) * min(photo.width / piece.width, photo.height / piece.height)
    size = (max(1, round(piece.width * scale)), max(1, round(piece.height * scale)))
    if min(size) < 24:
        raise Unsuitable("the object would be under 24 pixels")
    where = rng.choice(list(_PLACES))
    left = round(_PLACES[where] * photo.width - size[0] / 2)
    top = round(photo.height * rng.uniform(0.62, 0.7) - size[1] / 2)
    layer, stencil = photo.copy(), Image.new("L", photo.size)
    layer.paste(piece.resize(size, Image.Resampling.LANCZOS), (left, top))
    stencil.paste(shape.resize(size, Image.Resampling.BILINEAR), (left, top))
    after, touched = blend(photo, layer, np.asarray(stencil) > 127)
    thing = _thing(donor_what, "the object").removeprefix("the ")
    article = "an" if thing[0] in "aeiou" else "a"
    return photo, after, touched, f"add {article} {thing} on the {where}", f"remove the {thing} on the {where}"


def text(photo: Image.Image, what: str, donor: Image.Image, donor_what: str, rng: random.Random) -> Pair:
    """Replace the text on a sign by another, or add a sign with text; the inverse undoes it."""
    texts, state = built_in("en"), rng.getrandbits(64)
    words = [texts.label(rng) for _ in range(2)]
    if words[0] == words[1]:
        raise Unsuitable("both texts are the same")
    try:
        pages = [scenes.place(photo, what, texts, random.Random(state), text=word) for word in words]
    except NoRoom as error:
        raise Unsuitable(str(error)) from error
    sign = pages[0].caption.partition(" on a ")[2]
    surface = f"a {sign}" if sign else "the surface"
    before, after = pages[0].image, pages[1].image
    if rng.random() < 0.5:
        mask = _changed(before, after)
        return before, after, mask, f'replace "{words[0]}" with "{words[1]}"', f'replace "{words[1]}" with "{words[0]}"'
    return photo, after, _changed(photo, after), f'write "{words[1]}" on {surface}', f'remove the text "{words[1]}"'


KINDS: dict[str, Callable[..., Pair]] = {
    "recolour": recolour, "background": background, "object": add_object, "text": text,
}  # fmt: skip


def masked_edits(
    kind: str, image: bytes, what: str, donor: bytes, donor_what: str, rng: random.Random
) -> Iterator[Sample]:
    """An edit and its inverse as ti2i samples with one mask.

    `donor`: another photograph, for a new background or object. `what`, `donor_what`: captions, empty if unknown.
    Errors: `BadImage`; `Unsuitable` if the picture has no clear subject or no room for a text.
    """
    photo, second = decode(image), decode(donor)
    for picture in (photo, second):
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    before, after, mask, forward, backward = KINDS[kind](photo, what, second, donor_what, rng)
    _require_equal_outside(before, after, mask)
    source, target, gray = encode(before), encode(after), _gray(mask)
    yield Sample(target, forward, "ti2i", (source,), _checks(kind, forward), kind, mask=gray)
    yield Sample(source, backward, "ti2i", (target,), _checks(kind, backward), f"{kind}-inverse", mask=gray)


def _checks(kind: str, instruction: str) -> tuple[dict[str, Any], ...]:
    """OCR checks a requested text; the mask proves all else."""
    match = re.search(r'(?:with|write) "([^"]+)"', instruction) if kind == "text" else None
    return ({"verifier": "text", "capability": "text_editing", "text": match[1], "min": 0.98},) if match else ()


def _changed(before: Image.Image, after: Image.Image) -> Image.Image:
    """Mask of the pixels that differ, with small gaps closed."""
    import cv2

    differs = (np.asarray(before) != np.asarray(after)).any(axis=2).astype(np.uint8)
    return Image.fromarray(cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) * 255)


def _require_equal_outside(before: Image.Image, after: Image.Image, mask: Image.Image) -> None:
    outside = np.asarray(mask) == 0
    a, b = np.asarray(before), np.asarray(after)
    if (a[outside] != b[outside]).any():
        raise AssertionError("an edit changed pixels outside its mask")
    if not (~outside).any() or difference(a, b)[~outside].mean() < 1.0:
        raise Unsuitable("the edit changes nothing visible")


def _gray(mask: Image.Image) -> bytes:
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


def _thing(what: str, unknown: str = "the subject") -> str:
    """Name of the photograph's subject, if its caption is just "a photo of …"; else `unknown`."""
    match = _SUBJECT.match(what.strip().rstrip("."))
    return f"the {match[1]}" if match else unknown
