"""The analysts' tables, reports and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.commands.options import JsonOption, WorkspaceOption
from flywheel.console import out, print_rows
from flywheel.workspace import UsageError, Workspace

app = typer.Typer()


@app.command(epilog='Example: flywheel sql "select * from funnel" -w w')
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the views; `flywheel tables` lists them.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Ask the workspace in SQL (DuckDB, read-only)."""
    from flywheel.catalog import query

    print_rows(query(Workspace(workspace, create=False), statement), as_json)


@app.command(epilog="Example: flywheel tables")
def tables(as_json: JsonOption = False) -> None:
    """List the analysts' views and their columns."""
    from flywheel.catalog import documentation

    print_rows(documentation(), as_json)


@app.command(epilog="Example: flywheel cases --status remedied -w w")
def cases(
    workspace: WorkspaceOption,
    capability: Annotated[str | None, typer.Option(help="Only this capability.")] = None,
    status: Annotated[
        str | None, typer.Option(help="detected, routed, reviewed, remedied, closed or re-opened.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List failure cases."""
    from flywheel.catalog import query

    rows = query(Workspace(workspace, create=False), "select * from cases order by capability, case_id")
    wanted = {"capability": capability, "status": status}
    print_rows([r for r in rows if all(v in (None, r[k]) for k, v in wanted.items())], as_json)


@app.command(epilog="Example: flywheel rounds -w w")
def rounds(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """List rounds with their verdicts."""
    from flywheel.catalog import query

    columns = 'round, verdict, checkpoint, incumbent, snapshot, "at"'
    print_rows(query(Workspace(workspace, create=False), f"select {columns} from rounds order by round"), as_json)


@app.command(epilog="Example: flywheel report -w w")
def report(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Write the one-file HTML report again."""
    from dashboards.report import write

    path = write(Workspace(workspace, create=False))
    out(json.dumps({"report": str(path)}) if as_json else str(path))


@app.command(epilog="Example: flywheel export -w w --output analysts.duckdb")
def export(
    workspace: WorkspaceOption,
    output: Annotated[Path, typer.Option(help="DuckDB file to write; must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Write the analysts' tables into one DuckDB file."""
    from flywheel.catalog import export as export_tables

    if output.exists():
        raise UsageError(f"{output} exists: exports are never replaced, give a new name")
    path = export_tables(Workspace(workspace, create=False), output.resolve())
    out(json.dumps({"export": str(path)}) if as_json else str(path))


@app.command(epilog="Example: flywheel dashboard -w w --port 8050")
def dashboard(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8050,
) -> None:
    """Serve the dashboard (read-only)."""
    from dashboards.app import serve

    serve(Workspace(workspace, create=False), host=host, port=port)
