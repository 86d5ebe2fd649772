"""The embedded Prefect server: one process that lives exactly as long as the run that needs it.

Prefect's own temporary server survives a SIGKILL of its driver; this one ends when the pipe from its driver closes.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from curation.scorers.ocr_weights import cache_dir
from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import replacing
from flywheel.core.scratch import Scratch

if TYPE_CHECKING:
    from prefect.settings.legacy import Setting

_LOCKED_SECONDS = 10.0  # that another program may hold the database

# Send nothing off the machine, and show the user only the run's own progress. The user's environment takes precedence.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",  # for `flows.steps.run_log`: the others are silent
}
# Do not start what one run does not use: web UI, block types, automations. This cuts a cold start from 16 s to 12 s.
_LEAN = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_LOGGER_ENABLED": "false",
    "PREFECT__SERVER_FINAL": "1",
}


def configure(home: Path) -> None:
    """Keep Prefect's files in `home` and silence its logs. Call this before prefect is imported."""
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def api(home: Path) -> Iterator[str]:
    """Use the server at PREFECT_API_URL, or an embedded one, inside the block; yields its address.

    Errors: `UsageError` when no server answers, or when it stops answering inside the block.
    """
    with ExitStack() as stack:
        url = os.environ.get("PREFECT_API_URL")
        if url:
            reach(url)
        else:
            url = stack.enter_context(embedded_server(home))
        from prefect.events.clients import PrefectEventsClient
        from prefect.events.worker import EventsWorker
        from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        settings: dict[Setting, str | int] = {PREFECT_API_URL: url}
        if not os.environ.get("PREFECT_API_URL"):  # an embedded server answers at once or is dead: do not wait for it
            settings[PREFECT_CLIENT_MAX_RETRIES] = 1
            EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=0)
            stack.callback(EventsWorker.set_client_override, None)
            # Logs that do not reach it are lost with it: Prefect would say so in half a line of its own.
            stack.callback(setattr, logging, "raiseExceptions", logging.raiseExceptions)
            logging.raiseExceptions = False
        stack.enter_context(temporary_settings(updates=settings))
        stack.callback(EventsWorker.drain_all)  # the server records task runs from events: send the last ones
        try:
            yield url
        except UsageError:
            raise
        except Exception as error:
            if not _failure(url):
                raise
            raise UsageError(
                f"the Prefect server at {url} stopped answering: run again, or with --no-prefect; finished work is kept"
            ) from error


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """Run a server with its database in `home`, until the block or this process ends; yields its API address.

    Errors: `UsageError` when another program has locked its database, or the server does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    database, unused = home / "prefect.db", cache_dir() / f"prefect-{version('prefect')}.db"
    _require_unlocked(database)
    fresh = not database.exists()
    if fresh and unused.exists():
        with replacing(database, recorded=False) as tmp:
            shutil.copyfile(unused, tmp)
    log = home / "server.log"
    environment = {**_QUIET, **os.environ, **_LEAN, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    with open(log, "wb") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "flows.server_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=environment,
            cwd=Path(__file__).resolve().parents[1],  # so that `flows` can be imported from any user's folder
            start_new_session=True,  # Ctrl-C must reach only the driver, which still records its end here
        )
    try:
        import prefect  # noqa: F401 - the import takes a second: do it while the server starts

        address = next(iter(server.stdout or ()), b"").decode().strip()  # printed when it answers; empty if it ended
        if not address:
            raise UsageError(f"the embedded Prefect server did not start: read {log}, or run with --no-prefect")
        if fresh and not unused.exists():
            _keep(database, unused)
        hashes.living(home)
        yield address
    finally:
        _stop(server)
        hashes.seal(home, again=True)


def _keep(database: Path, unused: Path) -> None:
    """Copy a new database for the next workspaces: its hundred migrations take five CPU-seconds."""
    with suppress(OSError, sqlite3.Error):  # they can do without
        with replacing(unused) as tmp, closing(sqlite3.connect(database)) as new, closing(sqlite3.connect(tmp)) as copy:
            new.backup(copy)


def _require_unlocked(database: Path) -> None:
    """Check that the database can be written. Errors: `UsageError`."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=_LOCKED_SECONDS)) as con:
            con.execute("BEGIN IMMEDIATE")
            con.rollback()
    except sqlite3.DatabaseError as error:
        if "locked" not in str(error):
            raise UsageError(
                f"{database} cannot be written ({error}): move it away, or run with --no-prefect"
            ) from error
        raise UsageError(
            f"another program has locked {database}, such as a database browser or a backup: close it, or run with "
            "--no-prefect"
        ) from error


def probe() -> str:
    """Reach the server at PREFECT_API_URL, or start an embedded one for a moment; returns which one answered."""
    with Scratch() as home:
        configure(home)
        with api(home) as url:
            return f"{'server of PREFECT_API_URL' if os.environ.get('PREFECT_API_URL') else 'embedded server'} at {url}"


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.communicate(timeout=10)  # closes its standard input first
    except subprocess.TimeoutExpired:
        server.kill()
        server.communicate()


def reach(url: str) -> None:
    """Check that a server answers at `url`. Errors: `UsageError`."""
    if error := _failure(url):
        raise UsageError(
            f"no Prefect server answers at PREFECT_API_URL={url} ({error}): start one with `prefect server start`,"
            " unset the variable to use the embedded one, or add --no-prefect"
        ) from error


def _failure(url: str) -> Exception | None:
    """The error of a request to the server; None when it answers."""
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=10)
    except httpx.HTTPError as error:
        return error
    return None
