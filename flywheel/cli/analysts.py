"""The analysts' tables, reports and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

app = typer.Typer()


@app.command(epilog='Examples: flywheel sql "select * from funnel" -w w; flywheel sql --ready failure_rate -w w')
def sql(
    workspace: WorkspaceOption,
    statement: Annotated[
        str | None, typer.Argument(help="One SELECT over the views; without it, and without --ready, ask and answer.")
    ] = None,
    ready: Annotated[str | None, typer.Option(help="A ready query, of those that `flywheel queries` lists.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the workspace in SQL (DuckDB, read-only)."""
    from flywheel.catalog.database import query

    where = Workspace(workspace, create=False)
    if statement is None and ready is None:
        converse(where, as_json)
    elif statement is not None and ready is not None:
        raise UsageError("give a SELECT or --ready, not both")
    else:
        print_rows(query(where, ready_sql(ready) if ready else statement), as_json)


def ready_sql(name: str) -> str:
    """The SELECT of a ready query. Errors: `UsageError`."""
    from flywheel.catalog.queries import ready

    known = ready()
    if name not in known:
        raise UsageError(f"there is no ready query {name!r}: choose from {', '.join(known)}")
    return known[name].sql


def converse(workspace: Workspace, as_json: bool) -> None:
    """Answer SELECTs from standard input, each ended by a semicolon, until it ends; a wrong one costs only itself."""
    import sys

    from flywheel.catalog.database import documentation, query

    if person := sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() its history and editing

        say("SELECTs end in ;   .tables lists the views   .queries the ready ones, asked by .NAME   Ctrl-D ends")
    pending = ""
    while True:
        try:
            line = input(("   ...> " if pending else "flywheel> ") if person else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            pending = ""
            continue
        try:
            if not pending and line.startswith("."):
                shown = {".tables": documentation, ".queries": _questions}.get(line.strip())
                print_rows(shown() if shown else query(workspace, ready_sql(line.strip()[1:])), as_json)
                continue
            pending += line + "\n"
            if line.rstrip().endswith(";"):
                asked, pending = pending, ""
                print_rows(query(workspace, asked), as_json)
        except UsageError as error:
            say(str(error))
    if pending.strip():
        print_rows(query(workspace, pending), as_json)


def _questions() -> list[dict[str, str]]:
    from flywheel.catalog.queries import ready

    return [{"query": q.name, "question": q.question} for q in ready().values()]


@app.command(epilog="Example: flywheel queries")
def queries(as_json: JsonOption = False) -> None:
    """List the ready queries and the question that each answers."""
    print_rows(_questions(), as_json)


@app.command(epilog="Example: flywheel tables")
def tables(as_json: JsonOption = False) -> None:
    """List the analysts' views and their columns."""
    from flywheel.catalog.database import documentation

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
    from flywheel.catalog.database import query

    rows = query(Workspace(workspace, create=False), "select * from cases order by capability, case_id")
    wanted = {"capability": capability, "status": status}
    print_rows([r for r in rows if all(v in (None, r[k]) for k, v in wanted.items())], as_json)


@app.command(epilog="Example: flywheel rounds -w w")
def rounds(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """List rounds with their verdicts."""
    from flywheel.catalog.database import query

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
    from flywheel.catalog.database import export as export_tables

    if output.exists():
        raise UsageError(f"{output} exists: exports are never replaced, give a new name")
    path = export_tables(Workspace(workspace, create=False), output.resolve())
    out(json.dumps({"export": str(path)}) if as_json else str(path))


@app.command(epilog="Examples: flywheel dashboard -w w; flywheel dashboard -w w --host 0.0.0.0 --tokens tokens.toml")
def dashboard(
    workspace: WorkspaceOption,
    host: Annotated[str, typer.Option(help="Address to bind to; others than loopback need --tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8050,
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="FLYWHEEL_TOKENS",
            help="TOML file of who may do what: [NAME] with role = read, review or operate, and token. Without it,"
            " whoever is on this machine may look and review.",
        ),
    ] = None,
) -> None:
    """Serve the dashboard: look at everything, review, vote; with the role operate, promote and roll back."""
    from dashboards.access import Access, load_tokens
    from dashboards.app import serve

    access = Access(load_tokens(tokens)) if tokens else Access()
    serve(Workspace(workspace, create=False), host=host, port=port, access=access)
