"""The table, `prefect.yaml` and `serve` agree; on a real server with a real worker, a round sleeps and is resumed."""

import asyncio
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.exceptions import ParameterTypeError
from prefect.workers.process import ProcessWorker

from flows.deployments import deployments, flow, prefect_yaml
from flows.schedules import SCHEDULES, WORKSPACE
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.remedies.review import Queue
from flywheel.rounds.job import Job
from tests.flows.conftest import ROOT, Server, post, runs, wait

# The round flow as deployed, around a round that takes no time.
QUICK = """
from flows.scheduled import round_, runs
from flywheel.remedies.review import Queue, Waiting
from flywheel.core.workspace import Workspace

def run(job, **_):
    if Queue(Workspace(job.workspace)).pending():
        raise Waiting(2, "1 sample of round 2 waits for review")
    counts = {"input": 1, "admitted": 1, "dropped": 0, "quarantined": 0}
    more = {"workspace": job.workspace, "snapshot": "s", "shards": "", "report": "", "sql": "", "seconds": 0.0}
    return runs.Summary(**counts, **more, checkpoints=(), rounds=())

runs.run, runs.validate = run, lambda job: None
"""


def test_the_file_is_the_generated_one():
    assert (ROOT / "prefect.yaml").read_text() == prefect_yaml(), "run python -m flows.deployments > prefect.yaml"


def test_the_file_has_a_time_zone():
    for zone in ("UTC", "America/New_York"):
        written = yaml.safe_load(prefect_yaml(zone))["deployments"]
        assert {s["timezone"] for d in written for s in d["schedules"]} == {zone}
    with pytest.raises(UsageError, match="^--zone 'Mars/X' is not a time zone"):
        prefect_yaml("Mars/X")


def test_every_deployment_is_a_flow_that_takes_its_parameters():
    written = {d["name"]: d for d in yaml.safe_load(prefect_yaml())["deployments"]}
    schedules = {n: d["schedules"][0] for n, d in written.items()}
    assert {n: (s["cron"], s.get("active", True)) for n, s in schedules.items()} == {
        s.name: (s.cron, s.active) for s in SCHEDULES
    }
    for schedule in SCHEDULES:
        deployment, scheduled = written[schedule.name], flow(schedule)
        assert deployment["entrypoint"] == f"{scheduled.fn.__module__}.{scheduled.fn.__name__}"
        assert deployment["parameters"] == schedule.parameters
        assert deployment["parameters"].keys() <= scheduled.parameters.properties.keys()
        assert set(scheduled.parameters.required) <= deployment["parameters"].keys()
        assert "concurrency_limit" not in deployment  # a slot outlives its holder when the server restarts


def test_a_deployment_made_without_its_variables_does_not_run():
    review = next(flow(s) for s in SCHEDULES if s.name == "review")
    with pytest.raises(ParameterTypeError, match="workspace"):
        review.validate_parameters({"workspace": WORKSPACE})
    review.validate_parameters({"workspace": "/data/w"})


def test_serve_gives_each_flow_its_own_parameters_of_the_job(tmp_path: Path):
    root = str(tmp_path / "w")
    served = {d.name: d for d in deployments(root, asdict(Job(root, "/data/photos", preset="demo", rounds=2)))}
    assert set(served) == {f"{s.name}-w" for s in SCHEDULES}
    assert served["route-w"].parameters == {"workspace": root, "preset": "demo"}
    assert "rounds" not in served["round-w"].parameters  # a scheduled run makes one more than there are
    assert served["maintenance-w"].tags == ["flywheel", "maintenance"]
    assert served["curate-w"].parameters["source"] == "/data/photos"
    assert served["distil-w"].schedules == [] and len(served["curate-w"].schedules) == 1
    assert served["enhancer-w"].parameters == {"workspace": root, "preset": "demo"}


