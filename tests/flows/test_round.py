"""The Prefect shell against real servers, each in a process of its own as in a real run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.artifacts import markdown, rate_table
from flows.server import embedded_server

ROOT = Path(__file__).resolve().parents[2]

SUMMARY = {
    "input": 1250,
    "admitted": 1000,
    "dropped": 200,
    "quarantined": 50,
    "report": "reports/report.html",
    "rounds": [
        {
            "round": 1,
            "verdict": "PROMOTE",
            "failure_rate": {"count": 0.75},
            "control_failure_rate": {},
            "fixed": [],
            "broken": [],
            "gate": [],
        },
        {
            "round": 2,
            "verdict": "HOLD",
            "failure_rate": {"count": 0.5},
            "control_failure_rate": {"count": 0.7},
            "fixed": ["a", "b"],
            "broken": ["c"],
            "gate": [
                {"check": "count", "n": 4, "incumbent": 0.75, "candidate": 0.5, "fixed": 2, "broken": 1, "low": -0.5}
                | {"high": 0.1, "p_value": 1.0, "targeted": True, "outcome": "tie"}
            ],
        },
    ],
}

# A flow of three steps: a large argument and result, a plain one, and one that fails by the user's fault.
DRIVER = """
import json, sys, time
from pathlib import Path
from flows.artifacts import publish
from flows.round import task_step
from flows.server import api, configure
from flywheel.core.errors import UsageError

home, summary = Path(sys.argv[1]), json.loads(sys.argv[2])
configure(home)
out = {}
with api(home) as url:
    from prefect import flow
    from prefect.client.orchestration import get_client

    @flow(name="three-steps")
    def three_steps():
        big = [object() for _ in range(500_000)]
        began = time.monotonic()
        out["same"] = task_step("large", lambda values: values, big) is big
        out["large_seconds"] = time.monotonic() - began
        out["sum"] = task_step("small", sum, (1, 2, 3))
        publish(summary)

    @flow(name="failing")
    def failing():
        def ask(): raise UsageError("give an existing folder as --source")
        task_step("ask", ask)

    three_steps()
    try:
        failing()
    except UsageError as error:
        out["error"] = str(error)

    with get_client(sync_client=True) as client:
        for _ in range(50):  # task runs are recorded from events, a moment later
            runs = {r.name: r.state_name for r in client.read_task_runs()}
            if len(runs) == 3 and "Running" not in runs.values():
                break
            time.sleep(0.1)
        out["tasks"] = runs
        out["flows"] = {client.read_flow(r.flow_id).name: r.state_name for r in client.read_flow_runs()}
        out["artifacts"] = sorted(a.key for a in client.read_artifacts() if a.key)
    out["url"] = url
print(json.dumps(out))
"""


def python(code: str, *args: object, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace") / ".prefect"


@pytest.fixture(scope="module")
def recorded(home: Path) -> dict:
    done = python(DRIVER, home, json.dumps(SUMMARY))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet, also about the step that failed
    return json.loads(done.stdout)


def test_steps_run_as_named_task_runs(recorded: dict) -> None:
    assert recorded["sum"] == 6
    assert recorded["tasks"] == {"large": "Completed", "small": "Completed", "ask": "Failed"}
    assert recorded["flows"] == {"three-steps": "Completed", "failing": "Failed"}


def test_large_values_pass_untouched_and_fast(recorded: dict) -> None:
    assert recorded["same"]
    assert recorded["large_seconds"] < 2  # as a task argument and result: 13 s


def test_the_users_error_comes_out_unchanged(recorded: dict) -> None:
    assert recorded["error"] == "give an existing folder as --source"


def test_round_result_becomes_artifacts(recorded: dict) -> None:
    assert recorded["artifacts"] == ["flywheel-failure-rates", "flywheel-gate", "flywheel-round"]


def test_a_whole_run_passes_the_users_error_on(recorded: dict, home: Path, tmp_path: Path) -> None:
    workspace, source = tmp_path / "w", tmp_path / "source"
    source.mkdir()
    shutil.copytree(home, workspace / ".prefect")  # a migrated database saves the test ten seconds
    code = """
import sys
from flows.round import Job, run_with_prefect
from flywheel.core.errors import UsageError
try:
    run_with_prefect(Job(sys.argv[1], sys.argv[2]))
except UsageError as error:
    print(error)
"""
    done = python(code, workspace, source)
    assert str(source) in done.stdout, done.stderr
    assert "start Prefect" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_round_that_waits_for_review_ends_the_commands_run_well(recorded: dict, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "w" / ".prefect")
    code = """
import sys
from flows.round import Job, run_with_prefect
from flywheel.remedies.review import Waiting
from flywheel.rounds import run as runs
def run(job, *, step, progress, publish):
    step("report", publish["report"], job)
    raise Waiting(2, f"{job.rounds} rounds wanted, 1 sample waits")
runs.run, runs.validate = run, lambda job: None
try:
    run_with_prefect(Job(sys.argv[1], sys.argv[1], rounds=5), publish={"report": lambda job: print("published")})
except Waiting as waiting:
    print(waiting.round, waiting)
"""
    done = python(code, tmp_path / "w")
    assert done.stdout.splitlines() == ["published", "2 5 rounds wanted, 1 sample waits"], done.stderr


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


def test_a_server_that_dies_on_the_way_is_one_sentence(recorded: dict, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / ".prefect")
    code = """
import sys
from pathlib import Path
import psutil
from flows.round import task_step
from flows.server import api, configure
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


def test_nothing_outside_flows_imports_prefect() -> None:
    code = """
import importlib, pkgutil, sys
import curation, dashboards, flywheel, flows.round
for package in (flywheel, dashboards):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print("prefect" in sys.modules)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_markdown_says_what_a_reader_asks_first() -> None:
    text = markdown(SUMMARY)
    assert "1,250 input = 1,000 admitted + 200 dropped + 50 quarantined" in text
    assert "- round 2: **HOLD**, 2 cases fixed, 1 broken" in text


def test_rate_table_keeps_a_missing_control_missing() -> None:
    assert rate_table(SUMMARY) == [
        {"round": 1, "capability": "count", "failure_rate": 0.75, "control_failure_rate": None},
        {"round": 2, "capability": "count", "failure_rate": 0.5, "control_failure_rate": 0.7},
    ]
