"""The `flywheel` command. Verbs are in `flywheel.cli` and import heavy packages only when they run."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from flywheel.cli import (
    analysts,
    curation,
    enhancer,
    exports,
    fetch,
    inspect,
    models,
    operations,
    project,
    review,
    rl,
    rounds,
    runs,
    serving,
    signals,
    streams,
    training,
    weights,
)
from flywheel.cli.panels import PanelGroup
from flywheel.cli.stopping import stoppable, stopped
from flywheel.core import damage, progress
from flywheel.core.environment import environment_error
from flywheel.core.errors import UsageError

# Faults that retries did not overcome: text that marks such an error, whoever wrote it (Python, Arrow, Delta, DuckDB,
# botocore, Ray or training processes), and what the user has to do.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "disk is full")
_LOST = (
    "nothing but errors for",
    "AWS Error",
    "Generic S3 error",
    "endpoint URL",
    "Connection was closed before we received a valid response",
    "The provided token has expired",
    "operation (reached max retries",
)
_READ_ONLY = (os.strerror(errno.EROFS),)
_REFUSED = (os.strerror(errno.EACCES), os.strerror(errno.EPERM))
_FAULTS = (
    (_FULL, "the disk is full ({}): free some space, then run the same command again; finished work is kept"),
    (_LOST, "S3 stopped answering ({}): when it is back, run the same command again; finished work is kept"),
    (_READ_ONLY, "this workspace is read-only ({}): reading commands work; for this one, make it writable or copy it"),
    (_REFUSED, "permission denied ({}): make it readable and, for commands that write, writable for your user"),
)


class Group(PanelGroup):
    """The command's verbs; a signal ends whichever runs."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            with suppress(FileNotFoundError):  # of the working folder, which was removed
                if told := project.blamed(error, ctx.command, sys.argv[1:], Path.cwd()):
                    raise told from error
            raise
        finally:
            if code := stopped():
                raise typer.Exit(code)


app = typer.Typer(
    cls=Group,
    help="Data flywheel for image generators: curate, train, evaluate, route failures, remedy, gate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"flywheel {version('image-flywheel')}")
        raise typer.Exit


@app.callback()
def everywhere(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(
            envvar=progress.FORMAT, help="Progress on stderr: lines for people, or JSON lines for collectors."
        ),
    ] = "text",
) -> None:
    """Data flywheel for image generators: curate, train, evaluate, route failures, remedy, gate."""
    os.environ[progress.FORMAT] = log_format
    if ctx.invoked_subcommand not in ("init", "demo"):
        with suppress(FileNotFoundError):  # of the working folder, which was removed
            ctx.default_map = project.defaults(ctx.command, sys.argv[1:], Path.cwd())


for verbs in (
    *(runs, curation, inspect, fetch, streams, signals, review, rounds, enhancer, analysts, exports, models, training),
    *(rl, weights, serving, operations, project),
):
    app.add_typer(verbs.app)


def main() -> None:
    """Run the command. An error that the user can fix is one sentence and exit code 2."""
    try:
        _require_text(sys.argv[1:])
        sys.argv[1:] = _log_format_first(sys.argv[1:])
        _require_local_output(sys.argv[1:])
        with stoppable():
            app()
    except UsageError as error:
        _end(str(error))
    except Exception as error:
        if (broken := environment_error(error)) is not None:
            _end(str(broken))
        for marks, sentence in _FAULTS:
            if line := damage.marked(error, marks):
                _end(sentence.format(line))
        if damaged := damage.told(error):
            _end(damaged)
        raise


def _log_format_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with --log-format before the verb: it may be written anywhere."""
    first: list[str] = []
    rest = list(arguments)
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("--log-format="):
            first, rest = [argument], [a for n, a in enumerate(arguments) if n != place]
        elif argument == "--log-format" and place + 1 < len(arguments):
            first, rest = list(arguments[place : place + 2]), [*arguments[:place], *arguments[place + 2 :]]
    return [*first, *rest]


def _require_text(arguments: Sequence[str]) -> None:
    """Check that the arguments are text, which ledgers, SQL and JSON take alone. Errors: `UsageError`."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            shown = argument.encode("utf-8", "backslashreplace").decode()
            why = "rename it if it is a file, or set LC_ALL=C.UTF-8 if your terminal shows it well"
            raise UsageError(f"the argument {shown} is not UTF-8: {why}") from error


def _require_local_output(arguments: Sequence[str]) -> None:
    """Check that no --output is an address: only workspaces are written elsewhere, to S3. Errors: `UsageError`."""
    for option, value in pairwise([part for a in arguments for part in a.split("=", 1)]):
        if option == "--output" and "://" in value:
            raise UsageError(f"--output {value}: pass a local path; only workspaces can be written elsewhere, to S3")


def _end(sentence: str) -> NoReturn:
    typer.secho(f"error: {sentence}", fg="red", err=True)
    sys.exit(2)
