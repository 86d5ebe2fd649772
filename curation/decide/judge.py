"""Judge: scores and a policy become decisions, stage by stage, and a funnel. No image is read.

Whatever depends on one row alone is a single DuckDB query (`curation.policy.sql`). Only duplicate checks and balance
need other rows: duplicate checks run first, on the rows that reach that filter. What is kept of all rows together is
one byte for each stage and bucket; reasons (`curation.policy.answers`) are written a part of the pool at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from curation.decide import contamination, likeness, withheld
from curation.decide.dedup import resolve
from curation.decide.judging import HeldOut, Judging, open_judging
from curation.policy import answers, sql
from curation.policy.policy import Filter, Policy, Stage
from curation.sources import pool
from flywheel.core.files import ParquetStream
from flywheel.core.schema import QUARANTINE
from flywheel.core.scorer import Scorer
from flywheel.core.scratch import Scratch
from flywheel.core.storage import read_table
from flywheel.core.workspace import Workspace

APPLIED, NOT_CONFIGURED = "applied", "not configured"


@dataclass(frozen=True)
class Judged:
    """The outcome of a policy on a pool: small tables, and large ones as files in `folder`, which goes with the record.

    Files: `decisions`, one row per usable input; `stages`, one row per (input, stage, bucket) entered; `admitted`, what
    to shard, by bucket. funnel: one row per (stage, bucket, filter). quarantine: inputs that could not be read or
    scored. counts: with input = admitted + dropped + quarantined.
    """

    folder: Scratch
    funnel: pa.Table
    quarantine: pa.Table
    counts: Mapping[str, int]

    def path(self, name: str) -> Path:
        """A file."""
        return self.folder.path / f"{name}.parquet"

    def read(self, name: str) -> pa.Table:
        """A whole file in memory."""
        return read_table(self.path(name))


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of a policy without reasons: enough to count.

    cells: `n` (place in the pool) of every usable row and, per stage and bucket, null where the row does not enter, 0
    where it passes, k where filter k stops it. rows: number of rows in the pool. funnel: as in `Judged`.
    """

    cells: pa.Table
    rows: int
    funnel: pa.Table


def judge(workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], held_out: HeldOut = HeldOut()) -> Judged:
    """Apply `policy` to the scores in the workspace. `scorers`: those that are configured, by name.

    Errors: `UsageError` where a score file is missing.
    """
    folder = Scratch()
    with open_judging(workspace, policy, scorers, held_out) as judging:
        rows = _judge_rows(judging)
        ingested = pool.quarantined_at_ingest(workspace)
        quarantine = _quarantine(judging, ingested)
        judged = Judged(folder, _funnel(judging, len(ingested)), quarantine, _counts(judging, quarantine.num_rows))
        _write_answers(judging, rows, judged)
        return judged


def verdicts(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], held_out: HeldOut = HeldOut()
) -> Verdicts:
    """As `judge`, without the reasons: a million rows take less than a second."""
    with open_judging(workspace, policy, scorers, held_out) as judging:
        _judge_rows(judging)
        funnel = _funnel(judging, len(pool.quarantined_at_ingest(workspace)))
        return Verdicts(judging.query("FROM cells"), _size(judging), funnel)


# Rows ----------------------------------------------------------------------------------------------------------------
def _judge_rows(judging: Judging) -> str:
    """Create the table `cells`: the verdicts on each usable row `n`. Returns the FROM clause of the rows judged."""
    _load(judging)
    rows = _with_survivors(judging)
    names = [sql.cell(stage.name, bucket) for stage, bucket, _ in sql.cells(judging.policy)]
    cells = ", ".join(["n", *(f'CAST("{name}" AS UTINYINT) AS "{name}"' for name in names)])
    judged = sql.verdicts(judging.policy, judging.columns, rows)
    judging.connection.execute(f"CREATE TEMP TABLE cells AS SELECT {cells} FROM ({judged})")
    return rows


