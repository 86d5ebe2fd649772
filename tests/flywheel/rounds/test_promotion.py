"""The incumbent is a fold over verdicts and decisions; one run at a time; costs as measured."""

import json
import multiprocessing
import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.cases.events import load_cases
from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds import lease, steps
from flywheel.rounds.costs import CpuTime, Meter, estimate, rates
from flywheel.rounds.job import Job
from flywheel.rounds.promotion import decide, history, incumbent, rollback_target
from flywheel.rounds.routing import record_detected, record_retest
from flywheel.rounds.sample import promoted_checkpoint
from tests.flywheel.cases.test_events import signal
from tests.flywheel.plans import entry, round_plan

START = datetime(2026, 1, 1, tzinfo=UTC)


def finished_rounds(root: Path, *verdicts: str) -> Workspace:
    """Rounds on two prompts: "a" is fixed in round 2, "b" is broken by it."""
    workspace = Workspace(root)
    passed = {1: {"a": False, "b": True}, 2: {"a": True, "b": False}, 3: {"a": True, "b": True}}
    for n, verdict in enumerate(verdicts, 1):
        rows = [signal(p, "count", ok, round=n) for p, ok in passed[n].items()]
        Ledger(workspace, "signals").append(rows, key=f"evaluation/{n}")
        row = {"round": n, "verdict": verdict, "checkpoint": f"checkpoints/{n}", "snapshot": "s", "result": "{}"}
        Ledger(workspace, "rounds").append([row], key=f"round/{n}")
        if verdict == "PROMOTE":
            record_retest(workspace, n)
            record_detected(workspace, n)
    return workspace


def open_prompts(workspace: Workspace) -> set[str]:
    views = catalog.query(workspace, "select prompt_id, status from cases")
    folded = {c.prompt_id for c in load_cases(workspace).values() if c.is_open}
    assert folded == {v["prompt_id"] for v in views if v["status"] != "closed"}
    return folded


