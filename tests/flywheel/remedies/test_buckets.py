"""The buckets of a remedy's samples: where the recipe trains, as large as the picture is, and every smaller one."""

from __future__ import annotations

import io

from PIL import Image

from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import SHARD
from flywheel.remedies.buckets import filled, refitted, trained

RECIPE = {"base": "tiny", "batch": {64: 4, 96: 4, 192: 4}}


def listing(tmp_path, **stages):
    shape = {"sha256": "", "bytes": 0, "rows": 9, "task": "t2i", "references": 0}
    files = [
        ShardFile(path=name, bucket=int(name[1:]), width=int(name[1:]), height=int(name[1:]), stages=s, **shape)
        for name, s in stages.items()
    ]
    Manifest(snapshot="s", files=tuple(files)).write(tmp_path / "manifest.json")
    return tmp_path / "manifest.json"


def test_buckets_are_those_that_the_pool_fills_and_the_recipe_reads(tmp_path):
    manifest = listing(tmp_path, b96=("S4", "S3"), b64=("S1", "S2"), b128=("S4",))
    assert trained(manifest, RECIPE) == {64: ("S1", "S2"), 96: ("S3", "S4")}  # no batch for 128
    assert trained(manifest, RECIPE | {"stages": ["S1"]}) == {64: ("S1", "S2")}
    assert trained(manifest, {"base": "tiny"}) == {64: ("S1", "S2")}  # reads none of them: the smallest


def test_a_picture_fills_the_largest_bucket_that_does_not_enlarge_it():
    buckets = {64: ("S1",), 96: ("S3",), 192: ("S5",)}
    assert [filled(buckets, *size) for size in ((192, 500), (191, 500), (64, 64), (20, 20))] == [192, 96, 64, 64]


def test_a_row_is_refitted_with_its_references_and_its_mask():
    def png(color, mode="RGB", size=(192, 96)):
        out = io.BytesIO()
        Image.new(mode, size, color).save(out, "PNG")
        return out.getvalue()

    row = dict.fromkeys(SHARD.names) | {"image": png("red"), "references": [png("blue")], "mask": png(255, "L")}
    row |= {"width": 192, "height": 96, "bucket": 136, "caption": "a wall"}
    assert refitted(row, 136) == {k: row[k] for k in SHARD.names}
    small = refitted(row, 64)
    assert (small["width"], small["height"]) == (88, 48) and small["caption"] == "a wall"
    pictures = [Image.open(io.BytesIO(data)) for data in (small["image"], *small["references"], small["mask"])]
    assert {p.size for p in pictures} == {(88, 48)}
    assert [p.convert("RGB").getpixel((5, 5)) for p in pictures] == [(255, 0, 0), (0, 0, 255), (255, 255, 255)]
