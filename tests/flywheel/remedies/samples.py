"""Generated samples as requests for rewards."""

from __future__ import annotations

from curation.synthesis import Sample, synthesise
from flywheel.core.scorer import Item
from training.rewards import Request


def samples(capability: str, count: int = 2) -> list[Sample]:
    """Fresh samples of a capability."""
    return list(synthesise(capability, count, seed=1, exclude=frozenset()))


def request(sample: Sample, image: bytes | None = None) -> Request:
    """The request for a sample's rewards; `image`: another picture than its own."""
    return Request(Item(image or sample.image, sample.caption, sample.task, sample.references), sample.checks)
