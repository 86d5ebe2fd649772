"""Pictures are decoded exactly; rows that cannot be are named."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.files import file_digest
from tests.training.data.loading import plain, plan_of
from tests.training.snapshots import card_rows, write_snapshot
from training.data.loader import Loader
from training.data.plan import ShardError
from training.data.row_group import read_row_group, to_unit


def test_corrupt_row_is_named(tmp_path):
    rows = card_rows(30)
    rows[17]["image"] = rows[17]["image"][:60]
    manifest = write_snapshot(tmp_path, [{"rows": rows}])
    with pytest.raises(ShardError, match=r"00000\.parquet, row group 0, row 17, sample t2i-base-0-17"):
        Loader(plan_of(manifest), plain, resolution={}).batch(0)


def test_a_row_without_a_picture_is_named(tmp_path):
    rows = card_rows(3)
    rows[1]["image"] = None
    (shard,) = plan_of(write_snapshot(tmp_path, [{"rows": rows}]), t2i_share=1.0, batch={64: 1}).shards
    with pytest.raises(ShardError, match="row 1, sample t2i-base-0-1: it has no picture: build the shards again"):
        read_row_group(shard, 0, (64, 64))


def test_row_of_another_size_than_its_layout_is_named(tmp_path):
    rows = card_rows(29) + card_rows(1, size=(32, 64), seed=9)
    manifest = write_snapshot(tmp_path, [{"rows": rows}])
    with pytest.raises(ShardError, match="row 29, .* image is 32x64, its layout 64x64"):
        Loader(plan_of(manifest), plain, resolution={}).batch(0)


def test_damaged_parquet_is_named(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    shard = tmp_path / "00000.parquet"
    shard.write_bytes(b"PAR1" + bytes(shard.stat().st_size - 8) + b"PAR1")
    listing = json.loads(manifest.read_text())
    listing["files"][0]["sha256"] = file_digest(shard)
    manifest.write_text(json.dumps(listing))
    with pytest.raises(ShardError, match=r"00000\.parquet, row group 0"):
        Loader(plan_of(manifest), plain, resolution={}).batch(0)


def jpegs(count: int, mode: str = "RGB") -> list[bytes]:
    """Pictures of noise, 64 pixels wide and high."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    files = [io.BytesIO() for _ in range(count)]
    for array, file in zip(pixels, files, strict=True):
        Image.fromarray(array).resize((64, 64)).convert(mode).save(file, "JPEG", quality=95, subsampling=0)
    return [file.getvalue() for file in files]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("side", [64, 24])
def test_jpegs_become_what_pillow_makes_of_them(tmp_path, mode, side):
    rows, pictures = card_rows(4, task="ti2i"), jpegs(8, mode)
    for n, row in enumerate(rows):
        row |= {"image": pictures[2 * n], "references": [pictures[2 * n + 1]]}
    (shard,) = plan_of(write_snapshot(tmp_path, [{"rows": rows}]), t2i_share=0.0).shards
    group = read_row_group(shard, 0, (side, side))
    for n, data in enumerate(pictures):
        expected = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BOX)
        found = (group.references[n // 2, 0] if n % 2 else group.images[n // 2]).permute(1, 2, 0)
        assert np.array_equal(found.numpy(), np.asarray(expected))
    assert torch.equal(to_unit(group.images), group.images.float() / 127.5 - 1)


@pytest.mark.parametrize("cut", [200, 60, 2])
def test_a_jpeg_that_ends_early_is_named(tmp_path, cut):
    rows = card_rows(3)
    rows[1]["image"] = jpegs(1)[0][:-cut] if cut > 2 else b"\xff\xd8"
    (shard,) = plan_of(write_snapshot(tmp_path, [{"rows": rows}]), t2i_share=1.0, batch={64: 1}).shards
    with pytest.raises(ShardError, match="row 1, sample t2i-base-0-1"):
        read_row_group(shard, 0, (64, 64))
