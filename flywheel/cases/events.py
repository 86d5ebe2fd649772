"""A case and its life: detected → routed → reviewed → remedied → re-tested → closed | re-opened, a fold over events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.schema import CASE_EVENTS
from flywheel.core.workspace import Workspace
from flywheel.signals.results import Results


def case_id(prompt_id: str, capability: str) -> str:
    """16 hex digits: every signal of one capability failing on one prompt is the same case."""
    return digest(prompt_id, capability)[:16]


@dataclass(frozen=True)
class Case:
    """A failure as it stands after its last event."""

    case_id: str
    round: int  # in which it was detected
    capability: str
    track: str | None
    prompt_id: str
    prompt: str
    status: str  # detected | routed | reviewed | remedied | closed | re-opened

    @property
    def is_open(self) -> bool:
        """Does it still fail, as far as anyone looked?"""
        return self.status != "closed"


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Case]:
    """Cases by id from events, oldest first: the catalog's view `cases` is the same fold in SQL.

    The last round decides the status, and within it the last event; of those recorded together, the kind that comes
    last in a case's life.
    """
    cases: dict[str, Case] = {}
    places: dict[str, tuple[Any, ...]] = {}
    for e in events:
        old = cases.get(e["case_id"])
        place = (e["round"], e.get("at") or datetime.min, CASE_EVENTS.index(e["kind"]))
        if old is None or (e["kind"] != "seen" and place >= places[e["case_id"]]):
            places[e["case_id"]] = place
            status = {"passed": "closed", "failed": "re-opened"}.get(e["kind"], e["kind"])
        else:
            status = old.status
        cases[e["case_id"]] = Case(
            case_id=e["case_id"],
            round=min(old.round, e["round"]) if old else e["round"],
            capability=old.capability if old else e["capability"],
            track=e["track"] or (old.track if old else None),
            prompt_id=old.prompt_id if old else e["prompt_id"],
            prompt=old.prompt if old else e["prompt"],
            status=status,
        )
    return cases


def load_cases(workspace: Workspace) -> dict[str, Case]:
    """Every case of a workspace."""
    return fold(Ledger(workspace, "case_events").rows())


def event(
    case: Case | Mapping[str, Any], round_: int, kind: str, evidence: Mapping[str, Any], **changes: Any
) -> dict[str, Any]:
    """One ledger row about a case; `changes` may set `track`."""
    base = case if isinstance(case, Mapping) else vars(case)
    row = {k: base.get(k) for k in ("case_id", "capability", "track", "prompt_id", "prompt")} | changes
    return row | {
        "event_id": digest(row["case_id"], round_, kind)[:32],
        "round": round_,
        "kind": kind,
        "evidence": json.dumps(evidence, ensure_ascii=False, sort_keys=True, default=str),
    }


def detect(signals: Iterable[Mapping[str, Any]], known: Mapping[str, Case], round_: int) -> list[dict[str, Any]]:
    """`detected` events for the candidate's failures that are no case yet; the failed checks are the evidence."""
    failed: dict[str, list[Mapping[str, Any]]] = {}
    for s in signals:
        if s["round"] == round_ and s["arm"] == "candidate" and s["passed"] is False:
            failed.setdefault(case_id(s["prompt_id"], s["capability"]), []).append(s)
    return [
        event(
            {
                "case_id": cid,
                "capability": group[0]["capability"],
                "prompt_id": group[0]["prompt_id"],
                "prompt": group[0]["prompt"],
            },
            round_,
            "detected",
            {
                "signals": [
                    {k: s[k] for k in ("signal_id", "verifier", "score", "threshold", "evidence", "image")}
                    for s in group
                ]
            },
        )
        for cid, group in failed.items()
        if cid not in known
    ]


def retest(results: Results, known: Mapping[str, Case], round_: int) -> list[dict[str, Any]]:
    """`passed` or `failed` events for known cases whose prompt was sampled again; cases that stay closed get none."""
    events = []
    for (prompt_id, capability), passed in results.items():
        case = known.get(case_id(prompt_id, capability))
        if case and case.round < round_ and (case.is_open or not passed):
            events.append(
                event(case, round_, "passed" if passed else "failed", {"capability": capability, "passed": passed})
            )
    return events
