"""The buckets of a remedy's samples: those that the pool fills and the recipe trains."""

from __future__ import annotations

from flywheel.core.records import Manifest, ShardFile
from flywheel.remedies.buckets import trained

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
