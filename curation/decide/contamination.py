"""Contamination: captions that equal an evaluation prompt, or nearly do.

`tables/near-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from curation.decide.judging import Judging
from curation.scorers.text import tokens
from flywheel.core.files import digest, write_parquet
from flywheel.core.storage import read_table
from flywheel.core.text import normalise

_FORMAT = 1  # raised when the same tables would give another file


def load(judging: Judging) -> np.ndarray:
    """Places in the pool (int64, ascending) of the rows whose caption is too similar to a held-out prompt.

    Computed once per pool, prompts and similarity of the policy; then read from its file.
    """
    con, similarity = judging.connection, judging.policy.prompt_similarity
    prompts = sorted({normalise(p) for p in judging.held_out.prompts})
    key = digest(_FORMAT, [t.name for t in judging.tables], prompts, similarity)[:16]
    path = judging.workspace.path("tables", f"near-{key}.parquet")
    if not path.exists():
        captions = con.sql('SELECT DISTINCT "text.normalized" AS text FROM every WHERE reason IS NULL').fetchall()
        contaminated = near((text for (text,) in captions), prompts, similarity)
        con.register("near", pa.table({"text": pa.array(contaminated, pa.large_string())}))
        rows = con.sql('SELECT n FROM every WHERE "text.normalized" IN (FROM near) ORDER BY n').to_arrow_table()
        con.unregister("near")
        write_parquet(path, rows.cast(pa.schema([("n", pa.int64())])))
    return read_table(path)["n"].to_numpy()


def near(captions: Iterable[str], prompts: Iterable[str], similarity: float) -> list[str]:
    """Captions (in normal form) that equal a prompt or share enough of its words and word pairs.

    similarity: Jaccard, 0 to 1. Word pairs make word order count; one changed word of five gives 0.6. Exact: a caption
    that is similar enough contains one of the prompt's rarest words or pairs, so only those are looked up.
    """
    equal = set(prompts)
    sets = [words for prompt in sorted(equal) if (words := shingles(prompt))]
    common = Counter(shingle for words in sets for shingle in words)
    rare: dict[str, list[frozenset[str]]] = {}
    for words in sets:
        looked_up = len(words) - max(1, math.ceil(similarity * len(words))) + 1
        for shingle in sorted(words, key=lambda s: (common[s], s))[:looked_up]:
            rare.setdefault(shingle, []).append(words)

    def is_near(caption: str) -> bool:
        mine = shingles(caption)
        candidates = {prompt for shingle in mine & rare.keys() for prompt in rare[shingle]}
        return any(len(mine & prompt) >= similarity * len(mine | prompt) for prompt in candidates)

    return [c for c in captions if c in equal or (similarity < 1 and is_near(c))]


def shingles(text: str) -> frozenset[str]:
    """Words of a text and pairs of neighbouring words; in scripts without spaces every character is a word."""
    words = tokens(text)
    return frozenset([*words, *map(" ".join, zip(words, words[1:]))])
