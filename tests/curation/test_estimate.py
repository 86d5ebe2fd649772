"""What curating would cost, before anything is written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from curation.estimate import SAMPLE, estimate
from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation import one_stage
from tests.curation.corpus import encoded, texture, tree, write_folder

RULE = '[S1.filters.entropy]\nscore = "pixels.entropy"\nmin = 1\n'


def folder(root: Path, count: int) -> Path:
    files = {f"{n:02d}.png": encoded(texture(n, 80, 60)) for n in range(count)} | {"empty.png": b""}
    return write_folder(root, files, {"00.png": "a picture"})


def shard_bytes(workspace: Workspace) -> int:
    return sum(p.stat().st_size for p in workspace.path("shards").rglob("*.parquet"))


def test_it_counts_measures_and_writes_nothing(tmp_path: Path) -> None:
    source, rule = folder(tmp_path / "src", 20), one_stage.policy(tmp_path, RULE)
    found = estimate(None, [source], None, rule, workers=4)
    assert (found.inputs, found.new, found.refused, found.to_score) == (21, 21, 0, 21)
    assert found.uncaptioned == 20 and found.read_bytes == sum(p.stat().st_size for p in source.glob("*.png"))
    assert found.measured == SAMPLE and set(found.scorers) == {"header", "pixels", "text"}
    assert found.cpu_seconds > 0 and found.wall_seconds == pytest.approx(found.cpu_seconds / 4, abs=0.1)
    assert found.write_bytes > found.read_bytes


def test_only_what_is_new_or_not_scored_yet_counts(tmp_path: Path) -> None:
    source, rule = folder(tmp_path / "src", 4), one_stage.policy(tmp_path, RULE)
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, source)
    before = tree(workspace.root)
    found = estimate(workspace, [source], None, rule)
    assert (found.new, found.to_score, found.read_bytes) == (0, 4, 0) and found.measured == 4
    one_stage.scored(workspace, rule)
    ready = estimate(workspace, [source], None, rule)
    assert (ready.to_score, ready.shard_files, ready.measured) == (0, 1, 4) and ready.cpu_seconds > 0
    curate(workspace, rule)
    done = estimate(workspace, [source], None, rule)
    assert (done.to_score, done.cpu_seconds, done.write_bytes, done.shard_files) == (0, 0, 0, 0)
    assert before.items() <= tree(workspace.root).items()


def test_what_another_policy_or_caption_writes_of_a_known_pool_is_said(tmp_path: Path, ray_session: None) -> None:
    source, workspace = folder(tmp_path / "src", 4), Workspace(tmp_path / "w")
    wide = one_stage.policy(tmp_path, RULE)
    strict = one_stage.policy(tmp_path, '[S1.filters.caption]\nscore = "text.token_length"\nmax = 1\n')
    ingest(workspace, source)
    curate(workspace, strict)
    found = estimate(workspace, [source], None, wide)
    before = set(workspace.path("shards").rglob("*.parquet"))
    curate(workspace, wide)
    written = set(workspace.path("shards").rglob("*.parquet")) - before
    assert (found.to_score, found.shard_files) == (0, len(written)) and written
    assert found.write_bytes == pytest.approx(sum(p.stat().st_size for p in written), rel=0.5)
    assert estimate(workspace, [source], None, strict).shard_files == 0  # led back: all files are there
    lines = '{"file": "00.png", "caption": "another"}\n{"file": "empty.png", "caption": "unreadable"}\n'
    (source / "captions.jsonl").write_text(lines)
    told = estimate(workspace, [source], None, wide)
    assert (told.captions, told.shard_files) == (1, None) and "captions of 1 known inputs" in told.notes[0]
    assert ingest(workspace, source).captions == 1
    assert estimate(workspace, [source], None, wide).captions == 0


def test_it_says_that_erased_pictures_are_recognised_only_when_they_are_read(tmp_path: Path) -> None:
    source, rule = folder(tmp_path / "src", 2), one_stage.policy(tmp_path, RULE)
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, source)
    again = folder(tmp_path / "elsewhere", 2)
    assert estimate(workspace, [again], None, rule).notes == ()
    image = hashlib.sha256((source / "00.png").read_bytes()).hexdigest()
    Ledger(workspace, "erasures").append([{"erasure_id": "e", "image_id": image}], key="erasure/e")
    (note,) = estimate(workspace, [again], None, rule).notes
    assert "1 erased" in note and "quarantined" in note
    assert ingest(workspace, again).quarantined == 2  # the erased one and the empty one
    assert estimate(workspace, [again], None, rule).notes == ()  # nothing new


def test_a_wrong_source_is_told_as_by_ingest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        estimate(None, [tmp_path / "nowhere"], None, one_stage.policy(tmp_path, RULE))


def test_a_changed_policy_writes_shards_though_nothing_is_new(tmp_path: Path, ray_session: None) -> None:
    source, rule = folder(tmp_path / "src", 8), one_stage.policy(tmp_path, RULE)
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, source)
    Ledger(workspace, "snapshots").append([{"snapshot": curate(workspace, rule).snapshot}], key="1")
    same = estimate(workspace, [source], None, rule)
    assert (same.to_score, same.cpu_seconds, same.write_bytes, same.measured) == (0, 0, 0, 0)
    (tmp_path / "larger.toml").write_text('base = "mine.toml"\n[S1]\nresolutions = [64, 128]\n')
    larger = load_policy(tmp_path / "larger.toml")
    before = shard_bytes(workspace)
    found = estimate(workspace, [source], None, larger)
    assert found.to_score == 0 and found.measured == 8
    curate(workspace, larger)
    assert shard_bytes(workspace) - before == pytest.approx(found.write_bytes, rel=0.3)


def test_sources_that_overlap_count_once(tmp_path: Path) -> None:
    source, rule = folder(tmp_path / "src", 3), one_stage.policy(tmp_path, RULE)
    found = estimate(None, [source, source / "00.png", source], None, rule)
    assert (found.inputs, found.new) == (9, 4)
