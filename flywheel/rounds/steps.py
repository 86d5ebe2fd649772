"""The steps of a round: thin, idempotent calls into the packages, in the order of `flywheel.rounds.run`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.cases.events import Case, case_id, event, load_cases
from flywheel.cases.fold import connect
from flywheel.core.image import decode
from flywheel.core.ledger import Ledger
from flywheel.core.mirror import Publisher, fetched, publish
from flywheel.core.records import RoundPlan, RoundResult, System
from flywheel.generators import describe
from flywheel.remedies import data
from flywheel.remedies.candidates import teachable
from flywheel.remedies.retrieval import captions
from flywheel.remedies.review import AUTO, Item, Queue, Waiting
from flywheel.rounds import external, promotion, routing, systems
from flywheel.rounds import gate as gates
from flywheel.rounds.context import Context
from flywheel.rounds.pins import code_version, pins
from flywheel.rounds.plan import Known, make_plan
from flywheel.rounds.stages import curriculum_of, sources
from flywheel.signals import evaluation, hidden, trust
from flywheel.signals.calibration import fidelity
from flywheel.signals.drawing import picture_name
from flywheel.signals.results import Results, failure_rates, load_results, passes

ARMS = ("candidate", "control")  # that the gate and the experiment compare; the others show what a step did


def propose(run: Context, number: int, snapshot: str) -> RoundPlan:
    """The plan of the round for the cases that are open now; nothing is written."""
    promoted, history = promotion.incumbent(run.workspace), promotion.load_history(run.workspace)
    cases = [c for c in load_cases(run.workspace).values() if c.is_open]
    pinned = pins(run.workspace, snapshot, promoted.checkpoint if promoted else None, run.preset, run.job.seed)
    earlier = [RoundPlan.read(run.workspace.round(p.round).plan) for p in history]
    return make_plan(
        cases,
        pinned,
        earlier,
        round_=number,
        preset=run.preset,
        known=_known(run, cases, earlier, snapshot),
        incumbent_round=promoted.round if promoted else None,
    )


def _known(run: Context, cases: Iterable[Case], earlier: Sequence[RoundPlan], snapshot: str) -> Known:
    """What a plan needs to know of the pool; earlier: the plans of the promoted rounds, the incumbent's last."""
    from curation.scorers.quotes import quoted_text
    from curation.synthesis import generators

    latest = 'SELECT case_id, arg_max(density, "at") FROM probes WHERE density IS NOT NULL GROUP BY case_id'
    with closing(connect(run.workspace, ("probes",))) as con:
        density = dict(con.execute(latest).fetchall())
    written = {c.capability for c in cases if c.track == "rl" and quoted_text(c.prompt)}
    incumbent = earlier[-1] if earlier else None
    unseen = incumbent is None or incumbent.submitted is not None or incumbent.snapshot != snapshot
    promoted = promotion.incumbent(run.workspace)
    kind = describe(run.workspace.path(promoted.checkpoint))["kind"] if promoted else "checkpoint"
    given = any(p.submitted for p in earlier)  # only then is anything rehearsed
    taught = teachable(run.suite, run.held_out) if given else ()
    return Known(density=density, judged={*generators(), *written}, taught=taught, unseen=unseen, generator=kind)


def plan(run: Context, number: int, snapshot: str) -> RoundPlan:
    """The pinned plan of the round: written once, read afterwards."""
    if note := fidelity(run.suite):
        run.progress.say(note)
    path = run.workspace.round(number).plan
    if not path.exists():
        promotion.settle(run.workspace)
        proposed = propose(run, number, snapshot)
        if not proposed.requests:  # a pool that the recipe cannot train on is refused before the plan is pinned
            curriculum_of(run.workspace, proposed)
        proposed.write(path)
    pinned = RoundPlan.read(path)
    if pinned.code != code_version():
        run.progress.say(f"round {number} was planned with code {pinned.code} and continues with {code_version()}")
    for remedy in pinned.remedies:
        amounts = {k: getattr(remedy, k) for k in ("samples", "prompts", "updates")}
        asked = ", ".join(f"{n} {name}" for name, n in amounts.items() if n)
        run.progress.say(f"{remedy.track or 'all'}, {remedy.kind}: {asked + '; ' if asked else ''}{remedy.reason}")
    return pinned


