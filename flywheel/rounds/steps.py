"""The steps of a round: thin, idempotent calls from the round's page into the packages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel import catalog
from flywheel.cases import routing
from flywheel.cases.events import case_id, event, load_cases
from flywheel.ledger import Ledger
from flywheel.preset import Preset
from flywheel.progress import Progress
from flywheel.remedies import data as remedy_data
from flywheel.rounds import gate as gates
from flywheel.rounds.job import Job
from flywheel.rounds.plan import make_plan
from flywheel.scorer import decode
from flywheel.signals import evaluation, pool_suite
from flywheel.signals.evaluation import arm_name
from flywheel.signals.results import failure_rates, results
from flywheel.signals.suite import Prompt, load_suite
from flywheel.workspace import UsageError, Workspace, read_json, write_json

if TYPE_CHECKING:
    from curation.pipeline import Curated


def round_folder(workspace: Workspace, number: int) -> Path:
    """Where a round keeps its plan and its result."""
    return workspace.path("rounds", f"round-{number:04d}")


def ingest(workspace: Workspace, job: Job, progress: Progress) -> None:
    """Bring new files of the source into the pool."""
    from curation.ingest import ingest as ingest_source

    found = ingest_source(workspace, Path(job.source), Path(job.captions) if job.captions else None, progress=progress)
    progress.say(f"{found.found} inputs found: {found.new} new, {found.known} known, {found.quarantined} quarantined")


def suite(workspace: Workspace, job: Job, preset: Preset, progress: Progress) -> list[Prompt]:
    """The held-out suite: made once, never changed, so that every round re-tests the same cases."""
    path = workspace.path("suite", "suite.jsonl")
    if not path.exists():
        if preset.evaluation.suite == "pool":
            pool_suite.write(
                workspace, path, count=preset.evaluation.held_out, side=preset.evaluation.side, seed=job.seed
            )
        else:
            from flywheel.demo.suite import write_suite

            write_suite(path.parent, seed=job.seed, size="quick" if preset.evaluation.suite == "demo-quick" else "full")
    prompts = load_suite(path)
    progress.say(f"{len(prompts)} held-out prompts")
    return prompts


def held_out(workspace: Workspace) -> frozenset[str]:
    """Sample ids that only evaluation may see."""
    path = workspace.path("suite", "held_out.json")
    return frozenset(read_json(path)) if path.exists() else frozenset()


def curate(workspace: Workspace, job: Job, preset: Preset, prompts: Sequence[Prompt], progress: Progress) -> Curated:
    """Score, filter and shard the pool under the policy; evaluation pictures and prompts never reach a shard."""
    from curation.pipeline import curate as curate_pool
    from curation.policy import load_policy

    curated = curate_pool(
        workspace,
        load_policy(job.policy or preset.policy),
        held_out=held_out(workspace),
        exclude_prompts=frozenset(p.text for p in prompts),
        progress=progress,
        workers=job.workers,
    )
    counts = {k: getattr(curated, k) for k in ("input", "admitted", "dropped", "quarantined")}
    progress.say("{input} input = {admitted} admitted + {dropped} dropped + {quarantined} quarantined".format(**counts))
    for line in curated.not_configured:
        progress.say(f"not applied: {line}")
    if not curated.admitted:
        raise UsageError("curation admitted no sample: `flywheel funnel` shows which filter dropped them")
    row = counts | {
        "snapshot": curated.snapshot,
        "policy": job.policy or preset.policy,
        "manifest": str(Path(curated.manifest).relative_to(workspace.root)),
    }
    Ledger(workspace, "snapshots").append([row], key=f"snapshot/{curated.snapshot}")
    return curated


def plan(workspace: Workspace, number: int, job: Job, preset: Preset, curated: Curated) -> dict[str, Any]:
    """The round's plan, pinned: made once from the open cases, read afterwards."""
    path = round_folder(workspace, number) / "plan.json"
    if not path.exists():
        promoted = [r["checkpoint"] for r in Ledger(workspace, "rounds").rows() if r["verdict"] == "PROMOTE"]
        cases = [c for c in load_cases(workspace).values() if c.is_open]
        incumbent = promoted[-1] if promoted else None
        write_json(
            path,
            make_plan(
                cases, round_=number, incumbent=incumbent, snapshot=curated.snapshot, preset=preset, seed=job.seed
            ),
        )
    return read_json(path)


def remedy(
    workspace: Workspace,
    plan_: dict[str, Any],
    preset: Preset,
    prompts: Sequence[Prompt],
    curated: Curated,
    progress: Progress,
) -> None:
    """Retrieve and synthesise what the plan asks for; cases that got data are `remedied`."""
    number = plan_["round"]
    if not plan_["targets"]:
        return
    cases = load_cases(workspace)
    served = [cases[c] for c in plan_["cases"]]
    made = remedy_data.build(
        workspace,
        plan_,
        served,
        prompts,
        Path(curated.manifest),
        similarity=preset.plan.retrieval_similarity,
        progress=progress,
    )
    events = [event(c, number, "remedied", made[c.capability]) for c in served if c.capability in made]
    approved = [event(c, number, "reviewed", {"by": "auto-approve", **made[c.capability]}) for c in served]
    Ledger(workspace, "case_events").append([*approved, *events], key=f"remedy/{number}")


