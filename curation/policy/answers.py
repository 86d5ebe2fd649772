"""What a judgement answers, as SQL: why rows were dropped, what each stage did with them, and what to shard.

The answers read the table `part`: usable rows of one part of the pool in order, with their scores and verdicts, and
what they need of rows in other parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from curation.policy.policy import COMPARED, Filter, Policy, Stage
from curation.policy.sql import acts, balance, by_group, cap, cell, cells, dropped, quoted, survivor_column, values

NO_STAGE = "no_stage"


class Details(NamedTuple):
    """SQL expressions for what stopped a row."""

    filter: str
    score: str
    threshold: str


_COLUMNS = "shard row sample_id image_id source_uri task width height reference_ids content"
_DIGITS = 9  # of what quotas leave to others: 0.7 + 0.2 + 0.1 is a little less than 1
_TURN = "ocr.turn"  # degrees clockwise that make the picture upright, beyond EXIF


def taken_over(configured: Collection[str]) -> list[str]:
    """Columns of score tables that answers take over. `configured`: score columns that exist."""
    return [*_COLUMNS.split(), *(c for c in (_TURN,) if c in configured)]


def shared(policy: Policy, configured: Collection[str], rows: str) -> dict[str, str]:
    """{table: its SELECT} of what the answers need of rows in other parts. `rows`: FROM clause of all rows judged.

    `survivors`: rows that others lost to. `further`: see there. One for each balanced cell: see `weights`.
    """
    tables = {"survivors": _survivors(policy, configured), "further": further(policy, configured)}
    return tables | {_weights_of(s, b): weights(s, b, f, rows) for s, b, f in _balanced(policy, configured)}


def part(policy: Policy, configured: Collection[str], rows: str, here: str) -> str:
    """SELECT of those of these rows where `here` holds, a condition on `n`, with their verdicts (table `cells`)."""
    placed = [(s, f) for s in policy.stages for f in s.filters]
    checks = [f'"{survivor_column(s, f)}.survivor"' for s, f in placed if f.compares and acts(f, configured)]
    survivor = f"coalesce({', '.join(checks)})" if checks else "NULL"
    balanced = list(_balanced(policy, configured))
    columns = [f'w{k}.weight AS "{_weights_of(s, b)}"' for k, (s, b, _) in enumerate(balanced)]
    weights_ = [
        f'LEFT JOIN "{_weights_of(s, b)}" w{k} ON w{k}."group" = {_group(f)}' for k, (s, b, f) in enumerate(balanced)
    ]
    references = f"""SELECT n, list({{'image_id': image_id, 'shard': r.shard, 'row': r.row}} ORDER BY place) AS places
        FROM needed JOIN references_there r USING (image_id) WHERE {here} GROUP BY n"""
    return f"""
        SELECT j.*, s.sample_id AS survivor, s.source_uri AS survivor_uri,
               {", ".join(["coalesce(places, []) AS reference_places", "coalesce(further, []) AS further", *columns])}
        FROM (SELECT *, CAST({survivor} AS BIGINT) AS survivor_n
              FROM {rows} JOIN (FROM cells WHERE {here}) USING (n) WHERE {here}) j
        LEFT JOIN survivors s ON s.n = survivor_n LEFT JOIN further f ON f.n = j.n
        LEFT JOIN ({references}) r ON r.n = j.n {" ".join(weights_)} ORDER BY j.n"""


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
            thresholds.append(f"WHEN {n} THEN {cap(f)}")
    return Details(*(f'CASE "{name}" {" ".join(w)} END' if w else "NULL" for w in (names, scores, thresholds)))


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

    return f"""
        SELECT sample_id, source_uri, shard, row, task, stream, CASE {last} {first} END AS stage_reached,
               if(admitted, 'admitted', 'dropped') AS outcome,
               if(admitted, NULL, coalesce({stopped(d.filter for _, _, d in parts)}, {quoted(NO_STAGE)})) AS filter,
               CAST(if(admitted, NULL, {stopped(d.score for _, _, d in parts)}) AS DOUBLE) AS score,
               CAST(if(admitted, NULL, {stopped(d.threshold for _, _, d in parts)}) AS DOUBLE) AS threshold,
               if(admitted, NULL, survivor) AS survivor, if(admitted, NULL, survivor_uri) AS survivor_uri
        FROM (SELECT *, {passed} AS admitted FROM part)"""


def stages(policy: Policy, configured: Collection[str]) -> str:
    """One row per (input, stage, bucket) entered, in order, with the filter that stopped it there."""
    entered = []
    for stage, bucket, filters in cells(policy):
        column = f'"{cell(stage.name, bucket)}"'
        stopped = details(stage, bucket, filters, configured)
        entered.append(
            f"""CASE WHEN {column} IS NOT NULL THEN {{
                stage: {quoted(stage.name)}, bucket: {bucket}, passed: {column} = 0,
                filter: CAST({stopped.filter} AS VARCHAR), score: CAST({stopped.score} AS DOUBLE),
                threshold: CAST({stopped.threshold} AS DOUBLE)}} END"""
        )
    return f"""SELECT shard, row, sample_id, source_uri, unnest(entered)
        FROM (SELECT *, unnest([{", ".join(entered)}]) AS entered FROM part) WHERE entered IS NOT NULL"""


def admitted(policy: Policy, configured: Collection[str]) -> str:
    """Rows to shard: their place, the bucket, and the stages that train on them in it (names joined by spaces).

    `turn`: degrees clockwise that make the picture upright, beyond EXIF; width and height are those after it. `weight`:
    how often the balanced stages draw the row, relative to uniform drawing; it follows from its group, `balance`.
    `further`: places of its equals (see `further`), whose captions describe it too. `reference_places`: of its
    references, in order. `mark`: a number that nobody chose, which stays with the row.
    """
    trains = []
    balanced = {bucket: (stage, filter_) for stage, bucket, filter_ in _balanced(policy, configured)}
    for bucket in sorted({b for s in policy.stages for b in s.resolutions}):
        here = [s for s in policy.stages if bucket in s.resolutions]
        trained = ", ".join(f'CASE WHEN "{cell(s.name, bucket)}" = 0 THEN {quoted(s.name)} END' for s in here)
        weight, group = "1e0", "CAST(NULL AS VARCHAR)"
        if bucket in balanced:
            stage, filter_ = balanced[bucket]
            drawn = f'"{cell(stage.name, bucket)}" = 0'
            weight = f'if({drawn}, "{_weights_of(stage, bucket)}", 1e0)'
            group = f"if({drawn}, {_group(filter_)}, NULL)"
        stages_ = f"concat_ws(' ', {trained})"
        trains.append(f"{{bucket: {bucket}, stages: {stages_}, weight: {weight}, balance: {group}}}")
    # Edit pairs are not turned: a turned target would no longer match its references.
    turn = f"if(task = 't2i', coalesce(\"{_TURN}\", 0), 0)" if _TURN in configured else "CAST(0 AS INTEGER)"
    lying = f"{turn} % 180 <> 0"
    return f"""
        SELECT n, shard, row, trains.bucket, trains.stages, if({lying}, height, width) AS width,
               if({lying}, width, height) AS height, task, len(reference_ids) AS "references", reference_places,
               {turn} AS turn, trains.weight, trains.balance, further, sample_id, image_id, source_uri, content,
               md5_number_lower(concat(sample_id, chr(31), source_uri)) AS mark
        FROM (SELECT *, unnest([{", ".join(trains)}]) AS trains FROM part) WHERE trains.stages <> ''"""


def _balanced(policy: Policy, configured: Collection[str]) -> Iterator[tuple[Stage, int, Filter]]:
    """Every cell whose rows are weighed."""
    for stage, bucket, filters in cells(policy):
        if (filter_ := balance(stage, configured)) and filter_ in filters and filter_.weighs:
            yield stage, bucket, filter_


def _lost(policy: Policy, configured: Collection[str], *checks: str) -> str:
    """SELECT of the rows that lost to others in these kinds of check, each as often as it did."""
    placed = [(s, f) for s in policy.stages for f in s.filters if f.check in checks and acts(f, configured)]
    lost = [f'FROM "{dropped(s, f)}"' for s, f in placed]
    return " UNION ALL ".join(lost) or "SELECT n, n AS survivor, true AS sound FROM cells LIMIT 0"


def _survivors(policy: Policy, configured: Collection[str]) -> str:
    """(n, sample_id, source_uri) of the rows that others lost to."""
    lost = _lost(policy, configured, *COMPARED)
    return f"SELECT n, sample_id, source_uri FROM every SEMI JOIN (SELECT survivor AS n FROM ({lost})) USING (n)"


def further(policy: Policy, configured: Collection[str]) -> str:
    """(n, places of other rows) of each T2I row with equals: rows of the same image that only lost to it.

    Equals would have passed the later filters of their stage by their own captions.
    """
    lost = _lost(policy, configured, "duplicates")
    return f"""
        SELECT k.n, list({{'shard': e.shard, 'row': e.row, 'content': e.content}} ORDER BY e.n) AS further
        FROM (SELECT n, survivor FROM ({lost}) WHERE sound) d
        JOIN every e ON e.n = d.n JOIN every k ON k.n = d.survivor
        WHERE e.image_id = k.image_id AND k.task = 't2i' AND e.task = 't2i' GROUP BY k.n"""


def _weights_of(stage: Stage, bucket: int) -> str:
    """Table of the weights of a balanced cell."""
    return f"weights of {cell(stage.name, bucket)}"


def _group(filter_: Filter) -> str:
    """A row's group, '' where it has none."""
    return f"coalesce(CAST(\"{filter_.per}\" AS VARCHAR), '')"


