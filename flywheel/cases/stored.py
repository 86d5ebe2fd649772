"""From stored signals to routed cases, in DuckDB: millions of signals, without a model and without Python loops."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from flywheel.cases.attribution import attribution_sql
from flywheel.cases.capability import Taxonomy, load_taxonomy
from flywheel.cases.fold import connect
from flywheel.core.files import digest, discard, file_digest, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.storage import read_parquet
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution
from flywheel.signals.feedback import one_at_a_time
from flywheel.signals.hidden import split

if TYPE_CHECKING:
    import duckdb

SHOWN = 8  # signals listed in an event's evidence, which counts all of them

# Equal text-to-image prompts (`normalise`) share one id: the suite's, or else one that another suite gave, or else the
# smallest. A text of symbols alone has an empty normal form and stands for itself. An instruction means nothing without
# its reference pictures: edits share an id where these are equal too, and keep their own where they are not known.
_PROMPTS = """
CREATE TEMP TABLE prompts AS
WITH sampled AS (
    SELECT DISTINCT prompt_id, prompt, task FROM signals WHERE kind <> 'evaluation' OR arm IS NULL OR arm = 'candidate'
    UNION SELECT prompt_id, prompt, task FROM suite
),
keyed AS (
    SELECT sampled.*, suite.prompt_id IS NOT NULL AS held,
           coalesce(nullif(normalise(sampled.prompt), ''), sampled.prompt) || CASE
               WHEN sampled.task = 't2i' THEN ''
               ELSE chr(10) || coalesce(shown.pictures, sampled.prompt_id) END AS key
    FROM sampled LEFT JOIN suite USING (prompt_id) LEFT JOIN shown USING (prompt_id)
)
SELECT prompt_id, prompt, task, first_value(prompt_id) OVER (
    PARTITION BY task, key ORDER BY held DESC, starts_with(prompt_id, 'user-'), prompt_id) AS canonical
FROM keyed
"""

_FAILURES = """
CREATE TEMP TABLE failures AS
SELECT s.signal_id, s.kind, s.verifier, s.score, s.threshold, s.evidence, s.image, s."at", p.canonical AS prompt_id,
       s.prompt, coalesce(s.capability, t.capability) AS capability, s.capability IS NOT NULL OR t.sure AS sure
FROM pending s JOIN prompts p USING (prompt_id, prompt, task) LEFT JOIN told t ON t.id = s.signal_id
"""

_EVENTS = f"""
WITH grouped AS (
    SELECT prompt_id, capability, count(*) AS signals, bool_or(sure) AS sure,
           list(DISTINCT kind ORDER BY kind) AS kinds, arg_min(prompt, ("at", signal_id)) AS prompt,
           arg_min({{signal_id: signal_id, kind: kind, verifier: verifier, score: score, threshold: threshold,
                    evidence: evidence, image: image}}, ("at", signal_id), {SHOWN}) AS shown,
           case_id(prompt_id, capability) AS case_id
    FROM failures GROUP BY prompt_id, capability
),
placed AS (
    SELECT g.*, CASE WHEN c.case_id IS NULL THEN 'detected' WHEN c.status = 'closed' THEN 'failed' ELSE 'seen' END
           AS kind
    FROM grouped g LEFT JOIN cases c USING (case_id)
)
SELECT substr(sha256(CASE WHEN kind = 'detected' THEN json_array(case_id, $round::INT, kind)
                          ELSE json_array(case_id, $round::INT, kind, $batch) END::VARCHAR), 1, 32) AS event_id,
       case_id, $round::INT AS round, kind, capability, NULL::VARCHAR AS track, prompt_id, prompt,
       to_json({{signals: shown, count: signals, kinds: kinds, sure: sure}})::VARCHAR AS evidence
