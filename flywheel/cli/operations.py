"""Run by schedule; is the machine ready, and is a workspace sound?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, PolicyOption, PresetOption, WorkersOption, WorkspaceOption
from flywheel.core.workspace import Workspace

app = typer.Typer()


@app.command(epilog="Example: flywheel doctor -w w")
def doctor(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Folder, or s3://bucket/prefix, whose storage is tried.")
    ] = Path(),
    services: Annotated[bool, typer.Option(help="Also start Ray and Prefect: half a minute.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that a run needs, and say what to do where it falls short. Exit code 1 on failure."""
    from flows.server import probe
    from flywheel.core.storage import located
    from flywheel.operate.doctor import FAILURE, examine, start_ray

    lines = []
    started = {"Ray": start_ray, "Prefect": probe} if services else None
    for line in examine(located(workspace).resolve(), services=started):
        lines.append(line)
        if not as_json:
            out(
                f"{line.status:>8}  {line.name}: {line.found}" + (f"\n          → {line.advice}" if line.advice else "")
            )
    if as_json:
        out(json.dumps([asdict(line) for line in lines], ensure_ascii=False))
    if any(line.status == FAILURE for line in lines):
        raise typer.Exit(1)


@app.command(epilog='Example: flywheel serve --source photos/ -w w --curate "0 2 * * *"')
def serve(
    source: Annotated[Path, typer.Option(help="Folder, .tar or .parquet that new pictures arrive in.")],
    workspace: WorkspaceOption,
    captions: Annotated[Path | None, typer.Option(help="JSON lines: file, caption, references.")] = None,
    policy: PolicyOption = None,
    preset: PresetOption = "tiny",
    workers: WorkersOption = 2,
    curate: Annotated[str, typer.Option(help="When to curate what is new, as cron; empty: never.")] = "0 2 * * *",
    collect: Annotated[str, typer.Option(help="When to import the inbox; empty: never.")] = "0 * * * *",
    route: Annotated[str, typer.Option(help="When to route new signals; empty: never.")] = "30 * * * *",
    round_: Annotated[str, typer.Option("--round", help="When to run a round; empty: never.")] = "0 4 * * 6",
    review: Annotated[str, typer.Option(help="When to look whether people reviewed; empty: never.")] = "*/10 * * * *",
    maintenance: Annotated[str, typer.Option(help="When to compact, export, verify; empty: never.")] = "0 6 * * 0",
) -> None:
    """Run flows by schedule on the Prefect server that PREFECT_API_URL names. FLYWHEEL_WEBHOOK is told of failures."""
    from flows.deployments import serve as serve_flows
    from flywheel.rounds.job import Job
    from flywheel.rounds.run import validate

    root = str(Workspace(workspace).root)
    given = {"captions": str(captions.resolve()) if captions else None, "policy": policy, "preset": preset}
    job = Job(root, str(source.resolve()), **given, workers=workers)
    validate(job)
    schedules = {"curate": curate, "collect-signals": collect, "route": route, "round": round_, "review": review}
    schedules |= {"maintenance": maintenance}
    say(f"serving {', '.join(k for k, v in schedules.items() if v)} for {root} (Ctrl-C pauses the schedules and ends)")
    serve_flows(root, asdict(job), {k: v for k, v in schedules.items() if v})


@app.command(epilog="Example: flywheel fsck -w w")
def fsck(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Verify every manifest, hash, count, ledger and picture of a workspace. Exit code 1 when something is wrong."""
    from flywheel.core.progress import Progress
    from flywheel.operate.fsck import fsck as verify

    progress = Progress()
    with progress.step("verify"):
        report = verify(Workspace(workspace, create=False), progress=progress)
    if as_json:
        out(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        _verified(report.as_dict())
    if not report.sound:
        raise typer.Exit(1)


@app.command(epilog="Example: flywheel maintain -w w")
def maintain(
    workspace: WorkspaceOption,
    keep_hours: Annotated[int, typer.Option(min=0, help="Remove ledger files that were replaced so long ago.")] = 168,
    as_json: JsonOption = False,
) -> None:
    """Compact and vacuum the ledgers, export the last round as DuckDB, verify every file. Exit code 1 as for fsck."""
    from flywheel.core.progress import Progress
    from flywheel.operate.maintenance import maintain as tidy

    progress = Progress()
    with progress.step("maintain"):
        found = tidy(Workspace(workspace, create=False), keep_hours=keep_hours, progress=progress)
    if as_json:
        out(json.dumps(found, ensure_ascii=False))
    else:
        print_rows([{"ledger": name, **counts} for name, counts in found["ledgers"].items()], as_json=False)
        _verified(found)
        say(f"export: {found['export'] or 'none before the first round'}")
    if not found["sound"]:
        raise typer.Exit(1)


def _verified(found: Mapping[str, Any]) -> None:
    """What `fsck` found, by severity, and its verdict."""
    for f in found["findings"]:
        _say(f["severity"], f"{f['path']}: {f['problem']}", f["advice"])
    say(f"{found['files']} files verified: {'sound' if found['sound'] else 'NOT SOUND, see above'}")


def _say(status: str, found: str, advice: str) -> None:
    out(f"{status:>8}  {found}" + (f"\n          → {advice}" if advice else ""))