def test_rollback_is_one_event_and_cases_follow_the_incumbent(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    assert incumbent(workspace).round == 2 and open_prompts(workspace) == {"b"}
    decide(workspace, "rollback", rollback_target(workspace), by="ada", why="users complain")
    assert incumbent(workspace).round == 1 and open_prompts(workspace) == {"a"}
    assert promoted_checkpoint(workspace) == workspace.path("checkpoints/1")
    with pytest.raises(UsageError, match="no earlier"):
        rollback_target(workspace)
    decide(workspace, "promote", 2, by="ada", why="a false alarm")
    assert incumbent(workspace).round == 2 and open_prompts(workspace) == {"b"}
    ids = [e["event_id"] for e in Ledger(workspace, "case_events").rows()]
    assert len(ids) == len(set(ids))


def test_a_person_may_promote_what_the_gate_held_and_reject_what_it_promoted(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "HOLD", "PROMOTE")
    assert [r["round"] for r in map(vars, history(*rows(workspace)))] == [1, 3]
    decide(workspace, "reject", 3, by="ada", why="faces")
    assert incumbent(workspace).round == 1 and open_prompts(workspace) == {"a"}
    found = decide(workspace, "promote", 2, by="ada", why="looks better")
    assert found["incumbent"] == "checkpoints/2" and open_prompts(workspace) == {"b"}


def rows(workspace: Workspace) -> tuple[list, list]:
    return Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions").rows()


def test_decisions_that_make_no_sense_are_refused(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "HOLD")
    for kind, number, by, why, message in (
        ("promote", 2, "", "x", "--by"),
        ("promote", 2, "ada", " ", "--why"),
        ("promote", 9, "ada", "x", "no verdict"),
        ("promote", 1, "ada", "x", "already"),
        ("rollback", 2, "ada", "x", "not among the promoted"),
    ):
        with pytest.raises(UsageError, match=message):
            decide(workspace, kind, number, by=by, why=why)
    assert Ledger(workspace, "promotions").rows() == []


EVENTS = st.lists(st.tuples(st.sampled_from(["promote", "reject", "rollback"]), st.integers(1, 4)), max_size=12)


@given(gate=st.lists(st.booleans(), min_size=4, max_size=4), people=EVENTS)
def test_history_never_holds_a_round_twice_nor_one_that_was_rejected_last(gate: list[bool], people: list):
    verdicts = [
        {"round": n, "checkpoint": f"c{n}", "verdict": "PROMOTE" if ok else "HOLD", "at": START + timedelta(n)}
        for n, ok in enumerate(gate, 1)
    ]
    decisions = [
        {"kind": k, "round": n, "checkpoint": f"c{n}", "at": START + timedelta(10 + i)}
        for i, (k, n) in enumerate(people)
    ]
    found = [p.round for p in history(verdicts, decisions)]
    assert len(found) == len(set(found))
    for n in range(1, 5):
        mine = [k for k, m in people if m == n]
        if mine and mine[-1] == "reject":
            assert n not in found
    if people and people[-1][0] == "promote":
        assert found[-1] == people[-1][1]
    assert found == [p.round for p in history(verdicts[::-1], decisions[::-1])]


def job(workspace: Workspace) -> Job:
    return Job(workspace=str(workspace.root), source="/none")


def hold_for_a_while(root: str, started: str, seconds: float) -> None:
    workspace = Workspace(root)
    with lease.hold(workspace, job(workspace)):
        Path(started).touch()
        time.sleep(seconds)


def test_two_runs_cannot_hold_a_workspace_and_a_killed_one_gives_it_back(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    spawn = multiprocessing.get_context("spawn")
    other = spawn.Process(target=hold_for_a_while, args=(str(workspace.root), str(tmp_path / "on"), 300))
    other.start()
    while not (tmp_path / "on").exists():
        assert other.is_alive()
        time.sleep(0.05)
    with pytest.raises(UsageError, match=f"process {other.pid}"):
        with lease.hold(workspace, job(workspace)):
            pass
    assert lease.running(workspace)["pid"] == other.pid
    other.kill()
    other.join()
    assert lease.running(workspace) is None
    with lease.hold(workspace, job(workspace)) as number:
        assert number == 2 and lease.running(workspace)["pid"] == os.getpid()
    assert lease.running(workspace) is None and lease.last_job(workspace) == job(workspace)


def test_of_two_that_see_a_free_workspace_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    seen = lease.Ledger(workspace, "runs").rows()  # both looked before either acquired
    with lease.hold(workspace, job(workspace)):
        monkeypatch.setattr(lease.Ledger, "rows", lambda self: seen)
        with pytest.raises(UsageError, match="another run"):
            with lease.hold(workspace, replace(job(workspace), seed=1)):
                pass


def test_costs_are_measured_once_and_give_the_next_rounds_estimate(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    meter = Meter(workspace, 1)
    assert meter.measure(2, "round 2: train", "train", lambda: sum(range(2_000_000)), 100) == sum(range(2_000_000))
    meter.measure(2, "round 2: route", "route", lambda: 5, int)
    meter.measure(2, "round 2: route", "route", lambda: 5, int)
    found = Ledger(workspace, "costs").rows()
    assert [(r["step"], r["units"]) for r in found] == [("train", 100), ("route", 5)]
    assert found[0]["cpu_seconds"] > 0 and found[0]["gpu_seconds"] == 0
    plan = round_plan(2, entry("base", 0.5), entry("count", 0.5, samples=40), targets=("count",))
    known = rates(found) | {"collect": {"cpu": 1, "gpu": 0, "wall": 1}}
    cost = estimate(plan, known, prompts=30, review_seconds=15, reviews=2)
    assert (cost["samples"], cost["optimiser_steps"], cost["images"], cost["review_minutes"]) == (40, 100, 60, 20)
    assert cost["cpu_hours"] is None and cost["unmeasured"] == ["evaluate"]
    known["evaluate"] = {"cpu": 2, "gpu": 0, "wall": 2}
    cost = estimate(plan, known, prompts=30, review_seconds=15, reviews=2)
    assert cost["cpu_hours"] == pytest.approx((40 + 120 + 100 * known["train"]["cpu"]) / 3600)


def burn(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def test_cpu_time_counts_children_that_have_ended():
    with CpuTime() as cpu:
        child = multiprocessing.get_context("fork").Process(target=burn, args=(0.4,))
        child.start()
        child.join()
        burn(0.2)
    assert cpu.seconds > 0.55


def test_the_gate_holds_a_candidate_whose_incumbent_was_changed_meanwhile(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    rows = [signal(p, "count", True, round=3) for p in "ab"]
    Ledger(workspace, "signals").append(rows, key="evaluation/3")
    decide(workspace, "rollback", 1, by="ada", why="users complain")
    context = steps.Context(workspace, job(workspace), load_preset("demo"), Progress())
    plan = round_plan(3, incumbent="checkpoints/2")
    steps.gate(context, plan, workspace.path("checkpoints", "3"))
    row = Ledger(workspace, "rounds").rows()[-1]
    assert row["verdict"] == "HOLD" and "incumbent was changed" in json.loads(row["result"])["reason"]
    assert incumbent(workspace).round == 1


def test_cost_per_fixed_case(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    row = {"cost_id": "c", "round": 2, "step": "train", "units": 1}
    row |= {"wall_seconds": 9.0, "cpu_seconds": 12.0, "gpu_seconds": 0.0}
    Ledger(workspace, "costs").append([row, row | {"cost_id": "d", "round": 1}], key="c")
    found = {r["round"]: r for r in catalog.query(workspace, "select * from round_costs")}
    assert (found[2]["fixed"], found[2]["cpu_seconds_per_fixed"]) == (1, 12.0)
    assert (found[1]["fixed"], found[1]["cpu_seconds_per_fixed"]) == (0, None)
