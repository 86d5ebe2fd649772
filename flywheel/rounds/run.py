"""A run on one page: ingest → score → suite → curate → rounds of (plan → data → RL → enhancer → distil → evaluate →
gate → route).

Every step is idempotent and skips finished work: to resume a killed run, run it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, write_json
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress, plain_step
from flywheel.core.records import GateLine, RoundPlan, RoundResult
from flywheel.core.storage import interrupted, located
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds import pool, steps, submit, systems, tracks
from flywheel.rounds.advice import advise
from flywheel.rounds.context import Context
from flywheel.rounds.costs import Meter, Units
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
from flywheel.rounds.live import reported
from flywheel.rounds.settings import require_usable
from flywheel.signals.calibration import separation
from flywheel.signals.results import failure_rates, load_results

if TYPE_CHECKING:
    from curation.run import Curated

# The query that a summary suggests.
EXAMPLE = "select capability, track, status, count(*) as cases from cases group by all order by cases desc"

Step = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """A round's verdict, failure rates by capability (shares in [0, 1]), gate lines and changed cases.

    system: what the gate judged; other_failure_rates: of the further arms: `data`, the candidate before its RL, and
    `student`, which was distilled from it; student: the gate's judgement of the student.
    hidden_failure_rate: on the prompts that nothing chases; far above `failure_rate`, the suite is fitted.
    """

    round: int
    verdict: str
    reason: str
    system: Mapping[str, Any]
    failure_rate: Mapping[str, float]
    control_failure_rate: Mapping[str, float]
    hidden_failure_rate: Mapping[str, float]
    targets: tuple[str, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    gate: tuple[GateLine, ...]
    other_failure_rates: Mapping[str, Mapping[str, float]]
    student: Mapping[str, Any] | None
    separation: Mapping[str, Mapping[str, float]]  # check → share of true pictures, and of the worst null, that passes


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a run: row counts of its snapshot, all rounds, and where the files are.

    shards: manifest of the snapshot; sql: a command that queries the workspace; seconds: duration of the run.
    """

    input: int
    admitted: int
    dropped: int
    quarantined: int
    workspace: str
    snapshot: str
    shards: str
    checkpoints: tuple[str, ...]
    report: str
    sql: str
    seconds: float
    rounds: tuple[RoundSummary, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run(
    job: Job,
    *,
    step: Step = plain_step,
    progress: Progress | None = None,
    publish: Mapping[str, Callable[[Workspace], object]] | None = None,
) -> Summary:
    """Run until `job.rounds` rounds are finished on the source as it is now.

    step: calls a step, as `plain_step` does; publish: functions that write for people, by label: the last steps.
    Errors: `Waiting` while a round's samples wait for review; `UsageError` for anything else the user can fix.

    >>> import flywheel as fw
    >>> summary = fw.run(fw.Job("w", "photos", "photos/captions.jsonl", preset="small.toml", rounds=1))
    >>> summary.rounds[0].verdict
    'PROMOTE'
    """
    began = time.monotonic()
    with work(job, step, progress) as (context, do):
        workspace, curated = context.workspace, fill_pool(context, do)
        for round_ in rounds_to_run(workspace, job, curated.snapshot):
            one_round(context, round_, curated.snapshot, do)
        for label, write in (publish or {}).items():
            do(label, write, workspace)
    summary = summarise(workspace, time.monotonic() - began, curated.snapshot)
    write_json(marker(job), {"job": asdict(job), "finished": True, "snapshot": curated.snapshot})
    return summary


def curate(job: Job, *, step: Step = plain_step, progress: Progress | None = None) -> Curated:
    """Ingest, score, filter and shard new data, without training. Errors: `UsageError`.

    Nothing is held out for evaluation until a round asks for it, or a run has done so before.

    >>> import flywheel as fw
    >>> job = fw.Job("w", "photos", "photos/captions.jsonl", preset="small.toml")
    >>> curated = fw.curate(job)
    >>> curated.input == curated.admitted + curated.dropped + curated.quarantined == 12
    True
    """
    with work(job, step, progress) as (context, do):
        return fill_pool(context, do, for_rounds=False)


@contextmanager
def work(job: Job, step: Step, progress: Progress | None) -> Iterator[tuple[Context, Step]]:
    """Hold the workspace; yields the context of all steps, and a function that runs a step and records its cost."""
    workspace = Workspace(job.workspace)
    with ExitStack() as stack:
        number = stack.enter_context(hold(workspace, job))
        context = Context(workspace, job, load_preset(job.preset), progress or Progress(), step)
        meter = Meter(workspace, number)
        workspace.upgrade()
        workspace.sweep()
        report = stack.enter_context(reported(workspace, number, context.progress))

        def do(label: str, function: Step, *args: Any, round_: int = 0, units: Units = 0) -> Any:
            report.round = round_
            again = Retrying(retry=retry_if_exception(interrupted), stop=stop_after_attempt(3), reraise=True)
            with context.progress.step(label):  # every step finds what an attempt before it has finished
                return meter.measure(
                    round_, label, function.__name__, lambda: again(step, label, function, *args), units
                )

        yield context, do


def fill_pool(context: Context, do: Step, *, for_rounds: bool = True) -> Curated:
    """Ingest the source, write the held-out suite, curate.

    A suite that is made from the pool is for rounds alone: it keeps pictures out of the shards. It is drawn from rows
    that are scored and pass the policy, before any of them is sharded.
    """
    from_pool = context.preset.evaluation.suite == "pool"
    do("ingest", pool.ingest, context)
    with ExitStack() as stack:
        if from_pool and for_rounds and not context.workspace.suite.exists():
            do("score", pool.score, context, stack)
        if for_rounds or not from_pool:
            do("held-out suite", pool.hold_out, context)
        return do("curate", pool.curate, context, for_rounds, units=lambda curated: curated.input)


def validate(job: Job, *, for_rounds: bool = True) -> None:
    """Check a job before anything starts. Errors: `UsageError` for its preset, policy, source or captions.

    for_rounds: also what only rounds use, such as the keys of endpoints.
    """
    from curation.policy.reader import load_policy
    from curation.sources import open_source

    preset = load_preset(job.preset)
    load_policy(job.policy or preset.policy)
    if job.captions and len(job.sources) > 1:
        raise UsageError("--captions is for one source: put captions.jsonl into each folder instead")
    for source in job.sources:
        open_source(source, Path(job.captions) if job.captions else None).check()
    if for_rounds:
        require_usable(job.preset)


def one_round(context: Context, number: int, snapshot: str, do: Step) -> None:
    """One round: plan for the open cases, remedy them track by track, evaluate the candidate, gate, route the failures.

    Every phase may be empty: the plan says why. A submitted candidate is only evaluated and gated.
    """

    def step(label: str, function: Step, *args: Any, units: Units = 0) -> Any:
        return do(f"round {number}: {label}", function, context, *args, round_=number, units=units)

    if number == 1 and (context.preset.generator or context.preset.training.start):
        step("start", submit.start, number, snapshot)
    plan = step("plan", steps.plan, number, snapshot)
    arms = {"candidate": context.workspace.path(plan.submitted.checkpoint)} if plan.submitted else {}
    student: Path | None = None
    enhancer: Path | None = None
    if not plan.submitted:
        if plan.incumbent:
            arms["candidate"] = context.workspace.path(plan.incumbent)
            step("advise", advise, plan)
        arms |= data_phase(context, plan, step)
    if updates := plan.updates("rl", "grpo"):
        before = arms["candidate"]
        arms["candidate"] = step("reinforce", tracks.reinforce, plan, before, units=updates)
        if plan.steps and arms["candidate"] != before:
            arms["data"] = before  # what the data phase alone would have given
    if updates := plan.updates("prompt_enhancement", "sft"):
        enhancer = step("fine-tune the enhancer", tracks.fine_tune, plan, units=updates)
    if enhancer and (updates := plan.updates("prompt_enhancement", "grpo")):
        inputs = (plan, enhancer, arms["candidate"])
        enhancer = step("reinforce the enhancer", tracks.reinforce_enhancer, *inputs, units=updates)
    if updates := plan.updates(None, "distil"):
        student = step("distil", tracks.distil, plan, arms["candidate"], units=updates)
    drawn = step("assemble", tracks.assemble, plan, arms, enhancer, student)
    for arm, system in drawn.items():
        step(f"evaluate {arm}", steps.evaluate, plan, arm, system, units=int)
    step("gate", steps.gate, plan, drawn["candidate"])
    step("route", steps.route, plan, units=int)


def data_phase(context: Context, plan: RoundPlan, step: Step) -> dict[str, Path]:
    """Collect and review the plan's samples, then train; returns {arm: checkpoint}, nothing if the phase is empty."""
    if plan.requests:
        step("collect", steps.collect, plan, units=sum(m.samples or 0 for m in plan.mix))
        step("review", steps.review, plan)
        step("shard", steps.shard, plan)
    if not plan.steps:
        return {}
    arms = ("candidate", "control") if plan.aimed else ("candidate",)
    return step(f"train {' and '.join(arms)}", steps.train, plan, units=plan.steps * len(arms))


def rounds_to_run(workspace: Workspace, job: Job, snapshot: str) -> range:
    """Numbers of the rounds to run: up to `job.rounds`, or one more if the data changed since the last round."""
    rounds = Ledger(workspace, "rounds").rows()
    events = Ledger(workspace, "case_events")
    last = max((r["round"] for r in rounds if events.has(f"route/{r['round']}")), default=0)
    stale = last >= job.rounds and rounds[-1]["snapshot"] != snapshot
    return range(last + 1, (last + 1 if stale else job.rounds) + 1)


def marker(job: Job) -> Path:
    """Path of the file that exists once this job is finished on exactly these input files."""
    from curation.sources.mix import listed

    given = [*job.sources, *([job.captions] if job.captions else [])]
    listing = [(f.uri, f.size, f.mtime_ns) for place in given for f in listed(place)]
    policy = Path(job.policy).read_text("utf-8") if job.policy and Path(job.policy).is_file() else job.policy
    preset = asdict(load_preset(job.preset))
    key = digest(listing, policy, preset, job.seed, job.rounds)
    return located(job.workspace) / "runs" / f"{key[:32]}.json"


def finished(job: Job) -> Summary | None:
    """The summary of a finished job, without starting anything; None if there is work to do."""
    began = time.monotonic()
    if not (located(job.workspace) / "workspace.json").exists() or job.retry:
        return None
    if not (path := marker(job)).exists():
        return None
    return summarise(Workspace(job.workspace), time.monotonic() - began, read_json(path).get("snapshot"))


def summarise(workspace: Workspace, seconds: float, snapshot_id: str | None = None) -> Summary:
    """The summary of a workspace with the counts of a snapshot: by default, and for an unknown one, of the latest.

    Checks that input = admitted + dropped + quarantined.
    """
    recorded = Ledger(workspace, "snapshots").rows()
    snapshot = next((row for row in reversed(recorded) if row["snapshot"] == snapshot_id), recorded[-1])
    counts = {k: snapshot[k] for k in ("input", "admitted", "dropped", "quarantined")}
    if counts["input"] != counts["admitted"] + counts["dropped"] + counts["quarantined"]:
        raise AssertionError(f"rows lost or doubled: {counts}; please report this with the workspace's snapshots table")
    rounds = Ledger(workspace, "rounds").rows()
    return Summary(
        **counts,
        workspace=str(workspace.root),
        snapshot=snapshot["snapshot"],
        shards=str(workspace.path(snapshot["manifest"])),
        checkpoints=tuple(str(workspace.path(r["checkpoint"])) for r in rounds),
        report=str(workspace.report),
        sql=f'flywheel sql "{EXAMPLE}" --workspace {workspace.root}',
        seconds=round(seconds, 2),
        rounds=tuple(_summarise_round(workspace, r["round"], r["verdict"]) for r in rounds),
    )


def _summarise_round(workspace: Workspace, number: int, verdict: str) -> RoundSummary:
    result = RoundResult.read(workspace.round(number).result)
    others = {arm: failure_rates(load_results(workspace, number, arm)) for arm in ("data", "student")}
    return RoundSummary(
        round=number,
        verdict=verdict,
        reason=result.reason,
        system=result.system or systems.read(workspace, number).as_dict(),
        failure_rate=failure_rates(load_results(workspace, number, "candidate")),
        control_failure_rate=failure_rates(load_results(workspace, number, "control")),
        hidden_failure_rate=result.hidden_failure_rate,
        targets=result.targets,
        fixed=result.fixed,
        broken=result.broken,
        gate=result.gate,
        other_failure_rates={arm: rates for arm, rates in others.items() if rates},
        student=result.student,
        separation=separation(workspace.suite),
    )
