"""The fold: what each case is after its last event, as the SQL view `cases`; and a kept copy of it.

The fold merges states: one event is the state of a case that has only this event, and the states of a case merge in any
order. The copy, `derived/cases-<digest>.parquet`, holds the merged states of the event files listed in its metadata;
only later events are merged into it, so that a million cases open at once. It may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core import hashes, lens, mirror
from flywheel.core.files import digest, discard, replacing
from flywheel.core.schema import CASE_EVENTS
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_FOLDED = b"event_files"  # metadata key: JSON list of file names of the ledger
_ROW_GROUP = 65_536  # rows: DuckDB reads row groups in parallel
_COPIES = 2  # copies that stay: the newest, and one that a reader may just have listed

# The last round decides the status, and within it the last event; of events recorded together, the kind that comes
# last in a case's life (`CASE_EVENTS`). A `seen` never changes the status. `first`, `tracked`, `lived` and `detected`
# are the places of the events that the columns after them are taken from.
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
# Kept states and states of later events, in one pass over the kept ones.
_earlier = "later.{0} IS NOT NULL AND (kept.{0} IS NULL OR later.{0} < kept.{0})".format
_later = "later.{0} IS NOT NULL AND (kept.{0} IS NULL OR later.{0} > kept.{0})".format
_TAKEN = {  # column → condition under which the later events provide it
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

# Defines `flywheel.cases.events.case_id` in SQL: the digest of JSON as Python writes it. DuckDB writes these nine
# control characters with upper-case digits (\u001F), Python with lower-case ones (\u001f). An escaped backslash hides
# behind chr(1) meanwhile, which JSON text never contains, so that `\\u001F` stays as it is.
_json = r"replace(json_array(prompt_id, capability)::VARCHAR, '\\', chr(1))"
for _code in (0x0B, 0x0E, 0x0F, *range(0x1A, 0x20)):
    _json = rf"replace({_json}, '\u{_code:04X}', '\u{_code:04x}')"
CASE_ID = rf"""
CREATE TEMP MACRO case_id(prompt_id, capability) AS substr(sha256(replace({_json}, chr(1), '\\')), 1, 16)
"""


def connect(workspace: Workspace, ledgers: Iterable[str] = ()) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the view `cases`, the macro `case_id`, and a view of each ledger in `ledgers`."""
    con = lens.connect(workspace, ledgers)
    sql, _ = select(workspace, *lens.ledger(workspace, "case_events"))
    con.execute(CASE_ID)
    con.execute(f"CREATE VIEW cases AS {sql}")
    return con


def select(workspace: Workspace, events: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """The SELECT of the view `cases`, and the files that it reads.

    events: a SELECT of all events; files: local paths of the files that it reads.
    """
    states, read = _merged(workspace, events, files)
    return _CASES.replace("<states>", states), read


def keep(workspace: Workspace, con: duckdb.DuckDBPyConnection, events: str, files: Sequence[str]) -> Path | None:
    """Write the kept copy of these events, unless it exists; None if there are none. Arguments as in `select`.

    Events recorded meanwhile are in none of the files: readers fold them.
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
        for old in hashes.written(path.parent, _copies(workspace))[:-_COPIES]:
            discard(old)
    return path


def _merged(workspace: Workspace, events: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """A SELECT of one state per case, and the files that it reads."""
    copy = _newest(workspace, {Path(f).name for f in files})
    if copy is None:
        return _MERGED.replace("<states>", _STATES.replace("<events>", f"({events})")), list(files)
    (path,), folded = mirror.kept([str(copy[0])]), copy[1]
    kept = read_parquet([path])
    later = [f for f in files if Path(f).name not in folded]
    if not later:
        return f"FROM {kept}", [path]
    new = read_parquet(later, union_by_name="true")
    states = _MERGED.replace("<states>", _STATES.replace("<events>", new))
    return _JOINED.replace("<kept>", kept).replace("<later>", states), [path, *later]


def _copies(workspace: Workspace) -> list[Path]:
    return list(workspace.path("derived").glob("cases-*.parquet"))


def _newest(workspace: Workspace, present: set[str]) -> tuple[Path, set[str]] | None:
    """(path, names of folded event files) of the copy that folds most; None if each folds a file that is gone."""
    import pyarrow.parquet as pq

    copies = [(p, set(json.loads(pq.read_schema(readable(p)).metadata[_FOLDED]))) for p in _copies(workspace)]
    return max((copy for copy in copies if copy[1] <= present), key=lambda copy: len(copy[1]), default=None)
