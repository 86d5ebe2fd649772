"""What is exported, and how it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.export.request import CAPTIONS, Span, parts, request
from flywheel.core.errors import UsageError
from flywheel.core.schema import ROW_GROUP
from tests.curation.export.exporting import ROWS, SNAPSHOT, snapshot


@pytest.mark.parametrize("limits", [(1, 10**6), (10**9, 64), (20_000, 10**6), (10**9, 10**9), (30_000, 130)])
def test_parts_hold_every_row_group_once(tmp_path: Path, limits: tuple[int, int]) -> None:
    wanted, manifest = request(snapshot(tmp_path), format="hf", snapshot=SNAPSHOT)
    wanted = type(wanted)(SNAPSHOT, wanted.stage, wanted.bucket, "hf", part_bytes=limits[0], part_rows=limits[1])
    cut = list(parts(wanted, manifest))
    assert [p.number for p in cut] == list(range(len(cut)))
    groups = [(s.path, g) for p in cut for s in p.spans for g in range(s.first, s.last)]
    assert groups == [(f.path, g) for f in manifest.files for g in range(-(-ROWS // ROW_GROUP))]
    assert all(isinstance(s, Span) and s.first < s.last for p in cut for s in p.spans)
    assert list(parts(wanted, manifest)) == cut


def test_the_last_stage_and_its_largest_bucket_unless_told(tmp_path: Path) -> None:
    wanted, _ = request(snapshot(tmp_path), format="hf", snapshot=SNAPSHOT)
    assert (wanted.stage, wanted.bucket, wanted.captions) == ("S2", 64, "condition")


@pytest.mark.parametrize(
    ("options", "choices"),
    [({"stage": "S9"}, "S1, S2"), ({"bucket": 7}, "64"), ({"captions": "poem"}, ", ".join(CAPTIONS))],
)
def test_an_unknown_choice_lists_the_known_ones(tmp_path: Path, options: dict, choices: str) -> None:
    with pytest.raises(UsageError, match=choices):
        request(snapshot(tmp_path), format="hf", snapshot=SNAPSHOT, **options)


def test_before_the_first_snapshot_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flywheel curate"):
        request(snapshot(tmp_path), format="hf", snapshot=None)