FROM placed ORDER BY case_id
"""

# Everything stored about a case: the probes of all rounds, and the seeds that mining saw.
_EVIDENCE = """
SELECT case_id, sum(seeds) AS seeds, sum(seeds_passed) AS seeds_passed, max(enhanced) AS enhanced,
       sum(enhanced_seeds) AS enhanced_seeds, sum(enhanced_passed) AS enhanced_passed,
       arg_max(density, "at") FILTER (density IS NOT NULL) AS density
FROM (
    SELECT case_id, seeds, seeds_passed, enhanced, enhanced_seeds, enhanced_passed, density, "at" FROM probes
    UNION ALL BY NAME
    SELECT case_id(prompt_id, capability) AS case_id,
           (evidence->>'$.seeds')::INT AS seeds, (evidence->>'$.seeds_passed')::INT AS seeds_passed, "at"
    FROM signals WHERE kind = 'mining' AND verifier IN ('self', 'seeds') AND capability IS NOT NULL
) GROUP BY case_id
"""


def gather(workspace: Workspace, *, round_: int | None = None, taxonomy: Taxonomy | None = None) -> dict[str, int]:
    """Turn failing signals that were not gathered before into case events; returns the number of events by kind.

    Signals come from mining, feedback, the arena, and evaluation outside of rounds; rounds record events for their own
    evaluation. Signals of one prompt and capability are one case, whatever their kind. A case is `detected`, then
    `seen` again while it is open, or `failed` (re-opened) if it was closed. Each signal counts once, even after a kill.
    """
    folder, ledger = workspace.path("cases", "gathered"), Ledger(workspace, "case_events")
    with one_at_a_time(workspace), closing(connect(workspace, ("signals", "probes", "rounds"))) as con:
        done = [str(p) for p in sorted(folder.glob("*.parquet")) if ledger.has(f"gather/{p.stem}")]
        if not _pending(con, done, [p.prompt_id for p in split(workspace)[1]]):
            return {}
        number = round_ if round_ is not None else _round(con)
        batch = uuid.uuid4().hex
        con.execute(f"CREATE TEMP TABLE told AS {(taxonomy or load_taxonomy()).query('(' + _UNTOLD + ')')}")
        _name_prompts(con, workspace)
        con.execute(_FAILURES)
        events = con.sql(_EVENTS, params={"round": number, "batch": batch}).to_arrow_table()
        ids = con.sql("SELECT md5_number_lower(signal_id) AS signal FROM pending").to_arrow_table()
        # The list of signals is written before the events, and counts only once they are recorded.
        write_parquet(folder / f"{batch}.parquet", ids)
        ledger.append(events, key=f"gather/{batch}")
        _drop_unfinished(folder, ledger)
        return _counts(events, "kind")


_SUITE = pa.schema([(name, pa.string()) for name in ("prompt_id", "prompt", "task")])
_SHOWN = pa.schema([("prompt_id", pa.string()), ("pictures", pa.string())])
_REFERENCES = """
SELECT prompt_id, max(evidence->>'$.references') FROM signals
WHERE task = 'ti2i' AND (evidence->>'$.references') IS NOT NULL GROUP BY prompt_id
"""
_UNTOLD = "SELECT signal_id AS id, verifier, task, prompt, evidence FROM pending WHERE capability IS NULL"


def _pending(con: duckdb.DuckDBPyConnection, done: list[str], hidden: list[str]) -> int:
    """Number of the rows of the new table `pending`; what is said of hidden prompts is never followed."""
    con.register("hidden", pa.table({"prompt_id": pa.array(hidden, pa.string())}))
    gathered = f"SELECT signal FROM {read_parquet(done)}" if done else "SELECT 0::UBIGINT AS signal WHERE false"
    con.execute(
        f"""CREATE TEMP TABLE pending AS SELECT * FROM signals
        WHERE passed = false AND NOT (kind = 'evaluation' AND round IS NOT NULL)
          AND prompt_id NOT IN (SELECT prompt_id FROM hidden)
          AND md5_number_lower(signal_id) NOT IN ({gathered}) QUALIFY row_number() OVER (PARTITION BY signal_id) = 1"""
    )
    return con.execute("SELECT count(*) FROM pending").fetchall()[0][0]


def _name_prompts(con: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    from duckdb.func import PythonUDFType

    suite, _ = split(workspace)
    rows = [{"prompt_id": p.prompt_id, "prompt": p.text, "task": p.task} for p in suite]
    con.register("suite", pa.Table.from_pylist(rows, schema=_SUITE))
    pictures = {p.prompt_id: list(p.references) for p in suite if p.references}
    for prompt_id, paths in con.execute(_REFERENCES).fetchall():
        pictures.setdefault(prompt_id, [workspace.path(path) for path in json.loads(paths)])
    shown = [{"prompt_id": i, "pictures": key} for i, paths in pictures.items() if (key := _contents(paths))]
    con.register("shown", pa.Table.from_pylist(shown, schema=_SHOWN))

    def normalised(prompts: pa.ChunkedArray) -> pa.Array:
        return pa.array([normalise(p) for p in prompts.to_pylist()], pa.string())

    con.create_function("normalise", normalised, ["VARCHAR"], "VARCHAR", type=PythonUDFType.ARROW)
    con.execute(_PROMPTS)


def _contents(paths: Sequence[Path]) -> str | None:
    """Digest of the pictures' bytes, in order; None if one is missing."""
    return digest([file_digest(p) for p in paths]) if all(p.is_file() for p in paths) else None