def weights(stage: Stage, bucket: int, filter_: Filter, rows: str) -> str:
    """(group, weight) of the rows that pass a balanced cell: the group's target share of draws over its actual share.

    Groups with a quota get that share; the others split the rest in proportion to rows ** tail. A group that gets no
    share has the weight 0: its rows are never drawn.
    """
    quota = by_group(filter_, filter_.quotas, "NULL")
    tail, most = (1.0 if filter_.tail is None else filter_.tail), ("'inf'" if filter_.most is None else filter_.most)
    return f"""
        SELECT "group", least(CAST({most} AS DOUBLE), total / rows * CASE
                   WHEN others = 0 THEN coalesce(quota / nullif(quotas, 0), 0)
                   WHEN quota IS NULL THEN rest * pow(rows, {tail}) / others
                   ELSE quota END) AS weight
        FROM (
            SELECT "group", quota, rows, sum(rows) OVER () AS total, coalesce(sum(quota) OVER (), 0) AS quotas,
                   greatest(round(1 - quotas, {_DIGITS}), 0) AS rest,
                   coalesce(sum(pow(rows, {tail})) FILTER (quota IS NULL) OVER (), 0) AS others
            FROM (SELECT {_group(filter_)} AS "group", CAST(any_value({quota}) AS DOUBLE) AS quota, count(*) AS rows
                  FROM {rows} JOIN cells USING (n) WHERE "{cell(stage.name, bucket)}" = 0 GROUP BY 1))"""


def _number(value_: float | None) -> str:
    return "NULL" if value_ is None else f"CAST({value_} AS DOUBLE)"
