"""What the shards of the latest snapshot cover, by group and by caption kind, beside the shares that are asked for.

Groups are those by which the policy balances rows, categories unless it says otherwise; a policy asks for shares of
them by quotas and a tail. A recipe asks for shares of caption kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from curation.policy.policy import Filter
from curation.policy.snapshots import policy_of
from dashboards.rows import Row, rows
from flywheel.catalog.database import connect
from flywheel.core.errors import UsageError
from flywheel.core.lens import latest_snapshot
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.storage import read_parquet
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds.lease import last_job
from training.recipes import Recipe, from_dict

if TYPE_CHECKING:
    import duckdb

CATEGORY = "category.name"
READ = 200_000  # rows whose captions are read: files spread evenly over the stage


@dataclass(frozen=True)
class Share:
    """A group or a caption kind, in shares of [0, 1]: of the rows, of what training draws, and of what is asked for.

    rows: rows of the shards that are in the group, or have a caption of the kind. target: None where nothing is asked.
    """

    name: str | None
    rows: int
    share: float
    drawn: float
    target: float | None


@dataclass(frozen=True)
class Coverage:
    """The shards of one stage of a snapshot. per: what groups are of; read: rows of which `kinds` tells."""

    snapshot: str | None
    stages: list[str]
    stage: str
    per: str
    balanced: bool
    rows: int
    groups: list[Share]
    recipe: str
    read: int
    kinds: list[Share]


def load_coverage(workspace: Workspace, stage: str = "") -> Coverage:
    """The coverage of a stage, by default the last one that balances its rows, or else the last one."""
    snapshot = latest_snapshot(workspace)
    path = workspace.shard_manifest(snapshot) if snapshot else None
    if snapshot is None or path is None or not path.exists():
        return Coverage(snapshot, [], "", CATEGORY, False, 0, [], "", 0, [])
    return _coverage(workspace, snapshot, stage, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _coverage(workspace: Workspace, snapshot: str, stage: str, changed: int) -> Coverage:
    path = workspace.shard_manifest(snapshot)
    manifest = Manifest.read(path)
    stages = sorted({s for f in manifest.files for s in f.stages})
    if stage and stage not in stages:
        raise UsageError(f"the snapshot has no rows of stage {stage!r}: choose one of {', '.join(stages)}")
    stage = stage or next(iter([s for s in reversed(stages) if s in manifest.balanced] + stages[::-1]), "")
    files = [f for f in manifest.files if stage in f.stages]
    rule = _balance(workspace, snapshot, stage)
    per, recipe = (rule.per if rule and rule.per else CATEGORY), _recipe(workspace)
    folder, weights = path.parent, manifest.weights if stage in manifest.balanced else None
    with closing(connect(workspace, ("scores", "decisions"))) as con:
        counted = _counted(con, str(folder), files, per)
        kinds, read = _kinds(con, str(folder), files)
    return Coverage(
        snapshot=snapshot,
        stages=stages,
        stage=stage,
        per=per,
        balanced=weights is not None,
        rows=sum(f.rows for f in files),
        groups=groups(counted, weights or {}, rule),
        recipe=recipe.name if recipe else "",
        read=read,
        kinds=kind_shares(kinds, recipe.caption_shares if recipe else None),
    )


def groups(counted: Sequence[Row], weights: Mapping[str, Mapping[str, float]], rule: Filter | None) -> list[Share]:
    """Shares of groups, largest first. counted: {bucket, name, n}; weights: {bucket: {group: weight of its rows}}."""
    total = sum(r["n"] for r in counted)
    here: dict[str | None, int] = {}
    drawn: dict[str | None, float] = {}
    for r in counted:
        here[r["name"]] = here.get(r["name"], 0) + r["n"]
        weight = weights.get(str(r["bucket"]), {}).get(r["name"], 1.0) if r["name"] is not None else 1.0
        drawn[r["name"]] = drawn.get(r["name"], 0.0) + r["n"] * weight
    mass = sum(drawn.values())
    wanted = targets({name: n for name, n in here.items() if name is not None}, rule)
    names: list[str | None] = [*here, *(name for name in wanted if name not in here)]
    shares = [
        Share(n, here.get(n, 0), here.get(n, 0) / total if total else 0.0, drawn.get(n, 0.0) / mass if mass else 0.0,
              wanted.get(n) if n is not None else None)
        for n in names
    ]  # fmt: skip
    return sorted(shares, key=lambda s: (-s.rows, s.name or ""))


def targets(here: Mapping[str, int], rule: Filter | None) -> dict[str, float]:
    """Shares that a policy asks for: quotas, and for the other groups what is left, in proportion to rows ** tail."""
    if rule is None or not rule.weighs:
        return {}
    quotas = dict(rule.quotas)
    power = 1.0 if rule.tail is None else rule.tail
    rest = {name: float(n) ** power for name, n in here.items() if name not in quotas}
    left, mass = max(0.0, 1 - sum(quotas.values())), sum(rest.values())
    return quotas | {n: left * x / mass for n, x in rest.items()}


def kind_shares(kinds: Mapping[tuple[str, ...], int], asked: Mapping[str, float] | None) -> list[Share]:
    """Shares of caption kinds. kinds: {kinds that rows have a caption of: number of rows}; asked: the recipe's shares.

    Each time that a row comes, a kind that it has is drawn at its share; those that it lacks leave theirs to others.
    """
    total, here, drawn = sum(kinds.values()), dict[str, int](), dict[str, float]()
    for of_row, n in kinds.items():
        chances = {k: (asked or {}).get(k, 0.0) for k in of_row}
        if not sum(chances.values()):
            chances = dict.fromkeys(of_row, 1.0)
        for kind, chance in chances.items():
            here[kind] = here.get(kind, 0) + n
            drawn[kind] = drawn.get(kind, 0.0) + n * chance / sum(chances.values())
    mass, names = sum(drawn.values()), dict.fromkeys([*(asked or {}), *here])
    whole = sum((asked or {}).values())
    return [
        Share(k, here.get(k, 0), here.get(k, 0) / total if total else 0.0, drawn.get(k, 0.0) / mass if mass else 0.0,
              asked[k] / whole if asked and k in asked and whole else None)
        for k in names
    ]  # fmt: skip


def _counted(con: duckdb.DuckDBPyConnection, folder: str, files: Sequence[ShardFile], per: str) -> list[Row]:
    """{bucket, name, n}: rows of the files by bucket and group; null where nothing tells."""
    if not files:
        return []
    known = {r["column_name"] for r in rows(con, "DESCRIBE scores")}
    group = f'any_value("{per}")' if per in known else "NULL::VARCHAR"
    con.execute(  # the row that is trained on: its duplicate in another source may have another caption, and group
        f"""CREATE TEMP TABLE grouped AS SELECT sample_id, {group} AS name
        FROM scores SEMI JOIN (FROM decisions WHERE outcome = 'admitted') USING (sample_id, source_uri) GROUP BY 1"""
    )
    by_bucket: dict[int, list[str]] = {}
    for f in files:
        by_bucket.setdefault(f.bucket, []).append(f"{folder}/{f.path}")
    every = " UNION ALL ".join(
        f"SELECT {bucket} AS bucket, sample_id FROM {read_parquet(paths)}" for bucket, paths in by_bucket.items()
    )
    counted = "SELECT bucket, name::VARCHAR AS name, count(*) AS n"
    return rows(con, f"{counted} FROM ({every}) LEFT JOIN grouped USING (sample_id) GROUP BY ALL ORDER BY ALL")


def _kinds(
    con: duckdb.DuckDBPyConnection, folder: str, files: Sequence[ShardFile]
) -> tuple[dict[tuple[str, ...], int], int]:
    """({kinds: rows with captions of just these}, rows read) of text-to-image rows."""
    pictures = [f for f in files if f.task == "t2i"]
    step = max(1, -(-sum(f.rows for f in pictures) // READ))
    chosen = [f"{folder}/{f.path}" for f in pictures[::step]]
    if not chosen:
        return {}, 0
    select = "SELECT list_sort(list_distinct([c.kind for c in captions])) AS kinds, count(*) AS n"
    found = rows(con, f"{select} FROM {read_parquet(chosen, union_by_name='true')} GROUP BY ALL ORDER BY ALL")
    return {tuple(r["kinds"]): r["n"] for r in found if r["kinds"]}, sum(r["n"] for r in found)


def _balance(workspace: Workspace, snapshot: str, stage: str) -> Filter | None:
    """The filter by which the snapshot's policy balances the rows of a stage, if it does."""
    policy = policy_of(workspace, snapshot)
    stages = [s for s in policy.stages if s.name == stage] if policy else []
    return next((f for s in stages for f in s.filters if f.check == "balance"), None)


def _recipe(workspace: Workspace) -> Recipe | None:
    """The recipe of the last run's preset; None if it cannot be told."""
    try:
        return from_dict(load_preset(last_job(workspace).preset).training.recipe)
    except UsageError:
        return None
