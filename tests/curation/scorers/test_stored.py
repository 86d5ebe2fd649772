"""Score files of packs: few files, the same scores as one file per shard, and only what changed is scored again."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.captioning.written import set_folder, write_sidecar
from curation.scorers import load, scoring
from curation.scorers.stored import mark_unusable, pending, read_scores, score_path
from curation.scorers.table import tables
from curation.sources import ingest as intake
from curation.sources import pool
from flywheel.core.cluster import cluster
from flywheel.core.files import write_json
from flywheel.core.workspace import Workspace
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from tests.curation.corpus import textures, tree, write_folder

OPTIONS: dict[str, dict] = {"header": {}, "text": {}}


def _score(workspace: Workspace) -> None:
    """In this process."""
    for pack, todo in pending(workspace, OPTIONS):
        scoring._score_pack(pack.shards, todo, scoring.references_of(workspace, [s.path for s in pack.shards]))


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Ten pictures in shards of two, of which four and one are scored together."""
    monkeypatch.setattr(intake, "SHARD_ROWS", 2)
    monkeypatch.setattr(intake, "LARGE_SHARD_ROWS", 2)
    monkeypatch.setattr(intake, "_SHARDS", 1)
    monkeypatch.setattr(intake, "PACK_ROWS", 8)
    workspace = Workspace(tmp_path / "w")
    intake.ingest(workspace, write_folder(tmp_path / "src", textures(10)))
    _score(workspace)
    return workspace


def _rows(workspace: Workspace) -> dict[str, list]:
    """Scores of each shard, without the numbers of their rows."""
    return {
        f"{name} {shard.key}": read_scores(score_path(workspace, load(name), shard), shard).drop(["row"]).to_pylist()
        for name in OPTIONS
        for shard in pool.shards(workspace)
    }


def test_packs_hold_what_files_of_single_shards_hold_in_fewer_files(packed: Workspace) -> None:
    assert [len(p.shards) for p in pool.packs(packed)] == [4, 1] and not pending(packed, OPTIONS)
    assert len(list(packed.path("scores").glob("*/*.parquet"))) == 2 * len(OPTIONS)
    together, scorers = _rows(packed), {name: load(name) for name in OPTIONS}
    (path,) = tables(packed, scorers)
    gathered = pq.read_table(path).to_pylist()
    assert fsck(packed).findings == ()
    assert [r["shard"] for r in gathered] == [s.key for s in pool.shards(packed) for _ in range(s.rows)]
    (batch,) = packed.batches()
    listed = pool.manifest(batch)
    del listed[pool.TOGETHER]  # as of an earlier version: each shard has files of its own
    write_json(batch / "manifest.json", listed)
    path.unlink()
    _score(packed)
    assert len(pool.packs(packed)) == 5 and _rows(packed) == together
    assert pq.read_table(tables(packed, scorers)[0]).to_pylist() == gathered


def test_a_caption_has_only_its_shard_scored_again(packed: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before, shard = _rows(packed), pool.shards(packed)[2]
    sample = pq.read_table(shard.path)["sample_id"][0].as_py()
    row = {"sample_id": sample, "source_uri": "", "kind": "general", "caption": "a red kite", "use": "replace"}
    row |= {"model": "m", "prompt": "p", "error": None}
    write_sidecar(set_folder(packed, "replace", "general", "m", "p"), shard.key, [row])
    (waiting,) = pending(packed, OPTIONS)
    assert waiting[1].keys() == {"text"} and len(waiting[1]["text"].older) == 1
    scored: list[int] = []
    score_rows = scoring._score_rows
    monkeypatch.setattr(scoring, "_score_rows", lambda rows, *a: scored.append(len(rows)) or score_rows(rows, *a))
    _score(packed)
    after = _rows(packed)
    assert scored == [2], "one shard of four"
    assert {k for k in after if after[k] != before[k]} == {f"text {shard.key}"}
    assert after[f"text {shard.key}"][0]["normalized"] == "a red kite"


def test_a_row_is_marked_in_its_pack(packed: Workspace) -> None:
    shard, header = pool.shards(packed)[1], load("header")
    before = _rows(packed)
    mark_unusable(packed, header, {(shard.key, 1): "cannot be resized"})
    after = _rows(packed)
    assert {k for k in after if after[k] != before[k]} == {f"header {shard.key}"}
    assert [r["error"] for r in after[f"header {shard.key}"]] == [None, "cannot be resized"]


def test_a_pack_is_the_same_bytes_however_it_was_written(packed: Workspace) -> None:
    first = tree(packed.path("scores"))
    for path in packed.path("scores").glob("*/*.parquet"):
        path.unlink()
    _score(packed)
    assert tree(packed.path("scores")) == first


def test_a_billion_pictures_are_at_most_two_million_files() -> None:
    """Of a pool in batches of a million and more, with twelve scorers, at up to 256 KiB a picture."""
    inputs, scorers = 2**20, 12
    chunks = inputs // intake.LARGE_SHARD_ROWS
    packs = -(-chunks // intake._together(chunks, inputs))
    assert 10**9 / inputs * (chunks + scorers * packs) <= 2_000_000
    assert packs >= 64 and intake._together(64, 4096) == 1, "small pools keep their parallelism"


def test_erased_rows_leave_a_pack_and_the_others_keep_their_scores(packed: Workspace) -> None:
    first, second, *_ = pool.shards(packed)
    ids = pq.read_table(first.path)["sample_id"].to_pylist() + pq.read_table(second.path)["sample_id"].to_pylist()[:1]
    before = _rows(packed)
    erase(packed, ids, by="me", why="asked")  # the whole first shard, and a row of the second
    after = _rows(packed)
    assert after.keys() == before.keys() - {f"{name} {first.key}" for name in OPTIONS}
    assert after[f"text {second.key}"] == before[f"text {second.key}"][1:]
    assert all(after[k] == before[k] for k in after if second.key not in k)
    assert not pending(packed, OPTIONS) and fsck(packed).findings == ()


def test_a_row_that_kills_the_process_costs_itself_in_a_pack(packed: Workspace, tmp_path: Path) -> None:
    files = {f"more-{n}.png": data for n, data in enumerate(textures(24)[k] for k in list(textures(24))[12:22])}
    captions = dict.fromkeys(files, "fine") | {"more-5.png": "crash"}
    intake.ingest(packed, write_folder(tmp_path / "more", files, captions))
    crashing = "tests.curation.crashing:Crashing"
    with cluster(1, few=True):
        scoring.score(packed, OPTIONS | {crashing: {}})
    assert not pending(packed, OPTIONS | {crashing: {}})
    tables_ = [pq.read_table(p) for p in packed.path("scores").glob("crashing@1+*/*.parquet")]
    errors = [e for table in tables_ for e in table["error"].to_pylist() if e]
    assert errors == ["RuntimeError: crashed the scoring process"] and sum(len(t) for t in tables_) == 20
