"""The embedded server lives exactly as long as its driver; the user's own is used where there is one."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from flows import server
from flows.server import embedded_server
from flywheel.core.errors import UsageError
from tests.flows.conftest import ROOT
from tests.flows.driver import DRIVER, SUMMARY, python


def test_no_server_is_left_behind_after_a_kill(recorded: dict, home: Path, tmp_path: Path) -> None:
    copy = tmp_path / ".prefect"
    shutil.copytree(home, copy)
    code = """
import sys, time
from pathlib import Path
from flows.server import embedded_server
with embedded_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""
    driver = subprocess.Popen([sys.executable, "-c", code, str(copy)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    import httpx

    health = driver.stdout.readline().strip() + "/health"
    assert httpx.get(health, timeout=10).status_code == 200
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(health, timeout=5)
        except httpx.ConnectError:
            return
        except httpx.TransportError:  # it is closing
            pass
        time.sleep(0.2)
    pytest.fail("the embedded server outlived its killed driver")


def test_a_new_database_is_kept_for_the_next_workspaces(migrated: Path, tmp_path: Path, monkeypatch) -> None:
    def count(database: Path, table: str) -> int:
        with closing(sqlite3.connect(database)) as con:
            return con.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    assert (count(migrated, "alembic_version"), count(migrated, "flow_run")) == (1, 0)
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("FLYWHEEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / migrated.name).write_bytes(b"a copy")
    monkeypatch.setattr(
        server.sys, "executable", shutil.which("false")
    )  # in place of the server, which would change it
    with pytest.raises(UsageError, match="did not start"):
        server.embedded_server(tmp_path / "w").__enter__()
    assert (tmp_path / "w" / "prefect.db").read_bytes() == b"a copy"


def test_a_database_that_another_program_has_locked_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(server, "_LOCKED_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "prefect.db", isolation_level=None)) as browser:
        browser.execute("CREATE TABLE flow_run (id)")
        browser.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError, match="another program has locked .*prefect.db.* close it, or run with"):
            server.embedded_server(tmp_path).__enter__()
    (tmp_path / "prefect.db").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="cannot be written .file is not a database"):
        server.embedded_server(tmp_path).__enter__()


def test_a_server_that_dies_on_the_way_is_one_sentence(recorded: dict, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / ".prefect")
    code = """
import sys
from pathlib import Path
import psutil
from flows.server import api, configure
from flows.steps import task_step
from flywheel.core.errors import UsageError
configure(Path(sys.argv[1]))
try:
    with api(Path(sys.argv[1])):
        from prefect import flow

        @flow
        def killing():
            [server] = [p for p in psutil.Process().children() if "flows.server_process" in p.cmdline()]
            server.kill()
            server.wait()
            task_step("next", print)

        killing()
except UsageError as error:
    print(error)
"""
    done = python(code, tmp_path / ".prefect")
    assert "stopped answering: run again" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_a_real_server_is_used_when_the_environment_names_one(recorded: dict, home: Path, tmp_path: Path) -> None:
    shared = tmp_path / "server"
    shutil.copytree(home, shared)
    with embedded_server(shared) as url:
        done = python(DRIVER, tmp_path / "other", json.dumps(SUMMARY), PREFECT_API_URL=url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == url
    assert not (tmp_path / "other" / "prefect.db").exists()


def test_an_unreachable_server_is_the_users_to_fix(tmp_path: Path) -> None:
    code = "import sys; from flows.round import *; run_with_prefect(Job(sys.argv[1], sys.argv[1]))"
    done = python(code, tmp_path / "w", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "UsageError: no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api" in done.stderr
