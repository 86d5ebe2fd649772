"""The human review of what remedies made: the loop's only manual step."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flywheel.cli.console import out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.workspace import Workspace

app = typer.Typer()
review = typer.Typer(help="Review what remedies made, before anything is trained on it.", no_args_is_help=True)
app.add_typer(review, name="review")

ReviewerOption = Annotated[str, typer.Option(help="Your name: it stands in the ledger.")]
ItemArgument = Annotated[str, typer.Argument(help="Item id, or its first characters.")]


@review.command("next", epilog="Example: flywheel review next --reviewer ada -w w")
def next_item(reviewer: ReviewerOption, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Claim the most doubtful sample that waits; nobody else gets it while you hold it."""
    from flywheel.remedies.review import Queue

    opened = Workspace(workspace, create=False)
    found = Queue(opened).next(reviewer)
    if found is None:
        say(f"nothing waits for {reviewer}")
        if as_json:
            out("null")
        return
    _show(opened, found, as_json)


@review.command(epilog="Example: flywheel review accept 3f2a91 --reviewer ada -w w")
def accept(
    item: ItemArgument, reviewer: ReviewerOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Let a sample that you hold into the training data."""
    _decide(workspace, item, "accepted", reviewer, as_json)


@review.command(epilog='Example: flywheel review edit 3f2a91 "two red circles" --reviewer ada -w w')
def edit(
    item: ItemArgument,
    caption: Annotated[str, typer.Argument(help="The right caption.")],
    reviewer: ReviewerOption,
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Correct the caption of a sample that you hold, and let it in."""
    _decide(workspace, item, "accepted", reviewer, as_json, caption=caption)


@review.command(epilog='Example: flywheel review reject 3f2a91 --reason "wrong word" --reviewer ada -w w')
def reject(
    item: ItemArgument,
    reviewer: ReviewerOption,
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="What is wrong with it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Keep a sample that you hold out of the training data."""
    _decide(workspace, item, "rejected", reviewer, as_json, reason=reason)


@review.command(epilog="Example: flywheel review status -w w")
def status(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """How many samples wait, are claimed, accepted and rejected, by round and capability."""
    from flywheel.remedies.review import Queue
    from flywheel.remedies.review import status as rows_of

    print_rows(rows_of(Queue(Workspace(workspace, create=False)).items().values()), as_json)


def _decide(workspace: Any, item: str, kind: str, reviewer: str, as_json: bool, **more: Any) -> None:
    from flywheel.remedies.review import Queue

    opened = Workspace(workspace, create=False)
    _show(opened, Queue(opened).decide(item, kind, reviewer, **more), as_json)


def _show(workspace: Workspace, item: Any, as_json: bool) -> None:
    from flywheel.remedies.data import picture_of

    pictures = [str(p) for p in picture_of(workspace, item)]
    row = {k: getattr(item, k) for k in ("item", "round", "capability", "sample_id", "caption", "priority", "outcome")}
    row |= {"evidence": item.evidence, "image": pictures[0], "references": pictures[1:]}
    if as_json:
        out(json.dumps(row, ensure_ascii=False))
        return
    for name, value in row.items():
        if value not in (None, []):
            out(f"{name:>11}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