def collect(run: Context, plan: RoundPlan) -> None:
    """Retrieve and generate the samples that the plan asks for, and queue them for review."""
    number = plan.round
    pool = data.BasePool(run.manifest(plan), run.held_out, run.preset, run.workspace.vectors)
    folder = run.workspace.round(number).remedies
    rows = data.collect(folder, plan, _served(run, plan), pool, run.progress)
    settings = run.preset.review
    Queue(run.workspace).add(
        number,
        rows,
        reviews=settings.reviews,
        claim_minutes=settings.claim_minutes,
        deadline_hours=settings.deadline_hours,
    )


def review(run: Context, plan: RoundPlan) -> None:
    """Close the round's review, the only manual step, or approve all. Errors: `Waiting` while reviews are missing."""
    number, queue = plan.round, Queue(run.workspace)
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
        run.progress.say(f"{missed} reviews are missing at the deadline: their samples are left out")


def shard(run: Context, plan: RoundPlan) -> None:
    """Write the accepted samples as shards, and record the served cases as reviewed and `remedied`."""
    number = plan.round
    items = Queue(run.workspace).items(number).values()
    by_sample = {(x.capability, x.sample_id): x for x in items}
    counts = data.shard(run.workspace.round(number).remedies, plan, run.held_out, by_sample)
    served = _served(run, plan)
    reviewed = [event(c, number, "reviewed", _review_of(items, c.capability)) for c in served]
    remedied = [event(c, number, "remedied", counts[c.capability]) for c in served]
    run.append("case_events", [*reviewed, *remedied], key=f"remedy/{number}")


def _served(run: Context, plan: RoundPlan) -> list[Case]:
    """The cases that the plan serves with data: all of them, in plans from before there were other remedies."""
    cases = load_cases(run.workspace)
    return [cases[c] for c in (plan.remedy("pretraining", "data").case_ids if plan.remedies else plan.cases)]


def _review_of(items: Iterable[Item], capability: str) -> dict[str, Any]:
    mine = [x for x in items if x.capability == capability]
    by = sorted({s.reviewer for x in mine for s in x.slots if s.reviewer})
    return {"by": ", ".join(by), **{k: sum(x.outcome == k for x in mine) for k in ("accepted", "rejected")}}


def train(run: Context, plan: RoundPlan) -> dict[str, Path]:
    """Train the candidate on the plan's mix, and the control as long without the remedies for its cases.

    Returns {arm: checkpoint}. Without remedies there is no control: it would equal the candidate. RL and distillation
    act on the candidate alone, so that a round's gain over its control is that of all its remedies.
    """
    from training.worker import TrainingRun, train_all

    mixes = {"candidate": sources(run.workspace, plan)}
    if plan.aimed and run.preset.trainer.control:
        control = tuple(m for m in plan.mix if m not in plan.aimed)
        mixes["control"] = sources(run.workspace, replace(plan, mix=control))
    folders = {arm: run.workspace.round(plan.round).checkpoint(arm) for arm in mixes}
    if "command" in plan.recipe:
        return {arm: external.train(run, plan, arm, mix) for arm, mix in mixes.items()}
    runs = [
        TrainingRun(
            out_dir=str(fetched(folders[arm])),
            sources=mix,
            recipe=plan.recipe,
            init=str(run.workspace.path(plan.incumbent)) if plan.incumbent else None,
            seed=plan.seed + plan.round,
            steps=plan.steps,
        )
        for arm, mix in mixes.items()
    ]
    for line in curriculum_of(run.workspace, plan).lines():
        run.progress.say(line)
    publisher = Publisher([*folders.values()])

    def progress(*advance: Any) -> None:
        run.progress(*advance)
        publisher()

    checkpoints = train_all(
        runs,
        threads=run.preset.threads,
        processes=run.preset.training.processes,
        progress=progress,
        say=run.progress.say,
    )
    for folder in folders.values():
        publish(folder)
    return {arm: folder / path.name for (arm, folder), path in zip(folders.items(), checkpoints)}


