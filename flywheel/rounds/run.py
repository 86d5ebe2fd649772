"""A run on one page: ingest → suite → curate → rounds of (plan → remedy → train → evaluate → gate → route).

Every step is idempotent: what is finished is found and not redone, so running again is also how a killed run resumes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.files import digest, write_json
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.records import RoundResult
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds import steps
from flywheel.rounds.advice import advise
from flywheel.rounds.costs import Meter, Units
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
from flywheel.signals.results import failure_rates, load_results

if TYPE_CHECKING:
    from curation.run import Curated

# Shown after a run.
EXAMPLE = "select capability, track, status, count(*) as cases from cases group by all order by cases desc"

Summary = dict[str, Any]
Step = Callable[..., Any]


def plain_step(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function: a run without an orchestrator."""
    return function(*args, **kwargs)


def run(
    job: Job,
    *,
    step: Step = plain_step,
    progress: Progress | None = None,
    publish: Mapping[str, Callable[[Workspace], object]] | None = None,
) -> Summary:
    """Bring the workspace to `job.rounds` finished rounds on the source as it is now; returns the summary.

    `publish`: what is written for people as the last steps, by their labels.

    Errors: `Waiting` while a round's samples wait for review; `UsageError` for anything else the user can fix.
    """
    began = time.monotonic()
    with work(job, step, progress) as (context, do):
        workspace, curated = context.workspace, fill_pool(context, do)
        for round_ in rounds_to_run(workspace, job, curated.snapshot):
            one_round(context, round_, curated.snapshot, do)
        for label, write in (publish or {}).items():
            do(label, write, workspace)
    summary = summarise(workspace, time.monotonic() - began)
    write_json(marker(job), {"job": asdict(job), "finished": True})
    return summary


def curate(job: Job, *, step: Step = plain_step, progress: Progress | None = None) -> Curated:
    """The part of a run before its rounds: bring in, score, decide and shard what is new. Errors: `UsageError`."""
    with work(job, step, progress) as (context, do):
        return fill_pool(context, do)


@contextmanager
def work(job: Job, step: Step, progress: Progress | None) -> Iterator[tuple[steps.Context, Step]]:
    """Hold the workspace; yields what steps share, and what runs a step: announced and its cost recorded."""
    workspace = Workspace(job.workspace)
    with hold(workspace, job) as number:
        context = steps.Context(workspace, job, load_preset(job.preset), progress or Progress())
        meter = Meter(workspace, number)
        workspace.upgrade()
        workspace.sweep()

        def do(label: str, function: Step, *args: Any, round_: int = 0, units: Units = 0) -> Any:
            with context.progress.step(label):
                return meter.measure(round_, label, function.__name__, lambda: step(label, function, *args), units)

        yield context, do


def fill_pool(context: steps.Context, do: Step) -> Curated:
    """Ingest, write the suite, curate."""
    do("ingest", steps.ingest, context)
    do("held-out suite", steps.hold_out, context)
    return do("curate", steps.curate, context, units=lambda found: found.input)


def validate(job: Job) -> None:
    """Everything about a job that can be wrong, before anything is started. Errors: `UsageError`."""
    from curation.policy.reader import load_policy
    from curation.sources import open_source

    preset = load_preset(job.preset)
    load_policy(job.policy or preset.policy)
    open_source(Path(job.source), Path(job.captions) if job.captions else None).inputs()


def one_round(context: steps.Context, number: int, snapshot: str, do: Step) -> None:
    """One round: plan for the open cases, remedy, train and re-test the candidate, gate, route what fails."""

    def step(label: str, function: Step, *args: Any, units: Units = 0) -> Any:
        return do(f"round {number}: {label}", function, context, *args, round_=number, units=units)

    plan = step("plan", steps.plan, number, snapshot)
    if plan.targets:
        step("collect", steps.collect, plan, units=sum(m.samples or 0 for m in plan.mix))
        step("review", steps.review, plan)
        step("shard", steps.shard, plan)
    if plan.incumbent:
        step("advise", advise, plan)
    arms = ("candidate", "control") if plan.targets else ("candidate",)
    trained = step(f"train {' and '.join(arms)}", steps.train, plan, units=plan.steps * len(arms))
    for arm, checkpoint in trained.items():
        step(f"evaluate {arm}", steps.evaluate, plan, arm, checkpoint, units=len(context.suite))
    step("gate", steps.gate, plan, trained["candidate"])
    step("route", steps.route, plan, units=int)


def rounds_to_run(workspace: Workspace, job: Job, snapshot: str) -> range:
    """Numbers of the rounds still to do: up to `job.rounds`, or one more when the data changed since the last one."""
    done = Ledger(workspace, "rounds").rows()
    routed = Ledger(workspace, "case_events")
    finished = [r["round"] for r in done if routed.has(f"route/{r['round']}")]
    last = max(finished, default=0)
    goal = job.rounds
    if last >= job.rounds and done[-1]["snapshot"] != snapshot:
        goal = last + 1
    return range(last + 1, goal + 1)


def marker(job: Job) -> Path:
    """File whose existence says that exactly this job, on exactly these input files, is finished."""
    source = Path(job.source)
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    captions = [Path(job.captions)] if job.captions else []
    listing = [(str(p), s.st_size, s.st_mtime_ns) for p in [*files, *captions] if (s := p.stat())]
    policy = Path(job.policy).read_text("utf-8") if job.policy and Path(job.policy).is_file() else job.policy
    preset = asdict(load_preset(job.preset))
    key = digest(listing, policy, preset, job.seed, job.rounds)
    return located(job.workspace) / "runs" / f"{key[:32]}.json"


def finished(job: Job) -> Summary | None:
    """The summary of a job that has nothing left to do, found without starting anything; None otherwise."""
    began = time.monotonic()
    if not (located(job.workspace) / "workspace.json").exists() or not Path(job.source).exists():
        return None
    return summarise(Workspace(job.workspace), time.monotonic() - began) if marker(job).exists() else None


def summarise(workspace: Workspace, seconds: float) -> Summary:
    """Counts of the latest snapshot and every round's result. Checks that input = admitted + dropped + quarantined."""
    counts = Ledger(workspace, "snapshots").rows()[-1]
    out: Summary = {k: counts[k] for k in ("input", "admitted", "dropped", "quarantined")}
    if out["input"] != out["admitted"] + out["dropped"] + out["quarantined"]:
        raise AssertionError(f"rows lost or doubled: {out}; please report this with the workspace's snapshots table")
    rounds = []
    for row in Ledger(workspace, "rounds").rows():
        n = row["round"]
        result = RoundResult.read(workspace.round(n).result)
        rounds.append(
            {
                "round": n,
                "verdict": row["verdict"],
                "failure_rate": failure_rates(load_results(workspace, n, "candidate")),
                "control_failure_rate": failure_rates(load_results(workspace, n, "control")),
                "targets": list(result.targets),
                "fixed": list(result.fixed),
                "broken": list(result.broken),
                "gate": [asdict(line) for line in result.gate],
            }
        )
    return out | {
        "workspace": str(workspace.root),
        "snapshot": counts["snapshot"],
        "shards": str(workspace.path(counts["manifest"])),
        "checkpoints": [str(workspace.path(r["checkpoint"])) for r in Ledger(workspace, "rounds").rows()],
        "report": str(workspace.report),
        "sql": f'flywheel sql "{EXAMPLE}" --workspace {workspace.root}',
        "seconds": round(seconds, 2),
        "rounds": rounds,
    }
