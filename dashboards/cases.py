"""Cases as the pages show them: the gallery, one case's life, what a round fixed and broke."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dashboards.rounds import Round
from dashboards.rows import Row, evidence, rows
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

STATUSES = ("detected", "routed", "reviewed", "remedied", "closed", "re-opened")

# One row per prompt, capability and evaluated checkpoint: it fails when any of its checks there fails, and the check
# that failed by most is the evidence shown.
_JUDGED = """
SELECT prompt_id, capability, checkpoint, any_value(round) AS round, any_value(arm) AS arm, any_value(prompt) AS prompt,
       bool_and(passed) AS passed, any_value(image) AS image,
       arg_min(evidence, score - threshold) AS evidence, arg_min(verifier, score - threshold) AS verifier,
       arg_min(score, score - threshold) AS score, arg_min(threshold, score - threshold) AS threshold
FROM signals WHERE passed IS NOT NULL GROUP BY prompt_id, capability, checkpoint
"""


@dataclass(frozen=True)
class CaseFilter:
    """Which cases to list; an empty value does not filter."""

    capability: str = ""
    track: str = ""
    status: str = ""
    round: int | None = None

    def where(self) -> tuple[str, list[Any]]:
        """SQL condition and its parameters."""
        wanted = {"capability": self.capability, "coalesce(track, 'unrouted')": self.track, "status": self.status}
        parts = [(f"{column} = ?", value) for column, value in wanted.items() if value]
        if self.round is not None:
            parts.append(("round = ?", self.round))
        return " AND ".join(p for p, _ in parts) or "true", [v for _, v in parts]


def list_cases(
    con: duckdb.DuckDBPyConnection, chosen: CaseFilter, *, limit: int, offset: int = 0
) -> tuple[int, list[Row]]:
    """Number of matching cases, and one page of them: newest round first."""
    where, values = chosen.where()
    total = rows(con, f"SELECT count(*) AS n FROM cases WHERE {where}", values)[0]["n"]
    page = f"SELECT * FROM cases WHERE {where} ORDER BY round DESC, capability, case_id LIMIT ? OFFSET ?"
    found = rows(
        con,
        f"WITH page AS ({page}), judged AS ({_JUDGED}) SELECT page.*, judged.evidence, judged.verifier, judged.score,"
        " judged.threshold FROM page LEFT JOIN judged ON judged.prompt_id = page.prompt_id"
        " AND judged.capability = page.capability AND judged.round = page.round AND judged.arm = 'candidate'"
        " ORDER BY page.round DESC, page.capability, page.case_id",
        [*values, limit, offset],
    )
    return total, [r | {"evidence": evidence(r["evidence"])} for r in found]


def facets(con: duckdb.DuckDBPyConnection) -> dict[str, list[Row]]:
    """Values that cases can be filtered by, each with its number of cases."""
    columns = {"capability": "capability", "track": "coalesce(track, 'unrouted')", "status": "status", "round": "round"}
    return {
        name: rows(con, f"SELECT {column} AS value, count(*) AS n FROM cases GROUP BY ALL ORDER BY value")
        for name, column in columns.items()
    }


def by_track(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Cases per remedy track, open and closed."""
    return rows(
        con,
        "SELECT coalesce(track, 'unrouted') AS track, count(*) AS cases, count(*) FILTER (status = 'closed') AS closed"
        " FROM cases GROUP BY ALL ORDER BY cases DESC, track",
    )


def load_case(con: duckdb.DuckDBPyConnection, case_id: str) -> Row | None:
    """One case with its `events`, oldest first, and its `tests`: every evaluation of its prompt; None when unknown."""
    found = rows(con, "SELECT * FROM cases WHERE case_id = ?", [case_id])
    if not found:
        return None
    case = found[0]
    events = rows(con, 'SELECT * FROM case_events WHERE case_id = ? ORDER BY "at", round', [case_id])
    tests = rows(
        con,
        f"SELECT * FROM ({_JUDGED}) WHERE prompt_id = ? AND capability = ? ORDER BY round, arm",
        [case["prompt_id"], case["capability"]],
    )
    return case | {
        "events": [e | {"evidence": evidence(e["evidence"])} for e in events],
        "tests": [t | {"evidence": evidence(t["evidence"])} for t in tests],
    }


def changed(con: duckdb.DuckDBPyConnection, round_: Round, ids: Collection[str], *, limit: int) -> list[Row]:
    """Before (incumbent) and after (candidate) of the given cases: images and evidence, spread over capabilities,
    targeted ones first.

    Cases that no ledger names (a rejected candidate opens none) are left out.
    """
    found = rows(
        con,
        f"""WITH judged AS ({_JUDGED})
        SELECT c.case_id, c.capability, c.track, c.status, c.prompt_id, c.prompt,
               b.image AS before_image, b.evidence AS before_evidence, b.verifier AS before_verifier,
               a.image AS after_image, a.evidence AS after_evidence, a.verifier AS after_verifier
        FROM cases c
        LEFT JOIN judged b ON b.prompt_id = c.prompt_id AND b.capability = c.capability AND b.checkpoint = ?
        LEFT JOIN judged a ON a.prompt_id = c.prompt_id AND a.capability = c.capability AND a.checkpoint = ?
        WHERE c.case_id IN (SELECT unnest(?::VARCHAR[]))
        ORDER BY row_number() OVER (PARTITION BY c.capability ORDER BY c.prompt_id),
                 NOT list_contains(?::VARCHAR[], c.capability), c.capability LIMIT ?""",
        [round_.incumbent, round_.checkpoint, sorted(ids), round_.targets, limit],
    )
    return [r | {name: evidence(r[name]) for name in ("before_evidence", "after_evidence")} for r in found]


def failures(con: duckdb.DuckDBPyConnection, round_: Round, *, limit: int) -> list[Row]:
    """What the round's candidate still fails, spread over capabilities, with the case it belongs to, if any."""
    found = rows(
        con,
        f"""SELECT j.*, c.case_id, c.track, c.status
        FROM ({_JUDGED}) j LEFT JOIN cases c ON c.prompt_id = j.prompt_id AND c.capability = j.capability
        WHERE j.checkpoint = ? AND NOT j.passed
        ORDER BY row_number() OVER (PARTITION BY j.capability ORDER BY j.prompt_id), j.capability LIMIT ?""",
        [round_.checkpoint, limit],
    )
    return [r | {"evidence": evidence(r["evidence"])} for r in found]


def references(workspace: Workspace) -> Mapping[str, list[str]]:
    """Workspace paths of the reference pictures of each held-out prompt that has any."""
    suite = workspace.path("suite", "suite.jsonl")
    if not suite.exists():
        return {}
    prompts = [json.loads(line) for line in suite.read_text("utf-8").splitlines() if line.strip()]
    return {p["prompt_id"]: [f"suite/{name}" for name in p["references"]] for p in prompts if p.get("references")}
