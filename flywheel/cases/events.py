"""A case and the events of its life: detected → routed → reviewed → remedied → re-tested → closed or re-opened.

A person may dismiss it (`flywheel.cases.answers`). What a case is after its last event is computed by
`flywheel.cases.fold`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flywheel.cases.fold import connect
from flywheel.core.files import digest
from flywheel.core.workspace import Workspace
from flywheel.signals.results import Results, passes, results

DISMISSED = "dismissed"


def case_id(prompt_id: str, capability: str) -> str:
    """16 hex digits: all signals of one capability failing on one prompt are the same case.

    In SQL: `case_id` of `flywheel.cases.fold.connect`.
    """
    return digest(prompt_id, capability)[:16]


@dataclass(frozen=True)
class Case:
    """A failure as it is after its last event."""

    case_id: str
    round: int  # in which it was detected
    capability: str
    track: str | None
    prompt_id: str
    prompt: str
    status: str  # detected | routed | reviewed | remedied | closed | re-opened | dismissed

    @property
    def is_open(self) -> bool:
        """True until a re-test passes, or a person dismisses it."""
        return self.status not in ("closed", DISMISSED)


def load_cases(workspace: Workspace) -> dict[str, Case]:
    """Every case of a workspace by id, ordered by the round that detected it, then by id."""
    with closing(connect(workspace)) as con:
        rows = con.execute(
            """SELECT case_id, round, capability, track, prompt_id, prompt, status FROM cases
            ORDER BY round, case_id"""
        ).fetchall()
    return {row[0]: Case(*row) for row in rows}


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
    """`detected` events for the candidate's failures that are not cases yet; the failed checks are the evidence."""
    signals = [s for s in signals if s["round"] == round_ and s["arm"] == "candidate"]
    shares = results(signals, round_, "candidate")
    failed: dict[str, list[Mapping[str, Any]]] = {}
    for s in signals:
        if s["passed"] is False and not passes(shares[s["prompt_id"], s["capability"]]):
            failed.setdefault(case_id(s["prompt_id"], s["capability"]), []).append(s)
    shown = ("signal_id", "verifier", "score", "threshold", "evidence", "image")
    return [
        event(
            {"case_id": case, **{k: group[0][k] for k in ("capability", "prompt_id", "prompt")}},
            round_,
            "detected",
            {"signals": [{k: s[k] for k in shown} for s in group]},
        )
        for case, group in failed.items()
        if case not in known
    ]


def retest(tested: Results, known: Mapping[str, Case], round_: int) -> list[dict[str, Any]]:
    """`passed` or `failed` events for known cases whose prompt was sampled again; cases that stay closed get none."""
    events = []
    for (prompt_id, capability), share in tested.items():
        case, passed = known.get(case_id(prompt_id, capability)), passes(share)
        if case and case.round < round_ and case.status != DISMISSED and (case.is_open or not passed):
            evidence = {"capability": capability, "passed": passed, "share": share}
            events.append(event(case, round_, "passed" if passed else "failed", evidence))
    return events
