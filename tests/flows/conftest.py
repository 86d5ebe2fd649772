"""A real Prefect server, and what its tests ask it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 150  # seconds, for anything to happen on a busy machine


class Server:
    """A Prefect server in a process of its own, with its scheduler; `environment` is that of its clients.

    migrated: a database that no run has used, to start with.
    """

    def __init__(self, home: Path, migrated: Path) -> None:
        shutil.copyfile(migrated, home / "prefect.db")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = str(free.getsockname()[1])
        self.home, self.url = home, f"http://127.0.0.1:{self.port}/api"
        self.environment = os.environ | {
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_API_URL": self.url,
            "PYTHONPATH": str(ROOT),
        }

    def start(self) -> None:
        """On the database that is in its home."""
        environment = {k: v for k, v in self.environment.items() if k != "PREFECT_API_URL"}
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", self.port]
        with open(self.home / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        wait(lambda: httpx.get(f"{self.url}/health").status_code == 200)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def server_process(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Server]:
    """A running server, for tests that stop and start it."""
    server = Server(tmp_path_factory.mktemp("prefect"), migrated)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(server_process: Server) -> dict[str, str]:
    """Environment of a client of the server."""
    return server_process.environment


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of an embedded server that has run."""
    return tmp_path_factory.mktemp("workspace") / ".prefect"


@pytest.fixture(scope="session")
def recorded(home: Path) -> dict:
    """What an embedded server recorded of the driver's flows."""
    from tests.flows.driver import DRIVER, SUMMARY, python

    done = python(DRIVER, home, json.dumps(SUMMARY), FLYWHEEL_CACHE=str(home.parent / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet, also about the step that failed
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def migrated(recorded: dict, home: Path) -> Path:
    """The database that the first embedded server left for the next ones."""
    (database,) = (home.parent / "cache").glob("prefect-*.db")
    return database


def wait(ready) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            if ready():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise AssertionError("did not happen in time")


def post(server: dict[str, str], path: str, body: object) -> Any:
    """The API's answer. A busy server says 503, and is asked again, as Prefect's own client does."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(httpx.post(f"{server['PREFECT_API_URL']}/{path}", json=body, timeout=LIMIT))
        return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

    wait(answered)
    return answers[-1].raise_for_status().json()


def runs(server: dict[str, str], flow: str) -> list[dict]:
    wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return post(server, "flow_runs/filter", wanted)
