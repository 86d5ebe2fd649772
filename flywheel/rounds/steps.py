"""The steps of a round: thin, idempotent calls from the round's page into the packages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel.cases.events import Case, case_id, event, load_cases
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_json
from flywheel.core.image import decode
from flywheel.core.ledger import Ledger
from flywheel.core.mirror import Publisher, fetched, publish
from flywheel.core.plugins import plugins
from flywheel.core.progress import Progress
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies import data
from flywheel.remedies.retrieval import captions
from flywheel.remedies.review import AUTO, Item, Queue, Waiting
from flywheel.rounds import gate as gates
from flywheel.rounds import promotion, routing
from flywheel.rounds.job import Job
from flywheel.rounds.pins import code_version, pins
from flywheel.rounds.plan import make_plan
from flywheel.signals import evaluation, pool_suite
from flywheel.signals.evaluation import arm_name
from flywheel.signals.results import failure_rates, load_results
from flywheel.signals.suite import Prompt, copy_suite, load_suite

if TYPE_CHECKING:
    from curation.run import Curated

Plan = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What every step of a run shares."""

    workspace: Workspace
    job: Job
    preset: Preset
    progress: Progress

    @cached_property
    def suite(self) -> list[Prompt]:
        """The held-out prompts, once their step has written them."""
        return load_suite(self.workspace.path("suite", "suite.jsonl"))

    def rows(self, ledger: str) -> list[dict[str, Any]]:
        """Every row of a ledger, oldest first."""
        return Ledger(self.workspace, ledger).rows()

    def append(self, ledger: str, rows: list[dict[str, Any]], *, key: str) -> None:
        """Append to a ledger, once per key."""
        Ledger(self.workspace, ledger).append(rows, key=key)

    def round_folder(self, number: int) -> Path:
        """Where a round keeps its plan and its result."""
        return self.workspace.path("rounds", f"round-{number:04d}")

    def manifest(self, plan_: Plan) -> Path:
        """Shard manifest of the snapshot that the plan pins; newer data waits for the next round."""
        record = read_json(self.workspace.path("snapshots", f"{plan_['snapshot']}.json"))
        return self.workspace.path(record["manifest"])


def ingest(run: Context) -> None:
    """Bring new files of the source into the pool."""
    from curation.sources.ingest import ingest as ingest_source

    captions = Path(run.job.captions) if run.job.captions else None
    found = ingest_source(run.workspace, Path(run.job.source), captions, progress=run.progress)
    run.progress.say(
        f"{found.found} inputs found: {found.new} new, {found.known} known, {found.quarantined} quarantined"
    )


def hold_out(run: Context) -> None:
    """Write the held-out suite: made once, never changed, so that every round re-tests the same cases."""
    path, settings = run.workspace.path("suite", "suite.jsonl"), run.preset.evaluation
    if not path.exists() and settings.suite == "pool":
        pool_suite.write(run.workspace, path, count=settings.held_out, side=settings.side, seed=run.job.seed)
    elif not path.exists() and settings.suite.endswith(".jsonl"):
        copy_suite(Path(settings.suite), path)
    elif not path.exists():
        plugins("flywheel.suites")[settings.suite](path.parent, seed=run.job.seed)
    run.progress.say(f"{len(run.suite)} held-out prompts")


def curate(run: Context) -> Curated:
    """Score, filter and shard the pool under the policy; evaluation pictures and prompts never reach a shard."""
    from curation.policy.reader import load_policy
    from curation.run import curate as curate_pool

    policy, held_out = run.job.policy or run.preset.policy, run.workspace.path("suite", "held_out.json")
    curated = curate_pool(
        run.workspace,
        load_policy(policy),
        held_out=frozenset(read_json(held_out)) if held_out.exists() else frozenset(),
        exclude_prompts=frozenset(p.text for p in run.suite),
        progress=run.progress,
        workers=run.job.workers,
    )
    counts = {k: getattr(curated, k) for k in ("input", "admitted", "dropped", "quarantined")}
    run.progress.say(
        "{input} input = {admitted} admitted + {dropped} dropped + {quarantined} quarantined".format(**counts)
    )
    for line in curated.not_configured:
        run.progress.say(f"not applied: {line}")
    manifest = str(located(curated.manifest).relative_to(run.workspace.root))
    row = counts | {"snapshot": curated.snapshot, "policy": policy, "manifest": manifest}
    run.append("snapshots", [row], key=f"snapshot/{curated.snapshot}")
    if not curated.admitted:
        raise UsageError("curation admitted no sample: `flywheel funnel` shows which filter dropped them")
    return curated


