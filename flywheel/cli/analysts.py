"""Verbs for analysts: tables, reports and pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.signals.trust import Trust

app = typer.Typer()
Status = Literal["detected", "routed", "reviewed", "remedied", "closed", "re-opened", "dismissed"]


@app.command(epilog='Examples: flywheel sql "select * from funnel" -w w; flywheel sql --ready failure_rate -w w')
def sql(
    workspace: WorkspaceOption,
    statement: Annotated[
        str | None, typer.Argument(help="One SELECT over the views. Without it and without --ready: a SQL prompt.")
    ] = None,
    ready: Annotated[str | None, typer.Option(help="Name of a ready query; `flywheel queries` lists them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Query the workspace in SQL (DuckDB, read-only)."""
    from flywheel.catalog.database import query

    opened = Workspace(workspace, create=False)
    if statement is not None and ready is not None:
        raise UsageError("pass a SELECT or --ready, not both")
    select = ready_sql(ready) if ready is not None else statement
    if select is None:
        converse(opened, as_json)
    else:
        print_rows(query(opened, select), as_json)


def ready_sql(name: str) -> str:
    """SQL text of a ready query. Errors: `UsageError` for an unknown name."""
    from flywheel.catalog.queries import ready

    known = ready()
    if name not in known:
        raise UsageError(f"there is no ready query {name!r}: choose from {', '.join(known)}")
    return known[name].sql


