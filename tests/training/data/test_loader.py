"""The loader: bounded memory, reading ahead, S3, rows skipped and counted."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.training.data.loading import RESOLUTION, equal, plain, plan_of, upload
from tests.training.snapshots import card_rows, png, write_snapshot
from training.data.latents import Latents, write_latents
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource, ShardError


def test_unreadable_rows_are_skipped_and_counted(faulty, caplog):
    manifest, second = faulty
    with pytest.raises(ShardError, match=r"00000\.parquet, row group 0, row 17, sample t2i-base-0-17"):
        Loader(plan_of(manifest), plain, resolution={}).read(0, 0)
    complete = plan_of(manifest).batch(0)
    second.unlink()
    plan = plan_of(manifest, on_error="skip")
    assert plan.batch(0) == complete  # the order does not depend on what is missing
    loader = Loader(plan, plain, resolution={})
    for t in range(3):  # 60 rows: one epoch
        (micro,) = loader.batch(t)
        assert len(micro.latents) == 20
        for number, row in enumerate(micro.rows):
            if row.shard == 0 and row.row != 17:
                assert torch.equal(micro.latents[number], loader._cache[0, 0].latents[row.row])
    assert set(loader.skipped) == {(0, 0, 17), *((1, 0, row) for row in range(30))}
    assert torch.equal(loader._cache[0, 0].latents[17], loader._cache[0, 0].latents[18])
    assert "is missing" in loader.skipped[1, 0, 4] and "truncated" in loader.skipped[0, 0, 17]
    assert sum("skipped row" in r.message for r in caplog.records) == 31


def test_nothing_left_of_a_micro_batch_is_an_error(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(ShardError, match="no row of a micro-batch can be read: .* is missing"):
        Loader(plan_of(manifest, on_error="skip"), plain, resolution={}).batch(0)


def test_reading_ahead_changes_no_value_and_keeps_errors(faulty, snapshot):
    plan = plan_of(snapshot)
    ahead, plain_loader = (Loader(plan, plain, resolution=RESOLUTION) for _ in range(2))
    for t in range(4):
        ahead.expect(plan.batch(t))
        assert ahead._ahead or all((r.shard, r.group) in ahead._cache for m in plan.batch(t) for r in m)
        assert equal(
            [ahead.gather(rows) for rows in plan.batch(t)], [plain_loader.gather(rows) for rows in plan.batch(t)]
        )
        assert not ahead._ahead
    plan = plan_of(faulty[0])
    loader = Loader(plan, plain, resolution={})
    loader.expect(plan.batch(0))
    with pytest.raises(ShardError, match="row 17"):
        loader.gather(plan.batch(0)[0])


def test_s3_gives_the_same_batches_as_the_folder(tmp_path, bucket, autoencoder):
    (tmp_path / "shards").mkdir()
    files = [{"rows": card_rows(70, slice_=("base", "count"))}, {"rows": card_rows(20, task="ti2i")}]
    manifest = write_snapshot(tmp_path / "shards", files)
    local = plan_of(manifest)
    latents = Latents(tmp_path / "latents", autoencoder.fingerprint, RESOLUTION)
    write_latents(local.shards, autoencoder, latents)
    upload(tmp_path / "shards", f"{bucket}/one")
    upload(tmp_path / "latents", f"{bucket}/latents")

    away = plan_of(f"{bucket}/one/manifest.json")
    assert away.digest == local.digest and away.batch(3) == local.batch(3)
    here, there = (Loader(plan, plain, resolution=RESOLUTION) for plan in (local, away))
    assert equal(there.batch(0), here.batch(0)) and equal(there.batch(2), here.batch(2))
    cached = Latents(f"{bucket}/latents", autoencoder.fingerprint, RESOLUTION)
    here, there = (
        Loader(plan, plain, resolution=RESOLUTION, latents=cache) for plan, cache in ((local, latents), (away, cached))
    )
    assert equal(there.batch(1), here.batch(1))
    counted = [DataPlan([MixSource(manifest=m, slice="count")], batch={64: 5}, t2i_share=1.0, seed=0)
               for m in (manifest, f"{bucket}/one/manifest.json")]  # fmt: skip
    assert counted[0].rows == counted[1].rows == 35 and counted[0].batch(4) == counted[1].batch(4)


def test_s3_reads_row_groups_not_files(tmp_path, bucket, monkeypatch):
    rows, noise = card_rows(192), np.random.default_rng(0)
    for row in rows:
        row["image"] = png(Image.fromarray(noise.integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    write_snapshot(tmp_path, [{"rows": rows}])
    upload(tmp_path, f"{bucket}/ranges")
    size = (tmp_path / "00000.parquet").stat().st_size
    group = pq.read_metadata(tmp_path / "00000.parquet").row_group(1).total_byte_size
    asked = []
    from moto.s3.responses import S3Response

    real = S3Response._handle_range_header
    monkeypatch.setattr(
        S3Response,
        "_handle_range_header",
        lambda self, request, headers, content: (
            asked.append(request.headers["range"]) or real(self, request, headers, content)
        ),
    )
    Loader(plan_of(f"{bucket}/ranges/manifest.json"), plain, resolution={}).read(0, 1)
    lengths = [int(b) - int(a) + 1 for a, b in (r.removeprefix("bytes=").split("-") for r in asked)]
    assert group / 2 <= max(lengths) and sum(lengths) < size / 2


def test_faults_on_s3_are_named(tmp_path, bucket):
    from flywheel.core.storage import arrow

    write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    address = f"{bucket}/faults"
    upload(tmp_path, address)
    with pytest.raises(ShardError, match="no shard manifest at s3://snapshots/nowhere/manifest.json"):
        plan_of(f"{bucket}/nowhere/manifest.json")
    plan = plan_of(f"{address}/manifest.json")
    with arrow().open_output_stream(f"{address}/00000.parquet".removeprefix("s3://")) as out:
        out.write(b"PAR1" + bytes(plan.shards[0].bytes - 8) + b"PAR1")
    with pytest.raises(ShardError, match=r"s3://snapshots/faults/00000\.parquet, row group 0"):
        Loader(plan, plain, resolution={}).batch(0)
    arrow().delete_file(f"{address}/00000.parquet".removeprefix("s3://"))
    with pytest.raises(ShardError, match=r"00000\.parquet is missing"):
        plan_of(f"{address}/manifest.json")


def test_memory_stays_bounded_and_values_do_not_depend_on_it(snapshot):
    plan = plan_of(snapshot)
    large, small = (Loader(plan, plain, resolution={64: 16}, cache_bytes=n) for n in (1 << 30, 1))
    for t in (0, 7, 3):
        for a, b in zip(large.batch(t), small.batch(t), strict=True):
            assert torch.equal(a.latents, b.latents) and torch.equal(a.references, b.references)
    assert len(small._cache) == 1 < len(large._cache)