def propose(run: Context, number: int, snapshot: str) -> Plan:
    """The plan that the round would get now: from the open cases; nothing is written."""
    found = promotion.incumbent(run.workspace)
    cases = [c for c in load_cases(run.workspace).values() if c.is_open]
    pinned = pins(run.workspace, snapshot, found.checkpoint if found else None, run.preset, run.job.seed)
    earlier = [read_json(run.round_folder(p.round) / "plan.json") for p in promotion.load_history(run.workspace)]
    return make_plan(cases, pinned, earlier, round_=number, preset=run.preset)


def plan(run: Context, number: int, snapshot: str) -> Plan:
    """The round's plan, pinned: made once, read afterwards."""
    path = run.round_folder(number) / "plan.json"
    if not path.exists():
        promotion.settle(run.workspace)
        write_json(path, propose(run, number, snapshot))
    pinned = read_json(path)
    if pinned["code"] != code_version():
        run.progress.say(f"round {number} was planned with code {pinned['code']}; {code_version()} goes on with it")
    return pinned


def collect(run: Context, plan_: Plan) -> None:
    """Retrieve and synthesise what the plan asks for, and queue it for review."""
    number = plan_["round"]
    rows = data.collect(
        data.folder_of(run.workspace, number),
        plan_,
        _served(run, plan_),
        run.suite,
        run.manifest(plan_),
        preset=run.preset,
        progress=run.progress,
    )
    settings = run.preset.review
    Queue(run.workspace).add(
        number,
        rows,
        reviews=settings.reviews,
        claim_minutes=settings.claim_minutes,
        deadline_hours=settings.deadline_hours,
    )


def review(run: Context, plan_: Plan) -> None:
    """People's decisions, the loop's only manual step, or approval in their stead. Errors: `Waiting` for them."""
    number, queue = plan_["round"], Queue(run.workspace)
    unattended = run.job.auto_approve or run.preset.review.auto_approve
    if unattended and (approved := queue.approve_all(number)):
        run.progress.say(f"{approved} reviews recorded as {AUTO}")
    if waiting := queue.pending(number):
        until = f" until {waiting[0].deadline:%Y-%m-%d %H:%M} UTC" if waiting[0].deadline else ""
        raise Waiting(
            number,
            f"{len(waiting)} samples of round {number} wait for review{until}: `flywheel review next --reviewer NAME "
            f"-w {run.workspace.root}` hands them out; run again when none is left, or with --auto-approve",
        )
    if missed := queue.leave_out(number):
        run.progress.say(f"{missed} reviews were missing at the deadline: those samples are left out")


def shard(run: Context, plan_: Plan) -> None:
    """Write what the review accepted as shards; cases that got data are `remedied`."""
    number = plan_["round"]
    items = Queue(run.workspace).items(number).values()
    made = data.shard(
        data.folder_of(run.workspace, number), plan_, run.suite, {(x.capability, x.sample_id): x for x in items}
    )
    served = _served(run, plan_)
    reviewed = [event(c, number, "reviewed", _review_of(items, c.capability)) for c in served]
    remedied = [event(c, number, "remedied", made[c.capability]) for c in served]
    run.append("case_events", [*reviewed, *remedied], key=f"remedy/{number}")


def _served(run: Context, plan_: Plan) -> list[Case]:
    cases = load_cases(run.workspace)
    return [cases[c] for c in plan_["cases"]]


def _review_of(items: Iterable[Item], capability: str) -> dict[str, Any]:
    mine = [x for x in items if x.capability == capability]
    by = sorted({s.reviewer for x in mine for s in x.slots if s.reviewer})
    return {"by": ", ".join(by), **{k: sum(x.outcome == k for x in mine) for k in ("accepted", "rejected")}}


def train(run: Context, plan_: Plan) -> dict[str, Path]:
    """Train the candidate on the plan's mix and, beside it, the control: equally long without the round's remedies.

    Returns {arm: checkpoint}. A plan without targets is a control of itself and has none.
    """
    from training.worker import TrainingRun, train_all

    mixes = {"candidate": sources(run, plan_)}
    if plan_["targets"]:
        mixes["control"] = sources(run, plan_ | {"mix": [m for m in plan_["mix"] if m not in data.asked(plan_)]})
    folders = {arm: run.workspace.path("checkpoints", arm_name(plan_["round"], arm)) for arm in mixes}
    runs = [
        TrainingRun(
            out_dir=str(fetched(folders[arm])),
            sources=mix,
            recipe=plan_["recipe"],
            init=str(run.workspace.path(plan_["incumbent"])) if plan_["incumbent"] else None,
            seed=plan_["seed"] + plan_["round"],
            steps=plan_["steps"],
        )
        for arm, mix in mixes.items()
    ]
    publisher = Publisher([*folders.values()])

    def progress(*seen: Any) -> None:
        run.progress(*seen)
        publisher()

    made = train_all(runs, threads=run.preset.threads, progress=progress)
    for folder in folders.values():
        publish(folder)
    return {arm: folder / path.name for (arm, folder), path in zip(folders.items(), made)}


