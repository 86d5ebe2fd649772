"""The buckets of a remedy's samples: each is made once, in the largest bucket it fills, and written in every smaller
one too, so that all stages that train there read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.records import Manifest
from flywheel.core.schema import SHARD, STAGES

if TYPE_CHECKING:
    from curation.synthesis import Sample

Buckets = Mapping[int, tuple[str, ...]]
"""{bucket in pixels: stages that train on it}, smallest first."""


def trained(manifest: Path, recipe: Mapping[str, Any] | None) -> Buckets:
    """Those that the shards fill and the recipe reads, the smallest one if it reads none; without a recipe, all."""
    from training.recipes import from_dict

    stages = dict[int, set[str]]()
    for file in Manifest.read(manifest).files:
        stages.setdefault(file.bucket, set()).update(file.stages)
    chosen = from_dict(recipe) if recipe is not None else None
    read = [b for b in sorted(stages) if chosen is None or chosen.reads(stages[b], b)] or [min(stages)]
    return {b: tuple(s for s in STAGES if s in stages[b]) for b in read}


def filled(buckets: Buckets, width: int, height: int) -> int:
    """The largest bucket that a picture of this size fills; the smallest one if it fills none."""
    return max((b for b in buckets if b <= min(width, height)), default=min(buckets))


def first_fitted(sample: Sample, identity: str, buckets: Buckets) -> dict[str, Any]:
    """The sample as a shard row of the largest bucket that it fills."""
    from curation.shards.fit import fit
    from curation.shards.layout import layout
    from flywheel.core.image import open_image, upright_size

    source_width, source_height = upright_size(open_image(sample.image))
    bucket = filled(buckets, source_width, source_height)
    width, height = layout(source_width, source_height, bucket)
    kind = "instruction" if sample.references else sample.kind
    return {
        "sample_id": identity,
        "bucket": bucket,
        "task": sample.task,
        "caption": sample.caption,
        "image": fit(sample.image, width, height),
        "references": [fit(r, width, height) for r in sample.references],
        "stream": "synthetic",
        "width": width,
        "height": height,
        "source_width": source_width,
        "source_height": source_height,
        "captions": [{"kind": kind, "text": sample.caption, "origin": "source"}],
    }


def refitted(row: Mapping[str, Any], bucket: int) -> dict[str, Any]:
    """A candidate as a shard row of its own bucket or of a smaller one."""
    from curation.shards.fit import fit, fit_mask
    from curation.shards.layout import layout

    shard_row = {name: row.get(name) for name in SHARD.names} | {"made_from": None}
    if bucket == row["bucket"]:
        return shard_row
    width, height = layout(row["width"], row["height"], bucket)
    return shard_row | {
        "image": fit(row["image"], width, height),
        "references": [fit(r, width, height) for r in row["references"]],
        "mask": fit_mask(row["mask"], width, height) if row["mask"] else None,
        "width": width,
        "height": height,
    }
