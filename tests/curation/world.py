"""A pool in which each filter of the demo's policy, and each kind of damage, has its file; and where each must end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from tests.curation.corpus import bomb, encoded, texture, textures, turned, word


def circle(color: tuple[int, int, int]) -> bytes:
    card = Image.new("RGB", (128, 128), (250, 250, 240))
    ImageDraw.Draw(card).ellipse((34, 34, 94, 94), fill=color)
    return encoded(card)


def noise(seed: int, *, gray: bool = False) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (128, 128, 1 if gray else 3), dtype=np.uint8)
    return encoded(Image.fromarray(np.repeat(pixels, 3, axis=2) if gray else pixels))


def world() -> tuple[dict[str, bytes], dict[str, object]]:
    """(files, captions)."""
    large = texture(40, 240, 240)
    files = textures(6) | {
        "large.png": encoded(large),
        "large.twin.png": encoded(large),
        "large-near.jpg": encoded(large.resize((200, 200), Image.Resampling.LANCZOS), "JPEG", quality=60),
        "red.png": circle((214, 40, 40)),
        "blue.png": circle((32, 92, 200)),
        "sun.png": encoded(word("SUN")),
        "cat.png": encoded(word("CAT")),
        "wrong-word.png": encoded(word("MAP")),
        "turned.jpg": turned(texture(41).transpose(Image.Transpose.ROTATE_90), 6),
        "bad-exif.jpg": turned(texture(42), 9),
        "blank.png": encoded(Image.new("RGB", (128, 128), (20, 60, 110))),
        "noise.png": noise(1),
        "noise-gray.png": noise(2, gray=True),
        "tiny.png": encoded(texture(43, 40, 30)),
        "banner.png": encoded(texture(44, 640, 64)),
        "long.png": encoded(texture(45)),
        "silent.png": encoded(texture(46)),
        "cut.jpg": encoded(texture(47), "JPEG", quality=95)[:3000],
        "cut.png": encoded(texture(48))[:-400],
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "bomb.png": bomb(),
        "edit.png": encoded(texture(49)),
        "edit-same.png": encoded(texture(0)),
        "edit-of-cut.png": encoded(texture(50)),
        "poster.png": encoded(word("SALE", 160)),
        "poster-wrong.png": encoded(word("MILK", 160)),
    }
    captions: dict[str, object] = {n: f"picture {n}" for n in files if n not in ("silent.png", "empty.jpg")}
    captions |= {
        "sun.png": 'the word "SUN"',
        "cat.png": 'the word "CAT"',
        "wrong-word.png": 'the word "OPEN"',
        "long.png": "word " * 1100,
        "edit.png": {"caption": "make it blue", "references": ["picture-000.jpg", "red.png"]},
        "edit-same.png": {"caption": "change nothing", "references": ["edit-same-source.png"]},
        "edit-of-cut.png": {"caption": "mend it", "references": ["cut.jpg"]},
        "poster.png": {"caption": 'a poster: "SALE"', "stream": "synthetic"},
        "poster-wrong.png": {"caption": 'a poster: "BOOK"', "stream": "synthetic"},
    }
    files["edit-same-source.png"] = files["edit-same.png"]
    return files, captions


def expected_ends() -> dict[str, tuple[str, str | None]]:
    """Outcome of each file, and the filter that drops it."""
    expected: dict[str, tuple[str, str | None]] = dict.fromkeys(textures(6), ("admitted", None))
    expected |= {
        **dict.fromkeys(("large.png", "red.png", "blue.png", "sun.png", "cat.png", "turned.jpg"), ("admitted", None)),
        **dict.fromkeys(("edit.png", "poster.png", "silent.png"), ("admitted", None)),
        "large.twin.png": ("dropped", "deduplication"),
        "large-near.jpg": ("dropped", "deduplication"),
        "edit-same-source.png": ("dropped", "deduplication"),
        "edit-same.png": ("dropped", "changed"),
        "wrong-word.png": ("dropped", "quoted_text"),
        "poster-wrong.png": ("dropped", "rendered_text"),
        "bad-exif.jpg": ("dropped", "rotation"),
        "blank.png": ("dropped", "entropy"),
        "noise.png": ("dropped", "entropy"),
        "noise-gray.png": ("dropped", "spatial_entropy"),
        "tiny.png": ("dropped", "resolution"),
        "banner.png": ("dropped", "aspect_ratio"),
        "long.png": ("dropped", "token_length"),
        **dict.fromkeys(("cut.jpg", "cut.png", "empty.jpg", "page.jpg", "bomb.png"), ("quarantined", None)),
        "edit-of-cut.png": ("quarantined", None),
    }
    return expected


def table(curated: SimpleNamespace, name: str) -> list[dict]:
    return pq.read_table(curated.workspace.path("snapshots", curated.result.snapshot, f"{name}.parquet")).to_pylist()


def by_file(curated: SimpleNamespace, name: str) -> dict[str, dict]:
    return {Path(r["source_uri"]).name: r for r in table(curated, name)}
