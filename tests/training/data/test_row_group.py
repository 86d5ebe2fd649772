"""Rows that cannot be decoded are named."""

from __future__ import annotations

import json

import pytest

from flywheel.core.files import file_digest
from tests.training.data.loading import plain, plan_of
from tests.training.snapshots import card_rows, write_snapshot
from training.data.loader import Loader
from training.data.plan import ShardError


def test_corrupt_row_is_named(tmp_path):
    rows = card_rows(30)
    rows[17]["image"] = rows[17]["image"][:60]
    manifest = write_snapshot(tmp_path, [{"rows": rows}])
    with pytest.raises(ShardError, match=r"00000\.parquet, row group 0, row 17, sample t2i-base-0-17"):
        Loader(plan_of(manifest), plain, resolution={}).batch(0)


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
