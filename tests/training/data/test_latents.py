"""Cached latents equal those encoded now; others are refused."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.data.loading import RESOLUTION, equal, plain, plan_of, prepare_with
from training.data.latents import Latents, write_latents
from training.data.loader import Loader
from training.data.plan import ShardError


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
    for micro, reference in zip(
        Loader(plan, plain, resolution=RESOLUTION, latents=latents).batch(0), exact, strict=True
    ):
        assert micro.latents.dtype == torch.float32 and not torch.equal(micro.latents, reference.latents)
        assert torch.equal(micro.latents, reference.latents.bfloat16().float())


def test_latents_of_something_else_are_refused(tmp_path, snapshot, autoencoder):
    plan = plan_of(snapshot)
    latents = Latents(tmp_path, autoencoder.fingerprint, RESOLUTION)

    def refused(message, settings):
        with pytest.raises(ShardError, match=message):
            Loader(plan, plain, resolution=RESOLUTION, latents=settings).batch(0)

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
