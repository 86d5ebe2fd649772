"""The stages of a round, and what is admitted and not read, on a workspace with shards of several stages."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from flywheel.core.files import write_json
from flywheel.core.ledger import Ledger
from flywheel.core.records import BASE, Manifest, ShardFile
from flywheel.core.workspace import Workspace
from flywheel.rounds.job import Job
from flywheel.rounds.stages import curriculum_of, funnel_rows, sources, unread
from tests.flywheel.plans import entry, round_plan

PRESET = """
base = "tiny"
[training]
recipe = { base = "tiny", batch = { 256 = 16, 512 = 8 }, stages = ["S1", "S2", "S3", "S4"] }
base_steps = 50
"""
ADMITTED = {256: ("S1", "S2"), 512: ("S3", "S4", "S5"), 1024: ("S4", "S5")}


@pytest.fixture
def workspace(tmp_path):
    opened = Workspace(tmp_path / "w")
    shape = {"sha256": "", "bytes": 0, "rows": 9, "task": "t2i", "references": 0}
    files = [
        ShardFile(path=f"{b}.parquet", bucket=b, width=b, height=b, stages=s, **shape) for b, s in ADMITTED.items()
    ]
    path = opened.shard_manifest("s")
    Manifest(snapshot="s", files=tuple(files)).write(path)
    write_json(opened.snapshot("s"), {"manifest": str(path.relative_to(opened.root))})
    Ledger(opened, "snapshots").append([{"snapshot": "s", "manifest": "m"}], key="s")
    return opened


def run_with(workspace, tmp_path, text):
    preset = tmp_path / "preset.toml"
    preset.write_text(text)
    job = asdict(Job(workspace="w", source="photos", preset=str(preset)))
    Ledger(workspace, "runs").append([{"version": 1, "kind": "acquired", "job": json.dumps(job)}], key="run")


def test_a_rounds_stages_are_those_of_its_base_pool(workspace):
    curriculum = curriculum_of(workspace, round_plan(1, steps=100))
    assert [t.stage.name for t in curriculum.turns] == ["S1", "S2", "S3", "S4", "S5"]
    assert curriculum.turns[-1].end == 100 and sorted(curriculum.turns[3].rows) == [512, 1024]
    assert curriculum.notes == (
        "S6 is left out: the data has no rows for it in bucket 256, 512, 1024, 2048; S5 takes its 4 steps",
    )


def test_a_mix_is_read_from_the_manifests_of_its_rounds(workspace):
    mix = entry(BASE, 0.5), entry("count", 0.2, round=2), entry("color", 0.3), entry("object", 0.0)
    assert sources(workspace, round_plan(3, *mix)) == [
        {"manifest": str(workspace.shard_manifest("s")), "slice": BASE, "share": 0.5},
        {"manifest": str(workspace.round(2).remedy_manifest), "slice": "count", "share": 0.2},
        {"manifest": str(workspace.round(3).remedy_manifest), "slice": "color", "share": 0.3},
    ]


def test_what_is_admitted_and_not_read_is_named_with_its_reason(workspace, tmp_path):
    assert unread(workspace) == []  # no run has said yet which recipe trains
    run_with(workspace, tmp_path, PRESET)
    assert [(u.stage, u.bucket, u.rows, u.reason) for u in unread(workspace)] == [
        ("S4", 1024, 9, "recipe tiny has no batch for bucket 1024"),
        ("S5", 512, 9, "recipe tiny has no stage S5"),
        ("S5", 1024, 9, "recipe tiny has no stage S5"),
    ]
    rows = funnel_rows(workspace)
    assert rows[0] == {
        "stage": "S4", "bucket": 1024, "filter": "training", "dropped": 0, "quarantined": 0, "entered": 9,
        "status": "not read: recipe tiny has no batch for bucket 1024",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "steps", "expected"),
    [
        ('{ base = "tiny" }', 100, 0),
        ('{ base = "tiny" }', 1, 6),  # one step, for one stage
        ('{ base = "tiny", batch = { 64 = 4 } }', 100, 7),  # nothing can be trained
        ('{ base = "huge" }', 100, 0),  # the preset of another version: says nothing
    ],
)
def test_every_cell_is_read_or_named(workspace, tmp_path, recipe, steps, expected):
    run_with(workspace, tmp_path, f'base = "tiny"\n[training]\nrecipe = {recipe}\nbase_steps = {steps}\n')
    assert len(unread(workspace)) == expected
