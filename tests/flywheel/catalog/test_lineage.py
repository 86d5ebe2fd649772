"""Lineage of a sample, a case and a checkpoint of a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flywheel.catalog import database as catalog
from flywheel.catalog.lineage import checkpoints_of, traceable, why
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace


def test_lineage_of_a_sample_a_case_and_a_checkpoint(micro_run: tuple[Path, dict]):
    workspace, summary = Workspace(micro_run[0]), micro_run[1]
    admitted = catalog.query(workspace, "select sample_id, capability from generated where outcome = 'admitted'")[0]
    sample = why(workspace, admitted["sample_id"])
    assert sample["remedies"][0]["review"][0]["reviews"][0]["by"] == "auto-approve"
    assert sample["remedies"][0]["cases"] and "open cases" in sample["remedies"][0]["reason"]
    assert any(s["manifest"].startswith("remedies/") for s in sample["shards"]) and sample["checkpoints"]
    pool = catalog.query(workspace, "select sample_id from decisions where stage_reached = 'S6'")[0]["sample_id"]
    sifted = why(workspace, pool)
    assert sifted["curation"]["rows"][0]["scores"] and len(sifted["checkpoints"]) == 2
    case = why(workspace, sample["remedies"][0]["cases"][0])
    assert case["capability"] == admitted["capability"] and case["remedies"][0]["round"] == 2
    assert [t["round"] for t in case["tests"]] == [1, 2] and case["remedies"][0]["helped"] is case["tests"][1]["passed"]
    assert [e["kind"] for e in case["events"]][:2] == ["detected", "routed"]
    checkpoint = why(workspace, summary["checkpoints"][1])
    assert checkpoint["plan"]["snapshot"] == summary["snapshot"] and checkpoint["cost"]["cpu_seconds"] > 0
    assert [p["round"] for p in checkpoint["parents"]] == [1] and checkpoint["training"]["step"] == 4
    ids = {pool, case["case_id"], workspace.relative(Path(summary["checkpoints"][1]))}
    no_ids = {"0" * 16, "0" * 64, summary["snapshot"], "checkpoints/none", "x' or 1"}
    assert traceable(workspace, ids | no_ids) == ids
    with pytest.raises(UsageError, match="matches"):
        why(workspace, "nothing-like-it")


def test_a_round_that_is_not_finished_was_trained_on_a_sample_too(micro_run: tuple[Path, dict], tmp_path: Path):
    workspace = Workspace(micro_run[0])
    pool = catalog.query(workspace, "select sample_id from decisions where stage_reached = 'S6'")[0]["sample_id"]
    before = checkpoints_of(workspace, {pool})
    shutil.copytree(workspace.root, tmp_path / "w")
    copy = Workspace(tmp_path / "w")
    shutil.copytree(copy.round(2).plan.parent, copy.round(3).plan.parent)
    assert checkpoints_of(copy, {pool}) == before  # it is planned, and has trained nothing
    copy.round(3).checkpoint("candidate").mkdir(parents=True)
    assert checkpoints_of(copy, {pool}) == [*before, "checkpoints/round-0003-candidate"]
