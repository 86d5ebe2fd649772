"""Lineage: where a sample, a case or a checkpoint comes from and what became of it, read from files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flywheel.cases.events import load_cases
from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.records import BASE, Manifest, RoundPlan
from flywheel.core.storage import located, quoted, readable
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Item, Queue
from flywheel.signals.results import load_results, passes

SHORTEST = 4  # characters of an id


def why(workspace: Workspace, name: str) -> dict[str, Any]:
    """The lineage of `name`: the id of a case, the path of a checkpoint, or the id or file of a sample.

    The first characters of an id are enough. Errors: `UsageError` if the name matches nothing, or more than one thing.
    """
    if checkpoint := _checkpoint(workspace, name):
        return why_checkpoint(workspace, checkpoint)
    if len(name) < SHORTEST:
        raise UsageError(f"{name!r}: give at least {SHORTEST} characters of an id, or a path")
    cases = _cases(workspace, name)
    if len(cases) > 1:
        raise UsageError(f"{len(cases)} cases start with {name!r}: give more characters, such as {cases[0]['case_id']}")
    return why_case(workspace, cases[0]) if cases else why_sample(workspace, name)


def traceable(workspace: Workspace, names: Iterable[str]) -> set[str]:
    """Those of the names that `why` answers: ids of samples and of cases, and paths of checkpoints."""
    listed = sorted(set(names))
    ids = [name for name in listed if re.fullmatch(r"[0-9a-f]{16}|[0-9a-f]{64}", name)]
    found = {name for name in listed if name.startswith("checkpoints/") and _checkpoint(workspace, name)}
    if not ids:
        return found
    wanted = ", ".join(map(quoted, ids))
    known = " union all ".join(f"select sample_id as id from {v}" for v in ("decisions", "samples", "generated"))
    tested = "select case_id(prompt_id, capability) as id from signals where kind = 'evaluation'"
    known += f" union all select case_id as id from cases union all {tested}"
    return found | {
        r["id"] for r in catalog.query(workspace, f"select distinct id from ({known}) where id in ({wanted})")
    }


def _cases(workspace: Workspace, start: str) -> list[dict[str, Any]]:
    """Cases whose id starts so; else prompts of evaluations whose failure would be such a case, with `status` null."""
    starts = f"starts_with(case_id, {quoted(start)}) order by case_id"
    tested = "select distinct case_id(prompt_id, capability) as case_id, prompt_id, capability, prompt, null as status"
    return catalog.query(workspace, f"select * from cases where {starts}") or catalog.query(
        workspace, f"select * from ({tested} from signals where kind = 'evaluation') where {starts}"
    )


def why_sample(workspace: Workspace, name: str) -> dict[str, Any]:
    """Why a sample is in a shard or not: source, scores, policy; remedy, case, review; checkpoints trained on it."""
    starts = f"starts_with(sample_id, {quoted(name)})"
    generated = catalog.query(workspace, f"select * from generated where {starts} order by round")
    ids = {r["sample_id"] for r in generated}
    if len(ids) > 1:
        raise UsageError(f"{name!r} starts {len(ids)} sample ids: give more characters, such as {min(ids)[:16]}")
    items = [x for x in Queue(workspace).items().values() if x.sample_id in ids]
    remedies = [
        row | {"review": [_review(x) for x in items if (x.round, x.capability) == (row["round"], row["capability"])]}
        | {"reason": _reason(workspace, row), "cases": _cases_of(workspace, row, items)}
        for row in generated
    ]  # fmt: skip
    curated = _curated(workspace, name, needed=not generated)
    ids |= {r["sample_id"] for r in curated["rows"]} if curated else set()
    shards = _shards(workspace, ids)
    checkpoints = [r["checkpoint"] for r in Ledger(workspace, "rounds").rows() if _trained_on(workspace, r, shards)]
    return {"kind": "sample", "curation": curated, "remedies": remedies, "shards": shards, "checkpoints": checkpoints}


def why_case(workspace: Workspace, row: Mapping[str, Any]) -> dict[str, Any]:
    """What was done about a case and whether it helped: its events with evidence, its data, every re-test.

    row: its row of the view `cases`.
    """
    events = [e for e in Ledger(workspace, "case_events").rows() if e["case_id"] == row["case_id"]]
    rounds = Ledger(workspace, "rounds").rows()
    key = (row["prompt_id"], row["capability"])
    tests = [
        {"round": r["round"], "checkpoint": r["checkpoint"], "verdict": r["verdict"], "passed": passes(results[key])}
        for r in rounds
        if key in (results := load_results(workspace, r["round"], "candidate"))
    ]
    done = []
    for e in sorted((e for e in events if e["kind"] == "remedied"), key=lambda e: e["round"]):
        passed = next((t["passed"] for t in tests if t["round"] == e["round"]), None)
        done.append({"round": e["round"], "track": e["track"], "data": json.loads(e["evidence"]), "helped": passed})
    return {
        "kind": "case",
        **row,
        "events": [
            {k: e[k] for k in ("round", "kind", "track", "at")} | {"evidence": json.loads(e["evidence"])}
            for e in events
        ],
        "remedies": done,
        "tests": tests,
    }


def why_checkpoint(workspace: Workspace, row: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint came about: plan with all pins, data, training run, system, gate, decisions, cost, parents.

    row: of the rounds ledger, whose candidate it is; or with `path`, another checkpoint of that round.
    """
    number, path = row["round"], row.get("path", row["checkpoint"])
    result, plan = json.loads(row["result"]), RoundPlan.read(workspace.round(number).plan)
    counts = workspace.round(number).remedy_counts
    costs = catalog.query(workspace, f"select * from round_costs where round = {number}")
    decisions = [d for d in Ledger(workspace, "promotions").rows() if d["round"] == number]
    config = workspace.path(path, "config.json")
    return {
        "kind": "checkpoint",
        "checkpoint": path,
        "round": number,
        "candidate": row["checkpoint"],
        "verdict": row["verdict"],
        "reason": result.get("reason"),
        "system": result.get("system"),
        "student": result.get("student"),
        "decisions": [{k: d[k] for k in ("kind", "by", "why", "at")} for d in decisions],
        "plan": plan.as_dict(),
        "data": read_json(counts) if counts.exists() else {},
        "training": {k: v for k, v in read_json(config).items() if k != "recipe"} if config.exists() else None,
        "gate": result["gate"],
        "fixed": result["fixed"],
        "broken": result["broken"],
        "cost": costs[0] if costs else None,
        "parents": _parents(workspace, row, plan),
    }


