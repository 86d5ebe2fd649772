"""The pool's steps: what a suite from a file brings along is held out of every shard."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.catalog.database import connect
from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.core.lens import latest_snapshot
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.demo.photographs import crops
from flywheel.operate.commits import verify_ledgers
from flywheel.operate.findings import Check
from flywheel.presets import load_preset
from flywheel.rounds import pool
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.signals import pinned
from flywheel.signals.nulls import encode
from flywheel.signals.suite import write_rows


def suite_file(folder: Path, name: str, reference: bytes) -> Path:
    (folder / "references").mkdir(parents=True, exist_ok=True)
    (folder / "references" / f"{name}.png").write_bytes(reference)
    check = {"verifier": "similarity", "capability": "identity"}
    row = {"prompt_id": name, "prompt": f"edit {name}", "task": "ti2i", "references": [f"references/{name}.png"]}
    return write_rows(folder / f"{name}.jsonl", [row | {"checks": [check]}])


def test_references_of_the_chased_and_of_the_hidden_suite_are_held_out(tmp_path: Path):
    first, second = (encode(crop) for crop, _ in crops(2, seed="pool"))
    chased, unseen = suite_file(tmp_path, "chased", first), suite_file(tmp_path, "unseen", second)
    workspace, preset = Workspace(tmp_path / "w"), load_preset("tiny")
    preset = replace(preset, evaluation=replace(preset.evaluation, suite=str(chased), hidden=str(unseen)))
    job = Job(workspace=str(workspace.root), source=str(tmp_path), preset="tiny")
    context = Context(workspace, job, preset, Progress())
    pool.hold_out(context)
    pool.hold_out(context)  # again, as after a kill
    held = pinned.held_out(workspace)
    alone = Workspace(tmp_path / "alone")
    pinned.write_held_out(alone, references=[first])
    one = pinned.held_out(alone).looks
    assert len(one) == 1 and one < held.looks and len(held.looks) == 2
    assert [p.prompt_id for p in context.suite] == ["chased"] and [p.prompt_id for p in context.hidden] == ["unseen"]


def test_nothing_is_ingested_while_an_erasure_is_unfinished(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    write_json(workspace.path("erasures", "1.json"), {"id": "1", "finished": False})
    job = Job(workspace=str(workspace.root), source=str(tmp_path), preset="tiny")
    with pytest.raises(UsageError, match="an erasure was interrupted: run `flywheel erase -w"):
        pool.ingest(Context(workspace, job, load_preset("tiny"), Progress()))
    assert not workspace.path("pool").exists()


def test_a_policy_that_leads_back_to_an_earlier_snapshot_makes_it_the_latest(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    context = Context(workspace, Job(str(workspace.root), str(tmp_path), "tiny"), load_preset("tiny"), Progress())
    counts = {"policy": "p", "manifest": "m", "input": 1, "admitted": 1, "dropped": 0, "quarantined": 0}
    for snapshot in ("a", "b", "b", "a", "a", "b", "a"):  # each also again, as after a kill
        pool._record(context, counts | {"snapshot": snapshot})
        assert latest_snapshot(workspace) == snapshot
    assert [row["snapshot"] for row in context.rows("snapshots")] == ["a", "b", "a", "b", "a"]
    with closing(connect(workspace, ["snapshots"])) as con:
        assert con.sql('SELECT snapshot FROM snapshots ORDER BY "at"').fetchall() == [("b",), ("a",)]
    check = Check(workspace, None)
    verify_ledgers(check)
    assert not check.findings
