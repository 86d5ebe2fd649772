"""Real-world defects planted in sound photographs: each is a function of the picture and a number used as its seed."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from flywheel.core.scorer import Item

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
Plant = Callable[[Image.Image, int], Item]
_FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf"


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """The picture in a file format; default: JPEG of quality 92."""
    out = io.BytesIO()
    image.save(out, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return out.getvalue()


def picture(change: Change, **options: Any) -> Plant:
    """Plant a change of the pixels."""
    return lambda image, n: Item(encoded(change(image, np.random.default_rng(n)), **options), f"a photo, number {n}")


def caption(change: Callable[[int], str]) -> Plant:
    """Plant a caption on an unchanged photograph."""
    return lambda image, n: Item(b"", change(n))


def file(change: Callable[[bytes, np.random.Generator], bytes]) -> Plant:
    """Plant a change of the encoded bytes."""
    return lambda image, n: Item(change(encoded(image), np.random.default_rng(n)))


def same(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


# Files ---------------------------------------------------------------------------------------------------------------
def bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG header that declares 40,000 × 40,000 pixels."""
    png = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    png[16:24] = (40_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(bytes(png[12:29])).to_bytes(4, "big")
    return bytes(png)


BROKEN = {
    "truncated": file(lambda data, rng: data[: int(len(data) * rng.uniform(0.05, 0.98))]),
    "zero_byte": file(lambda data, rng: b""),
    "wrong_extension": file(lambda data, rng: b"<html><body>404 not found</body></html>"),  # a page saved as .jpg
    "bomb": file(bomb),
}


def recompressed(image: Image.Image, n: int) -> Item:
    return Item(encoded(image, quality=int(np.random.default_rng(n).integers(5, 16))))


def invalid_exif(image: Image.Image, n: int) -> Item:
    exif = Image.Exif()
    exif[0x0112] = 9 + n % 200
    return Item(encoded(image, exif=exif))


# Pixels --------------------------------------------------------------------------------------------------------------
def blank(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3).tolist()))


def noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8))


def gray_noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (image.height, image.width), dtype=np.uint8)).convert("RGB")


def blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 512 * rng.uniform(4, 8)))


def dark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.03, 0.12))