def _parents(workspace: Workspace, row: Mapping[str, Any], plan: RoundPlan) -> list[dict[str, Any]]:
    """The incumbents that a round's candidate goes back to, the latest first."""
    rounds, parents = Ledger(workspace, "rounds").rows(), []
    while row["incumbent"]:
        number = plan.incumbent_round
        row = next(r for r in rounds if r["round"] == number or (not number and r["checkpoint"] == plan.incumbent))
        plan = RoundPlan.read(workspace.round(row["round"]).plan)
        parents.append({"checkpoint": row["checkpoint"], "round": row["round"]})
    return parents


def _checkpoint(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """The round of the checkpoint at this path: absolute or in the workspace, with or without its last part.

    With `path`, where it is not the candidate but another checkpoint of the round: control, student, before RL.
    """
    wanted = str(located(name)).rstrip("/").removeprefix(f"{workspace.root}/")
    for row in Ledger(workspace, "rounds").rows():
        path = Path(row["checkpoint"])
        names = {p.as_posix() for p in (path, path.parent)} | {path.parent.name}
        if wanted in names:
            return row
        ours = workspace.path("checkpoints").glob(f"{workspace.round(row['round']).name}-*/*")
        finals_first = sorted((p for p in ours if p.is_dir()), key=lambda p: (p.name != "final", str(p)))
        for other in map(workspace.relative, finals_first):
            folder = Path(other).parent
            if wanted in (other, folder.as_posix(), folder.name):
                return row | {"path": other}
    return None


def _curated(workspace: Workspace, name: str, *, needed: bool) -> dict[str, Any] | None:
    from curation.run import explain

    try:
        return explain(workspace, latest_snapshot(workspace), name)
    except UsageError:
        if needed:
            raise
        return None  # it comes from a remedy and is not in the pool


def _reason(workspace: Workspace, row: Mapping[str, Any]) -> str | None:
    """The reason in the plan for the quota that asked for the sample."""
    plan = RoundPlan.read(workspace.round(row["round"]).plan)
    return next((m.reason for m in plan.requests if m.slice == row["capability"]), None)


def _cases_of(workspace: Workspace, row: Mapping[str, Any], items: list[Item]) -> list[str]:
    """The case that a sample was retrieved for; for a generated one, the round's served cases of its capability."""
    reviewed = [x for x in items if (x.round, x.capability) == (row["round"], row["capability"])]
    if reviewed and "case" in reviewed[0].evidence:
        return [reviewed[0].evidence["case"]]
    known = load_cases(workspace)
    served = RoundPlan.read(workspace.round(row["round"]).plan).cases
    return [c for c in served if known[c].capability == row["capability"]]


def _review(item: Item) -> dict[str, Any]:
    slots = [{"by": s.reviewer, "decision": s.kind, "caption": s.caption} for s in item.slots]
    return {"item": item.item, "outcome": item.outcome, "evidence": item.evidence, "reviews": slots}


def _shards(workspace: Workspace, ids: set[str]) -> list[dict[str, Any]]:
    """Every shard file that holds one of the samples."""
    shards = []
    held: dict[Path, bool] = {}  # snapshots share files
    for manifest in workspace.shard_manifests() if ids else ():
        for f in Manifest.read(manifest).files:
            path = manifest.parent / f.path
            if path not in held:
                table = pq.read_table(readable(path), columns=["sample_id"])
                held[path] = bool(ids & set(table["sample_id"].to_pylist()))
            if held[path]:
                name = str(manifest.relative_to(workspace.root))
                shards.append({"manifest": name, "file": f.path, "bucket": f.bucket, "stages": list(f.stages)})
    return shards


def checkpoints_of(workspace: Workspace, ids: set[str]) -> list[str]:
    """Workspace paths of the checkpoints of rounds that were trained on one of the samples, oldest first.

    Of a round that is not finished, the folder of its candidate.
    """
    shards, rounds = _shards(workspace, ids), Ledger(workspace, "rounds").rows()
    trained = [r["checkpoint"] for r in [*rounds, *_unfinished(workspace, rounds)] if _trained_on(workspace, r, shards)]
    return list(dict.fromkeys(trained))


def _unfinished(workspace: Workspace, finished: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """(round, checkpoint) of each round that trains, or has trained, and is not in the ledger yet."""
    numbers = {int(p.parent.name.rpartition("-")[2]) for p in workspace.path("rounds").glob("round-*/plan.json")}
    folders = {n: workspace.round(n).checkpoint("candidate") for n in sorted(numbers - {r["round"] for r in finished})}
    return [{"round": n, "checkpoint": workspace.relative(f)} for n, f in folders.items() if f.exists()]


def _trained_on(workspace: Workspace, round_: Mapping[str, Any], shards: list[dict[str, Any]]) -> bool:
    """True if the round's recipe read one of the files."""
    from training.recipes import from_dict

    plan = RoundPlan.read(workspace.round(round_["round"]).plan)
    if not plan.steps:
        return False
    base = read_json(workspace.snapshot(plan.snapshot))["manifest"]
    read = {m.round or plan.round for m in plan.mix if m.slice != BASE}
    remedies = {str(workspace.round(n).remedy_manifest.relative_to(workspace.root)) for n in read}
    mine = [s for s in shards if s["manifest"] in {base, *remedies}]
    if "command" in plan.recipe:  # it is given every file
        return bool(mine)
    recipe = from_dict(plan.recipe)
    return any(recipe.reads(s["stages"], s["bucket"]) for s in mine)
