"""Tags of samples: a ledger of who added or removed which, and when; the view `tags` is what holds now."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from flywheel.catalog.database import connect
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

MOST = 1_000_000  # samples in one change
LONGEST = 64  # characters of a tag
ADDED, REMOVED = "added", "removed"


def tag(workspace: Workspace, name: str, samples: Iterable[str], *, by: str, kind: str = ADDED) -> int:
    """Add a tag to samples, by their ids, or remove it (`kind`); returns how many changed.

    Errors: `UsageError` as in `change`, and for an id that is not in the pool.
    """
    wanted = list(dict.fromkeys(samples))
    with closing(connect(workspace, ("samples", "tags"))) as con:
        unknown = "SELECT id FROM (SELECT unnest(?::VARCHAR[]) AS id) WHERE id NOT IN (SELECT sample_id FROM samples)"
        if missing := con.execute(f"{unknown} LIMIT 1", [wanted]).fetchone():
            raise UsageError(f"no sample of the pool has the id {missing[0]!r}: `flywheel sql` finds whole ids")
        return change(workspace, con, name, "SELECT unnest(?::VARCHAR[]) AS sample_id", [wanted], by=by, kind=kind)


def change(
    workspace: Workspace,
    con: duckdb.DuckDBPyConnection,
    name: str,
    select: str,
    values: Sequence[Any],
    *,
    by: str,
    kind: str,
) -> int:
    """Add or remove (`kind`) a tag of the samples whose `sample_id` a SELECT gives; returns how many changed.

    con: a connection with the view `tags`, and those of the SELECT; values: of its parameters. Samples that have the
    tag already, or lack the one to be removed, get no event. Errors: `UsageError` for a name or `by` that is empty or
    too long, and for more than `MOST` samples.
    """
    name, by = " ".join(name.split()), by.strip()
    if blank(by) or blank(name):
        raise UsageError("name the tag, and say who you are: the ledger records both")
    if len(name) > LONGEST or not name.isprintable():
        raise UsageError(f"a tag has at most {LONGEST} printable characters")
    if kind not in (ADDED, REMOVED):
        raise UsageError(f"unknown change {kind!r}: tags are {ADDED} or {REMOVED}")
    has = "SELECT sample_id FROM tags WHERE tag = ?"
    chosen = f"SELECT DISTINCT sample_id FROM ({select}) WHERE sample_id {'NOT' * (kind == ADDED)} IN ({has})"
    ((count,),) = con.execute(f"SELECT count(*) FROM ({chosen})", [*values, name]).fetchall()
    if count > MOST:
        raise UsageError(f"{count:,} samples are more than {MOST:,}: choose fewer")
    if not count:
        return 0
    request = uuid.uuid4().hex
    rows = con.sql(
        f"""SELECT substr(sha256(concat_ws(' ', ?, sample_id)), 1, 32) AS event_id, sample_id, ? AS tag, ? AS kind,
        ? AS by FROM ({chosen}) ORDER BY sample_id""",
        params=[request, name, kind, by, *values, name],
    ).to_arrow_table()
    Ledger(workspace, "tag_events").append(rows, key=f"tag/{request}")
    return int(count)
