"""The view `cases`: the fold of `flywheel.cases.events` in SQL, and a kept copy of it.

`derived/cases-<digest>.parquet` is the fold of the event files that its metadata names. Readers take from it the cases
that no later event touches and fold the others, so a million cases open at once. It may be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.ledger import Ledger
from flywheel.objects import readable
from flywheel.schema import CASE_EVENTS
from flywheel.workspace import Workspace, digest, replacing

if TYPE_CHECKING:
    import duckdb

COLUMNS = ("case_id", "round", "capability", "track", "status", "prompt_id", "prompt", "fixed_in", "image")
_FOLDED = b"event_files"  # metadata key: JSON list of the names of the ledger's files
_COPIES = 2  # that stay: the newest, and the one that a reader may just have listed

# The last round decides, within it the last event; of those recorded together the kind last in a case's life.
_FOLD = f"""
SELECT case_id,
       min(round) AS round,
       arg_min(capability, ("at", event_id)) AS capability,
       arg_max(track, ("at", event_id)) FILTER (track IS NOT NULL) AS track,
       CASE arg_max(kind, (round, "at", place)) FILTER (kind <> 'seen')
            WHEN 'passed' THEN 'closed' WHEN 'failed' THEN 're-opened'
            ELSE arg_max(kind, (round, "at", place)) FILTER (kind <> 'seen')
       END AS status,
       arg_min(prompt_id, ("at", event_id)) AS prompt_id,
       arg_min(prompt, ("at", event_id)) AS prompt,
       max(round) FILTER (kind = 'passed') AS fixed_in,
       coalesce(arg_min(evidence, ("at", event_id)) FILTER (kind = 'detected')->>'$.signals[0].image',
                format('samples/round-{{:04d}}-candidate/{{}}.png', min(round), arg_min(prompt_id, ("at", event_id)))
       ) AS image
FROM (SELECT *, list_position({list(CASE_EVENTS)}, kind) AS place FROM <events>) GROUP BY case_id
"""


def select(workspace: Workspace) -> str:
    """The SELECT behind the view `cases`; it reads the view `case_events`."""
    files = Ledger(workspace, "case_events").files()
    kept = _newest(workspace, {Path(f).name for f in files})
    if kept is None:
        return _fold("case_events")
    path, folded = kept
    copy = f"SELECT {', '.join(COLUMNS)} FROM read_parquet({_quoted([str(path)])})"
    later = [f for f in files if Path(f).name not in folded]
    if not later:
        return copy
    touched = f"(SELECT DISTINCT case_id FROM read_parquet({_quoted(later)}))"
    again = _fold(f"(SELECT * FROM case_events SEMI JOIN {touched} USING (case_id))")
    return f"{copy} ANTI JOIN {touched} USING (case_id) UNION ALL {again}"


def keep(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> Path | None:
    """Write the fold of everything recorded so far, unless it is there; None where there are no events.

    con: a connection of the catalog, opened before this call: events that come later are folded by readers.
    """
    import pyarrow.parquet as pq

    names = sorted(Path(f).name for f in Ledger(workspace, "case_events").files())
    if not names:
        return None
    path = workspace.path("derived", f"cases-{digest(names)[:16]}.parquet")
    if not path.exists():
        cases = con.sql("SELECT * FROM cases ORDER BY round DESC, capability, case_id").to_arrow_table()
        with replacing(path) as tmp:
            pq.write_table(cases.replace_schema_metadata({_FOLDED: json.dumps(names)}), tmp, compression="zstd")
        for old in sorted(_copies(workspace), key=lambda p: p.stat().st_mtime)[:-_COPIES]:
            old.unlink(missing_ok=True)
    return path


def _fold(events: str) -> str:
    return _FOLD.replace("<events>", events)


def _copies(workspace: Workspace) -> list[Path]:
    return list(workspace.path("derived").glob("cases-*.parquet"))


def _newest(workspace: Workspace, present: set[str]) -> tuple[Path, set[str]] | None:
    """(path, names of folded event files) of the copy that folds most; None where each folds a file that is gone."""
    import pyarrow.parquet as pq

    found = [(p, set(json.loads(pq.read_schema(readable(p)).metadata[_FOLDED]))) for p in _copies(workspace)]
    return max(((p, names) for p, names in found if names <= present), key=lambda c: len(c[1]), default=None)


def _quoted(files: Iterable[str]) -> str:
    return "[" + ", ".join("'" + f.replace("'", "''") + "'" for f in files) + "]"
