"""Decide: scores and a policy become decisions, stage by stage, and the funnel. No image is read.

Everything that can be said per row is one DuckDB query (`curation.sql`); only duplicates need more than their own row,
and are found first, among the rows that reach that filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curation import pool, sql
from curation.dedup import duplicates, preference
from curation.policy import Filter, Policy, Stage
from curation.scoring import score_path
from curation.synthesis.meaning import normalise
from flywheel.schema import POOL, QUARANTINE, SCORE_KEYS
from flywheel.scorer import Scorer
from flywheel.workspace import UsageError, Workspace

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


def judge(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], evaluation: Evaluation = Evaluation()
) -> Judged:
    """Apply `policy` to the scores in the workspace. `scorers`: those that are configured, by name.

    Errors: `UsageError` where a score file is missing.
    """
    shards = pool.shards(workspace)
    policy = sql.with_evaluation_checks(
        policy, held_out=bool(evaluation.held_out), prompts=bool(evaluation.prompts)
    )
    configured = frozenset(f"{s.name}.{f.name}" for s in scorers.values() for f in s.fields)
    con = _connect()
    try:
        _load(con, workspace, shards, scorers, evaluation)
        _find_duplicates(con, policy, configured)
        con.execute(f"CREATE TEMP TABLE judged AS {sql.verdicts(policy, configured)}")
        ingested = pool.quarantined_at_ingest(workspace)
        return Judged(
            decisions=_arrow(con, sql.decisions(policy, configured)),
            stages=_arrow(con, sql.stages(policy, configured)),
            funnel=_funnel(con, policy, configured, len(ingested)),
            quarantine=_quarantine(con, ingested),
            admitted=_arrow(con, sql.admitted(policy)),
        )
    finally:
        con.close()


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})


def _arrow(con: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return con.sql(query).to_arrow_table()


# Rows ----------------------------------------------------------------------------------------------------------------
def _load(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    shards: Sequence[pool.Shard],
    scorers: Mapping[str, Scorer],
    evaluation: Evaluation,
) -> None:
    """Make the tables `scored` (usable rows: pool metadata, every score column) and `unusable` (rows with a reason)."""
    con.register("held_ids", pa.table({"id": pa.array(sorted(evaluation.held_out), pa.string())}))
    prompts = sorted({normalise(p) for p in evaluation.prompts})
    con.register("prompts", pa.table({"text": pa.array(prompts, pa.string())}))
    con.execute(f"CREATE TEMP TABLE pool AS {_pool_query(con, shards)}")
    columns, joins, errors = ["pool.*"], [], []
    for name, scorer in scorers.items():
        paths = [score_path(workspace, scorer, s) for s in shards]
        if missing := [p for p in paths if not p.exists()]:
            raise UsageError(f"{len(missing)} score files of {name} are missing ({missing[0]}): curate the pool again")
        con.execute(f"CREATE TEMP TABLE {_table(name)} AS {_score_query(con, paths, scorer)}")
        columns += [f'{_table(name)}."{name}.{f.name}"' for f in scorer.fields]
        joins.append(f"JOIN {_table(name)} USING (shard, row)")
        errors.append(f"{_table(name)}.error")
    reason = f"coalesce({', '.join(errors)})" if errors else "NULL"
    selected = ", ".join([*columns, f"{reason} AS reason"])
    con.execute(f"CREATE TEMP TABLE every AS SELECT {selected} FROM pool {' '.join(joins)}")
    con.execute(
        """CREATE TEMP TABLE faulty_pairs AS
        SELECT shard, row, min(coalesce(bad.reason, 'not in the pool')) AS reason
        FROM (SELECT shard, row, unnest(reference_ids) AS image_id FROM every) AS needed
        ANTI JOIN (FROM every WHERE reason IS NULL) AS good USING (image_id)
        LEFT JOIN (FROM every SELECT image_id, reason WHERE reason IS NOT NULL) AS bad USING (image_id)
        GROUP BY ALL"""
    )
    con.execute(
        """CREATE TEMP TABLE unusable AS
        SELECT shard, row, source_uri, stream, coalesce('reference image is unusable: ' || f.reason, e.reason) AS reason
        FROM every e LEFT JOIN faulty_pairs f USING (shard, row)
        WHERE e.reason IS NOT NULL OR f.reason IS NOT NULL"""
    )
    normalized = '"text.normalized"' if "text" in scorers else "NULL"
    con.execute(
        f"""CREATE TEMP TABLE scored AS
        SELECT * EXCLUDE (reason),
               sample_id IN (FROM held_ids) OR image_id IN (FROM held_ids) AS {sql.HELD_OUT},
               coalesce({normalized} IN (FROM prompts), false) AS {sql.DECONTAMINATION}
        FROM every WHERE NOT EXISTS (FROM unusable u WHERE u.shard = every.shard AND u.row = every.row)"""
    )


def _pool_query(con: duckdb.DuckDBPyConnection, shards: Sequence[pool.Shard]) -> str:
    columns = ", ".join(c for c in pool.METADATA if c not in ("caption", "captions"))
    if not shards:
        con.register("no_rows", POOL.empty_table())
        return f"SELECT '' AS shard, 0 AS row, {columns} FROM no_rows"
    files = ", ".join(sql.quoted(str(s.path)) for s in shards)
    key = r"regexp_replace(filename, '^.*[/\\]([^/\\]+)[/\\]([^/\\]+)\.parquet$', '\1-\2')"
    return (
        f"SELECT {key} AS shard, CAST(file_row_number AS INTEGER) AS row, {columns} FROM"
        f" read_parquet([{files}], filename=true, file_row_number=true)"
    )


def _score_query(con: duckdb.DuckDBPyConnection, paths: Sequence[Any], scorer: Scorer) -> str:
    columns = ", ".join(f'"{f.name}" AS "{scorer.name}.{f.name}"' for f in scorer.fields)
    if not paths:
        con.register("no_scores", pa.schema([*SCORE_KEYS, *scorer.fields]).empty_table())
        return f"SELECT '' AS shard, row, error, {columns} FROM no_scores"
    files = ", ".join(sql.quoted(str(p)) for p in paths)
    key = r"regexp_extract(filename, '([^/\\]+)\.parquet$', 1)"
    return f"SELECT {key} AS shard, row, error, {columns} FROM read_parquet([{files}], filename=true)"


def _table(scorer: str) -> str:
    return f'"scores of {scorer}"'


# Duplicates ----------------------------------------------------------------------------------------------------------
def _find_duplicates(con: duckdb.DuckDBPyConnection, policy: Policy, configured: frozenset[str]) -> None:
    """Join survivor columns of every duplicates check to `scored`. Later checks also compare with earlier survivors."""
    kept: list[pa.Table] = []
    for stage in policy.stages:
        for line in stage.filters:
            if line.check != "duplicates":
                continue
            if "pixels.phash" not in configured:
                raise UsageError(f"{stage.name}.{line.name} needs the pixels scorer")
            found = _duplicates_of(con, stage, line, configured, kept)
            con.register("found", found)
            prefix = sql.survivor_column(stage, line)
            con.execute(
                f"""CREATE OR REPLACE TEMP TABLE scored AS
                SELECT scored.*, found.survivor AS "{prefix}.survivor", found.survivor_uri AS "{prefix}.survivor_uri",
                       CAST(found.distance AS DOUBLE) AS "{prefix}.distance"
                FROM scored LEFT JOIN found USING (shard, row)"""
            )
            con.unregister("found")


def _duplicates_of(
    con: duckdb.DuckDBPyConnection, stage: Stage, line: Filter, configured: frozenset[str], kept: list[pa.Table]
) -> pa.Table:
    """(shard, row, survivor, survivor_uri, distance) of the rows that a duplicates check drops; extends `kept`."""
    reaches, sound = sql.candidates(stage, line, configured)
    fields = (
        "shard, row, sample_id, source_uri, task, width * height AS pixels, reference_ids,"
        ' "pixels.sharpness" AS sharpness, "pixels.phash" AS phash, "pixels.thumbnail" AS thumbnail,'
        f' "text.normalized" AS caption, {sound} AS sound'
    )
    # Held-out pictures stop at an earlier check, yet nothing that resembles them may pass either.
    here = _arrow(con, f"SELECT {fields}, {sql.HELD_OUT} AS fixed FROM scored WHERE ({reaches}) OR {sql.HELD_OUT}")
    tasks = pa.array(set(here["task"].to_pylist()), pa.string())
    earlier = [t.filter(pa.compute.is_in(t["task"], tasks)) for t in kept]
    rows = pa.concat_tables([here, *earlier])
    survivor, distance = _search(rows, line, _thumbnails(con, rows))
    dropped = np.flatnonzero(survivor >= 0)
    stays = np.flatnonzero(survivor[: here.num_rows] < 0)
    settled = here.take(stays)
    fixed = settled.schema.get_field_index("fixed")
    kept.append(settled.set_column(fixed, "fixed", pa.array(np.ones(len(stays), bool))))
    return pa.table(
        {
            "shard": rows["shard"].take(dropped),
            "row": rows["row"].take(dropped),
            "survivor": rows["sample_id"].take(survivor[dropped]),
            "survivor_uri": rows["source_uri"].take(survivor[dropped]),
            "distance": distance[dropped],
        }
    )


def _search(rows: pa.Table, line: Filter, thumbnails: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    fixed = rows["fixed"].to_numpy().astype(bool)
    ids, uris = (np.array(rows[c].to_pylist(), dtype=object).astype(str) for c in ("sample_id", "source_uri"))
    sound = rows["sound"].to_numpy().astype(bool)
    order = preference(rows["pixels"].to_numpy(), rows["sharpness"].to_numpy(), ids, uris, sound, fixed)
    hashes = rows["phash"].to_numpy().astype(np.uint64)
    groups, colours = _signatures(rows, thumbnails)
    return duplicates(order, hashes, colours, groups, fixed, hamming=line.hamming, colour=line.colour)


def _signatures(rows: pa.Table, thumbnails: Mapping[str, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Group and colour signature. A pair is compared only with pairs of its instruction, references included."""
    references = rows["reference_ids"].to_pylist()
    captions = rows["caption"].to_pylist()
    keys = [(t, len(r), c if r else "") for t, r, c in zip(rows["task"].to_pylist(), references, captions)]
    numbers = {k: n for n, k in enumerate(dict.fromkeys(keys))}
    signatures = [t + b"".join(thumbnails[i] for i in r) for t, r in zip(rows["thumbnail"].to_pylist(), references)]
    width = max(map(len, signatures), default=0)
    colours = np.frombuffer(b"".join(s.ljust(width, b"\0") for s in signatures), np.uint8)
    return np.array([numbers[k] for k in keys], np.int64), colours.reshape(len(signatures), width)


def _thumbnails(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> dict[str, bytes]:
    """Image id → thumbnail of every reference image of these rows."""
    wanted = sorted({i for ids in rows["reference_ids"].to_pylist() for i in ids})
    if not wanted:
        return {}
    con.register("wanted", pa.table({"image_id": pa.array(wanted, pa.string())}))
    query = 'SELECT image_id, any_value("pixels.thumbnail") FROM scored SEMI JOIN wanted USING (image_id) GROUP BY 1'
    return dict(con.execute(query).fetchall())


# Answers -------------------------------------------------------------------------------------------------------------
def _quarantine(con: duckdb.DuckDBPyConnection, ingested: Sequence[Mapping[str, str]]) -> pa.Table:
    scored = _arrow(con, "SELECT source_uri, reason FROM unusable ORDER BY shard, row").to_pylist()
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


def _funnel(
    con: duckdb.DuckDBPyConnection, policy: Policy, configured: frozenset[str], ingested: int
) -> pa.Table:
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
            applied = line.score is None or line.score in configured
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
