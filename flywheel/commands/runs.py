"""Whole runs: the demo, and one on your own pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.commands.options import (
    ApproveOption,
    JsonOption,
    PolicyOption,
    PrefectOption,
    PresetOption,
    RoundsOption,
    SeedOption,
    WaitOption,
    WorkersOption,
    WorkspaceOption,
)
from flywheel.console import print_summary, say
from flywheel.mirror import mirror
from flywheel.workspace import UsageError, Workspace

app = typer.Typer()
DEMO = Path("demo-workspace")


@app.command(epilog="Example: flywheel demo --quick")
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A smaller round, in about two minutes.")] = False,
    workspace: WorkspaceOption = DEMO,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run two complete rounds on the embedded world: poor data, failures, a targeted remedy, a re-test and a gate."""
    from flywheel.demo.world import write_world
    from flywheel.rounds.job import Job

    size = "quick" if quick else "full"
    opened = Workspace(workspace)
    source = mirror(opened.path("demo-source", size))
    say(f"writing the demo's world to {source}")
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
    source: Annotated[Path, typer.Option(help="Folder of images, WebDataset .tar, or Parquet with embedded bytes.")],
    workspace: WorkspaceOption,
    captions: Annotated[Path | None, typer.Option(help="JSON lines: file, caption, and references for edits.")] = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    rounds: RoundsOption = 2,
    seed: SeedOption = 0,
    workers: WorkersOption = 2,
    auto_approve: ApproveOption = False,
    wait: WaitOption = True,
    prefect: PrefectOption = True,
    as_json: JsonOption = False,
) -> None:
    """Run the flywheel on your own pictures. Run it again after a kill to resume, after new data for the next round."""
    from flywheel.rounds.job import Job

    if not source.exists():
        raise UsageError(f"--source {source} does not exist: give a folder of images, a .tar or a .parquet file")
    if captions and not captions.is_file():
        raise UsageError(f"--captions {captions} is no file: give a JSON-lines file")
    job = Job(
        workspace=str(Workspace(workspace).root),
        source=str(source.resolve()),
        captions=str(captions.resolve()) if captions else None,
        policy=policy,
        preset=preset,
        seed=seed,
        rounds=rounds,
        workers=workers,
        auto_approve=auto_approve,
    )
    run_job(job, prefect=prefect, wait=wait, as_json=as_json)


def run_job(job: Any, *, prefect: bool, as_json: bool, wait: bool = True) -> None:
    """Run a job, with or without Prefect, and print its summary. While it waits for people it holds nothing."""
    from dashboards.report import write
    from flywheel.memory import PeakMemory
    from flywheel.progress import Progress
    from flywheel.remedies.review import Queue, Waiting
    from flywheel.rounds.run import finished, run, validate

    def attempt(progress: Progress) -> dict[str, Any]:
        if not prefect:
            return run(job, progress=progress, report=write)
        from flows.round import run_with_prefect

        return run_with_prefect(job, progress=progress, report=write)

    validate(job)
    with PeakMemory() as memory:
        progress, summary = Progress(), finished(job)
        if summary:
            say("nothing to do: this job is finished; the summary below is what it found")
        while summary is None:
            try:
                summary = attempt(progress)
            except Waiting as people:
                if not wait:
                    raise
                say(f"{people} (this command goes on by itself, or again after Ctrl-C)")
                with progress.step(f"round {people.round}: people review"):
                    Queue(Workspace(job.workspace)).wait(people.round, progress=progress)
    summary["peak_rss_bytes"] = memory.peak
    if as_json:
        print(json.dumps(summary, ensure_ascii=False), flush=True)
    else:
        print_summary(summary)
