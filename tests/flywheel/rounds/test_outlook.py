"""Status, the next round's plan and cost, and the comparison of two rounds."""

from __future__ import annotations

from flywheel.core.files import file_digest
from flywheel.core.workspace import Workspace
from flywheel.rounds.outlook import compare, plan_next, status
from flywheel.rounds.pins import code_version
from flywheel.rounds.promotion import decide, incumbent


def test_a_plan_pins_everything_and_its_dry_run_says_what_it_will_cost(copied: Workspace):
    dry = plan_next(copied, pin=False)
    assert not dry["pinned"] and dry["plan"]["round"] == 3
    assert dry["cost"]["cpu_hours"] > 0 and dry["cost"]["unmeasured"] == [] and dry["cost"]["review_minutes"] == 0
    pinned = plan_next(copied, pin=True)
    assert pinned["pinned"] and pinned["plan"] == dry["plan"] == plan_next(copied, pin=False)["plan"]
    plan = pinned["plan"]
    assert plan["code"] == code_version() and plan["incumbent"] == incumbent(copied).checkpoint
    assert plan["checkpoint"] == file_digest(copied.path(plan["incumbent"], "ema.safetensors"))
    assert plan["policy"]["name"] == "demo" and plan["suites"][0]["sha256"] == file_digest(
        copied.path("suite/suite.jsonl")
    )
    assert all(m["reason"] for m in plan["mix"])


def test_rounds_are_compared_and_rolled_back(copied: Workspace):
    difference = compare(copied, 1, 2)
    assert {p["what"] for p in difference["pins"]} >= {"targets", "incumbent", "steps"}
    assert {r["capability"] for r in difference["rates"]} and difference["data"]
    before = status(copied)
    assert before["running"] is None and before["next_round"] == 3 and before["last_step"]["round"] == 0
    if incumbent(copied).round == 1:
        decide(copied, "promote", 2, by="ada", why="a test")
    decide(copied, "rollback", 1, by="ada", why="a test")
    assert incumbent(copied).round == 1 and plan_next(copied, pin=False)["plan"]["incumbent"].startswith(
        "checkpoints/round-0001"
    )
    assert status(copied)["rounds"][0]["decisions"][-1]["kind"] == "rollback"
