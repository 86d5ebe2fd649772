"""The plan: a pure function with exact quotas; faults in its files are named."""

from __future__ import annotations

import json
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from tests.training.snapshots import card_rows, write_snapshot
from training.data.loader import Loader, Prepared
from training.data.plan import DataPlan, MixSource, ShardError, split, trained_size

BATCH = 20


def plan_of(manifest, **changes):
    mix = changes.pop("mix", [MixSource(manifest=manifest)])
    return DataPlan(mix, **({"batch": {64: BATCH}, "t2i_share": 0.9, "seed": 3} | changes))


def flat(batch):
    return [row for micro in batch for row in micro]


def pixels_only(group):
    latents = group.images.float()
    return Prepared(latents, group.references.float(), [torch.zeros(1, 1)] * len(latents))


def test_quotas_are_exact_over_windows(snapshot):
    plan = plan_of(snapshot, t2i_share=0.93)
    counts = [Counter(plan.shards[row.shard].task for row in flat(plan.batch(t))) for t in range(200)]
    assert all(sum(c.values()) == BATCH for c in counts)
    running = np.cumsum([c["t2i"] for c in counts])
    assert np.abs(running - 0.93 * BATCH * np.arange(1, 201)).max() < 1
    for start in range(0, 200, 5):  # 5 batches of 20 at 0.93 make 93 rows
        assert sum(c["t2i"] for c in counts[start : start + 5]) == 93


def test_slice_shares_are_exact_inside_each_task(tmp_path, snapshot):
    remedy = write_snapshot(tmp_path, [{"rows": card_rows(40, slice_="typography")}])
    mix = [MixSource(manifest=snapshot, share=0.7), MixSource(manifest=remedy, share=0.3)]
    plan = plan_of(snapshot, mix=mix)
    folders = Counter(
        (plan.shards[row.shard].path.parent == tmp_path, plan.shards[row.shard].task)
        for t in range(50)
        for row in flat(plan.batch(t))
    )
    # the remedy has no TI2I rows: its share of them goes to the base, and the plan says so
    assert folders == {(False, "ti2i"): 100, (False, "t2i"): 630, (True, "t2i"): 270}
    assert plan.notes == [f"{remedy} has no ti2i rows: its share goes to the others"]


def test_slices_that_lack_the_same_are_named_together(tmp_path, snapshot):
    small = [{"rows": card_rows(40, slice_=name)} for name in ("typography", "count")]
    remedy = write_snapshot(tmp_path, [*small, {"rows": card_rows(8, slice_="position"), "bucket": 128}])
    slices = [MixSource(manifest=remedy, share=0.1, slice=name) for name in ("typography", "count", "position")]
    plan = plan_of(snapshot, mix=[MixSource(manifest=snapshot, share=0.7), *slices], batch={64: BATCH, 128: 4})
    assert plan.notes == [
        "bucket 128 has no ti2i rows: their share 0.1 goes elsewhere",
        f"position in {remedy} has no t2i rows in bucket 64: its share goes to the others",
        f"typography, count, position in {remedy} have no ti2i rows in bucket 64: their shares go to the others",
        f"{snapshot} has no t2i rows in bucket 128: its share goes to the others",
        f"typography, count in {remedy} have no t2i rows in bucket 128: their shares go to the others",
    ]


def test_split_is_exact_for_any_weights():
    rng = random.Random(0)
    for _ in range(200):
        weights = [Fraction(rng.randint(1, 50)) for _ in range(rng.randint(1, 5))]
        weights = [w / sum(weights) for w in weights]
        low = rng.randint(0, 10**7)
        middle, high = low + rng.randint(0, 100), low + 200
        first, second, both = split(low, middle, weights), split(middle, high, weights), split(low, high, weights)
        assert sum(b - a for a, b in both) == high - low
        for (a, b), (c, d), (e, f), weight in zip(first, second, both, weights, strict=True):
            assert (a, b, d) == (e, c, f)  # windows join without gap or overlap
            assert abs(f - weight * high) < len(weights)


def test_plan_is_a_pure_function_of_the_step(snapshot):
    plan, same = plan_of(snapshot), plan_of(snapshot)
    forward = [plan.batch(t) for t in range(40)]
    backward = [same.batch(t) for t in reversed(range(40))]
    assert forward == backward[::-1]
    assert plan.digest == same.digest
    reseeded = plan_of(snapshot, seed=4)
    assert reseeded.digest != plan.digest and [reseeded.batch(t) for t in range(40)] != forward


def test_an_epoch_shows_every_training_row_once_and_never_a_held_out_one(snapshot):
    plan = plan_of(snapshot, t2i_share=1.0, batch={64: 1})
    t2i = sum(s.rows for s in plan.shards if s.task == "t2i")
    epochs = [[flat(plan.batch(t))[0] for t in range(e * 148, (e + 1) * 148)] for e in range(2)]
    held_out = {(row.shard, row.group, row.row) for row in flat(plan.validation(100))}
    assert t2i == 150 and len(held_out) == 3  # two full T2I row groups, one full TI2I row group
    rows = [[(row.shard, row.group, row.row) for row in epoch] for epoch in epochs]
    assert len(set(rows[0])) == 148 and set(rows[0]) == set(rows[1]) and rows[0] != rows[1]
    assert not held_out & set(rows[0])


