"""What is known of the text in two pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.captioning.written import ROW
from curation.decide.compare import Part, Rows, Texts, agreements, same_text
from curation.scorers.copies import Copies
from curation.sources.pool import Shard
from flywheel.core.cluster import cluster
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Texts("Sale", "SALE"), Texts(None, "Sale"), True),
        (Texts("Sale", "Sale"), Texts("Sale", "Menu"), False),
        (
            Texts("Gate 1", "to gate 1 and 2, level 3, hall 4"),
            Texts("Gate 1", "to gate 1 and 2, level 3, hall 5"),
            None,
        ),
        (Texts("Sale"), Texts("Menu"), False),
        (Texts("Weekly report"), Texts("Weekly report: costs were lower"), None),
        (Texts("Sale"), Texts(), None),
        (Texts(None, ""), Texts(None, ""), None),
        (Texts("Sale", "Sale"), Texts("Sale", ""), False),
    ],
)
def test_same_text(first: Texts, second: Texts, same: bool | None) -> None:
    assert same_text(first, second) is same and same_text(second, first) is same


def test_a_score_file_that_an_erasure_wrote_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    parts = [Part(0, Shard("batch-00000", tmp_path / "pool.parquet", 2, ""), {"copies": path})]
    seen = []
    for seeds in ((1, 2), (2,)):
        scored = Copies().score([Item(encoded(texture(seed))) for seed in seeds])
        pq.write_table(pa.Table.from_pylist(scored), path)
        seen.append([Rows(parts).sketch(row).rgb for row in range(len(seeds))])
    assert np.array_equal(seen[1][0], seen[0][1]) and not np.array_equal(seen[1][0], seen[0][0])


def test_workers_answer_for_the_pairs_that_were_asked(tmp_path: Path) -> None:
    """Over many shards, of which a worker keeps a few; every third picture is a copy of the one before it."""
    parts = []
    for shard in range(80):
        seeds = [shard, shard, 100 + shard]
        images = [encoded(texture(seed), "JPEG", quality=95 - 20 * n) for n, seed in enumerate(seeds)]
        path, scores = (tmp_path / f"{name}-{shard}.parquet" for name in ("pool", "scores"))
        rows = [{name: [] if name == "captions" else "a texture" for name in ROW} for _ in seeds]
        pq.write_table(pa.Table.from_pylist(rows), path)
        pq.write_table(pa.Table.from_pylist(Copies().score([Item(image) for image in images])), scores)
        parts.append(Part(3 * shard, Shard(f"batch-{shard}", path, 3, ""), {"copies": scores}))
    rows_ = Rows(parts)
    pairs = np.sort(np.random.default_rng(0).integers(0, 240, (500, 2)), axis=1)
    pairs[::2, 1] = pairs[::2, 0] // 3 * 3 + 1
    pairs[::2, 0] = pairs[::2, 1] - 1
    with cluster(2):
        shares, differ = agreements(rows_, pairs, by_landmarks=True)
    same = (pairs[:, 0] == pairs[:, 1]) | ((pairs // 3 == pairs[:, :1] // 3).all(axis=1) & (pairs % 3 < 2).all(axis=1))
    assert 250 < same.sum() < 300 and np.array_equal(shares > 0.5, same) and not differ.any()
