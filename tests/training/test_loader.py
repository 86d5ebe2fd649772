"""The loader beyond whole local files: cached latents, S3, reading ahead, rows skipped and counted."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from tests.training.snapshots import card_rows, png, write_snapshot
from training.data.latents import Latents, encoded, write_latents
from training.data.loader import Loader, Prepared
from training.data.plan import Plan, ShardError, Source
from training.models.autoencoder import PatchAutoencoder

RESOLUTION = {64: 32}


def plan_of(manifest, **changes):
    return Plan([Source(manifest=manifest)], **({"batch": {64: 20}, "t2i_share": 0.9, "seed": 3} | changes))


def plain(group):
    images = group.images.float() if group.latents is None else group.latents
    return Prepared(images, group.references.float(), [torch.zeros(1, 1)] * len(group.captions))


def prepare_with(autoencoder):
    return lambda group: Prepared(*encoded(group, autoencoder), [torch.zeros(1, 1)] * len(group.captions))


def equal(one, other):
    return all(
        torch.equal(a.latents, b.latents) and torch.equal(a.references, b.references) and a.rows == b.rows
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def autoencoder():
    """Orthonormal patches of 8 pixels, drawn."""
    basis, _ = torch.linalg.qr(torch.randn(192, 16, generator=torch.Generator().manual_seed(0)))
    return PatchAutoencoder(torch.zeros(192), basis.contiguous(), torch.full((16,), 3.0))


# Latents ------------------------------------------------------------------------------------------------------------
def test_cached_latents_equal_those_encoded_now_and_no_shard_is_read(tmp_path, snapshot, autoencoder, monkeypatch):
    plan, prepare = plan_of(snapshot), prepare_with(autoencoder)
    expected = [Loader(plan, prepare, resolution=RESOLUTION).batch(t) for t in (0, 5)]
    latents = Latents(tmp_path, autoencoder.fingerprint, RESOLUTION)
    assert write_latents(plan.shards, autoencoder, latents) == {}
    written = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(written) == len(plan.shards)
    write_latents(plan.shards, autoencoder, latents)  # what is there stays
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == written

    monkeypatch.setattr("training.data.files.parquet", lambda *a: pytest.fail("a shard was read"))
    loader = Loader(plan, prepare, resolution=RESOLUTION, latents=latents, reference_pixels=False)
    for t, batch in zip((0, 5), expected, strict=True):
        assert equal(loader.batch(t), batch)


def test_latents_in_half_precision(tmp_path, snapshot, autoencoder):
    plan = plan_of(snapshot)
    exact = Loader(plan, prepare_with(autoencoder), resolution=RESOLUTION).batch(0)
    latents = Latents(tmp_path, autoencoder.fingerprint, RESOLUTION, "bfloat16")
    write_latents(plan.shards, autoencoder, latents)
    for micro, other in zip(Loader(plan, plain, resolution=RESOLUTION, latents=latents).batch(0), exact, strict=True):
        assert micro.latents.dtype == torch.float32 and not torch.equal(micro.latents, other.latents)
        assert torch.equal(micro.latents, other.latents.bfloat16().float())


def test_latents_of_something_else_are_refused(tmp_path, snapshot, autoencoder):
    plan = plan_of(snapshot)
    latents = Latents(tmp_path, autoencoder.fingerprint, RESOLUTION)

    def refused(message, given):
        with pytest.raises(ShardError, match=message):
            Loader(plan, plain, resolution=RESOLUTION, latents=given).batch(0)

    refused("no latents of .*: write them with", latents)
    write_latents(plan.shards, autoencoder, latents)
    refused("have encoder .* this run needs 'another'", Latents(tmp_path, "another", RESOLUTION))
    refused("have resize 'area 32x32', this run needs 'area 64x64'", Latents(tmp_path, autoencoder.fingerprint, {}))
    refused("have dtype 'float32'", Latents(tmp_path, autoencoder.fingerprint, RESOLUTION, "float16"))
    with pytest.raises(UsageError, match="dtype 'int8'"):
        Latents(tmp_path, autoencoder.fingerprint, RESOLUTION, "int8")
    with pytest.raises(UsageError, match="not the one"):
        write_latents(plan.shards, autoencoder, Latents(tmp_path, "another", RESOLUTION))
    path = latents.path(plan.shards[0])
    path.write_bytes(path.read_bytes()[:-40])
    refused("delete the file and write it again", Latents(tmp_path, autoencoder.fingerprint, RESOLUTION))


# Faults -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def faulty(tmp_path):
    """Two shards of one layout: row 17 of the first is damaged; and the second's path, to be removed."""
    rows = card_rows(30)
    rows[17]["image"] = rows[17]["image"][:60]
    return write_snapshot(tmp_path, [{"rows": rows}, {"rows": card_rows(30, seed=1)}]), tmp_path / "00001.parquet"


