"""Each caption is encoded once, when its row is first drawn."""

from __future__ import annotations

import torch

from tests.training.data.loading import plan_of
from training.data.loader import Loader, Prepared
from training.data.states import States


def test_only_drawn_rows_are_encoded_and_each_once(snapshot):
    asked: list[str] = []

    def encode(captions):
        asked.extend(captions)
        return [torch.full((1, 4), float(len(c))) for c in captions]

    def prepare(group):
        return Prepared(group.images.float(), group.references.float(), States(group.captions, encode))

    plan = plan_of(snapshot)
    drawn = [row for rows in plan.batch(0) for row in rows]
    loader = Loader(plan, prepare, resolution={64: 16})
    batches = [loader.batch(0) for _ in range(2)]
    assert len(asked) == len(set(drawn)) < sum(len(group.states) for group in loader._cache.values())
    assert all(torch.equal(a, b) for x, y in zip(*batches, strict=True) for a, b in zip(x.states, y.states))
    pixels = sum(group.latents.nbytes + group.references.nbytes for group in loader._cache.values())
    assert sum(group.bytes for group in loader._cache.values()) == pixels + len(asked) * 16  # 4 floats each
