"""Records come back as they were written; those of workspace format 1 are read; damaged files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_bytes, write_json
from flywheel.core.records import GateLine, Manifest, RoundPlan, RoundResult, ShardFile
from tests.flywheel.plans import entry, round_plan

LAYOUT = {"bytes": 10, "rows": 3, "bucket": 64, "width": 64, "height": 48, "task": "t2i", "references": 0}
BASE_FILE = ShardFile(path="64/a.parquet", sha256="0" * 64, stages=("S1", "S2"), least_weight=0.5, **LAYOUT)
REMEDY_FILE = ShardFile(path="64/b.parquet", sha256="1" * 64, stages=("S1",), slice="count", **LAYOUT)
SNAPSHOT = Manifest(snapshot="s", files=(BASE_FILE,), balanced=("S2",), policy="demo", policy_sha256="2" * 64)
REMEDIES = Manifest(snapshot="s", files=(REMEDY_FILE, BASE_FILE), round=2)
SUITES = ({"path": "suite/suite.jsonl", "sha256": "3" * 64, "prompts": 40},)
MIX = (entry("base", 0.4), entry("text", 0.2, round=2), entry("count", 0.4, samples=8, cases=3))
PLAN = round_plan(
    3, *MIX, incumbent="checkpoints/a", checkpoint="4" * 64, suites=SUITES, targets=("count",), waiting={"rl": 2}
)
LINE = GateLine("count", 4, 0.75, 0.5, 2, 1, -0.5, 0.1, 1.0, True, "tie")
RESULT = RoundResult(
    round=3,
    verdict="HOLD",
    reason="no win",
    checkpoint="checkpoints/b",
    incumbent="checkpoints/a",
    snapshot="s",
    targets=("count",),
    failure_rate={"count": 0.5},
    incumbent_failure_rate={"count": 0.75},
    control_failure_rate={},
    prompts={"count": 4},
    gate=(LINE,),
    fixed=("c1", "c2"),
    broken=("c3",),
)
RECORDS = [SNAPSHOT, REMEDIES, PLAN, round_plan(1), RESULT]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was_written(record: Manifest | RoundPlan | RoundResult, tmp_path: Path):
    path = tmp_path / "record.json"
    record.write(path)
    again = type(record).read(path)
    assert again == record
    content = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == content


def test_a_record_of_a_value_names_where_it_came_from():
    assert RoundResult.of(RESULT.as_dict(), "round 3") == RESULT
    with pytest.raises(UsageError, match="^round 3 is not a RoundResult"):
        RoundResult.of({"round": 3}, "round 3")


def test_only_entries_with_samples_ask_for_new_ones():
    assert [m.slice for m in PLAN.requests] == ["count"] and round_plan(1).requests == ()


def renamed(entries: list[dict]) -> list[dict]:
    return [{"track" if key == "slice" else key: value for key, value in e.items()} for e in entries]


def test_a_manifest_of_format_1_is_read(tmp_path: Path):
    path = tmp_path / "manifest.json"
    REMEDIES.write(path)
    manifest = read_json(path)
    write_json(path, manifest | {"files": renamed(manifest["files"])})
    assert b'"track": "count"' in path.read_bytes() and b'"slice"' not in path.read_bytes()
    assert Manifest.read(path) == REMEDIES


def test_a_plan_of_format_1_is_read(tmp_path: Path):
    path = tmp_path / "plan.json"
    plan = PLAN.as_dict()
    write_json(path, plan | {"mix": renamed(plan["mix"])})
    assert b'"track": "base"' in path.read_bytes() and b'"slice"' not in path.read_bytes()
    assert RoundPlan.read(path) == PLAN


@pytest.mark.parametrize("record", RECORDS[1:], ids=lambda record: type(record).__name__)
def test_a_damaged_file_is_named(record: Manifest | RoundPlan | RoundResult, tmp_path: Path):
    path, kind = tmp_path / "record.json", type(record)
    record.write(path)
    whole, value = path.read_bytes(), read_json(path)
    lacking = {k: v for k, v in value.items() if k not in ("snapshot", "files")}
    for damaged in (lacking, value | {"surprise": 1}, [], "text", None, 3):
        write_json(path, damaged)
        with pytest.raises(UsageError, match=f"{path} is not a {kind.__name__} .*restore the file"):
            kind.read(path)
    for content in (whole[:-20], b"", b"\xff\xfe\x00"):
        write_bytes(path, content)
        with pytest.raises(UsageError, match=f"{path} is damaged.*restore the file"):
            kind.read(path)


@pytest.mark.parametrize("part, file", [("files", REMEDIES), ("mix", PLAN), ("gate", RESULT)])
def test_a_damaged_entry_names_its_file(part: str, file: Manifest | RoundPlan | RoundResult, tmp_path: Path):
    path = tmp_path / "record.json"
    file.write(path)
    for entries in ([{"unknown": 1}], [3], 3):
        write_json(path, read_json(path) | {part: entries})
        with pytest.raises(UsageError, match=f"{path} is not a {type(file).__name__}"):
            type(file).read(path)
