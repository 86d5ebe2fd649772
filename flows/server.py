"""The embedded Prefect server: one process that lives exactly as long as the run that needs it.

Prefect's own temporary server outlives a driver killed by SIGKILL; this one ends when the pipe to its driver closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flywheel.core.errors import UsageError

# Nothing leaves the machine, and the run's own progress is all that the user reads. The user's environment wins.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}
# What one run does not use is not started: web UI, block types, automations. A cold start falls from 16 s to 12 s.
_LEAN = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_LOGGER_ENABLED": "false",
    "PREFECT__SERVER_FINAL": "1",
}


def configure(home: Path) -> None:
    """Keep Prefect's files in `home` and its log lines quiet. Takes effect when called before prefect is imported."""
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFECT_HOME"] = str(home)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def api(home: Path) -> Iterator[str]:
    """Yield the address of the server in use, the user's or an embedded one, and make it Prefect's current one.

    Errors: `UsageError` when no server answers, or when it stops answering while the block runs.
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

        settings = {PREFECT_API_URL: url}
        if not os.environ.get("PREFECT_API_URL"):  # on this machine it answers or is dead: nothing waits for it long
            settings[PREFECT_CLIENT_MAX_RETRIES] = 1
            EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=0)
            stack.callback(EventsWorker.set_client_override, None)
        stack.enter_context(temporary_settings(updates=settings))
        stack.callback(EventsWorker.drain_all)  # task runs are recorded from events: send the last ones first
        try:
            yield url
        except UsageError:
            raise
        except Exception as error:
            if not _silence(url):
                raise
            raise UsageError(
                f"the Prefect server at {url} stopped answering: run again, or with --no-prefect; "
                "what is finished is kept"
            ) from error


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """Yield the API address of a server over the database in `home`; it stops with the block, or with this process.

    Errors: `RuntimeError` that names the log when the server does not come up.
    """
    home.mkdir(parents=True, exist_ok=True)
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
            cwd=Path(__file__).resolve().parents[1],  # where `flows` can be imported, whatever the user's folder
            start_new_session=True,  # Ctrl-C is for the driver, which still has its end to record here
        )
    try:
        import prefect  # noqa: F401 - a second of importing, spent while the server starts

        address = server.stdout.readline().decode().strip()  # written once it answers; empty when it ended instead
        if not address:
            raise RuntimeError(f"the embedded Prefect server did not start: read {log}, or run with --no-prefect")
        yield address
    finally:
        _stop(server)


def probe() -> str:
    """Reach the server in use, an embedded one in a folder of its own where there is none; says which answered."""
    with tempfile.TemporaryDirectory(prefix="prefect-") as home:
        configure(Path(home))
        with api(Path(home)) as url:
            return f"{'server of PREFECT_API_URL' if os.environ.get('PREFECT_API_URL') else 'embedded server'} at {url}"


def _stop(server: subprocess.Popen) -> None:
    server.stdin.close()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    server.stdout.close()


def reach(url: str) -> None:
    """Errors: `UsageError` when no server answers there."""
    if error := _silence(url):
        raise UsageError(
            f"no Prefect server answers at PREFECT_API_URL={url} ({error}): start one with `prefect server start`,"
            " unset the variable to use the embedded one, or add --no-prefect"
        ) from error


def _silence(url: str) -> Exception | None:
    """Why no server answers there; None when one does."""
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=10)
    except httpx.HTTPError as error:
        return error
    return None