def _round(con: duckdb.DuckDBPyConnection) -> int:
    """Number of the last finished round; 0 before the first."""
    return con.execute("SELECT coalesce(max(round), 0) FROM rounds").fetchall()[0][0]


def _drop_unfinished(folder: Path, ledger: Ledger) -> None:
    for path in folder.glob("*.parquet"):
        if not ledger.has(f"gather/{path.stem}"):
            discard(path)


def route_stored(workspace: Workspace, settings: Attribution, *, round_: int | None = None) -> dict[str, int]:
    """Route open cases without a sure track for which evidence is stored; returns the number of cases by track."""
    with one_at_a_time(workspace), closing(connect(workspace, ("signals", "probes", "rounds"))) as con:
        events = routed(con, settings, round_ if round_ is not None else _round(con), only_probed=True)
        if events.num_rows:
            Ledger(workspace, "case_events").append(events, key=f"route/stored/{uuid.uuid4().hex}")
    return _counts(events, "track")


def routed(
    con: duckdb.DuckDBPyConnection, settings: Attribution, round_: int, *, only_probed: bool = False
) -> pa.Table:
    """`routed` events, from stored evidence, for open cases without a track or with an unsure one, if it changes."""
    join = "JOIN" if only_probed else "LEFT JOIN"
    evidence = (
        f"SELECT * FROM cases {join} ({_EVIDENCE}) USING (case_id) WHERE status NOT IN ('closed', 'dismissed')"
        " AND coalesce(track, 'unsure') = 'unsure'"
    )
    sql, values = attribution_sql(
        evidence.replace("SELECT *", "SELECT cases.* RENAME (track AS before), COLUMNS('seeds|enhanced|density')"),
        settings,
    )
    return con.sql(
        f"""SELECT substr(sha256(json_array(case_id, $round::INT, 'routed', track)::VARCHAR), 1, 32) AS event_id,
            case_id, $round::INT AS round, 'routed' AS kind, capability, track, prompt_id, prompt,
            to_json({{reason: reason, seeds: seeds, seeds_passed: seeds_passed, enhanced: enhanced,
                      enhanced_seeds: enhanced_seeds, enhanced_passed: enhanced_passed, density: density,
                      sure: track <> 'unsure'}})::VARCHAR AS evidence
        FROM ({sql}) WHERE track IS DISTINCT FROM before ORDER BY case_id""",
        params={**values, "round": round_},
    ).to_arrow_table()


def _counts(events: pa.Table, column: str) -> dict[str, int]:
    return {
        r["values"]: r["counts"] for r in sorted(events[column].value_counts().to_pylist(), key=lambda r: r["values"])
    }
