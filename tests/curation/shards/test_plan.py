"""Snapshots share shard files: what comes, goes or is decided otherwise changes the files around it, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.captioning.written import set_folder, write_sidecar
from curation.export.export import export_shards
from curation.export.request import request
from curation.run import curate
from curation.shards import plan
from curation.shards.plan import average_rows
from curation.sources import pool
from flywheel.core.files import discard, file_digest
from flywheel.core.records import Manifest
from flywheel.core.schema import CAPTIONS
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from flywheel.operate.maintenance import maintain
from tests.curation.one_stage import policy
from tests.curation.shards.serial import AVERAGE, Serial, add, curated, files
from tests.flywheel.format_3 import downgrade
from training.data.plan import DataPlan, MixSource, PlanSettings, read_manifest

SIZES = '\n[S1.filters.size]\nscore = "header.short_edge"\nmin = {0}\n'
BALANCED = '\n[S1.filters.balance]\ncheck = "balance"\nper = "source"\ncap = 100\ntail = 0.5\n'

PLAN: PlanSettings = {"batch": {64: 8}, "t2i_share": 1.0, "seed": 0, "stages": ("S1",), "window": 8}


@pytest.fixture
def serial(monkeypatch: pytest.MonkeyPatch) -> Serial:
    return Serial(monkeypatch)


def _rows(manifest: str) -> dict[str, list[tuple[str, int]]]:
    """Sample id → (file, pixels of its bucket) of each of its rows."""
    out: dict[str, list[tuple[str, int]]] = {}
    for file in Manifest.read(Path(manifest)).files:
        for sample in pq.read_table(Path(manifest).parent / file.path)["sample_id"].to_pylist():
            out.setdefault(sample, []).append((file.path, file.bucket))
    return out


@pytest.mark.parametrize("new", [1, 5])
def test_new_rows_encode_themselves_and_rewrite_only_the_last_files(tmp_path: Path, serial: Serial, new: int) -> None:
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(96))
    first = files(curated(workspace, every))
    assert serial.encoded == 96 and len(first) > 6
    serial.encoded = 0
    add(workspace, tmp_path / "b", range(96, 96 + new))
    result = curated(workspace, every)
    second = files(result)
    assert serial.encoded == new
    assert len(first.keys() - second.keys()) <= 2, "of each of the two layouts, the last file goes"
    assert all(second[p] == first[p] for p in first.keys() & second.keys())
    assert {p for p in first if p.exists()} == first.keys(), "the older snapshot keeps its files"
    assert sum(pq.read_metadata(p).num_rows for p in second) == result.admitted == 96 + new


def test_a_snapshot_is_the_same_whatever_came_before_it(tmp_path: Path, serial: Serial) -> None:
    """Copied pictures are the bytes that encoding gives, and no earlier snapshot decides where a file ends."""
    every, trees = policy(tmp_path, ""), []
    for steps in ((1, 2, 3), (3,)):
        workspace = Workspace(tmp_path / f"w{len(steps)}")
        for batch in range(1, 4):
            add(workspace, tmp_path / f"{batch}", range(20 * batch, 20 * batch + 20))
            if batch in steps:
                result = curated(workspace, every)
        assert fsck(workspace).sound
        trees.append({p.name: content for p, (_, content) in files(result).items()})
    assert trees[0] == trees[1] and len(trees[0]) > 4


def test_rows_decided_otherwise_encode_nothing_that_was_there(tmp_path: Path, serial: Serial) -> None:
    workspace = Workspace(tmp_path / "w")
    add(workspace, tmp_path / "a", range(60))
    wide = curated(workspace, policy(tmp_path, SIZES.format(60)))
    before, serial.encoded = files(wide), 0
    narrow = curated(workspace, policy(tmp_path, SIZES.format(80)))  # the layout of a third of them goes as a whole
    assert (wide.admitted, narrow.admitted, serial.encoded) == (60, 40, 0)
    kept = files(narrow)
    assert kept.items() <= before.items() and 0 < len(kept) < len(before)
    again = curated(workspace, policy(tmp_path, SIZES.format(59)))
    assert serial.encoded == 0 and files(again).keys() == before.keys() and again.snapshot != wide.snapshot


def test_a_row_that_goes_changes_the_file_that_held_it(tmp_path: Path, serial: Serial) -> None:
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(90))
    result = curated(workspace, every)
    before, rows = files(result), _rows(result.manifest)
    gone = sorted(rows)[7]
    serial.encoded = 0
    after = curate(workspace, every, held_out=frozenset({gone}))
    left = before.keys() - files(after).keys()
    assert serial.encoded == 0 and gone not in _rows(after.manifest) and len(_rows(after.manifest)) == 89
    assert Path(after.manifest).parent / rows[gone][0][0] in left
    assert len(left) <= 4, "its own file; the next one, if the row ended its file; of a long run, the rest"
    assert all(files(after)[p] == before[p] for p in files(after).keys() & before.keys())


def test_weights_and_files_are_apart(tmp_path: Path, serial: Serial) -> None:
    """A pool that grows changes every weight, and no file for that; the loader draws by the weights of its manifest."""
    workspace, balanced = Workspace(tmp_path / "w"), policy(tmp_path, BALANCED)
    add(workspace, tmp_path / "a", range(24))
    add(workspace, tmp_path / "b", range(24, 30))
    first = curated(workspace, balanced)
    add(workspace, tmp_path / "c", range(30, 33))
    second = curated(workspace, balanced)
    one, two = (Manifest.read(Path(r.manifest)).weights for r in (first, second))
    assert (
        one is not None and two is not None and one["64"].keys() == {"a", "b"} and two["64"].keys() == {"a", "b", "c"}
    )
    assert one["64"]["a"] != two["64"]["a"] < 1 < two["64"]["c"]
    assert len(files(first).keys() & files(second).keys()) >= len(files(first)) - 2
    for shard in read_manifest(second.manifest, ["S1"]):
        assert shard.least_weight == min(two["64"].values()) and dict(shard.weights or ()) == two["64"]


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_file_is_not_copied_from(tmp_path: Path, serial: Serial, damage: str) -> None:
    workspace, every, serial.average = Workspace(tmp_path / "w"), policy(tmp_path, ""), 10**9
    add(workspace, tmp_path / "a", range(1, 3))
    first = curated(workspace, every)
    (path,) = files(first)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data) if damage == "flip" else path.unlink()
    serial.encoded = 0
    add(workspace, tmp_path / "b", [4])
    curated(workspace, every)
    assert serial.encoded == 3


def test_new_captions_change_rows_and_encode_nothing(tmp_path: Path, serial: Serial) -> None:
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(1, 3))
    first = curated(workspace, every)
    (shard,) = pool.shards(workspace)
    samples = pq.read_table(shard.path)["sample_id"].to_pylist()
    told = dict.fromkeys(CAPTIONS.names) | {"use": "replace", "kind": "general", "model": "m", "prompt": "p"}
    written = [told | {"sample_id": s, "caption": f"seen {s[:4]}", "objects": [], "quoted": []} for s in samples]
    write_sidecar(set_folder(workspace, "replace", "general", "m", "p"), shard.key, written)
    serial.encoded = 0
    second = curated(workspace, every)
    assert serial.encoded == 0 and not files(first).keys() & files(second).keys()
    captions = [c for path in files(second) for c in pq.read_table(path)["caption"].to_pylist()]
    assert captions == [f"seen {s[:4]}" for s in samples]


def test_what_no_snapshot_lists_is_removed_in_maintenance(tmp_path: Path, serial: Serial) -> None:
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(1, 3))
    first = curated(workspace, every)
    second = curate(workspace, every, held_out=frozenset([min(_rows(first.manifest))]))
    assert maintain(workspace, keep_hours=0)["shard_files"] == 0
    old, new = files(first).keys() - files(second).keys(), files(second)
    for path in (workspace.snapshot(first.snapshot), Path(first.manifest)):
        discard(path)
    assert [f.problem for f in fsck(workspace).findings] == ["in no manifest"] * len(old) and old
    assert maintain(workspace)["shard_files"] == 0, "too young: a run may be about to list it"
    assert maintain(workspace, keep_hours=0)["shard_files"] == len(old)
    assert not any(p.exists() for p in old) and files(second) == new and not fsck(workspace).findings


def test_files_end_by_their_rows_alone(tmp_path: Path, serial: Serial) -> None:
    """Files are AVERAGE rows long on average and never longer than twice that."""
    workspace = Workspace(tmp_path / "w")
    add(workspace, tmp_path / "a", range(1, 200, 3))
    add(workspace, tmp_path / "b", range(2, 200, 3))
    rows = [f.rows for f in Manifest.read(Path(curated(workspace, policy(tmp_path, "")).manifest)).files]
    assert sum(rows) == 133 and max(rows) <= 2 * AVERAGE and np.mean(rows) > AVERAGE / 3


@pytest.mark.parametrize(
    "side, near, far", [(64, 512, 8192), (512, 512, 4096), (1024, 256, 1024), (2048, 64, 256), (4096, 64, 64)]
)
def test_files_are_of_a_few_hundred_megabytes_in_whole_row_groups(side: int, near: int, far: int) -> None:
    assert (average_rows(side**2, far=False), average_rows(side**2, far=True)) == (near, far)


def test_far_rows_are_in_larger_files(tmp_path: Path, serial: Serial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the first rows stay as they are when the pool grows beyond them; new rows then go to larger ones."""
    monkeypatch.setattr(plan, "_FAR", 60)
    monkeypatch.setattr(plan, "average_rows", lambda pixels, far: 32 if far else 4)
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(1, 180, 3))
    first = curated(workspace, every)
    add(workspace, tmp_path / "b", range(2, 360, 3))
    second = curated(workspace, every)
    assert files(first).items() <= files(second).items()
    near, far = ([f.rows for f in Manifest.read(Path(r.manifest)).files] for r in (first, second))
    assert sum(near) == 60 and max(near) <= 8 and sum(far) == 180
    assert max(far) > 8 and len(far) - len(near) < 120 / 8


