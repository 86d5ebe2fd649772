"""A policy as SQL text: every stage and bucket becomes one integer column of one nested SELECT over the scores.

The column `"S4@1024"` is NULL where the row does not enter, 0 where it passes, n where filter n of the cell stops it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from curation.policy.policy import Filter, Policy, Stage
from flywheel.core.storage import quoted, register

if TYPE_CHECKING:
    import duckdb

    from flywheel.core.workspace import Workspace

HELD_OUT, DECONTAMINATION, CAPTIONED = "held_out", "decontamination", "captioned"
_TOKENS = "text.token_length"  # null for a row without a caption


def connect(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that reads the workspace's files and never fetches an extension."""
    import duckdb

    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    register(con, workspace.root)
    return con


def cell(stage: str, bucket: int) -> str:
    """Name of the verdict column of a stage's bucket."""
    return f"{stage}@{bucket}"


def survivor_column(stage: Stage, filter_: Filter) -> str:
    """Prefix of the columns that a duplicate check joins to the rows."""
    return f"{stage.name}.{filter_.name}"


def dropped(stage: Stage, filter_: Filter) -> str:
    """Table of what a duplicate check drops: n, survivor, distance, sound."""
    return f"dropped by {survivor_column(stage, filter_)}"


def with_evaluation_checks(policy: Policy, *, held_out: bool, prompts: bool, captioned: bool = False) -> Policy:
    """The policy with the checks that keep held-out data out of training, placed first wherever a stream enters.

    captioned: and rows without a caption.
    """
    wanted_by = ((HELD_OUT, held_out), (DECONTAMINATION, prompts), (CAPTIONED, captioned))
    checks = [name for name, wanted in wanted_by if wanted]
    stages = []
    for stage in policy.stages:
        added = tuple(Filter(n, check=n, streams=stage.enters) for n in checks) if stage.enters else ()
        readable = tuple(f for f in stage.filters if f.check == "readable")
        rest = tuple(f for f in stage.filters if f.check != "readable")
        stages.append(replace(stage, filters=readable + added + rest))
    return replace(policy, stages=tuple(stages))


def cells(policy: Policy) -> list[tuple[Stage, int, tuple[Filter, ...]]]:
    """(stage, bucket, its filters in order) for every bucket of every stage, in order."""
    return [(s, b, tuple(f for f in s.filters if f.applies_to(b))) for s in policy.stages for b in s.resolutions]


def needed(policy: Policy, configured: Collection[str]) -> list[str]:
    """Columns that the policy's filters read: scores and balance keys."""
    filters = [f for s in policy.stages for f in s.filters]
    scores = [f.score for f in filters if f.score and f.score in configured]
    keys = [f.per for f in filters if f.per and f.per != "stream" and acts(f, configured)]
    rights = [f.of for f in filters if f.of]
    captions = [_TOKENS] if _TOKENS in configured or any(f.check == CAPTIONED for f in filters) else []
    return list(dict.fromkeys([*scores, *keys, *rights, *captions]))


def verdicts(policy: Policy, configured: Collection[str], rows: str = "scored") -> str:
    """SELECT of every column of `rows` plus one verdict column per cell. `configured`: score columns that exist."""
    query = f"SELECT * FROM {rows}"
    previous: Stage | None = None
    for stage in policy.stages:
        for bucket in stage.resolutions:
            filters = tuple(f for f in stage.filters if f.applies_to(bucket))
            query = _verdict(query, stage, bucket, filters, _entered(stage, bucket, previous), configured)
        query = _balanced(query, stage, configured)
        previous = stage
    return query


def candidates(stage: Stage, filter_: Filter, configured: Collection[str]) -> tuple[str, str]:
    """Conditions of a duplicate check: (the row reaches it; it passes the later filters of the stage, with a caption).

    Of two duplicates the one that meets the second condition stays.
    """
    place = stage.filters.index(filter_)
    reaches = [_in("stream", filter_.streams or stage.enters)]
    reaches += [f"NOT {_fails(stage, f)}" for f in stage.filters[:place] if acts(f, configured)]
    sound = [f"NOT {_fails(stage, f)}" for f in stage.filters[place + 1 :] if f.score and acts(f, configured)]
    if _TOKENS in configured:
        sound.append(f'"{_TOKENS}" IS NOT NULL')
    return " AND ".join(reaches), " AND ".join(["true", *sound])


def _verdict(
    query: str, stage: Stage, bucket: int, filters: tuple[Filter, ...], entered: str, configured: Collection[str]
) -> str:
    name = cell(stage.name, bucket)
    acting = [(n, f) for n, f in enumerate(filters, 1) if acts(f, configured)]
    tests = [f"WHEN {_fails(stage, f)} THEN {n}" for n, f in acting if f.check != "balance"]
    case = f"CASE {' '.join(tests)} ELSE 0 END" if tests else "0"
    return f'SELECT *, CASE WHEN {entered} THEN {case} END AS "{name}" FROM ({query})'


def balance(stage: Stage, configured: Collection[str]) -> Filter | None:
    """The stage's balance filter, if it has one that acts."""
    return next((f for f in stage.filters if f.check == "balance" and acts(f, configured)), None)


