"""The `flywheel` command: its verbs are in `flywheel.commands`; heavy imports happen inside the verbs."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

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

_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "disk is full")

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
        _end(str(error))
    except Exception as error:
        if (full := _full_disk(error)) is None:
            raise
        _end(f"the disk is full ({full}): make room, then run the same command again; what is finished is kept")


def _end(sentence: str) -> NoReturn:
    typer.secho(f"error: {sentence}", fg="red", err=True)
    sys.exit(2)


def _full_disk(error: BaseException | None) -> str | None:
    """The line that says so, whoever wrote: Python, Arrow, Delta, DuckDB, Ray's or training's processes; None else."""
    while error:
        lines = [line.strip() for line in str(error).splitlines() if any(f in line for f in _FULL)]
        if lines:
            return lines[-1]
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