def test_rows_say_what_their_pictures_were_made_from(tmp_path: Path, serial: Serial) -> None:
    workspace = Workspace(tmp_path / "w")
    add(workspace, tmp_path / "a", range(4))
    result = curated(workspace, policy(tmp_path, ""))
    table = pa.concat_tables(pq.read_table(p, columns=["sample_id", "made_from"]) for p in files(result))
    assert len(set(table["made_from"].to_pylist())) == 4
    assert {f.sha256 for f in Manifest.read(Path(result.manifest)).files} == {file_digest(p) for p in files(result)}


def test_erasing_reaches_a_file_that_snapshots_share(tmp_path: Path, serial: Serial) -> None:
    workspace, every = Workspace(tmp_path / "w"), policy(tmp_path, "")
    add(workspace, tmp_path / "a", range(72))
    first = curated(workspace, every)
    add(workspace, tmp_path / "b", range(72, 75))
    second = curated(workspace, every)
    rows = _rows(first.manifest)
    shared = [path for path in files(first) if path in files(second)]
    inside, rest = (set(pq.read_table(p)["sample_id"].to_pylist()) for p in sorted(shared)[:2])
    gone = [*inside, min(rest)]  # one file goes as a whole, of another a row
    erase(workspace, gone, by="ada", why="a test")
    assert fsck(workspace).sound and not sorted(shared)[0].exists()
    for result, count in ((first, 72), (second, 75)):
        left = _rows(result.manifest)
        assert len(left) == count - len(gone) and not left.keys() & set(gone) and left.keys() & rows.keys()
    serial.encoded = 0
    third = curated(workspace, every)
    assert serial.encoded == 0 and len(_rows(third.manifest)) == 75 - len(gone) and fsck(workspace).sound