def test_a_schedule_keeps_its_hour_when_the_clocks_change(tmp_path: Path):
    """In Berlin, 2:30 is skipped on 29 March 2026 and comes twice on 25 October; three times a day stays three."""
    made = deployments(str(tmp_path / "w"), {}, {"curate": "30 2 * * *"}, "Europe/Berlin")
    (wanted,) = [d.schedules[0].schedule for d in made if d.schedules]
    from prefect.server.schemas.schedules import CronSchedule  # what the server makes of it

    wanted = CronSchedule(cron=wanted.cron, timezone=wanted.timezone)
    for start, days in ((datetime(2026, 3, 27, 12), 4), (datetime(2026, 10, 23, 12), 4)):
        dates = asyncio.run(wanted.get_dates(days, start=start.replace(tzinfo=UTC)))
        local = [d.astimezone(ZoneInfo("Europe/Berlin")) for d in dates]
        assert [d.date().day for d in local] == [start.day + n for n in range(1, days + 1)]  # once a day
        assert {(d.hour, d.minute) for d in local if d.day not in (29, 25)} == {(2, 30)}


@pytest.mark.parametrize(("cron", "zone", "told"), [("0 2 * *", "UTC", "--curate"), ("0 2 * * *", "Mars/X", "--zone")])
def test_a_schedule_that_cannot_be_is_one_sentence(tmp_path: Path, cron: str, zone: str, told: str):
    with pytest.raises(UsageError, match=f"^{told}"):
        deployments(str(tmp_path / "w"), {}, {"curate": cron}, zone)


def deploy_all(server: dict[str, str], tmp_path: Path, workspace: Workspace) -> dict[str, str]:
    """Deploy `prefect.yaml` with the quick round to a new pool; returns the environment of its workers."""
    (tmp_path / "quick_round.py").write_text(QUICK)
    text = (ROOT / "prefect.yaml").read_text()
    (tmp_path / "prefect.yaml").write_text(text.replace("flows.scheduled.round_", "quick_round.round_"))
    environment = server | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "FLYWHEEL_WORKSPACE": str(workspace.root),
        "FLYWHEEL_SOURCE": str(tmp_path),
        "FLYWHEEL_DASHBOARD_URL": "http://dashboard.example",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }

    template = ProcessWorker.get_default_base_job_template()  # as `prefect work-pool create --type process` does
    post(server, "work_pools/", {"name": "flywheel", "type": "process", "base_job_template": template})
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


def test_a_round_sleeps_until_people_are_done_whatever_restarts(server_process: Server, tmp_path: Path):
    server, workspace = server_process.environment, Workspace(tmp_path / "w")
    row = {"capability": "count", "sample_id": "a", "caption": "a cat", "priority": 0.5, "evidence": {}}
    Queue(workspace).add(2, [row])
    environment = deploy_all(server, tmp_path, workspace)
    ids = {d["name"]: d["id"] for d in post(server, "deployments/filter", {})}
    assert {s.name for s in SCHEDULES} <= ids.keys()

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
        every = [{"schedule": {"interval": 12.0}, "active": True}]  # seconds: each look is a process
        post(server, f"deployments/{ids['review']}/schedules", every)
        start_round()
        wait(lambda: sorted(states()) == ["Skipped", "Suspended"] and looks())  # nobody reviewed: it sleeps on
        item = Queue(workspace).next("ada")
        Queue(workspace).decide(item.item, "accepted", "ada")
        wait(lambda: sorted(states()) == ["Completed", "Skipped"])
    finally:
        process.kill()  # one that ends in order waits for whatever it still runs
        process.wait()
    kept = [(a["key"], a["data"]) for a in post(server, "artifacts/filter", {})]  # a key once for each time it is made
    assert {"flywheel-round", "flywheel-review"} <= {key for key, _ in kept}
    links = {data for key, data in kept if key == "flywheel-dashboard"}
    assert any("http://dashboard.example/review" in link for link in links)


def test_serve_without_a_server_says_what_to_do(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "flywheel.cli", "serve", "--source", str(tmp_path), "-w", str(tmp_path / "w")]
    out = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert out.returncode == 2 and "prefect server start" in out.stderr
