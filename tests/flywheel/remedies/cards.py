"""A pool of cards and an evaluation suite, for tests of remedies."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pyarrow as pa
from PIL import Image

from curation.synthesis import draw, meaning
from flywheel.core.files import write_parquet
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import SHARD
from flywheel.demo.cards import single_cards
from flywheel.demo.word_cards import word_cards
from flywheel.signals.suite import Prompt

PLANTED = "on the left of a white card sits one red circle"  # the first evaluation prompt, in other words, in the pool
PROMPTS = {  # id → prompt, verifier, capability
    "s1": ("a red circle on the left of a white card", "color", "color"),
    "w1": ('the word "APPLE" in red letters on a white card', "text", "typography"),
    "p1": ("an old lighthouse keeper reads by lamp light", "count", "count"),
}
SUITE = [
    Prompt(i, text, "t2i", (), ({"verifier": v, "capability": c, "text": "APPLE"},))
    for i, (text, v, c) in PROMPTS.items()
]


def picture(n: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (n * 7 % 255, 90, 120)).save(out, "PNG")
    return out.getvalue()


def write_base(folder: Path) -> Path:
    """Write a pool with 40 shapes, ten word cards, and the planted sample; returns its shard manifest."""
    words = [
        s.caption
        for s in itertools.islice(draw([word_cards()], seed="w", exclude=frozenset(p.text for p in SUITE)), 10)
    ]
    captions = [s.caption for s in itertools.islice(draw([single_cards()], seed="s"), 40)] + words + [PLANTED]
    rows = [
        {"sample_id": f"{n:064x}", "task": "t2i", "caption": c, "image": picture(n), "references": [], "slice": "base"}
        | {"width": 64, "height": 64}
        for n, c in enumerate(captions)
    ]
    write_parquet(folder / "64.parquet", pa.Table.from_pylist(rows, schema=SHARD))
    layout = {"path": "64.parquet", "bucket": 64, "width": 64, "height": 64, "task": "t2i", "references": 0}
    file = ShardFile(**layout, sha256="", bytes=0, rows=len(rows), stages=("S1",))
    Manifest(snapshot="s", files=(file,)).write(folder / "manifest.json")
    return folder / "manifest.json"


def near_evaluation(captions: list[str]) -> list[str]:
    """The captions that say or mean what an evaluation prompt does."""
    held = {meaning(p.text) for p in SUITE} - {None}
    return [c for c in captions if meaning(c) in held or c in {p.text for p in SUITE}]
