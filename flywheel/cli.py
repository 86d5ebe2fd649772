"""The `flywheel` command: its verbs are in `flywheel.commands`; heavy imports happen inside the verbs."""

from __future__ import annotations

import sys

import typer

from flywheel.commands import (
    analysts,
    curation,
    enhancer,
    models,
    operations,
    review,
    rl,
    rounds,
    runs,
    signals,
    streams,
    training,
)
from flywheel.workspace import UsageError

app = typer.Typer(
    help="Data flywheel and curation for image generators: curate, train, evaluate, route failures, repair, gate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for verbs in (runs, curation, streams, signals, review, rounds, enhancer, analysts, models, training, rl, operations):
    app.add_typer(verbs.app)


def main() -> None:
    """Entry point: what the user can fix ends in one sentence and exit code 2."""
    try:
        app()
    except UsageError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
