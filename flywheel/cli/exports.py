"""Verbs that write what leaves the workspace: tables for analysts, training shards for other trainers."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption, require_suffix
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

app = typer.Typer()
exports = typer.Typer(invoke_without_command=True)
app.add_typer(exports, name="export")


class Form(StrEnum):
    """Formats of exported shards."""

    WEBDATASET = "webdataset"
    HF = "hf"
    IMAGEFOLDER = "imagefolder"
    MDS = "mds"
    PARQUET = "parquet"


class Captions(StrEnum):
    """Which caption of a picture is exported as its text."""

    CONDITION = "condition"
    GENERAL = "general"
    TEXT = "text"
    KNOWLEDGE = "knowledge"
    STRUCTURED = "structured"


@exports.callback(epilog="Example: flywheel export -w w --output analysts.duckdb")
def export(
    context: typer.Context,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", help="Folder or s3://bucket/prefix for all data and results.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="DuckDB file to write. It must not exist yet.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Export all views as one DuckDB file; `shards`: training shards; `metadata`: a table of the pool."""
    from flywheel.catalog.database import export as export_tables

    if context.invoked_subcommand is not None:
        if workspace or output or as_json:
            raise UsageError(f"write the options behind `{context.invoked_subcommand}`: they belong to it")
        return
    if workspace is None or output is None:
        raise UsageError("pass --workspace W and --output FILE.duckdb, or see `flywheel export shards --help`")
    _require_new(output, "a DuckDB file", ".duckdb", ".ddb", ".db")
    path = export_tables(Workspace(workspace, create=False), output.resolve())
    out(json_text({"export": str(path)}) if as_json else str(path))


@exports.command(epilog="Example: flywheel export metadata --output metadata.parquet -w w")
def metadata(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="Parquet file to write. It must not exist yet.")],
    as_json: JsonOption = False,
) -> None:
    """Export what is known of every picture of the pool as one Parquet file, with the column names of COYO-700M."""
    from flywheel.catalog.metadata import export_metadata

    _require_new(output, "a Parquet file", ".parquet")
    rows = export_metadata(Workspace(workspace, create=False), output.resolve())
    out(json_text({"export": str(output), "rows": rows}) if as_json else f"{rows} rows in {output}")


@exports.command(epilog="Example: flywheel export shards --format hf --stage S4 --bucket 1024 --output out -w w")
def shards(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="New folder for the export, or that of an interrupted one.")],
    format: Annotated[Form, typer.Option(help="Format of the files.")] = Form.WEBDATASET,
    stage: Annotated[str | None, typer.Option(help="Stage whose rows to export. Default: the last with rows.")] = None,
    bucket: Annotated[
        int | None, typer.Option(min=1, help="Resolution bucket in pixels. Default: the stage's largest.")
    ] = None,
    captions: Annotated[
        Captions, typer.Option(help="Caption to export; condition: the one that training uses.")
    ] = Captions.CONDITION,
    snapshot: Annotated[str | None, typer.Option(help="Snapshot id. Default: the latest.")] = None,
    part_mib: Annotated[int, typer.Option(min=1, max=2048, help="Size of a file, about.")] = 512,
    as_json: JsonOption = False,
) -> None:
    """Export the training shards of a stage and bucket for other trainers, with a data card and Croissant metadata.

    Run the same command again to complete an interrupted export. The folder must hold nothing else.
    """
    from curation.export.export import export_shards
    from curation.export.request import request
    from flywheel.core.lens import latest_snapshot
    from flywheel.core.progress import Progress

    opened = Workspace(workspace, create=False)
    wanted, manifest = request(
        opened,
        format=format,
        snapshot=_snapshot(opened, snapshot) if snapshot else latest_snapshot(opened),
        stage=stage,
        bucket=bucket,
        captions=captions,
        part_bytes=part_mib * 2**20,
    )
    progress = Progress()
    with progress.step(f"export {wanted.stage} at {wanted.bucket} as {wanted.format}"):
        exported = export_shards(opened, wanted, manifest, output, progress)
    if as_json:
        out(json_text(asdict(exported) | {"load": exported.load}))
        return
    out(f"{exported.rows} rows, {exported.bytes} bytes in {exported.parts} parts in {exported.folder}")
    if exported.left_out:
        say(
            f"{exported.left_out} rows have no caption of kind {captions} and were left out: write them with"
            f" `flywheel caption --kind {captions}`, then curate"
        )
    print_rows([{"licence": name, "rows": count} for name, count in exported.licences.items()], as_json=False)
    say("load it in its folder:")
    out("\n".join(exported.load))


def _require_new(output: Path, what: str, *suffixes: str) -> None:
    """Errors: `UsageError` for a file that exists, or cannot, or whose name says that it is something else."""
    require_suffix("--output", output, what, *suffixes)
    try:
        exists = output.exists()
    except OSError as error:
        raise UsageError(f"--output cannot be written ({error.strerror}): choose another name") from error
    if exists:
        raise UsageError(f"{output} already exists and exports are never overwritten: choose a new name")


def _snapshot(workspace: Workspace, start: str) -> str:
    """The snapshot whose id starts so. Errors: `UsageError`."""
    from curation.policy.snapshots import find

    return find(workspace, start)["snapshot"]
