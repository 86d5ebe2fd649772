"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder or s3://bucket/prefix for all data and results.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
SourceOption = Annotated[
    list[str],
    typer.Option(
        help="Folder, file or glob of images, tars, Parquet, zips or URL lists; also s3://, gs://, az://, hf://, https://"
        " or datasets:OWNER/NAME. Repeatable."
    ),
]
RetryOption = Annotated[bool, typer.Option("--retry", help="Also fetch URLs of lists again that failed before.")]
CaptionsOption = Annotated[Path | None, typer.Option(help="JSON Lines file: file, caption, and references for edits.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Random seed.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Run until this many rounds are finished.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Number of Ray workers for curation.")]
DrawWorkersOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of Ray workers that draw and judge pictures, each on a GPU or a core of its own. "
        "Default: one per GPU where there are several.",
    ),
]
PrefectOption = Annotated[bool, typer.Option("--prefect/--no-prefect", help="Record the steps as a Prefect flow run.")]
ApproveOption = Annotated[
    bool, typer.Option("--auto-approve", help="Accept remedy samples without review; the ledger records this.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="When samples wait for review: keep waiting, or exit.")
]
PolicyOption = Annotated[str | None, typer.Option(help="Policy: built-in name or .toml file. Default: the preset's.")]
PresetOption = Annotated[str, typer.Option(help="Preset: tiny, tiny-2.1, demo, quick, or a .toml file.")]


def checkpoint_or_promoted(checkpoint: Path | None, workspace: Path | None) -> Path:
    """The checkpoint, or else the promoted one of the workspace. Errors: `UsageError` unless exactly one is given."""
    from flywheel.rounds.sample import promoted_checkpoint

    if checkpoint is not None and workspace is None:
        return checkpoint
    if workspace is not None and checkpoint is None:
        return promoted_checkpoint(Workspace(workspace, create=False))
    raise UsageError("give either --checkpoint DIR or --workspace W, whose promoted checkpoint is taken")


def require_suffix(option: str, path: Path, what: str, *suffixes: str) -> None:
    """Errors: `UsageError` for a file whose name says that it is something else than what is written."""
    if path.suffix and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path} gets {what}: give it a name that ends in {suffixes[0]}")