def test_slots_are_unique(snapshot):
    plan = plan_of(snapshot)
    slots = [row.slot for t in range(30) for row in flat(plan.batch(t))]
    assert sorted(slots) == list(range(30 * BATCH))


def test_one_layout_per_micro_batch(tmp_path):
    wide = {"rows": card_rows(30, size=(96, 64), seed=1), "size": (96, 64)}
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(90)}, wide, {"rows": card_rows(20, task="ti2i")}])
    plan = plan_of(manifest)
    loader = Loader(plan, pixels_only, resolution={64: 32})
    for t in range(10):
        batch = loader.batch(t)
        assert sum(len(m.rows) for m in batch) == BATCH
        for micro in batch:
            (shape,) = {plan.shards[row.shard].shape for row in micro.rows}
            assert micro.latents.shape[2:] == (shape[0] // 2, shape[1] // 2)
            assert micro.references.shape[1] == shape[2]


def test_buckets_take_turns_by_their_rows(tmp_path):
    big = {"rows": card_rows(40, size=(128, 128)), "size": (128, 128), "bucket": 128}
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(120)}, big])
    plan = plan_of(manifest, batch={64: 8, 128: 4}, t2i_share=1.0)
    buckets = []
    for t in range(250):
        rows = flat(plan.batch(t))
        (bucket,) = {row.bucket for row in rows}
        assert len(rows) == {64: 8, 128: 4}[bucket]
        buckets.append(bucket)
    # 119 rows / 8 and 40 rows / 4 make 14.9 and 10 steps an epoch
    assert abs(buckets.count(64) / 250 - 14.875 / 24.875) < 0.01


def test_stages_and_slice_select_rows(tmp_path):
    files = [
        {"rows": card_rows(70, slice_=("base", "count")), "stages": ["S1"]},
        {"rows": card_rows(10, seed=1), "stages": ["S6"]},
    ]
    manifest = write_snapshot(tmp_path, files)
    assert plan_of(manifest, stages=("S6",)).rows == 10
    assert plan_of(manifest, stages=("S1",)).rows == 69
    counted = plan_of(manifest, stages=("S1",), mix=[MixSource(manifest=manifest, slice="count")])
    loader = Loader(counted, pixels_only, resolution={})
    assert counted.rows == 35
    assert all(loader.read(r.shard, r.group).sample_ids for r in flat(counted.batch(0)))
    assert {r.row % 2 for t in range(4) for r in flat(counted.batch(t)) if r.group == 0} == {1}
    with pytest.raises(UsageError, match="no training rows for S4"):
        plan_of(manifest, stages=("S4",))


def test_missing_task_falls_to_the_other_with_a_note(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    plan = plan_of(manifest)
    assert len(flat(plan.batch(0))) == BATCH
    assert plan.notes == ["bucket 64 has no ti2i rows: their share 0.1 goes elsewhere"]


def test_missing_and_changed_files_are_named(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    shard = tmp_path / "00000.parquet"
    plan = plan_of(manifest)
    data = shard.read_bytes()
    shard.write_bytes(data[:-100] + bytes(100))
    with pytest.raises(ShardError, match=r"00000\.parquet does not match its manifest's sha256"):
        Loader(plan, pixels_only, resolution={}).batch(0)
    shard.write_bytes(data + b"x")
    with pytest.raises(ShardError, match=r"00000\.parquet does not have the size"):
        plan_of(manifest)
    shard.unlink()
    with pytest.raises(ShardError, match=r"00000\.parquet is missing"):
        plan_of(manifest)
    with pytest.raises(ShardError, match="no shard manifest"):
        plan_of(tmp_path / "nowhere.json")


def test_a_manifest_of_another_file_is_named(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    listing = json.loads(manifest.read_text())
    assert listing["files"][0]["sha256"] == file_digest(tmp_path / "00000.parquet")
    del listing["files"][0]["sha256"]
    manifest.write_text(json.dumps(listing))
    with pytest.raises(ShardError, match="is not a shard manifest"):
        plan_of(manifest)


def test_rows_are_trained_at_their_layouts_shape_in_whole_latent_pixels(tmp_path):
    wide = {"rows": card_rows(3, size=(112, 80)), "size": (112, 80), "bucket": 96}
    (shard,) = plan_of(write_snapshot(tmp_path, [wide]), batch={96: 2}, t2i_share=1.0).shards
    sizes = {unit: trained_size(shard, {96: 64}, unit) for unit in (1, 8, 16)}
    assert sizes == {1: (53, 75), 8: (56, 72), 16: (48, 80)}
    assert trained_size(shard, {96: 4}, 8) == (8, 8) and trained_size(shard, {}, 8) == (80, 112)
    assert trained_size(shard, {}, 32) == (64, 128)  # the bucket's own sides are no multiples of this unit
