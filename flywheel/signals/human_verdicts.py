"""Verdicts of people on pictures that verifiers judged.

Blind ones are given before the person sees the verifier's verdict: they measure it (`flywheel.signals.trust`). The
others annotate what a page shows. No verdict of a person changes a round: the gate reads the verifiers'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.lens import connect
from flywheel.core.text import person
from flywheel.core.workspace import Workspace
from flywheel.signals import hidden

if TYPE_CHECKING:
    import duckdb

# Verdicts that people may judge as well. Hidden prompts are left out: whoever sees them may come to chase them.
FRAME = f"""
SELECT * FROM signals
WHERE kind = 'evaluation' AND passed IS NOT NULL AND image IS NOT NULL AND arm IS DISTINCT FROM '{hidden.ARM}'
"""
_SHOWN = ("signal_id", "image", "prompt_id", "prompt", "verifier", "capability")
_NEXT = f"""
SELECT {", ".join(_SHOWN)}, evidence
FROM ({FRAME}) ANTI JOIN (
    SELECT signal_id, image FROM human_verdicts
    WHERE (blind AND passed IS NOT NULL) OR list_contains($spellings::VARCHAR[], reviewer)
) USING (signal_id, image)
WHERE verifier = $verifier AND passed = $passed
ORDER BY md5_number_lower(concat_ws(chr(10), $person, signal_id, image)) LIMIT 1
"""
_ASKED = ("expected", "question")  # of a verifier's evidence: what it was asked, not what it found


@dataclass(frozen=True)
class Task:
    """A picture to judge blind: what it shows and what was asked, and nothing of what the verifier said."""

    signal_id: str
    image: str  # workspace path
    prompt_id: str
    prompt: str
    verifier: str
    capability: str | None
    asked: dict[str, Any]


def next_task(workspace: Workspace, reviewer: str, verifier: str) -> Task | None:
    """A picture of this verifier that nobody judged blind, nor this person at all; None if none is left.

    Passes and fails of the verifier come with equal chances, drawn by a digest of the person and the number of their
    verdicts: balanced, and no order tells which one comes next.
    """
    name = required(reviewer)
    with closing(connect(workspace, ("signals", "human_verdicts"))) as con:
        spelled = [r for (r,) in con.execute("SELECT DISTINCT reviewer FROM human_verdicts").fetchall()]
        mine = [r for r in spelled if person(r) == person(name)]
        counted = "SELECT count(*) FROM human_verdicts WHERE verifier = ? AND list_contains(?::VARCHAR[], reviewer)"
        ((done,),) = con.execute(counted, [verifier, mine]).fetchall()
        passes = digest("calibration", person(name), verifier, done)[0] < "8"
        for passed in (passes, not passes):
            values = {"verifier": verifier, "passed": passed, "person": person(name), "spellings": mine}
            if found := con.execute(_NEXT, values).fetchall():
                return Task(**dict(zip(_SHOWN, found[0])), asked=_asked(found[0][-1]))
    return None


def record(
    workspace: Workspace,
    signal_id: str,
    image: str,
    passed: bool | None,
    reviewer: str,
    *,
    blind: bool,
    why: str = "",
) -> bool:
    """Record a person's verdict on one check of one picture; False if it does not count.

    passed: None if the person cannot tell. A blind verdict counts once, and only if the person has not judged the check
    before; of other verdicts the last one counts. Errors: `UsageError` for an unknown check, and without a name.
    """
    name = required(reviewer)
    with closing(connect(workspace, ("signals", "human_verdicts"))) as con:
        judged = "SELECT reviewer FROM human_verdicts WHERE signal_id = ? AND image = ?"
        before = sum(person(r) == person(name) for (r,) in con.execute(judged, [signal_id, image]).fetchall())
        columns = ("signal_id", "image", "prompt_id", "checkpoint", "verifier", "capability", "machine")
        about = f"SELECT {', '.join(columns[:-1])}, passed FROM ({FRAME}) WHERE signal_id = ? AND image = ? LIMIT 1"
        found = con.execute(about, [signal_id, image]).fetchall()
    if not found:
        raise UsageError(f"no verifier judged {image!r} under {signal_id!r}: choose a picture of an evaluation")
    if blind and before:
        return False
    key = digest(signal_id, image, person(name), before)[:32]
    row = dict(zip(columns, found[0])) | {"passed": passed, "blind": blind, "reviewer": name, "why": why.strip()}
    return Ledger(workspace, "human_verdicts").append([row | {"verdict_id": key}], key=f"verdict/{key}")


def annotated(con: duckdb.DuckDBPyConnection, images: Sequence[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """{(signal_id, image): the last verdict of each person, {passed, reviewer, why, blind}}, for these pictures."""
    select = """SELECT signal_id, image, passed, reviewer, why, blind FROM human_verdicts
                WHERE list_contains(?::VARCHAR[], image) ORDER BY "at", verdict_id"""
    last: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for signal_id, image, *said in con.execute(select, [list(images)]).fetchall():
        row = dict(zip(("passed", "reviewer", "why", "blind"), said))
        last.setdefault((signal_id, image), {})[person(row["reviewer"])] = row
    return {key: list(of_person.values()) for key, of_person in last.items()}


def required(reviewer: str) -> str:
    """The name without needless spaces. Errors: `UsageError` for one without a letter or digit."""
    if not person(reviewer):
        raise UsageError("give the name of the person who judges")
    return " ".join(reviewer.split())


def _asked(evidence: str | None) -> dict[str, Any]:
    """The part of a verifier's evidence that says what it was asked."""
    try:
        value = json.loads(evidence or "{}")
    except ValueError:
        return {}
    return {k: v for k, v in value.items() if k in _ASKED} if isinstance(value, dict) else {}
