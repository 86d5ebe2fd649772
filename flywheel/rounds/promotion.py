"""Which checkpoint is the incumbent: a fold over the gate's verdicts and people's decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.cases.events import event, load_cases, retest
from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds import routing
from flywheel.signals.results import load_results

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Promoted:
    """A promoted candidate and the round that trained it."""

    round: int
    checkpoint: str  # workspace path


def history(rounds: Iterable[Row], decisions: Iterable[Row]) -> tuple[Promoted, ...]:
    """Promoted candidates, each the fallback of the one after it; the last is the incumbent.

    Oldest first by `at`: a promotion is put on top, a rollback takes off what lies above its round, a rejection takes
    its round out.
    """
    gate = [{**r, "kind": "promote"} for r in rounds if r["verdict"] == "PROMOTE"]
    stack: list[Promoted] = []
    for e in sorted([*gate, *decisions], key=lambda e: e["at"]):
        found = Promoted(e["round"], e["checkpoint"])
        if e["kind"] == "rollback" and found in stack:
            stack = stack[: stack.index(found) + 1]
        else:
            stack = [p for p in stack if p != found]
            stack += [found] if e["kind"] == "promote" else []
    return tuple(stack)


def load_history(workspace: Workspace) -> tuple[Promoted, ...]:
    """The workspace's promoted candidates, the incumbent last."""
    return history(Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions").rows())


def incumbent(workspace: Workspace) -> Promoted | None:
    """The checkpoint in service, or None before the first promotion."""
    found = load_history(workspace)
    return found[-1] if found else None


def decide(workspace: Workspace, kind: str, round_: int, *, by: str, why: str) -> dict[str, Any]:
    """Record a person's `promote` or `reject` of a round's candidate, or the `rollback` to it; cases follow.

    Returns the decision with the incumbent that it leaves. Errors: `UsageError` for an unknown round, a rollback to
    what is not promoted, a decision that changes nothing, a missing name or reason, and when somebody else decided at
    the same moment.
    """
    if not by.strip() or not why.strip():
        raise UsageError("say who decides and why: --by NAME --why TEXT")
    rounds, ledger = Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions")
    decisions = ledger.rows()
    row = next((r for r in rounds if r["round"] == round_), None)
    if row is None:
        raise UsageError(f"round {round_} has no verdict yet: `flywheel rounds` lists those that have one")
    before = history(rounds, decisions)
    target = Promoted(round_, row["checkpoint"])
    if kind == "rollback" and target not in before:
        promoted = ", ".join(str(p.round) for p in before) or "none"
        raise UsageError(f"round {round_} is not among the promoted rounds ({promoted}): promote it instead")
    if kind in ("promote", "rollback") and before and before[-1] == target:
        raise UsageError(f"round {round_}'s candidate is the incumbent already")
    name = digest("decision", len(decisions) + 1)[:16]
    decision = {"decision": name, "kind": kind, "round": round_, "checkpoint": row["checkpoint"], "by": by, "why": why}
    if not ledger.append([decision], key=f"decision/{len(decisions) + 1}"):
        raise UsageError("somebody else decided at the same moment: look at `flywheel round status`, then decide again")
    settle(workspace)
    now = incumbent(workspace)
    return decision | {"incumbent": now.checkpoint if now else None}


def rollback_target(workspace: Workspace) -> int:
    """The promoted round below the incumbent. Errors: `UsageError` when there is none."""
    found = load_history(workspace)
    if len(found) < 2:
        raise UsageError("there is no earlier promoted checkpoint to roll back to")
    return found[-2].round


def settle(workspace: Workspace) -> None:
    """Bring the cases in line with the incumbent that the last decision left; done already, it does nothing."""
    decisions = Ledger(workspace, "promotions").rows()
    if not decisions:
        return
    ledger, name = Ledger(workspace, "case_events"), decisions[-1]["decision"]
    if ledger.has(f"decision/{name}"):
        return
    now, known = incumbent(workspace), load_cases(workspace)
    if now is None:
        return
    seen = load_results(workspace, now.round, "candidate")
    last = max(r["round"] for r in Ledger(workspace, "rounds").rows())
    events = []
    for e in retest(seen, known, last + 1):
        case = known[e["case_id"]]
        if case.is_open == (e["kind"] == "passed"):  # only what changes
            why = {"decision": name, "checkpoint": now.checkpoint}
            row = event(case, last, e["kind"], why)
            events.append(row | {"event_id": digest(name, e["case_id"], e["kind"])[:32]})
    ledger.append(events, key=f"decision/{name}")
    routing.record_detected(workspace, now.round)
