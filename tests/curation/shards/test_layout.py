"""Layouts of the buckets."""

from __future__ import annotations

from curation.shards.layout import layout, layouts


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