def test_a_snapshot_with_a_folder_of_its_own_is_read_beside_new_ones(tmp_path: Path, serial: Serial) -> None:
    """Workspaces of format 3: trained on, exported, verified, erased, and the pool is curated again."""
    workspace, balanced = Workspace(tmp_path / "w"), policy(tmp_path, BALANCED)
    for name, numbers in (("a", range(1, 24)), ("b", range(24, 30))):
        add(workspace, tmp_path / name, numbers)
    snapshot = curated(workspace, balanced).snapshot
    before = DataPlan([MixSource(manifest=workspace.shard_manifest(snapshot))], **PLAN)
    drawn = [row[1:] for batch in range(4) for rows in before.batch(batch) for row in rows]
    downgrade(workspace.root)
    workspace = Workspace(workspace.root)
    manifest = workspace.shard_manifest(snapshot)
    assert (workspace.format, manifest.name, fsck(workspace).sound) == (3, "manifest.json", True)
    older = DataPlan([MixSource(manifest=manifest)], **PLAN)
    assert [row[1:] for batch in range(4) for rows in older.batch(batch) for row in rows] == drawn
    wanted, listed = request(workspace, format="parquet", snapshot=snapshot)
    assert export_shards(workspace, wanted, listed, tmp_path / "out").rows == 29
    gone = min(_rows(str(manifest)))
    erase(workspace, [gone], by="ada", why="a test")
    assert gone not in _rows(str(manifest)) and len(_rows(str(manifest))) == 28 and fsck(workspace).sound
    serial.encoded = 0
    again = curated(workspace, balanced)
    assert again.snapshot != snapshot and Path(again.manifest) == workspace.path("shards", f"{again.snapshot}.json")
    assert serial.encoded == 28 and len(_rows(str(manifest))) == 28 and fsck(workspace).sound