def _balanced(query: str, stage: Stage, configured: Collection[str]) -> str:
    """Apply the stage's cap per group, filled in order of `draw`: an order that nobody chose."""
    filter_ = balance(stage, configured)
    if filter_ is None:
        return query
    before, ctes, joins, columns = f'"{stage.name} before balance"', [], [], []
    for bucket in (b for b in stage.resolutions if filter_.applies_to(b)):
        name, over = cell(stage.name, bucket), f'"{cell(stage.name, bucket)} over"'
        number = 1 + [f for f in stage.filters if f.applies_to(bucket)].index(filter_)
        place = f'row_number() OVER (PARTITION BY "{filter_.per}" ORDER BY draw, n)'
        surplus = f'SELECT n, true AS {over} FROM {before} WHERE "{name}" = 0 QUALIFY {place} > {cap(filter_)}'
        ctes.append(f"{over} AS ({surplus})")
        joins.append(f"LEFT JOIN {over} USING (n)")
        columns.append(f'if({over}.{over} AND {_concerns(filter_)}, {number}, "{name}") AS "{name}"')
    dropped = ", ".join(f'"{cell(stage.name, b)} over"' for b in stage.resolutions if filter_.applies_to(b))
    return f"""WITH {before} AS MATERIALIZED ({query}), {", ".join(ctes)}
        SELECT * EXCLUDE ({dropped}) REPLACE ({", ".join(columns)}) FROM {before} {" ".join(joins)}"""


def cap(filter_: Filter) -> str:
    return by_group(filter_, filter_.caps, str(filter_.cap))


def by_group(filter_: Filter, values: Iterable[tuple[str, float]], otherwise: str) -> str:
    """A value that depends on the row's group."""
    cases = " ".join(f"WHEN {quoted(group)} THEN {number}" for group, number in values)
    return f'CASE "{filter_.per}" {cases} ELSE {otherwise} END' if cases else otherwise


def _entered(stage: Stage, bucket: int, previous: Stage | None) -> str:
    entering = _in("stream", stage.enters)
    if previous is None:
        return entering
    below = [b for b in previous.resolutions if b <= bucket]
    source = max(below) if below else min(previous.resolutions)
    return f'(coalesce("{cell(previous.name, source)}" = 0, false) OR {entering})'


def acts(filter_: Filter, configured: Collection[str]) -> bool:
    """Whether the score columns that it needs exist."""
    return all(column in configured for column in filter_.columns)


def _fails(stage: Stage, filter_: Filter) -> str:
    return f"({_concerns(filter_)} AND {_violates(stage, filter_)})"


def _concerns(filter_: Filter) -> str:
    return _in("stream", filter_.streams) if filter_.streams else "true"


def _violates(stage: Stage, filter_: Filter) -> str:
    if filter_.compares:
        return f'"{survivor_column(stage, filter_)}.survivor" IS NOT NULL'
    if filter_.check in (HELD_OUT, DECONTAMINATION):
        return f'"{filter_.check}"'
    if filter_.check == CAPTIONED:
        return f'"{_TOKENS}" IS NULL'
    if filter_.check == "rights":
        return _refused(filter_)
    if filter_.check:
        return "false"  # unreadable rows are already quarantined; balance runs after the other filters
    low, high = values(filter_)
    bounds = [(low, "<", filter_.min), (high, ">", filter_.max)]
    tests = [f"coalesce({score} {sign} {bound}, false)" for score, sign, bound in bounds if bound is not None]
    return f"({' OR '.join(tests)})"


def _refused(filter_: Filter) -> str:
    """Condition of a rights check: the row states something that may not pass, or nothing where that may not."""
    stated = f'lower(trim("{filter_.of}"))'

    def is_one_of(values: Collection[str]) -> str:
        escaped = (re.sub(r"([\\\\%_])", r"\\\1", v.strip().lower()).replace("*", "%") for v in values)
        tests = [f"{stated} LIKE {quoted(v)} ESCAPE '\\'" for v in escaped]
        return f"({' OR '.join(tests)})"

    tests = [f"NOT {is_one_of(filter_.allow)}"] if filter_.allow else []
    tests += [is_one_of(filter_.deny)] if filter_.deny else []
    unknown = str(not filter_.keeps_unknown).lower()
    return f"""CASE WHEN "{filter_.of}" IS NULL THEN {unknown} ELSE {" OR ".join(tests) or "false"} END"""


def values(filter_: Filter) -> tuple[str, str]:
    """The scores that a filter compares with its min and with its max, as DOUBLE.

    They are the same unless it judges references too: then the least and the greatest of the row and its references.
    """
    own = f'CAST("{filter_.score}" AS DOUBLE)'
    if not filter_.references:
        return own, own
    least, most = _extremes(filter_.score or "")
    return f'least({own}, "{least}")', f'greatest({own}, "{most}")'


def _extremes(score: str) -> tuple[str, str]:
    """Columns of the least and the greatest value that a row's references have."""
    return f"{score} of references, least", f"{score} of references, greatest"


def of_references(policy: Policy, configured: Collection[str]) -> str | None:
    """SELECT of the rows (n) with references and the extremes of the scores judged there too; None without any.

    Reads the tables `needed` (n, image_id) and `every`.
    """
    judged = dict.fromkeys(f.score for s in policy.stages for f in s.filters if f.references and acts(f, configured))
    if not judged:
        return None
    columns = ", ".join(
        f'CAST({extreme}("{score}") AS DOUBLE) AS "{name}"'
        for score in judged
        for extreme, name in zip(("min", "max"), _extremes(score or ""))
    )
    scores = ", ".join(f'any_value("{score}") AS "{score}"' for score in judged)
    pictures = f"SELECT image_id, {scores} FROM every SEMI JOIN needed USING (image_id) GROUP BY 1"
    return f"SELECT n, {columns} FROM needed JOIN ({pictures}) USING (image_id) GROUP BY 1"


def _in(column: str, values: Collection[str]) -> str:
    if not values:
        return "false"
    return f"{column} IN ({', '.join(quoted(v) for v in values)})"
