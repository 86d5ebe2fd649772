"""Cases as the pages show them: the list, the history of one case, what a round fixed and broke."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards.case_filter import OPEN, CaseFilter
from dashboards.rounds import Round
from dashboards.rows import Row, evidence, rows
from flywheel.core.files import json_lines
from flywheel.core.schema import CASE_EVENTS
from flywheel.core.storage import quoted
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


# One row per prompt, capability and evaluated checkpoint. A picture fails if any of its checks fails, a prompt if half
# of its pictures do. Shown is a picture that agrees with the prompt's outcome, the first one if it does, with the
# evidence of its check furthest below the threshold.
_JUDGED = """
WITH pictures AS (
    SELECT prompt_id, capability, checkpoint, image, any_value(round) AS round, any_value(arm) AS arm,
           any_value(prompt) AS prompt, bool_and(passed) AS passed,
           arg_min(evidence, score - threshold) AS evidence, arg_min(verifier, score - threshold) AS verifier,
           arg_min(score, score - threshold) AS score, arg_min(threshold, score - threshold) AS threshold
    FROM signals WHERE passed IS NOT NULL {where} GROUP BY prompt_id, capability, checkpoint, image
),
outcomes AS (
    SELECT *, avg(passed::INT) OVER prompts > 0.5 AS outcome, count(*) OVER prompts AS pictures,
           count(*) FILTER (passed) OVER prompts AS pictures_passed
    FROM pictures WINDOW prompts AS (PARTITION BY prompt_id, capability, checkpoint)
)
SELECT * EXCLUDE (passed, outcome), outcome AS passed FROM outcomes
QUALIFY row_number() OVER (
    PARTITION BY prompt_id, capability, checkpoint ORDER BY outcomes.passed <> outcome, length(image), image
) = 1
"""
_ON_CHECKPOINT = _JUDGED.format(where="AND checkpoint = ?")
_PLACE = f"list_position({list(CASE_EVENTS)}, kind)"  # orders events recorded together
_LAST_EVENT = f"""SELECT event_id, evidence FROM case_events WHERE case_id = ?
ORDER BY "at" DESC, round DESC, {_PLACE} DESC LIMIT 1"""


def list_cases(
    con: duckdb.DuckDBPyConnection, chosen: CaseFilter, *, limit: int, offset: int = 0
) -> tuple[int, list[Row]]:
    """Number of matching cases, and one page of them with evidence and history, in the filter's order."""
    where, values = chosen.where()
    total = rows(con, f"SELECT count(*) AS n FROM cases WHERE {where}", values)[0]["n"]
    page = rows(
        con, f"SELECT * FROM cases WHERE {where} ORDER BY {chosen.order} LIMIT ? OFFSET ?", [*values, limit, offset]
    )
    judged = _judged_on(con, {c["prompt_id"] for c in page})
    evaluated = [_with_evaluation(c, chosen.checkpoint, judged) for c in page]
    unevaluated = [c for c in evaluated if "evidence" not in c]
    detected = _history(con, unevaluated, 'evidence, "at"', kind="detected")
    history = _history(con, page, 'event_id, kind, round, "at"')
    return total, [
        _with_signal(c, detected.get(c["case_id"], [])) | {"history": history.get(c["case_id"], [])} for c in evaluated
    ]


def write_list(con: duckdb.DuckDBPyConnection, chosen: CaseFilter, path: Path) -> None:
    """Write the matching cases to a local file, CSV or Parquet by its ending."""
    where, values = chosen.where()
    con.execute(f"CREATE OR REPLACE TEMP TABLE listed AS SELECT * FROM cases WHERE {where}", values)
    con.execute(
        f"COPY (SELECT * FROM listed ORDER BY {chosen.order}) TO {quoted(str(path))} (FORMAT {path.suffix[1:]})"
    )


def _with_evaluation(case: Row, checkpoint: str, judged: list[Row]) -> Row:
    """A case with the output and evidence of `checkpoint`, or else of the round that detected it, if there is one."""
    tests = [j for j in judged if (j["prompt_id"], j["capability"]) == (case["prompt_id"], case["capability"])]
    if checkpoint:
        tests = [j for j in tests if j["checkpoint"] == checkpoint]
    else:
        tests = [j for j in tests if (j["round"], j["arm"]) == (case["round"], "candidate")]
    if not tests:
        return case
    output = {k: tests[0][k] for k in ("verifier", "score", "threshold", "image")}
    return case | output | {"evidence": evidence(tests[0]["evidence"])}


def _with_signal(case: Row, detected: list[Row]) -> Row:
    """A case without an evaluation, from mining or a user, with the evidence of the signal that opened it."""
    if "evidence" in case:
        return case
    signals = detected[0]["evidence"].get("signals") if detected else None
    first = signals[0] if signals else {}
    return (
        case
        | {k: first.get(k) for k in ("verifier", "score", "threshold")}
        | {"evidence": evidence(first.get("evidence"))}
    )


