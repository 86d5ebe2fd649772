"""The steps of a run: thin, idempotent calls into the packages, in the order of `flywheel.rounds.run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flywheel.cases.events import Case, case_id, event, load_cases
from flywheel.cases.fold import connect
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.image import decode
from flywheel.core.ledger import Ledger
from flywheel.core.mirror import Publisher, fetched, publish
from flywheel.core.plugins import plugins
from flywheel.core.progress import Progress, plain_step
from flywheel.core.records import BASE, MixEntry, RoundPlan, RoundResult, System
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies import data
from flywheel.remedies.retrieval import captions
from flywheel.remedies.review import AUTO, Item, Queue, Waiting
from flywheel.rounds import gate as gates
from flywheel.rounds import promotion, routing, systems
from flywheel.rounds.job import Job
from flywheel.rounds.pins import code_version, pins
from flywheel.rounds.plan import Known, make_plan
from flywheel.rounds.stages import curriculum_of
from flywheel.signals import evaluation, hidden, pinned, pool_suite
from flywheel.signals.calibration import fidelity, load_separations
from flywheel.signals.results import Results, failure_rates, load_results, passes
from flywheel.signals.suite import Prompt, copy_suite, load_suite

if TYPE_CHECKING:
    from curation.policy.policy import Policy
    from curation.run import Curated, StageReport

ARMS = ("candidate", "control")  # that the gate and the experiment compare; the others show what a step did


@dataclass(frozen=True)
class Context:
    """The workspace, the request, its preset and the progress display: shared by all steps of a run.

    step: calls a part of a step that an orchestrator records by itself, as `plain_step` does.
    """

    workspace: Workspace
    job: Job
    preset: Preset
    progress: Progress
    step: Callable[..., Any] = plain_step

    @cached_property
    def suite(self) -> list[Prompt]:
        """The held-out prompts that rounds chase; none before `hold_out` has written them."""
        return self._parts[0]

    @cached_property
    def hidden(self) -> list[Prompt]:
        """The held-out prompts that are only judged (`flywheel.signals.hidden`)."""
        return self._parts[1]

    @property
    def held_out(self) -> list[Prompt]:
        """All of them: none is trained on."""
        return [*self.suite, *self.hidden]

    @cached_property
    def _parts(self) -> tuple[list[Prompt], list[Prompt]]:
        return hidden.split(self.workspace)

    @property
    def policy_name(self) -> str:
        """Name or path of the curation policy."""
        return self.job.policy or self.preset.policy

    @cached_property
    def policy(self) -> Policy:
        """The curation policy."""
        from curation.policy.reader import load_policy

        return load_policy(self.policy_name)

    @property
    def images(self) -> int:
        """Number of pictures that one evaluation draws."""
        return len(self.held_out) * self.preset.evaluation.pictures

    def rows(self, ledger: str) -> list[dict[str, Any]]:
        """Every row of a ledger, oldest first."""
        return Ledger(self.workspace, ledger).rows()

    def append(self, ledger: str, rows: list[dict[str, Any]], *, key: str) -> None:
        """Append to a ledger, once per key."""
        Ledger(self.workspace, ledger).append(rows, key=key)

    def manifest(self, plan: RoundPlan) -> Path:
        """Shard manifest of the snapshot that the plan pins; newer data enters the next round."""
        record = read_json(self.workspace.snapshot(plan.snapshot))
        return self.workspace.path(record["manifest"])


def ingest(run: Context) -> None:
    """Read new inputs of the source into the pool."""
    from curation.sources.ingest import ingest as ingest_source

    captions = Path(run.job.captions) if run.job.captions else None
    inputs = ingest_source(run.workspace, Path(run.job.source), captions, progress=run.progress)
    run.progress.say(f"{inputs.found} inputs: {inputs.new} new, {inputs.known} known, {inputs.quarantined} quarantined")


def score(run: Context, stack: ExitStack) -> None:
    """Score what is not scored yet; Ray stays up for later steps until `stack` closes."""
    from curation.run import scored

    stack.enter_context(scored(run.workspace, run.policy, progress=run.progress, workers=run.job.workers))


def hold_out(run: Context) -> None:
    """Write and pin the held-out suite once; it never changes, so that every round re-tests the same cases.

    A suite from the pool needs its scores: it is drawn from rows that the policy lets pass.
    """
    workspace, settings = run.workspace, run.preset.evaluation
    path = workspace.suite
    if not path.exists() and not pinned.is_pinned(workspace):
        if settings.suite == "pool":
            pool_suite.write(workspace, run.policy, settings, seed=run.job.seed)
        elif settings.suite.endswith(".jsonl"):
            references = {r for p in load_suite(Path(settings.suite)) for r in p.reference_bytes()}
            pinned.write_held_out(workspace, references=references)
            copy_suite(Path(settings.suite), path)
        else:
            plugins("flywheel.suites")[settings.suite](path.parent, seed=run.job.seed)
    if not run.rows("rounds") and not pinned.is_pinned(workspace):
        hidden.write(workspace, settings.hidden, run.job.seed)
    pinned.pin(workspace)
    rest = f", and {len(run.hidden)} hidden ones" if run.hidden else ": too few to hide some of them"
    run.progress.say(f"{len(run.suite)} held-out prompts{rest}")
    for check in load_separations(path):
        run.progress.say(check.sentence)


def curate(run: Context) -> Curated:
    """Score, filter and shard the pool under the policy; held-out pictures and prompts never enter a shard."""
    from curation.run import curate as curate_pool

    def stage(*work: Any) -> StageReport:
        report = run.step(*work)
        run.progress.say(report.line)
        return report

    held_out = pinned.held_out(run.workspace)
    curated = curate_pool(
        run.workspace,
        run.policy,
        held_out=held_out.ids,
        looks=held_out.looks,
        exclude_prompts=frozenset(p.text for p in run.held_out),
        progress=run.progress,
        workers=run.job.workers,
        step=stage,
    )
    counts = {k: getattr(curated, k) for k in ("input", "admitted", "dropped", "quarantined")}
    run.progress.say(
        "{input} input = {admitted} admitted + {dropped} dropped + {quarantined} quarantined".format(**counts)
    )
    for line in curated.not_configured:
        run.progress.say(f"not applied: {line}")
    manifest = str(located(curated.manifest).relative_to(run.workspace.root))
    row = counts | {"snapshot": curated.snapshot, "policy": run.policy_name, "manifest": manifest}
    run.append("snapshots", [row], key=f"snapshot/{curated.snapshot}")
    if not curated.admitted:
        raise UsageError("curation admitted no sample: `flywheel funnel` shows which filters dropped them")
    return curated


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
        known=_known(run, cases, earlier[-1] if earlier else None, snapshot),
        incumbent_round=promoted.round if promoted else None,
    )


def _known(run: Context, cases: Iterable[Case], incumbent: RoundPlan | None, snapshot: str) -> Known:
    """What a plan needs to know of the pool; incumbent: the plan of the promoted round."""
    from curation.scorers.ocr import quoted_text
    from curation.synthesis import generators

    latest = 'SELECT case_id, arg_max(density, "at") FROM probes WHERE density IS NOT NULL GROUP BY case_id'
    with closing(connect(run.workspace, ("probes",))) as con:
        density = dict(con.execute(latest).fetchall())
    written = {c.capability for c in cases if c.track == "rl" and quoted_text(c.prompt)}
    unseen = incumbent is None or incumbent.submitted is not None or incumbent.snapshot != snapshot
    return Known(density=density, judged={*generators(), *written}, unseen=unseen)


def plan(run: Context, number: int, snapshot: str) -> RoundPlan:
    """The pinned plan of the round: written once, read afterwards."""
    if note := fidelity(run.suite):
        run.progress.say(note)
    path = run.workspace.round(number).plan
    if not path.exists():
        promotion.settle(run.workspace)
        propose(run, number, snapshot).write(path)
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
    """Train the candidate on the plan's mix, and the control as long without the round's remedies.

    Returns {arm: checkpoint}. Without remedies there is no control: it would equal the candidate. RL and distillation
    act on the candidate alone, so that a round's gain over its control is that of all its remedies.
    """
    from training.worker import TrainingRun, train_all

    mixes = {"candidate": sources(run, plan)}
    if plan.requests:
        control = tuple(m for m in plan.mix if m not in plan.requests)
        mixes["control"] = sources(run, replace(plan, mix=control))
    folders = {arm: run.workspace.round(plan.round).checkpoint(arm) for arm in mixes}
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

    checkpoints = train_all(runs, threads=run.preset.threads, progress=progress)
    for folder in folders.values():
        publish(folder)
    return {arm: folder / path.name for (arm, folder), path in zip(folders.items(), checkpoints)}


def sources(run: Context, plan: RoundPlan) -> list[dict[str, Any]]:
    """The plan's mix as training reads it: the base pool, kept remedies of earlier rounds, the round's remedies."""

    def manifest(entry: MixEntry) -> Path:
        if entry.slice == BASE:
            return run.manifest(plan)
        return run.workspace.round(entry.round or plan.round).remedy_manifest

    return [{"manifest": str(manifest(m)), "slice": m.slice, "share": m.share} for m in plan.mix if m.share]


def evaluate(run: Context, plan: RoundPlan, arm: str, system: System) -> None:
    """Draw the held-out suite with a system, judge the pictures, and draw a grid of some of them."""
    import torch

    from training.sampling import grid

    torch.set_num_threads(run.preset.threads)
    folder = run.workspace.round(plan.round).samples(arm)
    settings = systems.evaluation(system, run.preset.evaluation)
    if arm not in ARMS:
        settings = replace(settings, pictures=1)  # no gate decides on it: enough to show what a step did
    results = evaluation.evaluate(
        run.workspace,
        run.suite,
        run.workspace.path(system.checkpoint),
        round_=plan.round,
        arm=arm,
        settings=settings,
        rewritten=systems.rewritten(run.workspace, system, run.suite, folder),
        seed=plan.seed,
        progress=run.progress,
    )
    run.progress.say("failure rate: " + ", ".join(f"{c} {x:.0%}" for c, x in failure_rates(results).items()))
    if arm == "candidate" and run.hidden:
        _evaluate_hidden(run, plan, system)
    if not (folder / "grid.png").exists():
        shown = run.suite[:: max(1, len(run.suite) // 48)][:48]
        images = [np.asarray(decode((folder / evaluation.picture_name(p.prompt_id)).read_bytes())) for p in shown]
        grid(np.stack(images), [p.text for p in shown], folder / "grid.png")


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
        run.workspace.path(system.checkpoint),
        round_=plan.round,
        arm=hidden.ARM,
        settings=systems.evaluation(system, run.preset.evaluation),
        rewritten=systems.rewritten(
            run.workspace, system, run.hidden, run.workspace.round(plan.round).samples(hidden.ARM)
        ),
        seed=plan.seed,
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
    verdict = gates.judge(
        new,
        old,
        earlier=earlier,
        targets=plan.targets,
        policy=run.preset.gate,
        pictures=run.preset.evaluation.pictures,
    )
    now = promotion.incumbent(run.workspace)
    if (now.round if now else None) != (incumbent_round(run, plan) if plan.incumbent else None):
        why = "the incumbent was changed while the round ran: promote this candidate by hand, or run the next round"
        verdict = gates.Verdict("HOLD", why, verdict.lines)
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


def incumbent_round(run: Context, plan: RoundPlan) -> int:
    """The round that made the plan's incumbent; plans of earlier versions name its checkpoint alone."""
    known = (r["round"] for r in run.rows("rounds") if r["checkpoint"] == plan.incumbent)
    return plan.incumbent_round or next(known)


def _student_verdict(run: Context, number: int, teacher: Results) -> dict[str, Any] | None:
    """The gate's judgement of the student against the candidate that it was distilled from; None without a student."""
    student = load_results(run.workspace, number, "student")
    if not student:
        return None
    verdict = gates.judge(student, teacher, policy=run.preset.gate)
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
        progress=run.progress,
    )
    cases = [c for c in load_cases(run.workspace).values() if c.is_open]
    tracks = sorted({c.track or "unrouted" for c in cases})
    run.progress.say("open cases: " + (", ".join(f"{sum(c.track == t for c in cases)} {t}" for t in tracks) or "none"))
    return len(cases)