def converse(workspace: Workspace, as_json: bool) -> None:
    """Answer SELECTs from standard input, each ended by a semicolon; report a wrong one and go on with the next."""
    import sys

    from flywheel.catalog.database import documentation, query

    if interactive := sys.stdin.isatty():
        import readline  # noqa: F401 - gives input() history and editing

        say("end a SELECT with ;   .tables lists the views   .queries the ready queries, .NAME runs one   Ctrl-D exits")
    pending = ""
    while True:
        try:
            line = input(("   ...> " if pending else "flywheel> ") if interactive else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            pending = ""
            continue
        try:
            if not pending and line.startswith("."):
                listing = {".tables": documentation, ".queries": _questions}.get(line.strip())
                print_rows(listing() if listing else query(workspace, ready_sql(line.strip()[1:])), as_json)
                continue
            pending += line + "\n"
            if line.rstrip().endswith(";"):
                select, pending = pending, ""
                print_rows(query(workspace, select), as_json)
        except UsageError as error:
            say(str(error))
    if pending.strip():
        print_rows(query(workspace, pending), as_json)


def _questions() -> list[dict[str, str]]:
    from flywheel.catalog.queries import ready

    return [{"query": q.name, "question": q.question} for q in ready().values()]


@app.command(epilog="Example: flywheel queries")
def queries(as_json: JsonOption = False) -> None:
    """List the ready queries and the question each one answers."""
    print_rows(_questions(), as_json)


@app.command(epilog="Example: flywheel tables")
def tables(as_json: JsonOption = False) -> None:
    """List the SQL views and their columns."""
    from flywheel.catalog.database import documentation

    print_rows(documentation(), as_json)


@app.command(epilog="Example: flywheel cases --status remedied -w w")
def cases(
    workspace: WorkspaceOption,
    capability: Annotated[str | None, typer.Option(help="Default: all.")] = None,
    status: Annotated[Status | None, typer.Option(help="Default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List failure cases, all or by capability and status."""
    from flywheel.catalog.database import query

    rows = query(Workspace(workspace, create=False), "select * from cases order by capability, case_id")
    wanted = {"capability": capability, "status": status}
    chosen = [r for r in rows if all(v in (None, r[k]) for k, v in wanted.items())]
    print_rows(chosen, as_json, shown=("case_id", "capability", "track", "status", "prompt"))


@app.command(hidden=True)  # the former name of `flywheel round list`
def rounds(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """List rounds and their verdicts."""
    from flywheel.catalog.database import query

    columns = "round, verdict, checkpoint, incumbent, snapshot, result->>'$.reason' as reason, \"at\""
    rows = query(Workspace(workspace, create=False), f"select {columns} from rounds order by round")
    print_rows(rows, as_json, shown=("round", "verdict", "reason"))


@app.command(epilog="Example: flywheel calibration -w w")
def calibration(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Show how often each verifier is right, by blind verdicts of people, and the failure rate that they would see.

    People judge on the page Calibration of the dashboard. Intervals hold 95 %.
    """
    from dataclasses import asdict

    from flywheel.signals.trust import load_trust

    known = load_trust(Workspace(workspace, create=False))
    if as_json:
        print_rows([asdict(t) for t in known], as_json)
        return
    print_rows([_calibrated(t) for t in known], as_json)
    for t in known:
        if t.state != "trusted":
            say(f"{t.state}: {t.sentence}")


def _calibrated(trust: Trust) -> dict[str, str]:
    """A row for people: shares with the ends of their intervals."""

    def interval(value: float | None, low: float | None, high: float | None) -> str:
        return "–" if value is None else f"{value:.0%} ({low:.0%} to {high:.0%})"

    return {
        "verifier": trust.verifier,
        "state": trust.state,
        "judged": f"{trust.passes} + {trust.fails}",
        "TPR": interval(trust.tpr, trust.tpr_low, trust.tpr_high),
        "TNR": interval(trust.tnr, trust.tnr_low, trust.tnr_high),
        "kappa": "–" if trust.kappa is None else f"{trust.kappa:.2f}",
        "failure rate": "–" if trust.failure_rate is None else f"{trust.failure_rate:.0%}",
        "corrected": interval(trust.corrected, trust.corrected_low, trust.corrected_high),
    }


@app.command("map", epilog="Example: flywheel map -w w")
def map_(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Place captions and failing prompts on a map, for the dashboard's page Map. What is placed stays."""
    from dataclasses import asdict

    from flywheel.cases.events import load_cases
    from flywheel.catalog.database import connect, query
    from flywheel.core.lens import latest_snapshot
    from flywheel.core.progress import Progress
    from flywheel.remedies.pool_map import build, keep

    opened, progress = Workspace(workspace, create=False), Progress()
    select = "SELECT sample_id, any_value(caption) AS caption FROM samples WHERE caption <> '' GROUP BY 1 ORDER BY 1"
    with progress.step("map"):
        captions = [(r["sample_id"], r["caption"]) for r in query(opened, select)]
        built = build(opened, captions, list(load_cases(opened).values()), progress=progress)
        if snapshot := latest_snapshot(opened):
            with closing(connect(opened, ["map_points", "decisions"])) as con:
                keep(opened, con, snapshot)
    if as_json:
        out(json_text(asdict(built)))
    else:
        anew = f"; laid out anew from {built.laid_out} captions" if built.laid_out else ""
        out(f"{built.samples} samples on the map, {built.new} of them new, and {built.cases} cases{anew}")


@app.command(epilog="Example: flywheel report -w w")
def report(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Rewrite the one-file HTML report and print its path. Every round writes it too."""
    from dashboards.report import write

    path = write(Workspace(workspace, create=False))
    out(json_text({"report": str(path)}) if as_json else str(path))


@app.command(epilog="Examples: flywheel dashboard -w w; flywheel dashboard -w w --host 0.0.0.0 --tokens tokens.toml")
def dashboard(
    workspace: WorkspaceOption,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any address but loopback requires --tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8050,
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="FLYWHEEL_TOKENS",
            help="TOML file with a table [NAME] per person: role (read, review or operate) and token. Without it,"
            " everybody on this machine may view and review.",
        ),
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            envvar="FLYWHEEL_IMAGES",
            help="URL of the image server behind the playground, such as http://127.0.0.1:8070/v1; its token in"
            " FLYWHEEL_IMAGES_TOKEN.",
        ),
    ] = "",
) -> None:
    """Serve the dashboard: view everything, review samples, vote; with the role operate, promote and roll back."""
    from dashboards.access import Access, load_tokens
    from dashboards.app import serve

    access = Access(load_tokens(tokens)) if tokens else Access()
    serve(Workspace(workspace, create=False), host=host, port=port, access=access, images=images)
