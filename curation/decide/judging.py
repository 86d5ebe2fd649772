"""Decide: scores and a policy become decisions, stage by stage, and the funnel. No image is read.

Everything that can be said per row is one DuckDB query (`curation.policy.sql`); only duplicates need more than their
own row, and are found first, among the rows that reach that filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.decide import contamination, likeness
from curation.decide.dedup import resolve
from curation.policy import sql
from curation.policy.policy import Filter, Policy, Stage
from curation.scorers.table import schema, tables
from curation.sources import pool
from flywheel.core.schema import QUARANTINE
from flywheel.core.scorer import Scorer
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

APPLIED, NOT_CONFIGURED = "applied", "not configured"


@dataclass(frozen=True)
class Evaluation:
    """What training must never see: sample ids of held-out pictures, and prompts."""

    held_out: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Judged:
    """The outcome of a policy on a pool.

    decisions: one row per usable input. stages: one row per (input, stage, bucket) entered. funnel: one row per
    (stage, bucket, filter). quarantine: inputs that could not be read or scored. admitted: what to shard, by bucket.
    """

    decisions: pa.Table
    stages: pa.Table
    funnel: pa.Table
    quarantine: pa.Table
    admitted: pa.Table

    @property
    def counts(self) -> dict[str, int]:
        """input = admitted + dropped + quarantined."""
        import pyarrow.compute as pc

        admitted = pc.sum(pc.equal(self.decisions["outcome"], "admitted")).as_py() or 0
        quarantined = self.quarantine.num_rows
        return {
            "input": self.decisions.num_rows + quarantined,
            "admitted": admitted,
            "dropped": self.decisions.num_rows - admitted,
            "quarantined": quarantined,
        }


@dataclass(frozen=True)
class Verdicts:
    """What a policy says, and no more: enough to count.

    cells: `n` (place in the pool) of every usable row and, per stage and bucket, null where it does not enter, 0 where
    it passes, k where filter k stops it. rows: rows of the pool. funnel: as in `Judged`.
    """

    cells: pa.Table
    rows: int
    funnel: pa.Table


def judge(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], evaluation: Evaluation = Evaluation()
) -> Judged:
    """Apply `policy` to the scores in the workspace. `scorers`: those that are configured, by name.

    Errors: `UsageError` where a score file is missing.
    """
    with _judging(workspace, policy, scorers, evaluation) as (con, policy, configured, rows):
        con.execute(f"CREATE TEMP TABLE judged AS {sql.verdicts(policy, configured, rows)}")
        ingested = pool.quarantined_at_ingest(workspace)
        return Judged(
            decisions=_arrow(con, sql.decisions(policy, configured)),
            stages=_arrow(con, sql.stages(policy, configured)),
            funnel=_funnel(con, policy, configured, len(ingested)),
            quarantine=_quarantine(con, ingested),
            admitted=_arrow(con, sql.admitted(policy, configured)),
        )


def verdicts(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], evaluation: Evaluation = Evaluation()
) -> Verdicts:
    """As `judge`, without the reasons: a million rows take less than a second."""
    with _judging(workspace, policy, scorers, evaluation) as (con, policy, configured, rows):
        cells = ", ".join(f'CAST("{sql.cell(s.name, b)}" AS UTINYINT) AS "{sql.cell(s.name, b)}"'
                          for s, b, _ in sql.cells(policy))  # fmt: skip
        con.execute(f"CREATE TEMP TABLE judged AS SELECT n, {cells} FROM ({sql.verdicts(policy, configured, rows)})")
        funnel = _funnel(con, policy, configured, len(pool.quarantined_at_ingest(workspace)))
        ((count,),) = con.execute("SELECT count(*) FROM every").fetchall()
        return Verdicts(_arrow(con, "FROM judged"), count, funnel)


def sample_ids(workspace: Workspace, scorers: Mapping[str, Scorer], places: np.ndarray) -> list[str]:
    """Sample ids of the rows at these places in the pool, in their order."""
    if not len(places):
        return []
    with sql.connect(workspace) as con:
        listed = ", ".join(str(int(p)) for p in np.sort(places))
        every = _every(con, tables(workspace, scorers), scorers)
        found = con.execute(f"SELECT sample_id FROM ({every}) WHERE n IN ({listed}) ORDER BY n").fetchall()
        return [sample_id for (sample_id,) in found]


@contextmanager
def _judging(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], evaluation: Evaluation
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Policy, frozenset[str], str]]:
    """(connection, policy with the checks of evaluation, score columns there are, FROM clause of the rows to judge)."""
    policy = sql.with_evaluation_checks(policy, held_out=bool(evaluation.held_out), prompts=bool(evaluation.prompts))
    configured = frozenset(f"{s.name}.{f.name}" for s in scorers.values() for f in s.fields)
    files = tables(workspace, scorers)
    with sql.connect(workspace) as con:
        _load(con, workspace, files, scorers, policy, configured, evaluation)
        yield con, policy, configured, _find_duplicates(con, workspace, files, scorers, policy, configured)


def _arrow(con: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return con.sql(query).to_arrow_table()


# Rows ----------------------------------------------------------------------------------------------------------------
def _load(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    files: Sequence[Path],
    scorers: Mapping[str, Scorer],
    policy: Policy,
    configured: frozenset[str],
    evaluation: Evaluation,
) -> None:
    """Make `every` (all rows; `n` is the place in the pool), `unusable` (rows with a reason) and `scored` (the others,
    with what the policy reads)."""
    con.execute(f"CREATE TEMP VIEW every AS {_every(con, files, scorers)}")
    con.execute("CREATE TEMP TABLE needed AS SELECT n, unnest(reference_ids) AS image_id FROM every")
    con.execute(
        """CREATE TEMP TABLE references_there AS
        SELECT image_id, min(reason) AS reason, bool_or(reason IS NULL) AS sound
        FROM every SEMI JOIN needed USING (image_id) GROUP BY 1"""
    )
    con.execute(
        """CREATE TEMP TABLE faulty_pairs AS
        SELECT n, min(coalesce(r.reason, 'not in the pool')) AS reason
        FROM needed LEFT JOIN references_there r USING (image_id) WHERE r.sound IS NOT TRUE GROUP BY 1"""
    )
    con.execute(
        """CREATE TEMP TABLE unusable AS
        SELECT n, source_uri, stream, coalesce('reference image is unusable: ' || f.reason, e.reason) AS reason
        FROM every e LEFT JOIN faulty_pairs f USING (n) WHERE e.reason IS NOT NULL OR f.reason IS NOT NULL"""
    )
    columns = ["n", "stream", "draw", *(f'"{c}"' for c in sql.needed(policy, configured))]
    tests = _evaluation_tests(con, workspace, files, policy, evaluation)
    columns += [f"{test} AS {name}" for name, test in tests.items()]
    con.execute(f"CREATE TEMP TABLE scored AS SELECT {', '.join(columns)} FROM every ANTI JOIN unusable USING (n)")


def _evaluation_tests(
    con: duckdb.DuckDBPyConnection, workspace: Workspace, files: Sequence[Path], policy: Policy, evaluation: Evaluation
) -> dict[str, str]:
    """SQL conditions of the two checks that keep evaluation out of training."""
    held, known = "false", "false"
    if evaluation.held_out:
        con.register("held_ids", pa.table({"id": pa.array(sorted(evaluation.held_out), pa.string())}))
        held = "(sample_id IN (FROM held_ids) OR image_id IN (FROM held_ids))"
    if evaluation.prompts:
        found = contamination.load(con, workspace, files, evaluation.prompts, policy.prompt_similarity)
        con.register("contaminated", pa.table({"n": found}))
        known = "n IN (FROM contaminated)"
    return {sql.HELD_OUT: held, sql.DECONTAMINATION: known}


def _every(con: duckdb.DuckDBPyConnection, files: Sequence[Path], scorers: Mapping[str, Scorer]) -> str:
    if not files:
        con.register("no_rows", schema(scorers).empty_table())
        return "SELECT 0 AS n, * FROM no_rows"
    selects, before = [], 0
    for path in files:
        source = f"read_parquet({sql.quoted(str(path))}, file_row_number=true)"
        selects.append(f"SELECT {before} + file_row_number AS n, * EXCLUDE (file_row_number) FROM {source}")
        before += pq.read_metadata(readable(path)).num_rows
    return " UNION ALL ".join(selects)


# Duplicates ----------------------------------------------------------------------------------------------------------
def _find_duplicates(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    files: Sequence[Path],
    scorers: Mapping[str, Scorer],
    policy: Policy,
    configured: frozenset[str],
) -> str:
    """Decide the checks that compare rows; returns the FROM clause of the rows with the survivor columns joined."""
    rows = "scored"
    # rows that passed an earlier check of the kind: later ones are compared with them too
    survivors: dict[str | None, list[np.ndarray]] = {}
    for stage in policy.stages:
        for line in stage.filters:
            if not line.compares or not sql.acts(line, configured):
                continue
            found = likeness.load(con, workspace, files, scorers, line)
            prefix = sql.survivor_column(stage, line)
            earlier = survivors.setdefault(line.check, [])
            con.register(f"found by {prefix}", _dropped(con, found, stage, line, configured, rows, earlier))
            joined = f'n, survivor AS "{prefix}.survivor", distance AS "{prefix}.distance"'
            rows = f'{rows} LEFT JOIN (SELECT {joined} FROM "found by {prefix}") USING (n)'
    return rows


_FOUND = pa.schema([("n", pa.int64()), ("survivor", pa.int64()), ("distance", pa.float64())])


def _dropped(
    con: duckdb.DuckDBPyConnection,
    found: likeness.Likeness,
    stage: Stage,
    line: Filter,
    configured: frozenset[str],
    rows: str,
    survivors: list[np.ndarray],
) -> pa.Table:
    """(n, survivor, distance) of the rows that a duplicates check drops; extends `survivors`."""
    reaches, sound = sql.candidates(stage, line, configured)
    con.register("related", pa.table({"n": found.related.rows, "place": np.arange(len(found.related.rows))}))
    # Held-out pictures stop at an earlier check, yet nothing that resembles them may pass either.
    here = con.sql(
        f"""SELECT n, place, {sound} AS sound, {sql.HELD_OUT} AS fixed FROM {rows} JOIN related USING (n)
        WHERE ({reaches}) OR {sql.HELD_OUT} ORDER BY n"""
    ).fetchnumpy()
    con.unregister("related")
    if not len(here["n"]):
        return pa.table({"n": [], "survivor": [], "distance": []}, schema=_FOUND)
    n, place, sound_rows, fixed = (np.asarray(here[k]) for k in ("n", "place", "sound", "fixed"))
    for earlier in survivors:  # they stay whatever comes, and push others out
        more = np.setdiff1d(np.intersect1d(earlier, found.related.rows), n)
        n = np.concatenate([n, more])
        place = np.concatenate([place, np.searchsorted(found.related.rows, more)])
        sound_rows, fixed = (np.concatenate([v, np.ones(len(more), bool)]) for v in (sound_rows, fixed))
    best = np.lexsort((found.rank[place], ~sound_rows.astype(bool), ~fixed.astype(bool)))
    dropped, survivor, distance = resolve(found.related, n[best], fixed[best].astype(bool))
    survivors.append(np.setdiff1d(np.asarray(here["n"]), dropped))
    return pa.table({"n": dropped, "survivor": survivor, "distance": distance}, schema=_FOUND)


# Answers -------------------------------------------------------------------------------------------------------------
def _quarantine(con: duckdb.DuckDBPyConnection, ingested: Sequence[Mapping[str, str]]) -> pa.Table:
    scored = _arrow(con, "SELECT source_uri, reason FROM unusable ORDER BY n").to_pylist()
    return pa.Table.from_pylist([*ingested, *scored], schema=QUARANTINE)


_FUNNEL = pa.schema(
    [
        ("stage", pa.string()),
        ("bucket", pa.int32()),
        ("filter", pa.string()),
        ("status", pa.string()),
        ("entered", pa.int64()),
        ("dropped", pa.int64()),
        ("quarantined", pa.int64()),
    ]
)


def _funnel(con: duckdb.DuckDBPyConnection, policy: Policy, configured: frozenset[str], ingested: int) -> pa.Table:
    """Rows that enter and leave each filter. Unreadable inputs count where their stream enters, on the readable check;
    those that ingest refused (whose stream nobody knows) where the first stream does."""
    unusable = dict(con.execute("SELECT stream, count(*) FROM unusable GROUP BY 1").fetchall())
    rows = []
    for stage, bucket, lines in sql.cells(policy):
        name = sql.cell(stage.name, bucket)
        query = f'SELECT "{name}", count(*) FROM judged WHERE "{name}" IS NOT NULL GROUP BY 1'
        stopped = dict(con.execute(query).fetchall())
        entered = sum(stopped.values())
        for n, line in enumerate(lines, 1):
            quarantined = 0
            if line.check == "readable" and bucket == stage.resolutions[0]:
                quarantined = sum(unusable.pop(s, 0) for s in line.streams or stage.enters) + ingested
                ingested = 0
            applied = sql.acts(line, configured)
            rows.append(
                {
                    "stage": stage.name,
                    "bucket": bucket,
                    "filter": line.name,
                    "status": APPLIED if applied else NOT_CONFIGURED,
                    "entered": entered + quarantined,
                    "dropped": stopped.get(n, 0),
                    "quarantined": quarantined,
                }
            )
            entered -= stopped.get(n, 0)
    return pa.Table.from_pylist(rows, schema=_FUNNEL)
