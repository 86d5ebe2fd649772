"""The steps of a round, one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.progress import Progress
from flywheel.core.records import System
from flywheel.core.workspace import Workspace
from flywheel.presets import Review, load_preset
from flywheel.remedies.review import Queue
from flywheel.rounds import steps
from flywheel.rounds.context import Context
from flywheel.rounds.job import Job
from flywheel.rounds.lease import last_job
from flywheel.rounds.outlook import next_round
from flywheel.rounds.promotion import decide, incumbent
from tests.flywheel.cases.test_events import signal
from tests.flywheel.plans import round_plan
from tests.flywheel.rounds import color_world
from tests.flywheel.rounds.verdicts import finished_rounds


def test_without_auto_approval_a_round_waits_for_people_and_trains_on_what_they_accept(copied: Workspace):
    job, number = last_job(copied), next_round(copied)
    preset = replace(load_preset(job.preset), review=Review(auto_approve=False))
    context = Context(copied, job, preset, Progress())
    plan = steps.plan(context, number, latest_snapshot(copied))
    steps.collect(context, plan)
    with pytest.raises(UsageError, match="wait for review until .* UTC: `flywheel review next"):
        steps.review(context, plan)
    queue, decided = Queue(copied), []
    while item := queue.next("ada"):
        decided.append(queue.decide(item.item, "accepted" if len(decided) % 2 else "rejected", "ada"))
    steps.review(context, plan)
    steps.shard(context, plan)
    steps.shard(context, plan)  # again: read, not redone
    rows = catalog.query(copied, f"select * from generated where round = {number}")
    accepted = {x.sample_id for x in decided if x.outcome == "accepted"}
    assert accepted == {r["sample_id"] for r in rows if r["outcome"] == "admitted"}
    assert len(decided) - len(accepted) == sum(r["filter"] == "review" for r in rows)
    manifest = json.loads((copied.root / "remedies" / f"round-{number:04d}" / "manifest.json").read_text())
    assert sum(f["rows"] for f in manifest["files"]) == len(accepted)
    reviewed = catalog.query(copied, f"select evidence from case_events where kind = 'reviewed' and round = {number}")
    assert reviewed and all(json.loads(r["evidence"])["by"] == "ada" for r in reviewed)


def test_the_gate_holds_a_candidate_whose_incumbent_was_changed_meanwhile(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    rows = [signal(p, "count", True, round=3) for p in "ab"]
    Ledger(workspace, "signals").append(rows, key="evaluation/3")
    decide(workspace, "rollback", 1, by="ada", why="users complain")
    context = Context(workspace, Job(workspace=str(workspace.root), source="/none"), load_preset("demo"), Progress())
    plan = round_plan(3, incumbent="checkpoints/2")
    steps.gate(context, plan, System(checkpoint="checkpoints/3"))
    row = Ledger(workspace, "rounds").rows()[-1]
    reason = json.loads(row["result"])["reason"]
    assert row["verdict"] == "HOLD" and "incumbent was changed" in reason
    assert reason.endswith("; not calibrated by people: count"), "people should know what the verdict rests on"
    assert incumbent(workspace).round == 1


def test_a_pool_that_the_recipe_cannot_train_on_is_refused_before_a_plan_is_pinned(tmp_path: Path):
    made, preset = color_world.workspace(tmp_path / "w"), load_preset("tiny")
    job = Job(workspace=str(made.root), source="/none")
    wrong = replace(preset, training=replace(preset.training, recipe={"base": "tiny", "batch": {"256": 4}}))
    with pytest.raises(UsageError, match="no training rows .* give the recipe a batch for bucket 16"):
        steps.plan(Context(made, job, wrong, Progress()), 1, color_world.SNAPSHOT)
    assert not made.round(1).plan.exists()
    right = replace(preset, training=replace(preset.training, recipe={"base": "tiny", "batch": {"16": 4}}))
    assert steps.plan(Context(made, job, right, Progress()), 1, color_world.SNAPSHOT).steps