def _judged_on(con: duckdb.DuckDBPyConnection, prompts: Collection[str]) -> list[Row]:
    sql = _JUDGED.format(where="AND prompt_id IN (SELECT unnest(?::VARCHAR[]))")
    return rows(con, sql, [sorted(prompts)])


def _history(
    con: duckdb.DuckDBPyConnection,
    cases: Collection[Row],
    columns: str = "* EXCLUDE (case_id)",
    kind: str | None = None,
) -> dict[str, list[Row]]:
    """Events by case, oldest first. Evidence is long: select few columns where it is not needed."""
    if not cases:
        return {}
    # A case has one prompt, so files and row groups without that prompt are skipped.
    chosen = "case_id IN (SELECT unnest(?::VARCHAR[])) AND prompt_id IN (SELECT unnest(?::VARCHAR[]))"
    chosen += " AND kind = ?" if kind else ""
    sql = f'SELECT case_id, {columns} FROM case_events WHERE {chosen} ORDER BY "at", round, {_PLACE}'
    keys = [[c["case_id"] for c in cases], [c["prompt_id"] for c in cases], *([kind] if kind else [])]
    history: dict[str, list[Row]] = {}
    for event in rows(con, sql, keys):
        parsed = {"evidence": evidence(event["evidence"])} if "evidence" in event else {}
        history.setdefault(event["case_id"], []).append(event | parsed)
    return history


def facets(con: duckdb.DuckDBPyConnection) -> dict[str, list[Row]]:
    """Filter values with their number of cases; for checkpoints only the names."""
    columns = {"capability": "capability", "track": "coalesce(track, 'unrouted')", "status": "status", "round": "round"}
    counted = {
        name: rows(con, f"SELECT {column} AS value, count(*) AS n FROM cases GROUP BY ALL ORDER BY value")
        for name, column in columns.items()
    }
    counted["status"].insert(0, {"value": OPEN, "n": count_open(con)})
    return counted | {"checkpoint": rows(con, "SELECT checkpoint AS value, NULL AS n FROM rounds ORDER BY round DESC")}


def count_open(con: duckdb.DuckDBPyConnection, track: str = "") -> int:
    """Number of cases that are neither closed nor dismissed, on one track or on all."""
    where, values = CaseFilter(status=OPEN, track=track).where()
    return int(rows(con, f"SELECT count(*) AS n FROM cases WHERE {where}", values)[0]["n"])


def last_event(con: duckdb.DuckDBPyConnection, case_id: str) -> str:
    """Id of the newest event of a case; empty for an unknown one."""
    found = rows(con, _LAST_EVENT, [case_id])
    return str(found[0]["event_id"]) if found else ""


def answered(con: duckdb.DuckDBPyConnection, case_id: str) -> Row | None:
    """The case, and `by` and `reason` of the answer that a person just gave to it; None if its newest event is none."""
    found = rows(con, "SELECT case_id, prompt, track, status FROM cases WHERE case_id = ?", [case_id])
    events = rows(con, _LAST_EVENT, [case_id])
    said = evidence(events[0]["evidence"]) if events else {}
    return found[0] | {k: said[k] for k in ("by", "reason")} if found and {"by", "reason"} <= said.keys() else None


