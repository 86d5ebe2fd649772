"""Layouts of the buckets."""

from __future__ import annotations

import numpy as np

from curation.shards.layout import layout, layouts, layouts_of


def test_layouts() -> None:
    for bucket in (64, 96, 256, 512, 1024, 2048):
        sizes = layouts(bucket)
        step = 32 if bucket >= 256 else 8
        assert (bucket, bucket) in sizes and len(sizes) == 11
        for width, height in sizes:
            assert width % step == height % step == 0
            assert abs(width * height / bucket**2 - 1) < 0.2
    assert layout(1600, 900, 512) == layouts(512)[8]
    assert layout(100, 5000, 256) == layouts(256)[0]


def test_layouts_of_many_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(20, 9000, 2000), rng.integers(20, 9000, 2000)
    for bucket in (64, 256, 1024):
        one_by_one = [layout(w, h, bucket) for w, h in zip(widths.tolist(), heights.tolist(), strict=True)]
        assert layouts_of(widths, heights, bucket).tolist() == [list(size) for size in one_by_one]