def test_unreadable_rows_are_skipped_and_counted(faulty, caplog):
    manifest, second = faulty
    with pytest.raises(ShardError, match=r"00000\.parquet, row group 0, row 17, sample t2i-base-0-17"):
        Loader(plan_of(manifest), plain, resolution={}).read(0, 0)
    whole = plan_of(manifest).batch(0)
    second.unlink()
    plan = plan_of(manifest, on_error="skip")
    assert plan.batch(0) == whole  # the order does not depend on what is missing
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


def test_null_latents_are_skipped_and_counted(tmp_path, faulty, autoencoder):
    manifest, _ = faulty
    plan = plan_of(manifest, on_error="skip")
    latents = Latents(tmp_path / "latents", autoencoder.fingerprint, RESOLUTION)
    with pytest.raises(ShardError, match="row 17"):
        write_latents(plan.shards, autoencoder, latents)
    assert list(write_latents(plan.shards, autoencoder, latents, skip=True)) == [(str(plan.shards[0].path), 0, 17)]
    loader = Loader(plan, plain, resolution=RESOLUTION, latents=latents)
    for t in range(3):
        loader.batch(t)
    assert loader.skipped == {(0, 0, 17): "its latents are null"}
    with pytest.raises(ShardError, match="row 17, .*latents are null"):
        Loader(plan_of(manifest), plain, resolution=RESOLUTION, latents=latents).read(0, 0)


def test_nothing_left_of_a_micro_batch_is_an_error(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(ShardError, match="no row of a micro-batch can be read: .* is missing"):
        Loader(plan_of(manifest, on_error="skip"), plain, resolution={}).batch(0)


def test_reading_ahead_changes_no_value_and_keeps_errors(faulty, snapshot):
    plan = plan_of(snapshot)
    one, other = (Loader(plan, plain, resolution=RESOLUTION) for _ in range(2))
    for t in range(4):
        one.expect(plan.batch(t))
        assert one._ahead or all((r.shard, r.group) in one._cache for m in plan.batch(t) for r in m)
        assert equal([one.gather(rows) for rows in plan.batch(t)], [other.gather(rows) for rows in plan.batch(t)])
        assert not one._ahead
    plan = plan_of(faulty[0])
    loader = Loader(plan, plain, resolution={})
    loader.expect(plan.batch(0))
    with pytest.raises(ShardError, match="row 17"):
        loader.gather(plan.batch(0)[0])


# S3 -----------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bucket(s3_server):
    """A bucket for every test of this file."""
    host, port = s3_server
    urlopen(Request(f"http://{host}:{port}/snapshots", method="PUT")).close()
    return "s3://snapshots"


def upload(folder, address):
    from flywheel.core.storage import arrow
    from training.data.files import _key

    for path in folder.iterdir():
        with arrow().open_output_stream(_key(f"{address}/{path.name}")) as out:
            out.write(path.read_bytes())


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
        Loader(plan, plain, resolution=RESOLUTION, latents=given) for plan, given in ((local, latents), (away, cached))
    )
    assert equal(there.batch(1), here.batch(1))
    counted = [Plan([Source(manifest=m, slice="count")], batch={64: 5}, t2i_share=1.0, seed=0)
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
    from training.data.files import _key

    write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    address = f"{bucket}/faults"
    upload(tmp_path, address)
    with pytest.raises(ShardError, match="no shard manifest at s3://snapshots/nowhere/manifest.json"):
        plan_of(f"{bucket}/nowhere/manifest.json")
    plan = plan_of(f"{address}/manifest.json")
    with arrow().open_output_stream(_key(f"{address}/00000.parquet")) as out:
        out.write(b"PAR1" + bytes(plan.shards[0].bytes - 8) + b"PAR1")
    with pytest.raises(ShardError, match=r"s3://snapshots/faults/00000\.parquet, row group 0"):
        Loader(plan, plain, resolution={}).batch(0)
    arrow().delete_file(_key(f"{address}/00000.parquet"))
    with pytest.raises(ShardError, match=r"00000\.parquet is missing"):
        plan_of(f"{address}/manifest.json")


def test_a_manifest_of_another_file_is_named(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    listing = json.loads(manifest.read_text())
    assert listing["files"][0]["sha256"] == file_digest(tmp_path / "00000.parquet")
    del listing["files"][0]["sha256"]
    manifest.write_text(json.dumps(listing))
    with pytest.raises(ShardError, match="is not a shard manifest"):
        plan_of(manifest)
