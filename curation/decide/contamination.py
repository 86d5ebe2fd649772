"""Captions that ask for what an evaluation prompt asks for: equal ones, and near ones in other words.

`tables/near-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.scorers.text import tokens
from flywheel.core.files import digest, write_parquet
from flywheel.core.storage import readable
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_FORMAT = 1  # raised when the same tables would give another file


def load(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    tables: Sequence[Path],
    prompts: Collection[str],
    similarity: float,
) -> np.ndarray:
    """Numbers (int64, ascending) of the rows whose caption is as similar to a prompt; found where it is not kept.

    con: has the view `every` over those tables, in which `n` numbers the rows.
    """
    wanted = sorted({normalise(p) for p in prompts})
    key = digest(_FORMAT, [t.name for t in tables], wanted, similarity)[:16]
    path = workspace.path("tables", f"near-{key}.parquet")
    if not path.exists():
        captions = con.sql('SELECT DISTINCT "text.normalized" AS text FROM every WHERE reason IS NULL').fetchall()
        found = near((text for (text,) in captions), wanted, similarity)
        con.register("near", pa.table({"text": pa.array(found, pa.large_string())}))
        rows = con.sql('SELECT n FROM every WHERE "text.normalized" IN (FROM near) ORDER BY n').to_arrow_table()
        con.unregister("near")
        write_parquet(path, rows.cast(pa.schema([("n", pa.int64())])))
    return pq.read_table(readable(path))["n"].to_numpy()


def near(captions: Iterable[str], prompts: Iterable[str], similarity: float) -> list[str]:
    """Those of the captions (in normal form) that are equal to a prompt or share enough of their words and word pairs.

    similarity: Jaccard, 0 to 1. Word pairs make the order of words count; one word of five makes 0.6. Exact: a caption
    that is similar enough holds one of the rarest few of the prompt's words and pairs, so only those are looked up.
    """
    equal = set(prompts)
    parts = {prompt: found for prompt in sorted(equal) if (found := shingles(prompt))}
    common = Counter(s for found in parts.values() for s in found)
    rare: dict[str, list[frozenset[str]]] = {}
    for found in parts.values():
        looked_up = len(found) - max(1, math.ceil(similarity * len(found))) + 1
        for shingle in sorted(found, key=lambda s: (common[s], s))[:looked_up]:
            rare.setdefault(shingle, []).append(found)

    def is_near(caption: str) -> bool:
        mine = shingles(caption)
        candidates = {prompt for shingle in mine & rare.keys() for prompt in rare[shingle]}
        return any(len(mine & prompt) >= similarity * len(mine | prompt) for prompt in candidates)

    return [c for c in captions if c in equal or (similarity < 1 and is_near(c))]


def shingles(text: str) -> frozenset[str]:
    """Words of a text, and pairs of neighbours; every character of an unspaced script is a word."""
    words = tokens(text)
    return frozenset([*words, *map(" ".join, zip(words, words[1:]))])
