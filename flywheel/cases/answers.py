"""A person's answer to a case: the track that serves it, or that it is no failure."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from flywheel.cases.events import DISMISSED, Case, event, load_cases
from flywheel.cases.fold import connect
from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.schema import TRACKS
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace

ANSWERS = tuple(track for track in TRACKS if track != "unsure")  # a person who is unsure does not answer


def answer(workspace: Workspace, case: str, *, track: str | None, by: str, why: str) -> Case:
    """Record the answer to the open case whose id begins with `case`; returns it as it is then.

    track: where it goes from now on, whatever experiments said; None: it is dismissed, because its check or its prompt
    is wrong: no re-test opens it again. Errors: `UsageError` for no such case or track, and without name or reason.
    """
    found = [c for c in load_cases(workspace).values() if case and c.case_id.startswith(case)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} cases have an id that begins with {case!r}: `flywheel cases` lists them")
    if blank(by) or blank(why):
        raise UsageError("say who answers, and why: the ledger records both")
    if track is not None and track not in ANSWERS:
        raise UsageError(f"unknown track {track!r}: choose {', '.join(ANSWERS)}")
    (known,) = found
    if not known.is_open:
        raise UsageError(f"case {known.case_id} is {known.status}: only open cases are answered")
    with closing(connect(workspace, ("case_events",))) as con:
        ((last, events),) = con.execute("SELECT max(round), count(*) FROM case_events").fetchall()
    kind, changes = ("routed", {"track": track}) if track else (DISMISSED, {})
    row = event(known, last, kind, {"reason": why.strip(), "by": by.strip()}, **changes)
    row["event_id"] = digest(row["event_id"], "answer", events)[:32]
    if not Ledger(workspace, "case_events").append([row], key=f"answer/{row['event_id']}"):
        raise UsageError(f"case {known.case_id} was answered at the same moment: look at it, then answer again")
    return replace(known, status=kind, track=track or known.track)
