"""A policy as SQL text: every stage and bucket becomes one integer column of one nested SELECT over the scores.

The column `"S4@1024"` is NULL where the row does not enter, 0 where it passes, n where filter n of the cell stops it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from curation.policy.policy import Filter, Policy, Stage
from flywheel.core.storage import quoted, register

if TYPE_CHECKING:
    import duckdb

    from flywheel.core.workspace import Workspace

HELD_OUT, DECONTAMINATION, CAPTIONED, NO_STAGE = "held_out", "decontamination", "captioned", "no_stage"
_TOKENS = "text.token_length"  # null for a row without a caption


class Details(NamedTuple):
    """SQL expressions for what stopped a row."""

    filter: str
    score: str
    threshold: str


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
        surplus = f'SELECT n, true AS {over} FROM {before} WHERE "{name}" = 0 QUALIFY {place} > {_cap(filter_)}'
        ctes.append(f"{over} AS ({surplus})")
        joins.append(f"LEFT JOIN {over} USING (n)")
        columns.append(f'if({over}.{over} AND {_concerns(filter_)}, {number}, "{name}") AS "{name}"')
    dropped = ", ".join(f'"{cell(stage.name, b)} over"' for b in stage.resolutions if filter_.applies_to(b))
    return f"""WITH {before} AS MATERIALIZED ({query}), {", ".join(ctes)}
        SELECT * EXCLUDE ({dropped}) REPLACE ({", ".join(columns)}) FROM {before} {" ".join(joins)}"""


def _cap(filter_: Filter) -> str:
    return _by_group(filter_, filter_.caps, str(filter_.cap))


def _by_group(filter_: Filter, values: Iterable[tuple[str, float]], otherwise: str) -> str:
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


def details(stage: Stage, bucket: int, filters: tuple[Filter, ...], configured: Collection[str]) -> Details:
    """Expressions of the filter that stopped a row in this cell, its score and the threshold; NULL if none did."""
    name = cell(stage.name, bucket)
    names, scores, thresholds = [], [], []
    for n, f in enumerate(filters, 1):
        if not acts(f, configured):
            continue
        names.append(f"WHEN {n} THEN {quoted(f.name)}")
        if f.score:
            least, most = values(f)
            low = f"{least} < {f.min}" if f.min is not None else "false"
            scores.append(f"WHEN {n} THEN CASE WHEN {low} THEN {least} ELSE {most} END")
            thresholds.append(f"WHEN {n} THEN CASE WHEN {low} THEN {_number(f.min)} ELSE {_number(f.max)} END")
        elif f.compares:
            scores.append(f'WHEN {n} THEN "{survivor_column(stage, f)}.distance"')
            thresholds.append(f"WHEN {n} THEN {f.tolerance}")
        elif f.check == "balance":
            thresholds.append(f"WHEN {n} THEN {_cap(f)}")
    return Details(*(f'CASE "{name}" {" ".join(w)} END' if w else "NULL" for w in (names, scores, thresholds)))


# Answers -------------------------------------------------------------------------------------------------------------
def decisions(policy: Policy, configured: Collection[str]) -> str:
    """One row per usable input.

    `stage_reached`: the last stage that trains on the input; for a dropped row, the stage that dropped it. Filter,
    score and threshold are those of the first cell that stopped a dropped row.
    """
    parts = [(f'"{cell(s.name, b)}"', s, details(s, b, filters, configured)) for s, b, filters in cells(policy)]
    passed = " OR ".join(f"coalesce({column} = 0, false)" for column, _, _ in parts)
    last = " ".join(f"WHEN {column} = 0 THEN {quoted(s.name)}" for column, s, _ in reversed(parts))
    first = " ".join(f"WHEN {column} > 0 THEN {quoted(s.name)}" for column, s, _ in parts)

    def stopped(expressions: Iterable[str]) -> str:
        return "CASE " + " ".join(f"WHEN {p[0]} > 0 THEN {e}" for p, e in zip(parts, expressions)) + " END"

    placed = [(s, f) for s in policy.stages for f in s.filters]
    checks = [survivor_column(s, f) for s, f in placed if f.compares and acts(f, configured)]
    survivor = f"coalesce({', '.join(checked)})" if (checked := [f'"{c}.survivor"' for c in checks]) else "NULL"
    return f"""
        SELECT e.sample_id, e.source_uri, e.shard, e.row, e.task, e.stream, d.* EXCLUDE (n, survivor_n),
               CAST(s.sample_id AS VARCHAR) AS survivor, CAST(s.source_uri AS VARCHAR) AS survivor_uri
        FROM (
            SELECT n, CASE {last} {first} END AS stage_reached,
                   if(admitted, 'admitted', 'dropped') AS outcome,
                   if(admitted, NULL, coalesce({stopped(d.filter for _, _, d in parts)}, {quoted(NO_STAGE)})) AS filter,
                   CAST(if(admitted, NULL, {stopped(d.score for _, _, d in parts)}) AS DOUBLE) AS score,
                   CAST(if(admitted, NULL, {stopped(d.threshold for _, _, d in parts)}) AS DOUBLE) AS threshold,
                   CAST(if(admitted, NULL, {survivor}) AS BIGINT) AS survivor_n
            FROM (SELECT *, {passed} AS admitted FROM judged)
        ) d JOIN every e USING (n) LEFT JOIN every s ON s.n = d.survivor_n ORDER BY d.n"""


def stages(policy: Policy, configured: Collection[str]) -> str:
    """One row per (input, stage, bucket) entered, in order, with the filter that stopped it there."""
    selects = []
    for number, (stage, bucket, filters) in enumerate(cells(policy)):
        column = f'"{cell(stage.name, bucket)}"'
        stopped = details(stage, bucket, filters, configured)
        selects.append(
            f"""SELECT n, {quoted(stage.name)} AS stage, {bucket} AS bucket,
                       {column} = 0 AS passed, CAST({stopped.filter} AS VARCHAR) AS filter,
                       CAST({stopped.score} AS DOUBLE) AS score, CAST({stopped.threshold} AS DOUBLE) AS threshold,
                       {number} AS position
                FROM judged WHERE {column} IS NOT NULL"""
        )
    return f"""SELECT e.shard, e.row, e.sample_id, e.source_uri, p.* EXCLUDE (n, position)
        FROM ({" UNION ALL ".join(selects)}) p JOIN every e USING (n) ORDER BY n, position"""


def admitted(policy: Policy, configured: Collection[str]) -> str:
    """Rows to shard: their place, the bucket, and the stages that train on them in it (names joined by spaces).

    `turn`: degrees clockwise that make the picture upright, beyond EXIF; width and height are those after it. `weight`:
    how often the balanced stages draw the row, relative to uniform drawing; it follows from its group, `balance`.
    `further`: places of its equals (see `further`), whose captions describe it too. `reference_places`: of its
    references, in order. `mark`: a number that nobody chose, which stays with the row.
    """
    selects = []
    for bucket in sorted({b for s in policy.stages for b in s.resolutions}):
        here = [s for s in policy.stages if bucket in s.resolutions]
        trained = ", ".join(f'CASE WHEN "{cell(s.name, bucket)}" = 0 THEN {quoted(s.name)} END' for s in here)
        balanced = [(s, f) for s in here if (f := balance(s, configured)) and f.applies_to(bucket)]
        weight, group, rows = "1e0", "CAST(NULL AS VARCHAR)", "judged"
        for stage, filter_ in balanced:
            if filter_.weighs:
                weight, group = "coalesce(weight, 1e0)", "balance"
                rows = f"judged LEFT JOIN ({_weights(stage, bucket, filter_)}) USING (n)"
        chosen = f"concat_ws(' ', {trained}) AS stages, {weight} AS weight, {group} AS balance"
        selects.append(f"SELECT n, {bucket} AS bucket, {chosen} FROM {rows}")
    # Edit pairs are not turned: a turned target would no longer match its references.
    turn = "if(task = 't2i', coalesce(\"ocr.turn\", 0), 0)" if "ocr.turn" in configured else "CAST(0 AS INTEGER)"
    lying = f"{turn} % 180 <> 0"
    references = """SELECT n, list({'image_id': image_id, 'shard': r.shard, 'row': r.row} ORDER BY place) AS places
        FROM (SELECT n, unnest(reference_ids) AS image_id, generate_subscripts(reference_ids, 1) AS place FROM every)
        JOIN (SELECT image_id, arg_min(shard, n) AS shard, arg_min(row, n) AS row FROM every
              SEMI JOIN needed USING (image_id) GROUP BY 1) r USING (image_id) GROUP BY n"""
    return f"""
        SELECT n, shard, row, bucket, stages, if({lying}, height, width) AS width, if({lying}, width, height) AS height,
               task, len(reference_ids) AS "references", coalesce(places, []) AS reference_places, {turn} AS turn,
               weight, balance, coalesce(further, []) AS further, sample_id, image_id, source_uri, content,
               md5_number_lower(concat(sample_id, chr(31), source_uri)) AS mark
        FROM ({" UNION ALL ".join(selects)}) JOIN every USING (n) LEFT JOIN further USING (n)
        LEFT JOIN ({references}) USING (n)
        WHERE stages <> '' ORDER BY bucket, n"""


def further(policy: Policy, configured: Collection[str]) -> str:
    """(n, places of other rows) of each T2I row with equals: rows of the same image that only lost to it.

    Equals would have passed the later filters of their stage by their own captions.
    """
    placed = [(s, f) for s in policy.stages for f in s.filters if f.check == "duplicates" and acts(f, configured)]
    lost = [
        f'SELECT n, "{p}.survivor" AS survivor FROM judged WHERE "{p}.survivor" IS NOT NULL AND "{p}.sound"'
        for p in (survivor_column(s, f) for s, f in placed)
    ]
    if not lost:
        lost = ["SELECT n, n AS survivor FROM judged WHERE false"]
    return f"""
        SELECT k.n, list({{'shard': e.shard, 'row': e.row, 'content': e.content}} ORDER BY e.n) AS further
        FROM ({" UNION ALL ".join(lost)}) d JOIN every e ON e.n = d.n JOIN every k ON k.n = d.survivor
        WHERE e.image_id = k.image_id AND k.task = 't2i' AND e.task = 't2i' GROUP BY k.n"""


def _weights(stage: Stage, bucket: int, filter_: Filter) -> str:
    """(n, balance, weight) of the rows that pass a balanced cell: `balance` is the row's group, '' where it has none.

    The weight is the group's target share of draws over its actual share.
    Groups with a quota get that share; the others split the rest in proportion to rows ** tail.
    """
    quota = _by_group(filter_, filter_.quotas, "NULL")
    tail, most = (1.0 if filter_.tail is None else filter_.tail), ("'inf'" if filter_.most is None else filter_.most)
    name, group = cell(stage.name, bucket), f"coalesce(CAST(\"{filter_.per}\" AS VARCHAR), '')"
    return f"""
        SELECT n, "group" AS balance, least(CAST({most} AS DOUBLE), total / rows * CASE
                   WHEN others = 0 THEN quota / quotas WHEN quota IS NULL THEN (1 - quotas) * pow(rows, {tail}) / others
                   ELSE quota END) AS weight
        FROM judged JOIN (
            SELECT "group", quota, rows, sum(rows) OVER () AS total, coalesce(sum(quota) OVER (), 0) AS quotas,
                   coalesce(sum(pow(rows, {tail})) FILTER (quota IS NULL) OVER (), 0) AS others
            FROM (SELECT {group} AS "group", CAST(any_value({quota}) AS DOUBLE) AS quota, count(*) AS rows
                  FROM judged WHERE "{name}" = 0 GROUP BY 1)) ON {group} = "group"
        WHERE "{name}" = 0"""


def _number(value_: float | None) -> str:
    return "NULL" if value_ is None else f"CAST({value_} AS DOUBLE)"


def _in(column: str, values: Collection[str]) -> str:
    if not values:
        return "false"
    return f"{column} IN ({', '.join(quoted(v) for v in values)})"
