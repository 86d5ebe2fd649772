"""The buckets that a remedy's samples are made in, and the stages that train on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel.core.records import Manifest
from flywheel.core.schema import STAGES

Buckets = Mapping[int, tuple[str, ...]]
"""{bucket in pixels: stages that train on it}, smallest first."""


def trained(manifest: Path, recipe: Mapping[str, Any]) -> Buckets:
    """Those that the snapshot's shards fill and the recipe reads; the smallest one if it reads none."""
    from training.recipes import from_dict

    chosen, stages = from_dict(recipe), dict[int, set[str]]()
    for file in Manifest.read(manifest).files:
        stages.setdefault(file.bucket, set()).update(file.stages)
    read = [b for b in sorted(stages) if chosen.reads(stages[b], b)] or [min(stages)]
    return {b: tuple(s for s in STAGES if s in stages[b]) for b in read}
