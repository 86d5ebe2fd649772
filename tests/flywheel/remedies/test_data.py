"""Data remedies: retrieval, decontamination with a planted evaluation prompt, and what review decides."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.shards.fit import fit
from flywheel.cases.events import Case
from flywheel.core.records import Manifest
from flywheel.core.schema import SHARD
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.remedies import data
from flywheel.remedies.candidates import EVALUATION_PROMPT
from flywheel.remedies.review import Queue
from tests.flywheel.format_1 import rename_column
from tests.flywheel.plans import entry, round_plan
from tests.flywheel.remedies.cards import PLANTED, SUITE, near_evaluation

CASES = [Case("c1", 1, "color", "pretraining", "s1", SUITE[0].text, "routed")]
PLAN = round_plan(2, entry("base", 0.5), entry("color", 0.5, samples=8))


@pytest.fixture(scope="module")
def collected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("remedy")
    return folder, data.collect(folder, PLAN, CASES, data.BasePool(base, SUITE, load_preset("demo")))


def test_a_planted_evaluation_prompt_never_becomes_a_candidate(collected: tuple[Path, list[dict]]):
    folder, rows = collected
    assert len(rows) == 8 and near_evaluation([r["caption"] for r in rows]) == []
    refused = pq.read_table(folder / "refused.parquet").to_pylist()
    filters = {r["caption"]: r["filter"] for r in refused if r["recipe"] == "retrieved"}
    assert filters[PLANTED] == EVALUATION_PROMPT and set(filters.values()) == {EVALUATION_PROMPT}
    recipes = Counter(r["evidence"]["recipe"] for r in rows)
    assert 0 < recipes["retrieved"] <= 4 and all(0 <= r["priority"] <= 1 for r in rows)
    evidence = next(r["evidence"] for r in rows if r["evidence"]["recipe"] == "retrieved")
    assert evidence["case"] == "c1" and evidence["similarity"] >= 0.6


def test_finished_work_is_read_also_from_a_workspace_of_format_1(
    base: Path, collected: tuple[Path, list[dict]], tmp_path: Path
):
    """Version 0.1 wrote the candidates, and was stopped before the review was done."""
    workspace = Workspace(tmp_path / "w")
    folder = workspace.round(2).remedies
    shutil.copytree(collected[0], folder, ignore=shutil.ignore_patterns("counts.json"))
    rename_column(folder / "candidates.parquet")
    rows = data.collect(folder, PLAN, CASES, data.BasePool(base, SUITE, load_preset("demo")))
    assert rows == collected[1]
    queue = Queue(workspace)
    queue.add(2, rows)
    queue.approve_all(2)
    items = {(x.capability, x.sample_id): x for x in queue.items().values()}
    counts = data.shard(folder, PLAN, SUITE, items)
    assert counts["color"]["retrieved"] + counts["color"]["generated"] == len(rows)
    assert data.shard(folder, PLAN, SUITE, {}) == counts  # the shards are not written again
    manifest = json.loads((folder / "manifest.json").read_text())
    sharded = [r for f in manifest["files"] for r in pq.read_table(folder / f["path"]).to_pylist()]
    assert {r["slice"] for r in sharded} == {"color"} and len(sharded) == len(rows)
    (picture,) = data.picture_of(workspace, next(iter(items.values())))
    assert picture.read_bytes() in {r["image"] for r in sharded}


def test_only_what_the_review_accepted_is_sharded_and_an_edit_cannot_bring_an_evaluation_prompt_in(
    collected: tuple[Path, list[dict]], tmp_path: Path
):
    folder, rows = collected
    queue = Queue(Workspace(tmp_path / "w"))
    queue.add(2, rows)
    rejected, edited, sneaked = (queue.next("ada") and queue.decide(queue.next("ada").item, *d) for d in (
        ("rejected", "ada"), ("accepted", "ada"), ("accepted", "ada")
    ))  # fmt: skip
    items = queue.items()
    queue.approve_all(2)
    items = {(x.capability, x.sample_id): x for x in queue.items().values()}

    def with_caption(item: object, caption: str) -> None:
        slots = (items[item.capability, item.sample_id].slots[0].__class__(1, "accepted", "ada", None, caption, None),)
        items[item.capability, item.sample_id] = item.__class__(**{**vars(item), "slots": slots})

    with_caption(edited, "a better caption")
    with_caption(sneaked, SUITE[2].text.replace("lamp", "lampp"))
    counts = data.shard(folder, PLAN, SUITE, items)
    assert counts["color"]["rejected"] == 1 and counts["color"]["refused"] >= 2
    manifest = json.loads((folder / "manifest.json").read_text())
    sharded = [r for f in manifest["files"] for r in pq.read_table(folder / f["path"]).to_pylist()]
    assert len(sharded) == 6 and near_evaluation([r["caption"] for r in sharded]) == []
    assert rejected.sample_id not in {r["sample_id"] for r in sharded}
    assert "a better caption" in {r["caption"] for r in sharded}
    table = pq.read_table(folder / "generated.parquet").to_pylist()
    assert Counter(r["filter"] for r in table if r["filter"] != EVALUATION_PROMPT) == {None: 6, "review": 1}
    assert sneaked.sample_id in {r["sample_id"] for r in table if r["filter"] == EVALUATION_PROMPT}


def test_remedies_are_made_at_every_bucket_that_is_trained_and_found_by_their_pictures_too(base: Path, tmp_path: Path):
    manifest, larger = Manifest.read(base), tmp_path / "base"
    shutil.copytree(base.parent, larger)
    (file,) = manifest.files
    rows = pq.read_table(larger / file.path).to_pylist()
    wide = [r | {"image": fit(r["image"], 128, 128), "width": 128, "height": 128} for r in rows[:30]]
    pq.write_table(pa.Table.from_pylist(wide, schema=SHARD), larger / "128.parquet")
    second = replace(file, path="128.parquet", bucket=128, width=128, height=128, rows=30)
    replace(manifest, files=(file, second)).write(larger / "manifest.json")
    workspace, demo = Workspace(tmp_path / "w"), load_preset("demo")
    recipe = {"base": "tiny", "batch": {64: 4, 128: 4}, "resolution": {64: 64, 128: 64}}
    preset = replace(demo, training=replace(demo.training, recipe=recipe))
    pool = data.BasePool(larger / "manifest.json", SUITE, preset, workspace.vectors)
    folder = workspace.round(2).remedies
    queued = data.collect(folder, PLAN, CASES, pool)
    assert len(queued) == 8 == len({r["sample_id"] for r in queued})
    assert {r["evidence"].get("by") for r in queued if r["evidence"]["recipe"] == "retrieved"} == {"caption", "picture"}
    queue = Queue(workspace)
    queue.add(2, queued)
    queue.approve_all(2)
    counts = data.shard(folder, PLAN, SUITE, {(x.capability, x.sample_id): x for x in queue.items().values()})
    assert sum(counts["color"][k] for k in ("retrieved", "generated")) == 8
    made = {f.bucket: f for f in Manifest.read(folder / "manifest.json").files}
    assert made.keys() == {64, 128} and made[64].rows == 8
    assert {r["sample_id"] for r in wide} & {r["sample_id"] for r in queued} <= set(
        pq.read_table(folder / made[128].path)["sample_id"].to_pylist()
    )
