"""Is the machine ready, and is a workspace sound?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flywheel.commands.options import JsonOption, WorkspaceOption
from flywheel.console import out, say
from flywheel.workspace import Workspace

app = typer.Typer()


@app.command(epilog="Example: flywheel doctor -w w")
def doctor(
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder whose storage is tried.")] = Path(),
    services: Annotated[bool, typer.Option(help="Also start Ray and Prefect: half a minute.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that a run needs, and say what to do where it falls short. Exit code 1 on failure."""
    from flows.server import probe
    from flywheel.doctor import FAILURE, examine, start_ray

    lines = []
    for line in examine(workspace.resolve(), services={"Ray": start_ray, "Prefect": probe} if services else None):
        lines.append(line)
        if not as_json:
            out(
                f"{line.status:>8}  {line.name}: {line.found}" + (f"\n          → {line.advice}" if line.advice else "")
            )
    if as_json:
        out(json.dumps([asdict(line) for line in lines], ensure_ascii=False))
    if any(line.status == FAILURE for line in lines):
        raise typer.Exit(1)


@app.command(epilog="Example: flywheel fsck -w w")
def fsck(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Verify every manifest, hash, count, ledger and picture of a workspace. Exit code 1 when something is wrong."""
    from flywheel.fsck import fsck as verify
    from flywheel.progress import Progress

    progress = Progress()
    with progress.step("verify"):
        report = verify(Workspace(workspace, create=False), progress=progress)
    if as_json:
        out(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        for found in report.findings:
            _say(found.severity, f"{found.path}: {found.problem}", found.advice)
        say(f"{report.files} files verified: {'sound' if report.sound else 'NOT SOUND, see above'}")
    if not report.sound:
        raise typer.Exit(1)


def _say(status: str, found: str, advice: str) -> None:
    out(f"{status:>8}  {found}" + (f"\n          → {advice}" if advice else ""))
