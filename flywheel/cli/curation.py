"""Verbs that show what curation decided and why, and what another policy would decide."""

from __future__ import annotations

from typing import Annotated

import typer

from flywheel.cli.console import json_text, out, print_differences, print_explanation, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
policies = typer.Typer(help="Show and compare curation policies.", no_args_is_help=True)
app.add_typer(policies, name="policy")
snapshots = typer.Typer(help="List and compare snapshots.", no_args_is_help=True)
app.add_typer(snapshots, name="snapshot")

PolicyOption = Annotated[
    str | None, typer.Option(help="Policy: built-in name or .toml file. Default: the latest snapshot's.")
]


@app.command(epilog="Example: flywheel funnel -w w --policy mine.toml")
def funnel(workspace: WorkspaceOption, policy: PolicyOption = None, as_json: JsonOption = False) -> None:
    """Show the rows entering and leaving each filter, for the latest snapshot or for another policy.

    A stage and bucket whose rows no stage of training reads has a last line, `training`, that says why.
    """
    from flywheel.catalog.database import query
    from flywheel.rounds.stages import funnel_rows

    opened = Workspace(workspace, create=False)
    if policy is None:
        print_rows([*query(opened, "select * from funnel"), *funnel_rows(opened)], as_json)
        return
    from curation.policy.what_if import basis
    from curation.run import funnel as funnel_of
    from flywheel.core.lens import latest_snapshot

    base = basis(opened, latest_snapshot(opened), policy)
    print_rows(funnel_of(opened, base.policy, base.held_out), as_json)


@app.command("what-if", epilog="Example: flywheel what-if --set S4.aesthetic.min=5.0 -w w")
def what_if(
    settings: Annotated[
        list[str], typer.Option("--set", help="Threshold to change: STAGE.FILTER.BOUND=NUMBER. Repeatable.")
    ],
    workspace: WorkspaceOption,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which samples other thresholds would add to or remove from each stage. Reads only scores."""
    from curation.policy.what_if import basis, parse_settings, with_settings
    from curation.policy.what_if import what_if as compare
    from flywheel.core.lens import latest_snapshot

    opened = Workspace(workspace, create=False)
    base = basis(opened, latest_snapshot(opened), policy)
    differences = compare(opened, base, with_settings(base.policy, parse_settings(settings)))
    if as_json:
        out(json_text(differences))
    else:
        print_differences(differences)


@app.command(epilog="Example: flywheel explain 3f2a -w w")
def explain(
    sample: Annotated[str, typer.Argument(help="Sample id or its first characters, or the path of the file.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Explain the decision about a sample: scores, stages passed, filter that dropped it, duplicates."""
    from curation.run import explain as explain_sample
    from flywheel.core.lens import latest_snapshot

    opened = Workspace(workspace, create=False)
    explanation = explain_sample(opened, latest_snapshot(opened), sample)
    if as_json:
        out(json_text(explanation))
    else:
        print_explanation(explanation)


@policies.command(epilog="Example: flywheel policy show qwen-image-2")
def show(
    name: Annotated[str, typer.Argument(help="Policy: built-in name or .toml file.")], as_json: JsonOption = False
) -> None:
    """List the filters of a policy in the order they are applied."""
    from curation.policy.reader import load_policy
    from curation.policy.what_if import lines

    loaded = load_policy(name)
    if as_json:
        out(json_text(loaded.record()))
    else:
        print_rows(lines(loaded), as_json)


@policies.command(epilog="Example: flywheel policy diff qwen-image-2 mine.toml")
def diff(
    before: Annotated[str, typer.Argument(help="Policy: built-in name or .toml file.")],
    after: Annotated[str, typer.Argument(help="Policy: built-in name or .toml file.")],
    as_json: JsonOption = False,
) -> None:
    """List the thresholds and settings that differ between two policies."""
    from curation.policy.reader import load_policy
    from curation.policy.what_if import changes

    print_rows(changes(load_policy(before), load_policy(after)), as_json)


@snapshots.command("list", epilog="Example: flywheel snapshot list -w w")
def list_snapshots(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """List all snapshots with their counts, oldest first."""
    from curation.policy.snapshots import listed

    print_rows(listed(Workspace(workspace, create=False)), as_json)


@snapshots.command("diff", epilog="Example: flywheel snapshot diff 3f2a 9c41 -w w")
def diff_snapshots(
    before: Annotated[str, typer.Argument(help="Snapshot id or its first characters.")],
    after: Annotated[str, typer.Argument(help="Snapshot id or its first characters.")],
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots: policy, scorers, pool, decisions about samples, shard files."""
    from curation.policy.snapshots import diff

    differences = diff(Workspace(workspace, create=False), before, after)
    if as_json:
        out(json_text(differences))
        return
    for part in ("counts", "policy", "scorers", "pool", "samples", "shards"):
        say(f"{part}:" if differences[part] else f"{part}: no difference")
        if differences[part]:
            rows = [r | {"examples": " ".join(e[:12] for e in r["examples"])} if "examples" in r else r
                    for r in differences[part]]  # fmt: skip
            print_rows(rows, False)