def by_track(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Number of cases per remedy track, and how many of them are closed."""
    return rows(
        con,
        "SELECT coalesce(track, 'unrouted') AS track, count(*) AS cases, count(*) FILTER (status = 'closed') AS closed"
        " FROM cases GROUP BY ALL ORDER BY cases DESC, track",
    )


def load_case(workspace: Workspace, con: duckdb.DuckDBPyConnection, case_id: str) -> Row | None:
    """One case with its history; None for an unknown id. `status` is null if no checkpoint that failed it was promoted.

    `events`, oldest first; `probes` with their images; `tests`, every evaluation of its prompt; `reviews` of samples
    retrieved for it; `remedies`, the remedy samples of its capability in the rounds that worked on it.
    """
    matches = rows(con, "SELECT * FROM cases WHERE case_id = ?", [case_id]) or _tested(con, case_id)
    if not matches:
        return None
    case = matches[0]
    events = _history(con, [case]).get(case_id, [])
    tests = [j for j in _judged_on(con, [case["prompt_id"]]) if j["capability"] == case["capability"]]
    probes = rows(con, 'SELECT * FROM probes WHERE case_id = ? ORDER BY "at"', [case_id])
    worked_on = sorted({e["round"] for e in events if e["kind"] == "remedied"})
    remedies = rows(
        con,
        "SELECT round, recipe, count(*) AS made, count(*) FILTER (outcome = 'admitted') AS admitted FROM generated"
        " WHERE capability = ? AND round IN (SELECT unnest(?::INT[])) GROUP BY ALL ORDER BY ALL",
        [case["capability"], worked_on],
    )
    return case | {
        "events": events,
        "tests": [t | {"evidence": evidence(t["evidence"])} for t in sorted(tests, key=_test_order)],
        "probes": [p | {"pictures": _probe_pictures(workspace, p)} for p in probes],
        "reviews": _reviews(con, case_id),
        "remedies": remedies,
    }


def _tested(con: duckdb.DuckDBPyConnection, case_id: str) -> list[Row]:
    """The prompt and capability of an evaluation whose failure would be this case."""
    sql = """SELECT ? AS case_id, prompt_id, capability, any_value(prompt) AS prompt, NULL AS track, NULL AS status,
                    NULL AS fixed_in
             FROM (SELECT * FROM signals WHERE kind = 'evaluation' AND passed IS NOT NULL)
             WHERE case_id(prompt_id, capability) = ? GROUP BY prompt_id, capability"""
    return rows(con, sql, [case_id, case_id])


def _test_order(test: Row) -> tuple[int, str, str]:
    """Sorts tests by round; tests outside of rounds come first."""
    return test["round"] or 0, test["arm"] or "", test["checkpoint"] or ""


def _probe_pictures(workspace: Workspace, probe: Row) -> list[tuple[str, str]]:
    """(label, workspace path) of a probe's images: further seeds of the prompt, and seeds of the enhanced prompt."""
    if not probe["folder"]:
        return []
    folder = workspace.path(probe["folder"])
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    paths = [(name, f"{probe['folder']}/{name}/{probe['prompt_id']}.png") for name in names]
    return [(name, path) for name, path in paths if workspace.path(path).exists()]


def _reviews(con: duckdb.DuckDBPyConnection, case_id: str) -> list[Row]:
    """Reviews of samples that were retrieved for the case."""
    return rows(
        con,
        """SELECT item, sample_id, kind, reviewer, caption, evidence->>'reason' AS reason, "at" FROM reviews
        WHERE item IN (SELECT item FROM reviews WHERE kind = 'queued' AND evidence->>'case' = ?)
        ORDER BY item, "at" """,
        [case_id],
    )


def changed(con: duckdb.DuckDBPyConnection, round_: Round, ids: Collection[str], *, limit: int) -> list[Row]:
    """Images and evidence of cases before (incumbent) and after (candidate), spread over capabilities, targeted first.

    `status` and `track` are null where the ledger has no such case: a candidate that is not promoted opens none.
    """
    judged = _JUDGED.format(where="AND prompt_id IN (SELECT prompt_id FROM chosen)")
    pairs = rows(
        con,
        f"""WITH tested AS (
            SELECT prompt_id, capability, any_value(prompt) AS prompt, case_id(prompt_id, capability) AS case_id
            FROM signals WHERE checkpoint = ? AND passed IS NOT NULL GROUP BY prompt_id, capability
        ), chosen AS (
            SELECT t.*, c.track, c.status, row_number() OVER (PARTITION BY t.capability ORDER BY t.prompt_id) AS place,
                   NOT list_contains(?::VARCHAR[], t.capability) AS untargeted
            FROM tested t LEFT JOIN cases c USING (case_id)
            WHERE case_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY place, untargeted, t.capability LIMIT ?
        ), judged AS ({judged})
        SELECT c.case_id, c.capability, c.track, c.status, c.prompt_id, c.prompt,
               b.image AS before_image, b.evidence AS before_evidence, b.verifier AS before_verifier,
               a.image AS after_image, a.evidence AS after_evidence, a.verifier AS after_verifier
        FROM chosen c
        LEFT JOIN judged b ON b.prompt_id = c.prompt_id AND b.capability = c.capability AND b.checkpoint = ?
        LEFT JOIN judged a ON a.prompt_id = c.prompt_id AND a.capability = c.capability AND a.checkpoint = ?
        ORDER BY place, untargeted, c.capability""",
        [round_.checkpoint, round_.targets, sorted(ids), limit, round_.incumbent, round_.checkpoint],
    )
    return [r | {name: evidence(r[name]) for name in ("before_evidence", "after_evidence")} for r in pairs]


def failures(con: duckdb.DuckDBPyConnection, round_: Round, *, limit: int) -> list[Row]:
    """Outputs of the round's candidate that fail, spread over capabilities, each with its case if there is one."""
    outputs = rows(
        con,
        f"""SELECT j.*, c.case_id, c.track, c.status
        FROM ({_ON_CHECKPOINT}) j LEFT JOIN cases c ON c.prompt_id = j.prompt_id AND c.capability = j.capability
        WHERE NOT j.passed
        ORDER BY row_number() OVER (PARTITION BY j.capability ORDER BY j.prompt_id), j.capability LIMIT ?""",
        [round_.checkpoint, limit],
    )
    return [r | {"evidence": evidence(r["evidence"])} for r in outputs]


def references(workspace: Workspace) -> Mapping[str, list[str]]:
    """Workspace paths of the reference images, by held-out prompt that has any."""
    if not workspace.suite.exists():
        return {}
    prompts = json_lines(workspace.suite)
    return {p["prompt_id"]: [f"suite/{name}" for name in p["references"]] for p in prompts if p.get("references")}
