"""Verbs of whole runs: the demo, a run on your images, and curation alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flywheel.cli.console import json_text, out, print_curated, print_summary, say
from flywheel.cli.options import (
    ApproveOption,
    CaptionsOption,
    DrawWorkersOption,
    JsonOption,
    PolicyOption,
    PrefectOption,
    PresetOption,
    RetryOption,
    RoundsOption,
    SeedOption,
    SourceOption,
    WaitOption,
    WorkersOption,
    WorkspaceOption,
)
from flywheel.core.errors import UsageError
from flywheel.core.mirror import mirror
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.rounds.job import Job

app = typer.Typer()
DEMO = Path("demo-workspace")


@app.command(epilog="Example: flywheel demo --quick")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Run smaller rounds, in two to five minutes.")] = False,
    workspace: WorkspaceOption = DEMO,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run two complete rounds on a built-in toy world: poor data, failures, targeted remedy, re-test, gate."""
    from flywheel.demo.world import write_world
    from flywheel.rounds.job import Job

    size: Literal["quick", "full"] = "quick" if quick else "full"
    opened = Workspace(workspace)
    source = mirror(opened.path("demo-source", size))
    say(f"writing the demo data to {source}")
    write_world(source, seed=seed, size=size)
    job = Job(
        workspace=str(opened.root),
        source=str(source),
        preset="quick" if quick else "demo",
        seed=seed,
        rounds=2,
        workers=workers,
    )
    run_job(job, prefect=prefect, as_json=as_json)


