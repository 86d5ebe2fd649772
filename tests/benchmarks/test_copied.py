"""The benchmark of copies finds copies and counts what is merged wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import copied
from benchmarks.graphics import scenes

POLICY = "qwen-image-2"


def test_copies_are_found_and_other_pictures_are_not() -> None:
    found = copied.copies(scenes(4), POLICY, {"gray": copied.gray, "mirrored": copied.mirrored})
    assert found.by_policy == {"gray": 1.0, "mirrored": 1.0} and found.unlike == 0
    assert found.copy_recall.keys() == found.by_policy.keys() and 0 < found.agreement < 1
    assert found.pairs == 2 * 24, "of eight pictures, all pairs but those of a copy and its original, twice"


def test_texts_that_differ_are_counted_where_they_are_merged(tmp_path: Path) -> None:
    photos = scenes(2)
    assert copied.merged_texts(photos, POLICY, 4) == (4, [])
    loose = tmp_path / "loose.toml"
    loose.write_text(
        '[S1]\nresolutions = [256]\nenters = ["t2i"]\n'
        '[S1.filters.same]\ncheck = "duplicates"\nhamming = 63\ncolour = 255\n'
    )
    count, merged = copied.merged_texts(photos, str(loose), 1)
    assert count == 1 and len(merged) == 1


@pytest.mark.parametrize("kind", copied.KINDS)
def test_each_kind_changes_the_picture_and_only_by_its_seed(kind: str) -> None:
    (photo,) = scenes(1)
    once, again = (copied.KINDS[kind](photo, np.random.default_rng(1)) for _ in range(2))
    assert once.tobytes() == again.tobytes() != photo.tobytes()


def test_pairs_differ_in_their_text_alone() -> None:
    files = copied.text_pairs(scenes(2), 16)
    names, contents = list(files), list(files.values())
    assert len(names) == 32 and all(a[0] != b[0] for a, b in zip(contents[::2], contents[1::2]))
    quoted = [('"' in a[1], '"' in b[1]) for a, b in zip(contents[::2], contents[1::2])]
    assert set(quoted) == {(True, True), (False, False)}
