"""Null pictures: what no check may pass. Each is made from a picture that the check should pass."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from flywheel.core.image import decode
from flywheel.signals.suite import Prompt

TILES = 4  # tiles along each side of a shuffled picture
BLUR = 0.05  # of the short side: σ of the strong blur
QUALITY = 10  # of the strong JPEG compression
OTHERS = 3  # pictures of other prompts that each check judges


@dataclass(frozen=True)
class Trial:
    """A prompt, and an encoded picture, of the size that is evaluated, that does what it asks."""

    prompt: Prompt
    picture: bytes


def tile_shuffle(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Its 4 × 4 tiles in random order; a rest that fills no tile is cut off."""
    pixels = np.asarray(picture)
    height, width = (n // TILES for n in pixels.shape[:2])
    tiles = pixels[: height * TILES, : width * TILES].reshape(TILES, height, TILES, width, 3).swapaxes(1, 2)
    shuffled = tiles.reshape(-1, height, width, 3)[rng.permutation(TILES**2)].reshape(tiles.shape)
    return Image.fromarray(shuffled.swapaxes(1, 2).reshape(height * TILES, width * TILES, 3))


def flat(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Its mean colour everywhere."""
    mean = np.asarray(picture).reshape(-1, 3).mean(axis=0).round()
    return Image.new("RGB", picture.size, tuple(int(v) for v in mean))


def blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A Gaussian blur that leaves large areas only."""
    return picture.filter(ImageFilter.GaussianBlur(BLUR * min(picture.size)))


def jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Compressed until blocks show."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return decode(out.getvalue())


def noise(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Its pixels in random order."""
    pixels = np.asarray(picture)
    return Image.fromarray(rng.permutation(pixels.reshape(-1, 3)).reshape(pixels.shape))


DAMAGES: Mapping[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "tile_shuffle": tile_shuffle,
    "flat": flat,
    "blur": blur,
    "jpeg": jpeg,
    "noise": noise,
}


def damaged(name: str, picture: bytes) -> bytes:
    """The picture after one of `DAMAGES`, as PNG; equal pictures give equal bytes."""
    return encode(DAMAGES[name](decode(picture), np.random.default_rng(0)))


def mirrored(picture: bytes) -> bytes:
    """Left and right exchanged: another picture that does what most prompts without text ask."""
    return encode(decode(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def encode(picture: Image.Image) -> bytes:
    """The picture as PNG."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def misspelt(check: Mapping[str, Any]) -> dict[str, Any]:
    """The check with one letter of the wanted text replaced: by it, the true picture says a wrong word.

    A check that wants no text stays as it is, and so passes.
    """
    if isinstance(check.get("text"), str):
        return {**check, "text": _misspelt(check["text"])}
    if check.get("texts"):
        return {**check, "texts": [_misspelt(t) for t in check["texts"]]}
    return dict(check)


def _misspelt(text: str) -> str:
    """The text with the middle letter of each word exchanged for another one of its script."""
    return " ".join(_exchanged(word) for word in text.split())


def _exchanged(word: str) -> str:
    at = len(word) // 2
    letter = word[at] if word else ""
    if letter.isascii() and letter.isalpha():
        other = "X" if letter.upper() != "X" else "K"
        return word[:at] + (other if letter.isupper() else other.lower()) + word[at + 1 :]
    return word[:at] + chr(ord(letter) + 1) + word[at + 1 :] if letter else word


def wrong_words(trial: Trial) -> Trial:
    """The true picture, judged by checks that want other words."""
    return replace(trial, prompt=replace(trial.prompt, checks=tuple(map(misspelt, trial.prompt.checks))))


def unedited(trial: Trial) -> list[Trial]:
    """The prompt with its first reference in place of a result."""
    return [replace(trial, picture=trial.prompt.reference_bytes()[0])] if trial.prompt.references else []


def others(trials: Sequence[Trial], number: int) -> list[Trial]:
    """The prompt of a trial with the true pictures of the next ones of its task, each with the checks that it breaks.

    A picture whose own prompt asks for the same as a check is no null of that check. The edit of another reference
    always is a null, also of the same instruction.
    """
    trial, found = trials[number], list[Trial]()
    for other in (*trials[number + 1 :], *trials[:number]):
        if len(found) == OTHERS:
            break
        if other.prompt.task != trial.prompt.task:
            continue
        met = other.prompt.checks if trial.prompt.task == "t2i" else ()
        broken = tuple(c for c in trial.prompt.checks if not any(_same(c, d) for d in met))
        kinds = {(d["verifier"], d["capability"]) for d in other.prompt.checks}
        if any((c["verifier"], c["capability"]) in kinds for c in broken):
            found.append(Trial(replace(trial.prompt, checks=broken), other.picture))
    return found


def _same(check: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two checks ask for the same, or for classes of which one may be the other's."""
    if check["verifier"] != other["verifier"]:
        return False
    if "classes" in check and "classes" in other:
        return bool(set(check["classes"]) & set(other["classes"]))
    limits = ("min", "capability")
    return {k: v for k, v in check.items() if k not in limits} == {k: v for k, v in other.items() if k not in limits}