def evaluate(run: Context, plan: RoundPlan, arm: str, system: System) -> int:
    """Draw the held-out suite with a system, judge the pictures, and draw a grid of some of them.

    Returns the number of pictures.
    """
    import torch

    from training.sampling import grid

    torch.set_num_threads(run.preset.threads)
    folder = run.workspace.round(plan.round).samples(arm)
    settings = systems.evaluation(system, run.preset.evaluation)
    if arm not in ARMS:
        settings = replace(settings, pictures=1)  # no gate decides on it: enough to show what a step did
    generator = systems.generator(run.workspace, system)
    results = evaluation.evaluate(
        run.workspace,
        run.suite,
        generator,
        system.checkpoint,
        round_=plan.round,
        arm=arm,
        settings=settings,
        rewritten=systems.rewritten(run.workspace, system, run.suite, folder),
        seed=plan.seed,
        workers=systems.workers(run.workspace, system, run.job.draw_workers),
        progress=run.progress,
    )
    if (cost := getattr(generator, "cost", 0.0)) and (price := getattr(generator, "price", 0.0)):
        run.progress.say(f"{round(cost / price)} pictures were drawn for {cost:.2f}, at {price} each")
    run.progress.say("failure rate: " + ", ".join(f"{c} {x:.0%}" for c, x in failure_rates(results).items()))
    if arm == "candidate" and run.hidden:
        _evaluate_hidden(run, plan, system)
    if not (folder / "grid.png").exists():
        drawn = [(p.text, path) for p in run.suite if (path := folder / picture_name(p.prompt_id)).exists()]
        shown = drawn[:: max(1, len(drawn) // 48)][:48]
        size = (settings.side, settings.side)
        images = [np.asarray(decode(path.read_bytes()).resize(size)) for _, path in shown]
        grid(np.stack(images), [text for text, _ in shown], folder / "grid.png")
    hidden_too = run.preset.evaluation.pictures * len(run.hidden) if arm == "candidate" else 0
    return settings.pictures * len(run.suite) + hidden_too


def references(run: Context, plan: RoundPlan) -> tuple[Results | None, dict[int, Results]]:
    """Results of the plan's incumbent, None without one; and of all promoted rounds, by round."""
    history = promotion.load_history(run.workspace)
    earlier = {p.round: load_results(run.workspace, p.round, "candidate") for p in history}
    if not plan.incumbent:
        return None, earlier
    number = incumbent_round(run, plan)
    return earlier.get(number) or load_results(run.workspace, number, "candidate"), earlier


def _evaluate_hidden(run: Context, plan: RoundPlan, system: System) -> None:
    """Draw and judge the hidden prompts as well; nothing but what people read depends on it."""
    rates = evaluation.evaluate(
        run.workspace,
        run.hidden,
        systems.generator(run.workspace, system),
        system.checkpoint,
        round_=plan.round,
        arm=hidden.ARM,
        settings=systems.evaluation(system, run.preset.evaluation),
        rewritten=systems.rewritten(
            run.workspace, system, run.hidden, run.workspace.round(plan.round).samples(hidden.ARM)
        ),
        seed=plan.seed,
        workers=systems.workers(run.workspace, system, run.job.draw_workers),
        progress=run.progress,
    )
    shown = ", ".join(f"{c} {x:.0%}" for c, x in failure_rates(rates).items())
    run.progress.say(f"of the hidden prompts: {shown}")


def gate(run: Context, plan: RoundPlan, system: System) -> None:
    """Compare the candidate with the incumbent, write the round's result and record the verdict."""
    number = plan.round
    if Ledger(run.workspace, "rounds").has(f"round/{number}"):
        return
    new = load_results(run.workspace, number, "candidate")
    unseen = load_results(run.workspace, number, hidden.ARM)
    old, earlier = references(run, plan)
    new, old, unjudged = _shared(new, old)
    verdict = gates.judge(
        new,
        old,
        earlier=earlier,
        targets=plan.targets,
        policy=run.preset.gate,
        pictures=run.preset.evaluation.pictures,
    )
    if unjudged and verdict.verdict == "PROMOTE":
        why = f"{unjudged} checks of the incumbent have no verdict on the candidate: look at them, then promote by hand"
        verdict = gates.Verdict("HOLD", f"{why} ({verdict.reason})", verdict.lines)
    now = promotion.incumbent(run.workspace)
    if (now.round if now else None) != (incumbent_round(run, plan) if plan.incumbent else None):
        why = "the incumbent was changed while the round ran: promote this candidate by hand, or run the next round"
        verdict = gates.Verdict("HOLD", why, verdict.lines)
    if verdict.lines and (doubt := trust.warning(run.workspace, number, plan.targets)):
        verdict = replace(verdict, reason=f"{verdict.reason}; {doubt}")
    changed = [
        (case_id(*k), passes(share))
        for k, share in sorted(new.items())
        if old is not None and passes(old[k]) != passes(share)
    ]
    result = RoundResult(
        round=number,
        verdict=verdict.verdict,
        reason=verdict.reason,
        checkpoint=system.checkpoint,
        incumbent=plan.incumbent,
        snapshot=plan.snapshot,
        targets=plan.targets,
        failure_rate=failure_rates(new),
        incumbent_failure_rate=failure_rates(old or {}),
        control_failure_rate=failure_rates(load_results(run.workspace, number, "control")),
        hidden_failure_rate=failure_rates(unseen),
        hidden_prompts={c: sum(k[1] == c for k in unseen) for c in sorted({k[1] for k in unseen})},
        prompts={c: sum(k[1] == c for k in new) for c in sorted({k[1] for k in new})},
        gate=verdict.lines,
        fixed=tuple(c for c, passed in changed if passed),
        broken=tuple(c for c, passed in changed if not passed),
        system=system.as_dict(),
        student=_student_verdict(run, number, new),
    )
    result.write(run.workspace.round(number).result)
    row = result.as_dict()
    columns = {k: row[k] for k in ("round", "verdict", "checkpoint", "incumbent", "snapshot")}
    run.append("rounds", [columns | {"result": json.dumps(row, ensure_ascii=False)}], key=f"round/{number}")


def _shared(new: Results, old: Results | None) -> tuple[Results, Results | None, int]:
    """The results on the prompts that both were judged on, and how many only the incumbent was judged on.

    A generator may refuse a prompt, and a judge may not answer.
    """
    if old is None:
        return new, None, 0
    keys = new.keys() & old.keys()
    return {k: new[k] for k in new if k in keys}, {k: old[k] for k in old if k in keys}, len(old) - len(keys)


def incumbent_round(run: Context, plan: RoundPlan) -> int:
    """The round that made the plan's incumbent; plans of earlier versions name its checkpoint alone."""
    known = (r["round"] for r in run.rows("rounds") if r["checkpoint"] == plan.incumbent)
    return plan.incumbent_round or next(known)


def _student_verdict(run: Context, number: int, teacher: Results) -> dict[str, Any] | None:
    """The gate's judgement of the student against the candidate that it was distilled from; None without a student."""
    student = load_results(run.workspace, number, "student")
    if not student:
        return None
    student, shared, _ = _shared(student, teacher)
    verdict = gates.judge(student, shared, policy=run.preset.gate)
    return {"verdict": verdict.verdict, "reason": verdict.reason, "failure_rate": failure_rates(student)}


def route(run: Context, plan: RoundPlan) -> int:
    """Re-test and open cases if the candidate was promoted, then route the open ones; returns how many are open."""
    import torch

    number = plan.round
    torch.set_num_threads(run.preset.threads)
    row = next(r for r in run.rows("rounds") if r["round"] == number)
    if row["verdict"] == "PROMOTE":
        routing.evaluate_cases(
            run.workspace,
            run.suite,
            systems.read(run.workspace, number),
            round_=number,
            preset=run.preset,
            seed=plan.seed,
            draw_workers=run.job.draw_workers,
            progress=run.progress,
        )
        routing.record_retest(run.workspace, number)
        routing.record_detected(run.workspace, number)
    routing.route(
        run.workspace,
        run.suite,
        systems.read(run.workspace, promotion.require_incumbent(run.workspace).round),
        lambda: captions(run.manifest(plan)),
        round_=number,
        preset=run.preset,
        seed=plan.seed,
        draw_workers=run.job.draw_workers,
        progress=run.progress,
    )
    cases = [c for c in load_cases(run.workspace).values() if c.is_open]
    tracks = sorted({c.track or "unrouted" for c in cases})
    run.progress.say("open cases: " + (", ".join(f"{sum(c.track == t for c in cases)} {t}" for t in tracks) or "none"))
    return len(cases)
