"""Native code that crashes: it takes the whole process down, as a bug in a decoder does."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.shards import rows as shards
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item


class Crashing:
    """Dies on the caption `crash`, raises on the caption `raise`."""

    name = "crashing"
    version = "1"
    fields = (column("length", pa.int32(), "characters of the caption"),)

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    if item.caption == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item.caption == "raise":
        raise ValueError("no such luck")
    return {"length": len(item.caption)}


def fit(image: bytes, *where: int, **more: Any) -> bytes:
    """`curation.shards.writer.fit` that dies of files that end in `crash`, and raises at those that end in `raise`."""
    if image.endswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if image.endswith(b"raise"):
        raise OSError("broken data stream")
    return _FIT(image, *where, **more)


_FIT = shards.fit
