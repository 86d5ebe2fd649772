"""Augmented samples."""

from __future__ import annotations

import itertools

from flywheel.core.image import decode
from flywheel.remedies.augment import augment
from tests.flywheel.remedies.cards import picture


def test_augmented_samples_differ_and_keep_their_size():
    row = {"sample_id": "a", "caption": "c", "image": picture(3), "references": [picture(3)]}
    varied = list(itertools.islice(augment([row], seed="0"), 3))
    assert len({m["image"] for m in varied}) == 3 and decode(varied[0]["image"]).size == (64, 64)
    assert varied[0]["image"] == varied[0]["references"][0]  # target and reference vary together
    assert list(augment([], seed="0")) == []
