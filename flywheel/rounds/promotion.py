"""Promotion: the system in service is a fold over the gate's verdicts and people's decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.cases.events import event, load_cases, retest
from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace
from flywheel.rounds import routing, systems
from flywheel.signals.results import load_results

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Promoted:
    """A promoted candidate, and the round that made it: `flywheel.rounds.systems.read` gives its system."""

    round: int
    checkpoint: str  # workspace path


def history(rounds: Iterable[Row], decisions: Iterable[Row]) -> tuple[Promoted, ...]:
    """Promoted candidates as a stack: the last is the incumbent, and each is the fallback of the next.

    Verdicts and decisions apply in the order of `at`. A promotion puts its candidate on top, a rollback removes all
    candidates above its own, a rejection removes its candidate.
    """
    gate = [{**r, "kind": "promote"} for r in rounds if r["verdict"] == "PROMOTE"]
    stack: list[Promoted] = []
    for e in sorted([*gate, *decisions], key=lambda e: e["at"]):
        candidate = Promoted(e["round"], e["checkpoint"])
        if e["kind"] == "rollback" and candidate in stack:
            stack = stack[: stack.index(candidate) + 1]
        else:
            stack = [p for p in stack if p != candidate]
            stack += [candidate] if e["kind"] == "promote" else []
    return tuple(stack)


def load_history(workspace: Workspace) -> tuple[Promoted, ...]:
    """The promoted candidates of a workspace, the incumbent last."""
    return history(Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions").rows())


def incumbent(workspace: Workspace) -> Promoted | None:
    """The last promoted candidate, or None before the first promotion."""
    promoted = load_history(workspace)
    return promoted[-1] if promoted else None


def require_incumbent(workspace: Workspace) -> Promoted:
    """The incumbent. Errors: `UsageError` if there is none."""
    promoted = incumbent(workspace)
    if promoted is None:
        raise UsageError(f"{workspace.root} has no promoted checkpoint: finish a round with `flywheel run`")
    return promoted


def decide(workspace: Workspace, kind: str, round_: int, *, by: str, why: str) -> dict[str, Any]:
    """Record a person's `promote` or `reject` of a round's candidate, or `rollback` to it, and update the cases.

    Returns the decision, the resulting incumbent and the id of its system. Errors: `UsageError` for an unknown round, a
    rollback to a round that is not promoted, a promotion of the incumbent, a missing name or reason, and a simultaneous
    decision.
    """
    if blank(by) or blank(why):
        raise UsageError("give the decision maker and the reason: --by NAME --why TEXT")
    rounds, ledger = Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions")
    decisions = ledger.rows()
    row = next((r for r in rounds if r["round"] == round_), None)
    if row is None:
        raise UsageError(f"round {round_} has no verdict yet: `flywheel round list` lists those that have one")
    before = history(rounds, decisions)
    target = Promoted(round_, row["checkpoint"])
    if kind == "rollback" and target not in before:
        rounds_ = ", ".join(str(p.round) for p in before) or "none"
        raise UsageError(f"round {round_} is not among the promoted rounds ({rounds_}): promote it instead")
    if kind in ("promote", "rollback") and before and before[-1] == target:
        raise UsageError(f"the candidate of round {round_} is already the incumbent: `flywheel round status` shows it")
    name = digest("decision", len(decisions) + 1)[:16]
    decision = {"decision": name, "kind": kind, "round": round_, "checkpoint": row["checkpoint"], "by": by, "why": why}
    if not ledger.append([decision], key=f"decision/{len(decisions) + 1}"):
        raise UsageError("somebody else decided at the same time: check `flywheel round status`, then decide again")
    settle(workspace)
    promoted = incumbent(workspace)
    system = systems.read(workspace, promoted.round).id if promoted else None
    return decision | {"incumbent": promoted.checkpoint if promoted else None, "system": system}


def rollback_target(workspace: Workspace) -> int:
    """The promoted round before the incumbent. Errors: `UsageError` if there is none."""
    promoted = load_history(workspace)
    if len(promoted) < 2:
        raise UsageError("there is no earlier promoted checkpoint to roll back to: `flywheel round status` lists them")
    return promoted[-2].round


def settle(workspace: Workspace) -> None:
    """Update the cases to the results of the incumbent after the last decision; does nothing if they are up to date."""
    decisions = Ledger(workspace, "promotions").rows()
    if not decisions:
        return
    ledger, name = Ledger(workspace, "case_events"), decisions[-1]["decision"]
    if ledger.has(f"decision/{name}"):
        return
    promoted, cases = incumbent(workspace), load_cases(workspace)
    if promoted is None:
        return
    results = load_results(workspace, promoted.round, "candidate")
    last = max(r["round"] for r in Ledger(workspace, "rounds").rows())
    events = []
    for e in retest(results, cases, last + 1):
        case = cases[e["case_id"]]
        if case.is_open == (e["kind"] == "passed"):  # only cases whose status changes
            why = {"decision": name, "checkpoint": promoted.checkpoint}
            row = event(case, last, e["kind"], why)
            events.append(row | {"event_id": digest(name, e["case_id"], e["kind"])[:32]})
    ledger.append(events, key=f"decision/{name}")
    routing.record_detected(workspace, promoted.round)
