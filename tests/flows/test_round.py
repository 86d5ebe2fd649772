"""Rounds as flow runs of real servers, each in a process of its own as in a real run."""

from pathlib import Path

from tests.flows.driver import python


def test_a_whole_run_passes_the_users_error_on(server: dict[str, str], tmp_path: Path) -> None:
    workspace, source = tmp_path / "w", tmp_path / "source"
    source.mkdir()
    code = """
import sys
from flows.round import Job, run_with_prefect
from flywheel.core.errors import UsageError
try:
    run_with_prefect(Job(sys.argv[1], sys.argv[2]))
except UsageError as error:
    print(error)
"""
    done = python(code, workspace, source, PREFECT_API_URL=server["PREFECT_API_URL"])
    assert str(source) in done.stdout, done.stderr
    assert "start Prefect" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_round_that_waits_for_review_ends_the_commands_run_well(server: dict[str, str], tmp_path: Path) -> None:
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
    done = python(code, tmp_path / "w", PREFECT_API_URL=server["PREFECT_API_URL"])
    assert done.stdout.splitlines() == ["published", "2 5 rounds wanted, 1 sample waits"], done.stderr


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
