"""The view `cases`: the fold of `flywheel.cases.events` in SQL, and a kept copy of it.

An event is the state of a case that has only this event, and states of one case merge in any order. So
`derived/cases-<digest>.parquet`, the merged states of the event files that its metadata names, only needs the later
events merged in: a million cases open at once. It may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core import lens, mirror
from flywheel.core.files import digest, replacing
from flywheel.core.schema import CASE_EVENTS
from flywheel.core.storage import parquet_list, readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_FOLDED = b"event_files"  # metadata key: JSON list of the names of the ledger's files
_ROW_GROUP = 65_536  # rows: DuckDB reads row groups in parallel
_COPIES = 2  # that stay: the newest, and the one that a reader may just have listed

# The last round decides, within it the last event; of those recorded together the kind last in a case's life. `first`,
# `tracked`, `lived` and `detected` order what each column is taken from.
_STATES = """
SELECT case_id, round, {'at': "at", 'id': event_id} AS first, capability, prompt_id, prompt,
       CASE WHEN track IS NOT NULL THEN first END AS tracked, track,
       CASE WHEN kind <> 'seen' THEN {'round': round, 'at': "at", 'place': list_position(<kinds>, kind)} END
           AS lived,
       CASE kind WHEN 'passed' THEN 'closed' WHEN 'failed' THEN 're-opened' ELSE kind END AS status,
       CASE WHEN kind = 'passed' THEN round END AS fixed_in,
       CASE WHEN kind = 'detected' THEN first END AS detected,
       CASE WHEN kind = 'detected' THEN evidence->>'$.signals[0].image' END AS image
FROM <events>
""".replace("<kinds>", str(list(CASE_EVENTS)))
_MERGED = """
SELECT case_id, min(round) AS round, min(first) AS first, arg_min(capability, first) AS capability,
       arg_min(prompt_id, first) AS prompt_id, arg_min(prompt, first) AS prompt,
       max(tracked) AS tracked, arg_max(track, tracked) AS track, max(lived) AS lived, arg_max(status, lived) AS status,
       max(fixed_in) AS fixed_in, min(detected) AS detected, arg_min(image, detected) AS image
FROM (<states>) GROUP BY case_id
"""
# Kept states and those of later events, in one pass over the former.
_earlier = "later.{0} IS NOT NULL AND (kept.{0} IS NULL OR later.{0} < kept.{0})".format
_later = "later.{0} IS NOT NULL AND (kept.{0} IS NULL OR later.{0} > kept.{0})".format
_TAKEN = {  # column → what makes it that of the later events
    **dict.fromkeys(("first", "capability", "prompt_id", "prompt"), _earlier("first")),
    **dict.fromkeys(("tracked", "track"), _later("tracked")),
    **dict.fromkeys(("lived", "status"), _later("lived")),
    **dict.fromkeys(("detected", "image"), _earlier("detected")),
}
_JOINED = f"""
SELECT case_id, least(kept.round, later.round) AS round, greatest(kept.fixed_in, later.fixed_in) AS fixed_in,
       {", ".join(f"CASE WHEN {when} THEN later.{c} ELSE kept.{c} END AS {c}" for c, when in _TAKEN.items())}
FROM <kept> AS kept FULL JOIN (<later>) AS later USING (case_id)
"""
_CASES = """
SELECT case_id, round, capability, track, status, prompt_id, prompt, fixed_in,
       coalesce(image, format('samples/round-{:04d}-candidate/{}.png', round, prompt_id)) AS image
FROM (<states>)
"""


def connect(workspace: Workspace, ledgers: Iterable[str] = ()) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the view `cases`, and a view of each ledger named."""
    con = lens.connect(workspace, ledgers)
    sql, _ = select(workspace, *lens.ledger(workspace, "case_events"))
    con.execute(f"CREATE VIEW cases AS {sql}")
    return con


def select(workspace: Workspace, events: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """The SELECT behind the view `cases`, and the files that it reads.

    events: a SELECT of all events; files: those that it reads, where they are on this machine.
    """
    states, read = _merged(workspace, events, files)
    return _CASES.replace("<states>", states), read


def keep(workspace: Workspace, con: duckdb.DuckDBPyConnection, events: str, files: Sequence[str]) -> Path | None:
    """Write the fold of these events, unless it is there; None where there are none. Arguments as of `select`.

    What is recorded meanwhile is in none of the files: readers fold it.
    """
    import pyarrow.parquet as pq

    if not files:
        return None
    names = sorted(Path(f).name for f in files)
    path = workspace.path("derived", f"cases-{digest(names)[:16]}.parquet")
    if not path.exists():
        states, _ = _merged(workspace, events, files)
        table = con.sql(f"{states} ORDER BY round DESC, capability, case_id").to_arrow_table()
        table = table.replace_schema_metadata({_FOLDED: json.dumps(names)})
        with replacing(path) as tmp:
            pq.write_table(table, tmp, compression="zstd", row_group_size=_ROW_GROUP)
        for old in sorted(_copies(workspace), key=lambda p: p.stat().st_mtime)[:-_COPIES]:
            old.unlink(missing_ok=True)
    return path


def _merged(workspace: Workspace, events: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """A SELECT of one state per case, and the files that it reads."""
    copy = _newest(workspace, {Path(f).name for f in files})
    if copy is None:
        return _MERGED.replace("<states>", _STATES.replace("<events>", f"({events})")), list(files)
    (path,), folded = mirror.kept([str(copy[0])]), copy[1]
    kept = f"read_parquet({parquet_list([path])})"
    later = [f for f in files if Path(f).name not in folded]
    if not later:
        return f"FROM {kept}", [path]
    new = f"read_parquet({parquet_list(later)}, union_by_name=true)"
    states = _MERGED.replace("<states>", _STATES.replace("<events>", new))
    return _JOINED.replace("<kept>", kept).replace("<later>", states), [path, *later]


def _copies(workspace: Workspace) -> list[Path]:
    return list(workspace.path("derived").glob("cases-*.parquet"))


def _newest(workspace: Workspace, present: set[str]) -> tuple[Path, set[str]] | None:
    """(path, names of folded event files) of the copy that folds most; None where each folds a file that is gone."""
    import pyarrow.parquet as pq

    found = [(p, set(json.loads(pq.read_schema(readable(p)).metadata[_FOLDED]))) for p in _copies(workspace)]
    return max(((p, names) for p, names in found if names <= present), key=lambda c: len(c[1]), default=None)
