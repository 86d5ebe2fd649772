"""Verbs for operation: check the machine, verify and maintain a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.files import text_lines
from flywheel.core.workspace import Workspace

app = typer.Typer()


@app.command(epilog="Example: flywheel doctor -w w")
def doctor(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Folder or s3://bucket/prefix whose storage to test.")
    ] = Path(),
    services: Annotated[bool, typer.Option(help="Also start Ray and Prefect; takes half a minute.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Check everything a run needs and print how to fix what is missing. Exit code 1 if a check fails."""
    from flows.server import probe
    from flywheel.core.storage import located
    from flywheel.operate.doctor import FAILURE, examine, start_ray

    lines = []
    started = {"Ray": start_ray, "Prefect": probe} if services else None
    for line in examine(located(workspace).resolve(), services=started):
        lines.append(line)
        if not as_json:
            _print_finding(line.status, f"{line.name}: {line.found}", line.advice)
    if as_json:
        out(json_text([asdict(line) for line in lines]))
    if any(line.status == FAILURE for line in lines):
        raise typer.Exit(1)


@app.command(epilog='Example: flywheel stop -w w --by ada --why "the disk is needed"')
def stop(
    workspace: WorkspaceOption,
    by: Annotated[str, typer.Option(help="Your name; recorded in the ledger.")],
    why: Annotated[str, typer.Option(help="Reason; recorded in the ledger.")],
    as_json: JsonOption = False,
) -> None:
    """Ask the run that works on a workspace, on any host, to stop. Finished work is kept; its command resumes it."""
    from flywheel.rounds.live import ask_to_stop

    row = ask_to_stop(Workspace(workspace, create=False), by=by, why=why)
    if as_json:
        out(json_text({k: row[k] for k in ("version", "host", "pid")}))
    else:
        say(f"asked run {row['version']} (process {row['pid']} on {row['host']}) to stop: it looks every few seconds")


@app.command(epilog='Example: flywheel unlock -w w --by ada --why "the node was removed"')
def unlock(
    workspace: WorkspaceOption,
    by: Annotated[str, typer.Option(help="Your name; recorded in the ledger.")],
    why: Annotated[str, typer.Option(help="Reason; recorded in the ledger.")],
    as_json: JsonOption = False,
) -> None:
    """Take a workspace from the run that holds it. A run that is still working stops at its next record.

    Runs that were killed need no unlocking: the next run notices within a minute that their heartbeat has stopped.
    """
    from flywheel.rounds.lease import unlock as take

    row = take(Workspace(workspace, create=False), by=by, why=why)
    if as_json:
        out(json_text({k: row[k] for k in ("version", "host", "pid")}))
    else:
        say(f"unlocked: run {row['version']} (process {row['pid']} on {row['host']}) no longer holds {workspace}")


@app.command(epilog='Example: flywheel erase 3f2a photos/ada.jpg --by ada --why "asked by its author" -w w')
def erase(
    workspace: WorkspaceOption,
    names: Annotated[
        list[str] | None, typer.Argument(help="Pictures: ids or their first characters, files, addresses.")
    ] = None,
    listed: Annotated[Path | None, typer.Option("--from", help="File with one id, file or address a line.")] = None,
    by: Annotated[str, typer.Option(help="Your name; recorded in the ledger.")] = "",
    why: Annotated[str, typer.Option(help="Reason; recorded in the ledger.")] = "",
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also erase what curation took for their near-duplicates.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also erase pictures of the held-out suite: their prompts go.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase pictures: every file made of them is rewritten or removed, and no ingest takes them again.

    Reaches pool, scores, captions, snapshots, training shards, remedies, suite, samples, the playground and exports
    made here; lists the checkpoints that were trained on them. `flywheel fsck` proves that nothing is left. An
    interrupted erasure is completed by any further `flywheel erase`, also without names.
    """
    from flywheel.core.progress import Progress
    from flywheel.operate.erase import erase as erase_pictures

    progress = Progress()
    wanted = [*(names or ()), *(_lines(listed) if listed else ())]
    with progress.step("erase"):
        results = erase_pictures(
            Workspace(workspace, create=False), wanted, by=by, why=why, force=force, duplicates=duplicates,
            progress=progress,
        )  # fmt: skip
    if as_json:
        out(json_text([asdict(r) for r in results]))
        return
    for r in results:
        out(f"erased {len(r.images)} pictures: {r.rows} rows of the pool, {r.samples} samples, {r.rewritten} files")
        notes = {
            "checkpoints were trained on them": r.checkpoints,
            "prompts left the held-out suite": r.prompts,
            "pictures of the playground showed them, and went too": r.played,
            "exports were written again or removed": r.exports,
            "exports are out of reach: remove them there": r.unreached,
            "near-duplicates stay (--duplicates erases them too)": r.near_duplicates,
            "files of sources still hold them: remove them there": r.sources,
        }
        for note, things in notes.items():
            if things:
                say(f"{len(things)} {note}: {', '.join(things)}")
    say("next: flywheel fsck proves that nothing is left; flywheel curate writes a snapshot without them")


def _lines(path: Path) -> list[str]:
    try:
        lines = text_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from {path} cannot be read as UTF-8 text: {error}") from error
    if not (names := [line.strip() for line in lines if line.strip()]):
        raise UsageError(f"--from {path} names nothing: write one id, file or address a line")
    return names


@app.command(epilog="Example: flywheel fsck -w w")
def fsck(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Verify every manifest, hash, count, ledger and image of a workspace. Changes nothing. Exit code 1 on errors."""
    from flywheel.core.progress import Progress
    from flywheel.operate.fsck import fsck as verify

    progress = Progress()
    with progress.step("verify"):
        report = verify(Workspace(workspace, create=False), progress=progress)
    if as_json:
        out(json_text(report.as_dict()))
    else:
        _print_findings(report.as_dict())
    if not report.sound:
        raise typer.Exit(1)


@app.command(epilog="Example: flywheel maintain -w w")
def maintain(
    workspace: WorkspaceOption,
    keep_hours: Annotated[
        int, typer.Option(min=0, help="Age in hours after which replaced ledger files and unlisted shards are deleted.")
    ] = 168,
    as_json: JsonOption = False,
) -> None:
    """Compact the ledgers, drop shards no snapshot lists, export the last round, verify all. Exit code 1 on errors."""
    from flywheel.core.progress import Progress
    from flywheel.operate.maintenance import maintain as tidy

    progress = Progress()
    with progress.step("maintain"):
        report = tidy(Workspace(workspace, create=False), keep_hours=keep_hours, progress=progress)
    if as_json:
        out(json_text(report))
    else:
        print_rows([{"ledger": name, **counts} for name, counts in report["ledgers"].items()], as_json=False)
        if report["shard_files"]:
            say(f"{report['shard_files']} shard files removed that no snapshot lists")
        _print_findings(report)
        say(f"export: {report['export'] or 'none before the first round'}")
    if not report["sound"]:
        raise typer.Exit(1)


def _print_findings(report: Mapping[str, Any]) -> None:
    """Print the findings of `fsck`, then its verdict."""
    for f in report["findings"]:
        _print_finding(f["severity"], f"{f['path']}: {f['problem']}", f["advice"])
    say(f"{report['files']} files verified: {'sound' if report['sound'] else 'NOT SOUND, see above'}")


def _print_finding(status: str, finding: str, advice: str) -> None:
    out(f"{status:>8}  {finding}" + (f"\n          → {advice}" if advice else ""))
