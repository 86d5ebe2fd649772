"""The verb that fetches URL lists, without ingesting their pictures."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, PresetOption, RetryOption, WorkersOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from curation.sources.urls import Fetching

app = typer.Typer()


@app.command(epilog="Example: flywheel fetch laion/part-*.parquet -w w --per-host 4")
def fetch(
    lists: Annotated[list[str], typer.Argument(help="URL lists: Parquet, CSV, TSV, JSON Lines, text; or folders.")],
    workspace: WorkspaceOption,
    retry: RetryOption = False,
    preset: PresetOption = "tiny",
    per_host: Annotated[int | None, typer.Option(min=1, help="Requests at once per host.")] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Least seconds between two requests to a host.")] = None,
    agent: Annotated[str | None, typer.Option(help="User agent; robots.txt may name its first word.")] = None,
    allow_private: Annotated[bool, typer.Option("--allow-private", help="Also fetch from private networks.")] = False,
    ignore_opt_outs: Annotated[
        bool,
        typer.Option("--ignore-opt-outs", help="Fetch in spite of robots.txt and X-Robots-Tag."),
    ] = False,
    workers: WorkersOption = 2,
    as_json: JsonOption = False,
) -> None:
    """Fetch the pictures of URL lists into the workspace: every URL ends as fetched, refused or failed.

    `flywheel curate --source LIST` does this first, and only for URLs that have no end yet. Safe to run again after a
    crash: nothing that was fetched is fetched again. All settings are in the preset's section `fetch`.
    """
    from curation.sources import open_source
    from curation.sources.urls.fetch import fetch as fetch_lists
    from curation.sources.urls.source import lists_of
    from curation.sources.urls.store import Store
    from flywheel.core.progress import Progress
    from flywheel.presets import load_preset

    given: dict[str, Any] = {
        "per_host": per_host,
        "delay": delay,
        "agent": agent,
        "allow_private": allow_private or None,
    }
    given |= {"robots": False, "opt_outs": ()} if ignore_opt_outs else {}
    settings: Fetching = replace(load_preset(preset).fetch, **{k: v for k, v in given.items() if v is not None})
    opened = Workspace(workspace)
    files = [file for place in lists for file in lists_of(open_source(place, store=Store(opened)))]
    if not files:
        raise UsageError(f"{', '.join(lists)} holds no URL list: `flywheel inspect` shows what it holds")
    progress = Progress()
    with progress.step("fetch"):
        found = fetch_lists(opened, files, settings, retry=retry, workers=workers, progress=progress)
    reasons = _reasons(Store(opened), files)
    if as_json:
        out(json_text({**asdict(found), "reasons": reasons}))
        return
    say(found.line)
    print_rows(reasons, False)


def _reasons(store: Any, files: Any) -> list[dict[str, Any]]:
    """How the URLs of the lists ended, the most frequent ends first."""
    query = f"""select l.status, l.reason, count(*) as urls from ({store.rows(files)}) r join latest l using (uri)
        group by all order by urls desc, l.status, l.reason limit 30"""
    with store.connect() as con:
        return [dict(zip(("status", "reason", "urls"), row)) for row in con.execute(query).fetchall()]