def train(workspace: Workspace, plan_: dict[str, Any], arm: str, curated: Curated, progress: Progress) -> Path:
    """Train one arm: the candidate on the plan's mix, the control on the base pool alone, both for the same steps."""
    from training.data.plan import Source
    from training.recipes import from_dict
    from training.trainer import train as train_model

    base = Path(curated.manifest)
    remedies = workspace.path("remedies", f"round-{plan_['round']:04d}", "manifest.json")
    mix = [Source(manifest=base, track="base")]
    if arm == "candidate":
        mix = [
            Source(manifest=base if m["track"] == "base" else remedies, track=m["track"], share=m["share"])
            for m in plan_["mix"]
            if m["share"]
        ]
    trained = train_model(
        workspace.path("checkpoints", arm_name(plan_["round"], arm)),
        mix,
        from_dict(plan_["recipe"]),
        init=workspace.path(plan_["incumbent"]) if plan_["incumbent"] else None,
        seed=plan_["seed"] + plan_["round"],
        steps=plan_["steps"],
        progress=lambda done, total, line: progress(done, total, f"loss {line['loss']:.3f}"),
    )
    return trained.path


def evaluate(
    workspace: Workspace,
    plan_: dict[str, Any],
    arm: str,
    checkpoint: Path,
    preset: Preset,
    prompts: Sequence[Prompt],
    progress: Progress,
) -> None:
    """Sample and judge the held-out suite."""
    from training.sampling import grid

    seen = evaluation.evaluate(
        workspace,
        prompts,
        checkpoint,
        round_=plan_["round"],
        arm=arm,
        settings=preset.evaluation,
        seed=plan_["seed"],
        progress=progress,
    )
    progress.say("failure rate: " + ", ".join(f"{c} {x:.0%}" for c, x in failure_rates(seen).items()))
    folder = workspace.path("samples", arm_name(plan_["round"], arm))
    if not (folder / "grid.png").exists():
        shown = prompts[:: max(1, len(prompts) // 48)][:48]
        images = [np.asarray(decode((folder / f"{p.prompt_id}.png").read_bytes())) for p in shown]
        grid(np.stack(images), [p.text for p in shown], folder / "grid.png")


def gate(workspace: Workspace, plan_: dict[str, Any], checkpoint: Path, preset: Preset) -> None:
    """Judge the candidate against the incumbent, write the round's result, record the verdict."""
    number, ledger = plan_["round"], Ledger(workspace, "rounds")
    if ledger.has(f"round/{number}"):
        return
    signals = Ledger(workspace, "signals").rows()
    new = results(signals, number, "candidate")
    old = results(signals, _round_of(workspace, plan_["incumbent"]), "candidate") if plan_["incumbent"] else None
    verdict = gates.judge(new, old, targets=plan_["targets"], policy=preset.gate)
    changed = [(case_id(*k), passed) for k, passed in sorted(new.items()) if old is not None and old[k] != passed]
    result = {
        "round": number,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "checkpoint": str(checkpoint.relative_to(workspace.root)),
        "incumbent": plan_["incumbent"],
        "snapshot": plan_["snapshot"],
        "targets": plan_["targets"],
        "failure_rate": failure_rates(new),
        "incumbent_failure_rate": failure_rates(old or {}),
        "control_failure_rate": failure_rates(results(signals, number, "control")),
        "prompts": {c: sum(k[1] == c for k in new) for c in sorted({k[1] for k in new})},
        "gate": [vars(line) for line in verdict.lines],
        "fixed": [c for c, passed in changed if passed],
        "broken": [c for c, passed in changed if not passed],
    }
    write_json(round_folder(workspace, number) / "result.json", result)
    row = {k: result[k] for k in ("round", "verdict", "checkpoint", "incumbent", "snapshot")}
    ledger.append([row | {"result": json.dumps(result, ensure_ascii=False)}], key=f"round/{number}")


def route(
    workspace: Workspace,
    plan_: dict[str, Any],
    preset: Preset,
    prompts: Sequence[Prompt],
    curated: Curated,
    progress: Progress,
) -> None:
    """Move cases by the re-test, open new ones, attribute each to a track. Rejected candidates change no case."""
    number = plan_["round"]
    row = next(r for r in Ledger(workspace, "rounds").rows() if r["round"] == number)
    if row["verdict"] == "PROMOTE":
        routing.record_retest(workspace, number)
        routing.record_detected(workspace, number)
    incumbent = row["checkpoint"] if row["verdict"] == "PROMOTE" else row["incumbent"]
    cases = routing.route(
        workspace,
        prompts,
        workspace.path(incumbent),
        lambda: remedy_data.captions(Path(curated.manifest)),
        round_=number,
        preset=preset,
        seed=plan_["seed"],
        progress=progress,
    )
    tracks = sorted({c.track or "unrouted" for c in cases})
    progress.say("open cases: " + (", ".join(f"{sum(c.track == t for c in cases)} {t}" for t in tracks) or "none"))


def export(workspace: Workspace) -> Path:
    """A DuckDB file of the analysts' tables, named by the last round; made once, never replaced."""
    last = max(r["round"] for r in Ledger(workspace, "rounds").rows())
    path = workspace.path("exports", f"round-{last:04d}.duckdb")
    return path if path.exists() else catalog.export(workspace, path)


def _round_of(workspace: Workspace, checkpoint: str) -> int:
    return next(r["round"] for r in Ledger(workspace, "rounds").rows() if r["checkpoint"] == checkpoint)
