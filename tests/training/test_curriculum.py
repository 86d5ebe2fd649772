"""The curriculum: stages in order, each with its own steps, rows and shares; stages without rows are left out."""

from __future__ import annotations

from collections import Counter

import pytest

from flywheel.core.errors import UsageError
from tests.training.snapshots import card_rows, write_snapshot
from training.curriculum import plan_settings, schedule
from training.data.plan import DataPlan, MixSource
from training.recipes import recipe

RECIPE = recipe("tiny", batch={64: 20, 96: 10, 128: 5})
ALL = {"S1": 300, "S2": 250, "S3": 250, "S4": 80, "S5": 80, "S6": 40}


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """Shards of six stages as curation writes them: T2I and edits, in three buckets."""
    files = []
    for bucket, t2i in {64: ["S1", "S2"], 96: ["S3", "S4", "S5", "S6"], 128: ["S4", "S5"]}.items():
        size = {"size": (bucket, bucket), "bucket": bucket}
        files.append({"rows": card_rows(70, size=(bucket, bucket), seed=bucket), "stages": t2i, **size})
        edits = {"rows": card_rows(20, task="ti2i", size=(bucket, bucket)), "stages": [s for s in t2i if s != "S1"]}
        files.append(edits | size)
    return write_snapshot(tmp_path_factory.mktemp("staged"), files)


def turns(manifest, steps=1000, chosen=RECIPE, **mix):
    curriculum = schedule(chosen, [MixSource(manifest=manifest, **mix)], steps)
    assert [t.start for t in curriculum.turns] == [0, *(t.end for t in curriculum.turns[:-1])]
    assert curriculum.turns[-1].end == steps
    return curriculum


def test_every_stage_has_its_steps_and_its_buckets(staged):
    curriculum = turns(staged)
    assert {t.stage.name: t.stage.steps for t in curriculum.turns} == ALL and not curriculum.notes
    buckets = {t.stage.name: sorted(t.rows) for t in curriculum.turns}
    assert buckets == {"S1": [64], "S2": [64], "S3": [96], "S4": [96, 128], "S5": [96, 128], "S6": [96]}
    assert {t.stage.name: t.rows[64] for t in curriculum.turns[:2]} == {"S1": 70, "S2": 90}  # S1 reads no edits
    at = {step: curriculum.at(step).stage.name for step in (0, 299, 300, 799, 800, 999, 1000)}
    assert at == {0: "S1", 299: "S1", 300: "S2", 799: "S3", 800: "S4", 999: "S6", 1000: "S6"}
    half = turns(staged, 500)
    assert [t.stage.steps for t in half.turns] == [150, 125, 125, 40, 40, 20]


def test_a_stage_without_rows_gives_its_steps_to_the_one_before(tmp_path):
    small = write_snapshot(tmp_path, [{"rows": card_rows(30)}, {"rows": card_rows(9, seed=1), "stages": ["S5"]}])
    curriculum = turns(small)
    assert {t.stage.name: t.stage.steps for t in curriculum.turns} == {"S1": 300, "S2": 580, "S5": 120}
    assert [note.partition(":")[0] for note in curriculum.notes] == [f"{s} is left out" for s in ("S3", "S4", "S6")]
    assert "S2 takes its 250 steps" in curriculum.notes[0] and "S5 takes its 40 steps" in curriculum.notes[2]
    late = turns(small, chosen=recipe("tiny", stages=("S4", "S5", "S6"), batch={64: 4}))
    assert {t.stage.name: t.stage.steps for t in late.turns} == {"S5": 1000}  # the first that has rows takes them all
    with pytest.raises(UsageError, match="no training rows for S3, S4 and bucket 64"):
        turns(small, chosen=recipe("tiny", stages=("S3", "S4"), batch={64: 4}))
    with pytest.raises(UsageError, match="and bucket 256 .* give the recipe a batch for bucket 64"):
        turns(small, chosen=recipe("tiny", batch={256: 4}))


def test_a_stage_whose_share_is_less_than_a_step_is_left_out(staged):
    curriculum = turns(staged, 4)
    assert [(t.stage.name, t.stage.steps) for t in curriculum.turns] == [("S1", 1), ("S2", 1), ("S3", 1), ("S4", 1)]
    assert len(curriculum.notes) == 2 and "less than one" in curriculum.notes[0]


def test_rows_of_a_task_without_a_share_do_not_make_a_stage(tmp_path):
    edits = write_snapshot(tmp_path, [{"rows": card_rows(30, task="ti2i"), "stages": ["S1", "S2"]}])
    assert [t.stage.name for t in turns(edits).turns] == ["S2"]


def test_shares_are_exact_in_every_stage(staged):
    for turn in turns(staged).turns:
        plan = DataPlan([MixSource(manifest=staged)], **plan_settings(RECIPE, turn.stage, seed=3))
        tasks, buckets = Counter(), Counter()
        for step in range(40):
            rows = [row for micro in plan.batch(step) for row in micro]
            buckets[rows[0].bucket] += 1
            assert len(rows) == RECIPE.batch[rows[0].bucket]
            tasks.update((row.bucket, plan.shards[row.shard].task) for row in rows)
        assert set(buckets) == set(turn.rows)
        for bucket, taken in buckets.items():
            drawn = taken * RECIPE.batch[bucket]
            assert abs(tasks[bucket, "t2i"] - turn.stage.t2i_share * drawn) < 1
            assert tasks[bucket, "t2i"] + tasks[bucket, "ti2i"] == drawn


def test_stages_draw_the_same_rows_in_different_orders(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(60), "stages": ["S1", "S2"]}])
    orders = [
        [row[:3] for t in range(3) for micro in plan.batch(t) for row in micro]
        for stage in turns(manifest).turns
        if (plan := DataPlan([MixSource(manifest=manifest)], **plan_settings(RECIPE, stage.stage, seed=3)))
    ]
    assert set(orders[0]) == set(orders[1]) and orders[0] != orders[1]


def test_a_slice_counts_only_files_that_may_hold_it(tmp_path):
    manifest = write_snapshot(tmp_path, [{"rows": card_rows(30)}])
    assert turns(manifest, slice="count").turns  # a column says the slice: the file may hold it
