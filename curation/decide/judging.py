"""What every step of a judgement needs, in one record: the scored pool open in DuckDB, the policy, what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.policy import sql
from curation.policy.policy import Policy
from curation.scorers.table import schema, tables
from flywheel.core.scorer import Scorer
from flywheel.core.scratch import Scratch
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"  # of DuckDB: what does not fit goes to a temporary folder


class Look(NamedTuple):
    """What a picture looks like: perceptual hash and colour thumbnail, as the `pixels` scorer computes them."""

    phash: int
    thumbnail: bytes


@dataclass(frozen=True)
class HeldOut:
    """What training must never see.

    ids: of held-out samples or images. prompts: of the evaluation, in normal form. looks: of evaluation pictures that
    may be in the pool under another id. What looks like a held-out picture is held out too. captioned: nor must it see
    rows without a caption.
    """

    ids: frozenset[str] = frozenset()
    prompts: frozenset[str] = frozenset()
    looks: frozenset[Look] = frozenset()
    captioned: bool = False

    @property
    def pictures(self) -> bool:
        """Whether any picture is held out."""
        return bool(self.ids or self.looks)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; `from_record` reads them."""
        looks = [[x.phash, x.thumbnail.hex()] for x in sorted(self.looks)]
        more: dict[str, Any] = ({"looks": looks} if looks else {}) | ({"captioned": True} if self.captioned else {})
        return {"held_out": sorted(self.ids), "prompts": sorted(self.prompts)} | more

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> HeldOut:
        """What `record` wrote."""
        looks = frozenset(Look(phash, bytes.fromhex(thumbnail)) for phash, thumbnail in record.get("looks", ()))
        captioned = record.get("captioned", False)
        return cls(frozenset(record["held_out"]), frozenset(record["prompts"]), looks, captioned)


@dataclass(frozen=True)
class Judging:
    """A scored pool and the policy that judges it.

    connection: has the view `every`, all rows of `tables`; its column `n` is a row's place in the pool. policy: with
    the checks that keep held-out data out. tables: score tables, oldest batch first. columns: score columns that exist.
    """

    connection: duckdb.DuckDBPyConnection
    workspace: Workspace
    scorers: Mapping[str, Scorer]
    tables: tuple[Path, ...]
    policy: Policy
    held_out: HeldOut
    columns: frozenset[str]

    def query(self, query: str) -> pa.Table:
        """Result of a query."""
        return self.connection.sql(query).to_arrow_table()


@contextmanager
def open_judging(
    workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer], held_out: HeldOut
) -> Iterator[Judging]:
    """Open the scored pool for `policy`. `scorers`: those that are configured, by name.

    Errors: `UsageError` where a score file is missing.
    """
    checks = {"held_out": held_out.pictures, "prompts": bool(held_out.prompts), "captioned": held_out.captioned}
    policy = sql.with_evaluation_checks(policy, **checks)
    columns = frozenset(f"{s.name}.{f.name}" for s in scorers.values() for f in s.fields)
    with _opened(workspace, scorers) as (connection, files):
        yield Judging(connection, workspace, scorers, files, policy, held_out, columns)


def sample_ids(workspace: Workspace, scorers: Mapping[str, Scorer], places: np.ndarray) -> list[str]:
    """Sample ids of the rows at these places in the pool, in pool order."""
    if not len(places):
        return []
    with _opened(workspace, scorers) as (connection, _):
        listed = ", ".join(str(int(p)) for p in np.sort(places))
        ids = connection.execute(f"SELECT sample_id FROM every WHERE n IN ({listed}) ORDER BY n").fetchall()
        return [sample_id for (sample_id,) in ids]


@contextmanager
def _opened(
    workspace: Workspace, scorers: Mapping[str, Scorer]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, tuple[Path, ...]]]:
    """(connection with the view `every`, the score tables behind it)."""
    files = tuple(tables(workspace, scorers))
    with Scratch() as folder, sql.connect(workspace) as connection:
        connection.execute(f"SET temp_directory = {sql.quoted(str(folder))}; SET memory_limit = '{_MEMORY}'")
        if files:
            every = _numbered(files)
        else:
            connection.register("no_rows", schema(scorers).empty_table())
            every = "SELECT 0 AS n, * FROM no_rows"
        connection.execute(f"CREATE TEMP VIEW every AS {every}")
        yield connection, files


def _numbered(files: tuple[Path, ...]) -> str:
    """SELECT of all rows of the score tables, numbered through."""
    selects, before = [], 0
    for path in files:
        source = read_parquet([str(path)], file_row_number="true")
        selects.append(f"SELECT {before} + file_row_number AS n, * EXCLUDE (file_row_number) FROM {source}")
        before += pq.read_metadata(readable(path)).num_rows
    return " UNION ALL ".join(selects)
