"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder, or s3://bucket/prefix, that holds everything a run makes.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
SourceOption = Annotated[Path, typer.Option(help="Folder of images, WebDataset .tar, or Parquet with embedded bytes.")]
CaptionsOption = Annotated[Path | None, typer.Option(help="JSON lines: file, caption, and references for edits.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Rounds to bring the workspace to.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Ray workers for curation.")]
PrefectOption = Annotated[bool, typer.Option("--prefect/--no-prefect", help="Run the steps as a Prefect flow.")]
ApproveOption = Annotated[
    bool, typer.Option("--auto-approve", help="Nobody reviews what remedies make; recorded as such.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait for people at the review queue, or end there.")
]
PolicyOption = Annotated[str | None, typer.Option(help="Curation policy: a built-in name or a .toml file.")]
PresetOption = Annotated[str, typer.Option(help="Preset: a built-in name (tiny, demo, quick) or a .toml file.")]
