"""The `flywheel` command: its verbs are in `flywheel.cli`; heavy imports happen inside the verbs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

import typer

from flywheel.cli import (
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
from flywheel.core.environment import environment_error
from flywheel.core.errors import UsageError

# What no retry helped against: lines of an error that say so, whoever wrote them (Python, Arrow, Delta, DuckDB,
# botocore, processes of Ray or of training), and what to do.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "disk is full")
_LOST = (
    "AWS Error",
    "Generic S3 error",
    "endpoint URL",
    "Connection was closed before we received a valid response",
    "The provided token has expired",
)
_FAULTS = (
    (_FULL, "the disk is full ({}): make room, then run the same command again; what is finished is kept"),
    (_LOST, "S3 stopped serving ({}): once it serves again, run the same command; what is finished is kept"),
)

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
        _require_local_output(sys.argv[1:])
        app()
    except UsageError as error:
        _end(str(error))
    except Exception as error:
        if (broken := environment_error(error)) is not None:
            _end(str(broken))
        for marks, sentence in _FAULTS:
            if line := _line(error, marks):
                _end(sentence.format(line))
        raise


def _require_local_output(arguments: Sequence[str]) -> None:
    """Errors: `UsageError` for an output on S3: only workspaces are written there."""
    for option, value in pairwise([part for a in arguments for part in a.split("=", 1)]):
        if option == "--output" and value.startswith("s3:"):
            raise UsageError(f"--output {value}: give a local path; S3 is for workspaces, and for what is only read")


def _end(sentence: str) -> NoReturn:
    typer.secho(f"error: {sentence}", fg="red", err=True)
    sys.exit(2)


def _line(error: BaseException | None, marks: Sequence[str]) -> str | None:
    """The line of an error, or of what caused it, that has one of the marks; None where there is none."""
    while error:
        lines = [line.strip() for line in str(error).splitlines() if any(mark in line for mark in marks)]
        if lines:
            return lines[-1]
        error = error.__cause__ or error.__context__
    return None