@app.command(epilog="Example: flywheel run --source photos/ --captions captions.jsonl --workspace w")
def run(
    source: SourceOption,
    workspace: WorkspaceOption,
    captions: CaptionsOption = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    rounds: RoundsOption = 2,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    draw_workers: DrawWorkersOption = None,
    auto_approve: ApproveOption = False,
    retry: RetryOption = False,
    wait: WaitOption = True,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run the flywheel on your images: curate, train, evaluate, route failures, remedy, gate.

    Run the same command again to resume after a crash. Ask for more --rounds to continue, with new data or without.
    """
    settings = {"policy": policy, "preset": preset, "seed": seed, "workers": workers, "retry": retry}
    more = {"rounds": rounds, "auto_approve": auto_approve, "draw_workers": draw_workers}
    job = job_of(workspace, source, captions, **settings, **more)
    run_job(job, prefect=prefect, wait=wait, as_json=as_json)


@app.command(epilog="Example: flywheel curate --source photos/ --captions captions.jsonl --policy mine.toml -w w")
def curate(
    source: SourceOption,
    workspace: WorkspaceOption,
    captions: CaptionsOption = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    workers: WorkersOption = 2,
    retry: RetryOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be read, scored and written, with time and cost.")
    ] = False,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of a core-hour, for the cost that --dry-run estimates.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest, score, filter and shard new data, without training. Pictures need no captions.

    Safe to run again after a crash or when data arrives.
    """
    from flywheel.catalog.database import query
    from flywheel.core.progress import Progress
    from flywheel.rounds.run import curate as curate_job
    from flywheel.rounds.run import validate
    from flywheel.rounds.stages import funnel_rows

    if price is not None and not dry_run:
        raise UsageError("--price is for the estimate of --dry-run: pass both, or neither")
    if dry_run:
        print_estimate(workspace, source, captions, policy, preset, workers, price, as_json)
        return
    job = job_of(workspace, source, captions, policy=policy, preset=preset, workers=workers, retry=retry)
    validate(job, for_rounds=False)
    curated = curate_job(job, progress=Progress())
    if as_json:
        out(json_text(asdict(curated)))
    else:
        opened = Workspace(workspace)
        print_curated(curated, [*query(opened, "select * from funnel"), *funnel_rows(opened)])


def print_estimate(
    workspace: Path,
    sources: Sequence[str],
    captions: Path | None,
    policy: str | None,
    preset: str,
    workers: int,
    price: float | None,
    as_json: bool,
) -> None:
    """Print what curating would read, score and write; nothing is written."""
    from curation.estimate import estimate
    from curation.policy.reader import load_policy
    from flywheel.core.progress import duration
    from flywheel.core.storage import located, remote
    from flywheel.core.workspace import require_storage
    from flywheel.presets import load_preset

    root = located(workspace)
    if remote(root):
        require_storage(root)
    there = (root / "workspace.json").exists()
    opened = Workspace(workspace, create=False) if there else None
    rules = load_policy(policy or load_preset(preset).policy)
    found = estimate(opened, sources, captions, rules, workers=workers)
    cost = None if price is None else round(price * found.cpu_seconds / 3600, 2)
    if as_json:
        out(json_text(asdict(found) | {"cost": cost}))
        return
    out(f"read: {found.new} new of {found.inputs} inputs, {found.read_bytes:,} bytes; {found.refused} cannot be used")
    out(f"score: {found.to_score} pictures by {', '.join(found.scorers)}")
    if found.shard_files is None:
        out(f"write: at most {found.write_bytes:,} bytes of pool and shards, for new rows")
    else:
        out(f"write: {found.shard_files} shard files, about {found.write_bytes:,} bytes")
    money = "" if cost is None else f", {cost:.2f} at {price:g} a core-hour"
    spent = f"{duration(found.cpu_seconds)} of CPU, {duration(found.wall_seconds)} on {workers} workers{money}"
    out(
        f"about {spent} beside the start of the workers (measured on {found.measured} pictures)"
        if found.measured
        else "no picture to score or encode"
    )
    for line in found.notes:
        say(line)
    for line in found.not_configured:
        say(f"not applied: {line}")
    if found.uncaptioned:
        say(f"pictures without a caption: {found.uncaptioned}. They are curated; `flywheel caption` writes captions")


def job_of(workspace: Path, sources: Sequence[str], captions: Path | None, **settings: Any) -> Job:
    """The job, with absolute paths. Errors: `UsageError` for missing inputs."""
    from curation.sources.files import absolute, missing
    from flywheel.rounds.job import Job

    for source in sources:
        if not source:
            raise UsageError("--source is empty: pass a file, a folder, a glob or a URL")
        if missing(source):
            raise UsageError(f"--source {source} does not exist: pass a file, a folder, a glob or a URL")
    if captions and not captions.is_file():
        raise UsageError(f"--captions {captions} is not a file: pass a JSON Lines file")
    places = tuple(map(absolute, sources))
    listed = str(captions.resolve()) if captions else None
    return Job(str(Workspace(workspace).root), places[0] if len(places) == 1 else places, listed, **settings)


def run_job(job: Job, *, prefect: bool, as_json: bool, wait: bool = True) -> None:
    """Run a job, with or without Prefect, and print its summary. It holds no lock while it waits for reviewers."""
    from dashboards.report import PUBLISH
    from flywheel.core.memory import PeakMemory
    from flywheel.core.progress import Progress
    from flywheel.remedies.review import Queue, Waiting
    from flywheel.rounds.run import Summary, finished, run, validate

    def attempt(progress: Progress) -> Summary:
        if not prefect:
            return run(job, progress=progress, publish=PUBLISH)
        from flows.round import run_with_prefect

        return run_with_prefect(job, progress=progress, publish=PUBLISH)

    validate(job)
    with PeakMemory() as memory:
        progress, summary = Progress(), finished(job)
        if summary:
            say("nothing to do: this job is already finished; its summary:")
        while summary is None:
            try:
                summary = attempt(progress)
            except Waiting as waiting:
                if not wait:
                    raise
                say(f"{waiting} (this command continues by itself; after Ctrl-C, run it again)")
                with progress.step(f"round {waiting.round}: people review"):
                    Queue(Workspace(job.workspace)).wait(waiting.round, progress=progress)
    figures = summary.as_dict() | {"peak_rss_bytes": memory.peak}
    if as_json:
        print(json_text(figures), flush=True)
    else:
        print_summary(figures)
