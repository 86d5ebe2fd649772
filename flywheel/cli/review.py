"""Verbs of people: the review of remedy samples, the loop's only manual step, and answers to cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.console import json_text, out, print_rows, say
from flywheel.cli.options import JsonOption, WorkspaceOption
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.remedies.review import Item

app = typer.Typer()
review = typer.Typer(help="Review remedy samples before they train, and answer cases.", no_args_is_help=True)
app.add_typer(review, name="review")

ReviewerOption = Annotated[str, typer.Option(help="Your name; recorded in the ledger.")]
ItemArgument = Annotated[str, typer.Argument(help="Item id or its first characters.")]


@review.command("next", epilog="Example: flywheel review next --reviewer ada -w w")
def next_item(reviewer: ReviewerOption, workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Claim the most doubtful waiting sample. Nobody else gets it while you hold it."""
    from flywheel.remedies.review import Queue

    opened = Workspace(workspace, create=False)
    item = Queue(opened).next(reviewer)
    if item is None:
        say(f"no sample waits for {reviewer}")
        if as_json:
            out("null")
        return
    _show(opened, item, as_json)


@review.command(epilog="Example: flywheel review accept 3f2a91 --reviewer ada -w w")
def accept(
    item: ItemArgument, reviewer: ReviewerOption, workspace: WorkspaceOption, as_json: JsonOption = False
) -> None:
    """Accept a sample you hold as training data."""
    _decide(workspace, item, "accepted", reviewer, as_json)


@review.command(epilog='Example: flywheel review edit 3f2a91 "two red circles" --reviewer ada -w w')
def edit(
    item: ItemArgument,
    caption: Annotated[str, typer.Argument(help="Corrected caption.")],
    reviewer: ReviewerOption,
    workspace: WorkspaceOption,
    as_json: JsonOption = False,
) -> None:
    """Correct the caption of a sample you hold, and accept it."""
    _decide(workspace, item, "accepted", reviewer, as_json, caption=caption)


@review.command(epilog='Example: flywheel review reject 3f2a91 --reason "wrong word" --reviewer ada -w w')
def reject(
    item: ItemArgument,
    reviewer: ReviewerOption,
    workspace: WorkspaceOption,
    reason: Annotated[str, typer.Option(help="What is wrong with the sample.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Reject a sample you hold: it is not used for training."""
    _decide(workspace, item, "rejected", reviewer, as_json, reason=reason)


@review.command(epilog="Example: flywheel review status -w w")
def status(workspace: WorkspaceOption, as_json: JsonOption = False) -> None:
    """Count waiting, claimed, accepted and rejected samples by round and capability."""
    from flywheel.remedies.review import Queue
    from flywheel.remedies.review import status as rows_of

    print_rows(rows_of(Queue(Workspace(workspace, create=False)).items().values()), as_json)


def _decide(workspace: Path, item: str, kind: str, reviewer: str, as_json: bool, **details: str) -> None:
    from flywheel.remedies.review import Queue

    opened = Workspace(workspace, create=False)
    _show(opened, Queue(opened).decide(item, kind, reviewer, **details), as_json)


def _show(workspace: Workspace, item: Item, as_json: bool) -> None:
    from flywheel.remedies.data import picture_of

    pictures = [str(p) for p in picture_of(workspace, item)]
    row = {k: getattr(item, k) for k in ("item", "round", "capability", "sample_id", "caption", "priority", "outcome")}
    row |= {"evidence": item.evidence, "image": pictures[0], "references": pictures[1:]}
    if as_json:
        out(json_text(row))
        return
    for name, value in row.items():
        if value not in (None, []):
            out(f"{name:>11}  {value if isinstance(value, str) else json_text(value)}")


@review.command(epilog='Example: flywheel review case 3f2a91 --track rl --reviewer ada --why "some seeds do it" -w w')
def case(
    case: Annotated[str, typer.Argument(help="Case id or its first characters.")],
    reviewer: ReviewerOption,
    why: Annotated[str, typer.Option(help="Your reason; recorded in the ledger.")],
    workspace: WorkspaceOption,
    track: Annotated[
        str | None, typer.Option(help="Track that serves it: pretraining, rl, prompt_enhancement or human.")
    ] = None,
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="It is no failure: its check or its prompt is wrong. It stays closed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a case that waits for a person: send it to a track, or dismiss it."""
    from flywheel.cases.answers import answer

    if (track is None) == (not dismiss):
        raise UsageError("give either --track TRACK or --dismiss")
    answered = answer(Workspace(workspace, create=False), case, track=track, by=reviewer, why=why)
    row = {k: getattr(answered, k) for k in ("case_id", "capability", "track", "status", "prompt")}
    out(json_text(row)) if as_json else print_rows([row], False)
