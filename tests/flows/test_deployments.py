"""`prefect.yaml` on a real server, with a real worker: deployed, scheduled, suspended for review and woken."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from prefect.exceptions import ParameterTypeError

from flows.deployments import FLOWS, SCHEDULES
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Queue
from tests.flows.conftest import ROOT, Server, post, runs, wait

# The round's flow as deployed, in front of a round that takes no minutes.
QUICK = """
from flows.scheduled import round_, runs
from flywheel.remedies.review import Queue, Waiting
from flywheel.core.workspace import Workspace

def run(job, **_):
    if Queue(Workspace(job.workspace)).pending():
        raise Waiting(2, "1 sample of round 2 waits for review")
    return {"input": 1, "admitted": 1, "dropped": 0, "quarantined": 0, "report": "", "rounds": []}

runs.run, runs.validate = run, lambda job: None
"""


def deployments() -> list[dict]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def test_the_file_and_serve_agree():
    found = {d["name"]: d for d in deployments()}
    assert {n: d["schedules"][0]["cron"] for n, d in found.items()} == SCHEDULES
    for name, d in found.items():
        module, function = d["entrypoint"].rsplit(".", 1)
        assert FLOWS[name].fn.__module__ == module and FLOWS[name].fn.__name__ == function
        assert d["parameters"].keys() <= FLOWS[name].parameters.properties.keys()
        assert set(FLOWS[name].parameters.required) <= d["parameters"].keys()


def test_a_deployment_made_without_its_variables_does_not_run():
    placeholder = "{{ $FLYWHEEL_WORKSPACE }}"
    with pytest.raises(ParameterTypeError, match="workspace"):
        FLOWS["review"].validate_parameters({"workspace": placeholder})
    FLOWS["review"].validate_parameters({"workspace": "/data/w"})


def test_a_round_sleeps_until_people_are_done_whatever_restarts(server_process: Server, tmp_path: Path):
    server = server_process.environment
    (tmp_path / "quick_round.py").write_text(QUICK)
    text = (ROOT / "prefect.yaml").read_text()
    (tmp_path / "prefect.yaml").write_text(text.replace("flows.scheduled.round_", "quick_round.round_"))
    workspace = Workspace(tmp_path / "w")
    row = {"capability": "count", "sample_id": "a", "caption": "a cat", "priority": 0.5, "evidence": {}}
    Queue(workspace).add(2, [row])
    environment = server | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "FLYWHEEL_WORKSPACE": str(workspace.root),
        "FLYWHEEL_SOURCE": str(tmp_path),
        "FLYWHEEL_DASHBOARD_URL": "http://dashboard.example",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool", "create", "flywheel", "--type", "process")
    prefect("deploy", "--all")
    ids = {d["name"]: d["id"] for d in post(server, "deployments/filter", {})}
    assert set(SCHEDULES) <= ids.keys()

    def start_round() -> None:
        once = {"idempotency_key": uuid4().hex}
        post(server, f"deployments/{ids['round']}/create_flow_run", once)

    def states() -> list[str]:
        return [r["state_name"] for r in runs(server, "flywheel-round") if not r["auto_scheduled"]]

    def looks() -> int:
        done = [r for r in runs(server, "flywheel-review") if r["state_type"] == "COMPLETED"]
        return sum(r["auto_scheduled"] for r in done)

    start_round()

    def start_worker() -> subprocess.Popen[bytes]:
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "flywheel"]
        return subprocess.Popen(worker, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)

    process = start_worker()
    try:
        wait(lambda: states() == ["Suspended"])
        process.kill()
        process.wait()
        server_process.kill()
        server_process.start()
        process = start_worker()
        every = [{"schedule": {"interval": 6.0}, "active": True}]
        post(server, f"deployments/{ids['review']}/schedules", every)
        start_round()
        wait(lambda: sorted(states()) == ["Skipped", "Suspended"] and looks())  # nobody reviewed: it sleeps on
        item = Queue(workspace).next("ada")
        Queue(workspace).decide(item.item, "accepted", "ada")
        wait(lambda: sorted(states()) == ["Completed", "Skipped"])
    finally:
        process.terminate()
        process.wait(timeout=60)
    kept = {a["key"]: a for a in post(server, "artifacts/filter", {})}
    assert {"flywheel-round", "flywheel-review"} <= kept.keys()
    assert "http://dashboard.example/review" in kept["flywheel-dashboard"]["data"]
