"""Do the filters find what they claim to find? Defects planted on real photographs, precision and recall per filter.

python benchmarks/truth.py [--photos DIR] [--limit 250]

Each filter is tried on clean photographs and on as many with its defect. Its threshold is chosen on one half of the
photographs (most recall at a precision of at least 0.98) and reported on the other. The last line is one JSON object
{filter: {"precision", "recall"}}; a filter whose weights are missing is named above it and left out.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from curation.dedup import related
from curation.scorers import load
from curation.synthesis.photos import blur as soften
from curation.synthesis.photos import darken, warm
from flywheel.scorer import Item

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
PRECISION = 0.98  # at which a threshold may be chosen
Plant = Callable[[Image.Image, int], Item]


@dataclass(frozen=True)
class Filter:
    """A score, the side of the threshold that is dropped, and the defects that it claims to find (name → corruptor)."""

    name: str
    score: str
    drops: str  # "low" | "high"
    defects: dict[str, Plant]
    clean: Plant | None = None  # None: the photograph with its caption


# Corruptors ----------------------------------------------------------------------------------------------------------
def encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """The picture in a file format, JPEG at quality 92 unless told."""
    out = io.BytesIO()
    image.save(out, form, **({"quality": 92} if form == "JPEG" else {}) | options)
    return out.getvalue()


def picture(change: Callable[[Image.Image, np.random.Generator], Image.Image], **options: object) -> Plant:
    """Plant a change of the pixels, encoded."""
    return lambda image, n: Item(encoded(change(image, np.random.default_rng(n)), **options), f"a photo, number {n}")


def caption(change: Callable[[int], str]) -> Plant:
    """Plant a caption on an unchanged photograph."""
    return lambda image, n: Item(b"", change(n))


def file(change: Callable[[bytes, np.random.Generator], bytes]) -> Plant:
    """Plant a change of the encoded bytes."""
    return lambda image, n: Item(change(encoded(image), np.random.default_rng(n)))


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


def enlarged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    kernel = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS][rng.integers(3)]
    return image.resize((image.width * 4, image.height * 4), kernel)


def worn(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    data = encoded(image, quality=int(rng.integers(5, 16)))
    return Image.open(io.BytesIO(data)).convert("RGB")


def recompressed(image: Image.Image, n: int) -> Item:
    return Item(encoded(image, quality=int(np.random.default_rng(n).integers(5, 16))))


def turned(image: Image.Image, n: int) -> Item:
    exif = Image.Exif()
    exif[0x0112] = 9 + n % 200
    return Item(encoded(image, exif=exif))


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    dx, dy = (round(side * 0.01) for side in image.size)
    return image.crop((dx, dy, image.width - dx, image.height - dy))


def resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.4, 0.8)
    return image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS)


def watermarked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    out = image.copy()
    ImageDraw.Draw(out).text((image.width * 0.7, image.height * 0.93), "(c) example", fill="white")
    return out


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(rng.uniform(0.7, 1.3))


def bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG header that declares 40,000 × 40,000 pixels."""
    png = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    png[16:24] = (40_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(bytes(png[12:29])).to_bytes(4, "big")
    return bytes(png)


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


def pair(image: Image.Image, n: int) -> Item:
    """A sound edit: the photograph in a warmer tone, darker, or softer."""
    after = (warm, darken, soften)[n % 3](image)
    return Item(encoded(after), "edit it", "ti2i", (encoded(image),))


def unedited(image: Image.Image, n: int) -> Item:
    return Item(encoded(image, quality=80), "edit it", "ti2i", (encoded(image),))


def unrelated(photos: Sequence[Image.Image]) -> Plant:
    """The reference is another photograph."""
    return lambda image, n: Item(encoded(image), "edit it", "ti2i", (encoded(photos[(n + 7) % len(photos)]),))


def filters(photos: Sequence[Image.Image]) -> list[Filter]:
    """Every filter that is one score against one threshold."""
    png = {"form": "PNG"}
    words = caption(lambda n: f"a photo of a thing, number {n}, on a table in daylight")
    return [
        Filter("rotation", "header.orientation", "high", {"invalid EXIF": turned}),
        Filter("entropy_low", "pixels.entropy", "low", {"blank": picture(blank)}),
        Filter("entropy_high", "pixels.entropy", "high", {"noise": picture(noise, **png)}),
        Filter("spatial_entropy", "pixels.spatial_entropy", "high", {"gray noise": picture(gray_noise, **png)}),
        Filter("image_quality", "pixels.sharpness", "low", {"blur": picture(blur)}),
        Filter("dark", "pixels.luma", "low", {"dark": picture(dark)}),
        Filter("overexposed", "pixels.luma", "high", {"overexposed": picture(bright)}),
        Filter("compression", "header.jpeg_quality", "low", {"recompressed": recompressed}),
        Filter("blockiness", "pixels.blockiness", "high", {"recompressed, stored as PNG": picture(worn, **png)},
               picture(lambda image, rng: image, **png)),
        Filter("enlarged", "detail.bandwidth", "low", {"enlarged 4 times": picture(enlarged)}),
        Filter("border", "pixels.border", "high", {"letter box": picture(framed)}),
        Filter("token_length", "text.token_length", "high",
               {"over-long": caption(lambda n: "a long tale of many words " * (180 + n))}, words),
        Filter("invalid_caption", "caption.invalid", "high",
               {"invalid": caption(lambda n: REFUSALS[n % len(REFUSALS)].format(n=n))}, words),
        Filter("edit_unrelated", "similarity.identity", "low", {"unrelated pair": unrelated(photos)}, pair),
        Filter("edit_changed", "similarity.largest_change", "low", {"unedited pair": unedited}, pair),
    ]  # fmt: skip


# Judging -------------------------------------------------------------------------------------------------------------
def values(items: Iterator[Item], score: str) -> np.ndarray:
    """float64 [N]; NaN where the score is null."""
    name, _, key = score.partition(".")
    scorer = load(name)
    out = []
    for item in items:
        (row,) = scorer.score([item])
        if isinstance(row, Exception):
            raise row
        out.append(math.nan if row[key] is None else float(row[key]))
    return np.array(out)


def threshold(clean: np.ndarray, defect: np.ndarray) -> float:
    """The bound above which most defects lie at the wanted precision, then fewest clean values, in the widest gap."""
    levels = np.unique(np.concatenate([clean, defect]))
    best, bound = (-1, 0, 0.0), math.inf
    for low, high in zip(levels[:-1], levels[1:]):
        caught, wrong = (defect > low).sum(), (clean > low).sum()
        if caught and caught / (caught + wrong) >= PRECISION and (score := (caught, -wrong, high - low)) > best:
            best, bound = score, (low + high) / 2
    return bound


def rates(clean: np.ndarray, defect: np.ndarray) -> dict[str, float]:
    """clean, defect: bool, which of them are dropped."""
    caught, wrong = int(defect.sum()), int(clean.sum())
    precision = caught / (caught + wrong) if caught + wrong else 0.0
    return {"precision": round(precision, 4), "recall": round(caught / len(defect), 4)}


def judge(line: Filter, photos: Sequence[Image.Image]) -> tuple[dict[str, float], float]:
    """(rates on the odd photographs, threshold chosen on the even ones)."""
    plain = line.clean or picture(lambda image, rng: image)
    sign = 1 if line.drops == "high" else -1
    clean = sign * values((plain(p, n) for n, p in enumerate(photos)), line.score)
    (plant,) = line.defects.values()
    defect = sign * values((plant(p, n) for n, p in enumerate(photos)), line.score)
    bound = threshold(*(v[::2][~np.isnan(v[::2])] for v in (clean, defect)))
    return rates(clean[1::2] > bound, defect[1::2] > bound), sign * bound


def broken(photos: Sequence[Image.Image]) -> dict[str, float]:
    """Unreadable files: no threshold. Clean: photographs as JPEG, and as PNG under the name of a JPEG."""
    kinds: list[Plant] = [
        file(lambda data, rng: data[: int(len(data) * rng.uniform(0.05, 0.98))]),
        file(lambda data, rng: b""),
        file(lambda data, rng: b"<html><body>404 not found</body></html>"),
        file(bomb),
    ]
    sound = [picture(lambda image, rng: image), picture(lambda image, rng: image, form="PNG")]
    scorer = load("pixels")

    def refused(plants: list[Plant]) -> np.ndarray:
        rows = (scorer.score([plant(p, n)])[0] for plant in plants for n, p in enumerate(photos))
        return np.array([isinstance(row, Exception) for row in rows])

    return rates(refused(sound), refused(kinds))


DUPLICATES = {"cropped": cropped, "resized": resized, "watermarked": watermarked, "recoloured": recoloured}


def duplicates(photos: Sequence[Image.Image]) -> tuple[dict[str, dict[str, float]], tuple[int, int]]:
    """Near-duplicates by kind. A wrong drop is a pair of different photographs; tolerances come from the first half."""
    scorer = load("pixels")

    def signatures(change: Callable[..., Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        rows = [scorer.score([picture(change)(p, n)])[0] for n, p in enumerate(photos)]
        colours = np.stack([np.frombuffer(r["thumbnail"], np.uint8) for r in rows])
        return np.array([r["phash"] for r in rows], np.uint64), colours

    plain = signatures(lambda image, rng: image)
    changed = {name: signatures(change) for name, change in DUPLICATES.items()}

    def outcome(name: str, half: slice, hamming: int, colour: int) -> dict[str, float]:
        hashes, colours = (np.concatenate([a[half], b[half]]) for a, b in zip(plain, changed[name]))
        count = len(hashes) // 2
        found = related(hashes, colours, np.zeros(2 * count, np.int64), hamming=hamming, colour=colour)
        twins = zip(found.representatives.tolist(), found.rows.tolist())
        pairs = {(a, b) for a, b in [*found.near.tolist(), *twins] if a != b}
        right = np.array([(n, n + count) in pairs for n in range(count)])
        wrong = np.array([any(n in p and abs(p[0] - p[1]) != count for p in pairs) for n in range(count)])
        return rates(wrong, right)

    def quality(tolerances: tuple[int, int]) -> tuple[float, int]:
        found = [outcome(name, slice(0, None, 2), *tolerances) for name in DUPLICATES]
        enough = all(r["precision"] >= PRECISION for r in found)
        return (sum(r["recall"] for r in found) if enough else -1.0), -sum(tolerances)

    chosen = max(((h, c) for h in (2, 4, 6, 8, 10) for c in (16, 24, 32, 48, 64)), key=quality)
    return {f"duplicates_{name}": outcome(name, slice(1, None, 2), *chosen) for name in DUPLICATES}, chosen


def main() -> None:
    """Print one line per filter, then all as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of sound photographs")
    parser.add_argument("--limit", type=int, default=250, help="photographs to use")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.photos.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < 20:
        print(f"skipped: {arguments.photos} has {len(paths)} photographs, at least 20 are needed", file=sys.stderr)
        print(json.dumps({}))
        return
    step = max(1, len(paths) // arguments.limit)
    photos = [Image.open(p).convert("RGB") for p in paths[::step][: arguments.limit]]
    found = {"broken_files": broken(photos)}
    _line("broken_files", found["broken_files"], "refused")
    for line in filters(photos):
        found[line.name], bound = judge(line, photos)
        _line(line.name, found[line.name], f"{line.score} {line.drops} of {bound:.4g}: {', '.join(line.defects)}")
    alike, (hamming, colour) = duplicates(photos)
    for name, result in alike.items():
        _line(name, result, f"within {hamming} bits and {colour} levels")
    print("image_text (mismatched captions)  not applied: clip has no weights")
    print(json.dumps(found | alike))


def _line(name: str, result: dict[str, float], said: str) -> None:
    print(f"{name:<24}precision {result['precision']:.3f}  recall {result['recall']:.3f}  {said}", flush=True)


if __name__ == "__main__":
    main()
