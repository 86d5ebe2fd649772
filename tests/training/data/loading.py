"""Plans, prepared row groups and uploads for the tests of reading."""

from __future__ import annotations

import torch

from training.data.latents import encoded
from training.data.loader import Prepared
from training.data.plan import DataPlan, MixSource

RESOLUTION = {64: 32}


def plan_of(manifest, **changes):
    return DataPlan([MixSource(manifest=manifest)], **({"batch": {64: 20}, "t2i_share": 0.9, "seed": 3} | changes))


def plain(group):
    images = group.images.float() if group.latents is None else group.latents
    return Prepared(images, group.references.float(), [torch.zeros(1, 1)] * len(group.captions))


def prepare_with(autoencoder):
    return lambda group: Prepared(*encoded(group, autoencoder), [torch.zeros(1, 1)] * len(group.captions))


def equal(batch, expected):
    return all(
        torch.equal(a.latents, b.latents) and torch.equal(a.references, b.references) and a.rows == b.rows
        for a, b in zip(batch, expected, strict=True)
    )


def upload(folder, address):
    from flywheel.core.storage import arrow

    for path in folder.iterdir():
        with arrow().open_output_stream(f"{address}/{path.name}".removeprefix("s3://")) as out:
            out.write(path.read_bytes())