def sources(run: Context, plan_: Plan) -> list[dict[str, Any]]:
    """The plan's mix as the trainer reads it: the base pool, kept remedies of earlier rounds, the round's own."""

    def manifest(m: dict[str, Any]) -> Path:
        if m["slice"] == "base":
            return run.manifest(plan_)
        return data.folder_of(run.workspace, m.get("round", plan_["round"])) / "manifest.json"

    return [
        {"manifest": str(manifest(m)), "slice": m["slice"], "share": m["share"]} for m in plan_["mix"] if m["share"]
    ]


def evaluate(run: Context, plan_: Plan, arm: str, checkpoint: Path) -> None:
    """Sample and judge the held-out suite."""
    import torch

    from training.sampling import grid

    torch.set_num_threads(run.preset.threads)
    seen = evaluation.evaluate(
        run.workspace,
        run.suite,
        checkpoint,
        round_=plan_["round"],
        arm=arm,
        settings=run.preset.evaluation,
        seed=plan_["seed"],
        progress=run.progress,
    )
    run.progress.say("failure rate: " + ", ".join(f"{c} {x:.0%}" for c, x in failure_rates(seen).items()))
    folder = run.workspace.path("samples", arm_name(plan_["round"], arm))
    if not (folder / "grid.png").exists():
        shown = run.suite[:: max(1, len(run.suite) // 48)][:48]
        images = [np.asarray(decode((folder / f"{p.prompt_id}.png").read_bytes())) for p in shown]
        grid(np.stack(images), [p.text for p in shown], folder / "grid.png")


def gate(run: Context, plan_: Plan, checkpoint: Path) -> None:
    """Judge the candidate against the incumbent, write the round's result, record the verdict."""
    number = plan_["round"]
    if Ledger(run.workspace, "rounds").has(f"round/{number}"):
        return
    new, old = load_results(run.workspace, number, "candidate"), None
    if plan_["incumbent"]:
        promoted = next(r["round"] for r in run.rows("rounds") if r["checkpoint"] == plan_["incumbent"])
        old = load_results(run.workspace, promoted, "candidate")
    verdict = gates.judge(new, old, targets=plan_["targets"], policy=run.preset.gate)
    now = promotion.incumbent(run.workspace)
    if (now.checkpoint if now else None) != plan_["incumbent"]:
        why = "the incumbent was changed while the round ran: promote this candidate by hand, or run the next round"
        verdict = gates.Verdict("HOLD", why, verdict.lines)
    changed = [(case_id(*k), passed) for k, passed in sorted(new.items()) if old is not None and old[k] != passed]
    result = {
        "round": number,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "checkpoint": str(checkpoint.relative_to(run.workspace.root)),
        "incumbent": plan_["incumbent"],
        "snapshot": plan_["snapshot"],
        "targets": plan_["targets"],
        "failure_rate": failure_rates(new),
        "incumbent_failure_rate": failure_rates(old or {}),
        "control_failure_rate": failure_rates(load_results(run.workspace, number, "control")),
        "prompts": {c: sum(k[1] == c for k in new) for c in sorted({k[1] for k in new})},
        "gate": [vars(line) for line in verdict.lines],
        "fixed": [c for c, passed in changed if passed],
        "broken": [c for c, passed in changed if not passed],
    }
    write_json(run.round_folder(number) / "result.json", result)
    row = {k: result[k] for k in ("round", "verdict", "checkpoint", "incumbent", "snapshot")}
    run.append("rounds", [row | {"result": json.dumps(result, ensure_ascii=False)}], key=f"round/{number}")


def route(run: Context, plan_: Plan) -> int:
    """Move cases by the re-test, open new ones, attribute each to a track; returns how many are open.

    Rejected candidates change no case.
    """
    import torch

    number = plan_["round"]
    row = next(r for r in run.rows("rounds") if r["round"] == number)
    if row["verdict"] == "PROMOTE":
        routing.record_retest(run.workspace, number)
        routing.record_detected(run.workspace, number)
    torch.set_num_threads(run.preset.threads)
    cases = routing.route(
        run.workspace,
        run.suite,
        run.workspace.path(promotion.incumbent(run.workspace).checkpoint),
        lambda: captions(run.manifest(plan_)),
        round_=number,
        preset=run.preset,
        seed=plan_["seed"],
        progress=run.progress,
    )
    tracks = sorted({c.track or "unrouted" for c in cases})
    run.progress.say("open cases: " + (", ".join(f"{sum(c.track == t for c in cases)} {t}" for t in tracks) or "none"))
    return len(cases)