def _load(judging: Judging) -> None:
    """Create the table `unusable` (rows with a reason), and the view `scored` of the others: what the policy reads."""
    con = judging.connection
    con.execute(
        """CREATE TEMP TABLE needed AS SELECT n, unnest(reference_ids) AS image_id,
        generate_subscripts(reference_ids, 1) AS place FROM every"""
    )
    con.execute(
        """CREATE TEMP TABLE references_there AS
        SELECT image_id, min(reason) AS reason, bool_or(reason IS NULL) AS sound,
               arg_min(shard, n) AS shard, arg_min("row", n) AS "row"
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
    read = (*answers.taken_over(judging.columns), *sql.needed(judging.policy, judging.columns))
    columns = [f'"{c}"' for c in dict.fromkeys(("n", "stream", "draw", *read))]
    columns += [f"{condition} AS {name}" for name, condition in _held_out_conditions(judging).items()]
    rows = "every ANTI JOIN unusable USING (n)"
    if judged := sql.of_references(judging.policy, judging.columns):
        con.execute(f"CREATE TEMP TABLE of_references AS {judged}")
        columns.append("of_references.* EXCLUDE (n)")
        rows = "every LEFT JOIN of_references USING (n) ANTI JOIN unusable USING (n)"
    con.execute(f"CREATE TEMP VIEW scored AS SELECT {', '.join(columns)} FROM {rows}")


def _held_out_conditions(judging: Judging) -> dict[str, str]:
    """SQL conditions of the two checks that keep held-out data out of training."""
    held, known = "false", "false"
    if judging.held_out.pictures:
        judging.connection.register("withheld", pa.table({"n": withheld.load(judging)}))
        held = "n IN (FROM withheld)"
    if judging.held_out.prompts:
        judging.connection.register("contaminated", pa.table({"n": contamination.load(judging)}))
        known = "n IN (FROM contaminated)"
    return {sql.HELD_OUT: held, sql.DECONTAMINATION: known}


# Duplicates ----------------------------------------------------------------------------------------------------------
def _with_survivors(judging: Judging) -> str:
    """Run the checks that compare rows; returns the FROM clause of the rows with the survivor columns joined."""
    rows = "scored"
    # rows that passed an earlier check of the kind: later ones are compared with them too
    survivors: dict[str | None, list[np.ndarray]] = {}
    for stage in judging.policy.stages:
        for filter_ in stage.filters:
            if not filter_.compares or not sql.acts(filter_, judging.columns):
                continue
            prefix, name = sql.survivor_column(stage, filter_), sql.dropped(stage, filter_)
            earlier = survivors.setdefault(filter_.check, [])
            judging.connection.register(name, _dropped(judging, stage, filter_, rows, earlier))
            joined = ", ".join(f'{c} AS "{prefix}.{c}"' for c in ("survivor", "distance", "sound"))
            rows = f'{rows} LEFT JOIN (SELECT n, {joined} FROM "{name}") USING (n)'
    return rows


_DROPPED = pa.schema([("n", pa.int64()), ("survivor", pa.int64()), ("distance", pa.float64()), ("sound", pa.bool_())])


def _dropped(judging: Judging, stage: Stage, filter_: Filter, rows: str, survivors: list[np.ndarray]) -> pa.Table:
    """(n, survivor, distance, sound) of the rows that a duplicate check drops; extends `survivors`."""
    alike = likeness.load(judging, filter_)
    related = alike.related
    reaches, sound = sql.candidates(stage, filter_, judging.columns)
    judging.connection.register("related", pa.table({"n": related.rows, "place": np.arange(len(related.rows))}))
    # Held-out pictures stop at an earlier check, yet nothing that resembles them may pass either.
    here = judging.connection.sql(
        f"""SELECT n, place, {sound} AS sound, {sql.HELD_OUT} AS fixed FROM {rows} JOIN related USING (n)
        WHERE ({reaches}) OR {sql.HELD_OUT} ORDER BY n"""
    ).fetchnumpy()
    judging.connection.unregister("related")
    if not len(here["n"]):
        return _DROPPED.empty_table()
    n, place, sound_rows, fixed = (np.asarray(here[k]) for k in ("n", "place", "sound", "fixed"))
    for earlier in survivors:  # these always stay, and push other rows out
        more = np.setdiff1d(np.intersect1d(earlier, related.rows), n)
        n = np.concatenate([n, more])
        place = np.concatenate([place, np.searchsorted(related.rows, more)])
        sound_rows, fixed = (np.concatenate([v, np.ones(len(more), bool)]) for v in (sound_rows, fixed))
    best = np.lexsort((alike.rank[place], ~sound_rows.astype(bool), ~fixed.astype(bool)))
    dropped, survivor, distance = resolve(related, n[best], fixed[best].astype(bool))
    survivors.append(np.setdiff1d(np.asarray(here["n"]), dropped))
    good = np.isin(dropped, n[sound_rows.astype(bool)])
    return pa.table({"n": dropped, "survivor": survivor, "distance": distance, "sound": good}, schema=_DROPPED)


# Answers -------------------------------------------------------------------------------------------------------------
_PART = 4 * 122_880  # rows that are sorted and written together: row groups of a score table
_FILES = {"decisions": answers.decisions, "stages": answers.stages, "admitted": answers.admitted}


def _size(judging: Judging) -> int:
    """Rows of the pool."""
    ((count,),) = judging.connection.execute("SELECT count(*) FROM every").fetchall()
    return int(count)


def _write_answers(judging: Judging, rows: str, judged: Judged) -> None:
    """Write the files of `judged`, a part of the pool at a time. `rows`: FROM clause of the rows judged."""
    con, policy, columns = judging.connection, judging.policy, judging.columns
    for table, query in answers.shared(policy, columns, rows).items():
        con.execute(f'CREATE TEMP TABLE "{table}" AS {query}')
    with ExitStack() as stack, ThreadPoolExecutor(1) as writing:
        streams: dict[str, ParquetStream] = {}
        written: Future[None] | None = None
        for start in range(0, max(1, _size(judging)), _PART):
            here = f"n >= {start} AND n < {start + _PART}"
            con.execute(f"CREATE OR REPLACE TEMP TABLE part AS {answers.part(policy, columns, rows, here)}")
            for name, answer in _FILES.items():
                found = judging.query(answer(policy, columns))
                if name not in streams:
                    kind: Literal["zstd", "lz4"] = "lz4" if name == "admitted" else "zstd"
                    stream = ParquetStream(judged.path(name), found.schema, compression=kind)
                    streams[name] = stack.enter_context(stream)
                if written:
                    written.result()  # one table waits while the next is made
                written = writing.submit(streams[name].write, found)
        if written:
            written.result()


def _counts(judging: Judging, quarantined: int) -> dict[str, int]:
    passed = " OR ".join(f'"{sql.cell(stage.name, bucket)}" = 0' for stage, bucket, _ in sql.cells(judging.policy))
    query = f"SELECT count(*), coalesce(count(*) FILTER ({passed or 'false'}), 0) FROM cells"
    ((usable, admitted),) = judging.connection.execute(query).fetchall()
    counts = {"admitted": admitted, "dropped": usable - admitted, "quarantined": quarantined}
    return {"input": usable + quarantined} | counts


def _quarantine(judging: Judging, ingested: Sequence[Mapping[str, str]]) -> pa.Table:
    unusable = judging.query("SELECT source_uri, reason FROM unusable ORDER BY n").to_pylist()
    return pa.Table.from_pylist([*ingested, *unusable], schema=QUARANTINE)


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


def _funnel(judging: Judging, ingested: int) -> pa.Table:
    """Rows that enter and leave each filter.

    Unreadable inputs count at the readable check where their stream enters; the `ingested` inputs that ingest
    quarantined, whose stream is unknown, count where the first stream does.
    """
    con = judging.connection
    unusable = dict(con.execute("SELECT stream, count(*) FROM unusable GROUP BY 1").fetchall())
    rows = []
    for stage, bucket, filters in sql.cells(judging.policy):
        name = sql.cell(stage.name, bucket)
        query = f'SELECT "{name}", count(*) FROM cells WHERE "{name}" IS NOT NULL GROUP BY 1'
        stopped = dict(con.execute(query).fetchall())
        entered = sum(stopped.values())
        for n, filter_ in enumerate(filters, 1):
            quarantined = 0
            if filter_.check == "readable" and bucket == stage.resolutions[0]:
                quarantined = sum(unusable.pop(s, 0) for s in filter_.streams or stage.enters) + ingested
                ingested = 0
            rows.append(
                {
                    "stage": stage.name,
                    "bucket": bucket,
                    "filter": filter_.name,
                    "status": APPLIED if sql.acts(filter_, judging.columns) else NOT_CONFIGURED,
                    "entered": entered + quarantined,
                    "dropped": stopped.get(n, 0),
                    "quarantined": quarantined,
                }
            )
            entered -= stopped.get(n, 0)
    return pa.Table.from_pylist(rows, schema=_FUNNEL)