def bright(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    gain = rng.uniform(4, 8)
    return image.point(lambda v: min(255, round(128 + v * gain)))


def framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    out = Image.new("RGB", (image.width, round(image.height * rng.uniform(1.3, 1.6))))
    out.paste(image, (0, (out.height - image.height) // 2))
    return out


def _to_edge(image: Image.Image, edge: float, kernel: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    scale = edge / min(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), kernel)


def enlarged(edge: int) -> Change:
    """Enlarged to this short edge from 3 to 8 times fewer pixels a side, one time in five by repeating pixels."""
    kinds = Image.Resampling
    kernels = (kinds.BILINEAR, kinds.BICUBIC, kinds.LANCZOS, kinds.BICUBIC, kinds.NEAREST)

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        small = _to_edge(image, min(min(image.size), edge / rng.uniform(3, 8)))
        return _to_edge(small, edge, kernels[rng.integers(len(kernels))])

    return change


def worn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    data = encoded(image, quality=int(rng.integers(5, 16)))
    return Image.open(io.BytesIO(data)).convert("RGB")


# Text-bearing pictures -----------------------------------------------------------------------------------------------
_WORDS = ("fresh bread", "every morning", "market street", "open daily", "summer sale", "new books", "garden tools")


def lettered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Two to four lines of words, as on a poster."""
    out = image.copy()
    draw, size = ImageDraw.Draw(out), max(14, round(min(out.size) * rng.uniform(0.06, 0.12)))
    font, count = ImageFont.truetype(_FONT, size), int(rng.integers(2, 5))
    for line in range(count):
        text, place = str(rng.choice(_WORDS)), (out.width * 0.08, out.height * (0.1 + 0.85 * line / count))
        draw.text(place, text, font=font, fill="white", stroke_width=max(1, size // 12), stroke_fill="black")
    return out


# Near-duplicates -----------------------------------------------------------------------------------------------------
def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.25, 0.8)
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def watermarked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A line of text across the picture, a third to two thirds opaque."""
    font = ImageFont.truetype(_FONT, max(12, round(min(image.size) * 0.09)))
    layer = Image.new("RGBA", image.size)
    place = (rng.uniform(0.05, 0.4) * image.width, rng.uniform(0.1, 0.85) * image.height)
    ImageDraw.Draw(layer).text(place, "© example.org", font=font, fill=(255, 255, 255, int(rng.uniform(90, 180))))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gains of each channel within 10 %, saturation within 30 %."""
    gained = np.asarray(image, np.float32) * rng.uniform(0.9, 1.1, 3)
    return ImageEnhance.Color(Image.fromarray(np.clip(gained, 0, 255).astype(np.uint8))).enhance(rng.uniform(0.7, 1.3))


# Captions ------------------------------------------------------------------------------------------------------------
REFUSALS = (
    "I'm sorry, but I can't assist with that request.",
    "I cannot identify the people in this image.",
    "As an AI language model, I am unable to view images.",
    "Unfortunately I am unable to process the picture you sent. Please provide the image again.",
    "Image not available",
    "IMG_{n}.jpg",
    "Stock photo, royalty-free, number {n}",
    "visit https://example.org/{n} for more",
    "dog dog dog dog dog dog {n}",
)
sound_caption = caption(lambda n: f"a photo of a thing, number {n}, on a table in daylight")
refusal = caption(lambda n: REFUSALS[n % len(REFUSALS)].format(n=n))
over_long = caption(lambda n: "a long tale of many words " * (180 + n))


def mismatched(captions: Sequence[str]) -> Plant:
    """The caption of another photograph."""
    return lambda image, n: Item(encoded(image), captions[(n + 7) % len(captions)])


# Edit pairs ----------------------------------------------------------------------------------------------------------
def _added(image: Image.Image, other: Image.Image) -> Image.Image:
    out = image.copy()
    out.paste(other.resize((image.width // 3, image.height // 3)), (image.width // 2, image.height // 2))
    return out


def _background(image: Image.Image, other: Image.Image) -> Image.Image:
    mask, (w, h) = Image.new("L", image.size), image.size
    ImageDraw.Draw(mask).ellipse((w * 0.2, h * 0.15, w * 0.8, h * 0.95), fill=255)
    return Image.composite(image, other.resize(image.size), mask.filter(ImageFilter.GaussianBlur(3)))


def _outpainted(image: Image.Image, other: Image.Image) -> Image.Image:
    out = other.resize((image.width * 5 // 4, image.height * 5 // 4))
    out.paste(image, (image.width // 8, image.height // 8))
    return out


def _painted(image: Image.Image, other: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.ModeFilter(9))


def _hue(image: Image.Image, other: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda v: (v + 100) % 256), saturation, value)).convert("RGB")


_EDITS: tuple[Callable[[Image.Image, Image.Image], Image.Image], ...] = (
    lambda image, other: ImageEnhance.Brightness(image).enhance(0.55),
    lambda image, other: Image.merge("RGB", [b.point(lambda v, g=g: min(255, round(v * g)))
                                             for b, g in zip(image.split(), (1.12, 1.0, 0.82))]),
    lambda image, other: image.filter(ImageFilter.GaussianBlur(min(image.size) * 0.05)),
    lambda image, other: ImageOps.posterize(image, 2),
    _hue, _painted, _added, _background, _outpainted,
)  # fmt: skip


def edits(photos: Sequence[Image.Image]) -> Plant:
    """Correct edits in turn: darker, warmer, softer, posterised, hue, painted, object added, background, outpainted."""

    def plant(image: Image.Image, n: int) -> Item:
        after = _EDITS[n % len(_EDITS)](image, photos[(n + 11) % len(photos)])
        return Item(encoded(after), "edit it", "ti2i", (encoded(image),))

    return plant


def joined(photos: Sequence[Image.Image]) -> Plant:
    """Two photographs put together, both of them references."""

    def plant(image: Image.Image, n: int) -> Item:
        other = photos[(n + 11) % len(photos)]
        after = _added(image, other) if n % 2 else _background(image, other)
        references = (encoded(image), encoded(other))
        return Item(encoded(after), "join them", "ti2i", references if n % 4 < 2 else references[::-1])

    return plant


def strangers(photos: Sequence[Image.Image]) -> Plant:
    """Both references are other photographs."""

    def plant(image: Image.Image, n: int) -> Item:
        others = (encoded(photos[(n + k) % len(photos)]) for k in (7, 13))
        return Item(encoded(image), "join them", "ti2i", tuple(others))

    return plant


def one_of_them(photos: Sequence[Image.Image]) -> Plant:
    """The result is the second reference, encoded again."""
    return lambda image, n: Item(
        encoded(image, quality=80), "join them", "ti2i", (encoded(photos[(n + 7) % len(photos)]), encoded(image))
    )


def unedited(image: Image.Image, n: int) -> Item:
    """The reference, encoded again without an edit."""
    return Item(encoded(image, quality=80), "edit it", "ti2i", (encoded(image),))


def unrelated(photos: Sequence[Image.Image]) -> Plant:
    """The reference is another photograph."""
    return lambda image, n: Item(encoded(image), "edit it", "ti2i", (encoded(photos[(n + 7) % len(photos)]),))


def misaligned(image: Image.Image, n: int) -> Item:
    """The result is cropped to another aspect ratio."""
    after = image.crop((0, 0, image.width, round(image.height * (0.5 + n % 30 / 100))))
    return Item(encoded(after), "edit it", "ti2i", (encoded(image),))
