"""What is known of the text in two pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.decide.compare import Part, Rows, Texts, same_text
from curation.scorers.copies import Copies
from curation.sources.pool import Shard
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
