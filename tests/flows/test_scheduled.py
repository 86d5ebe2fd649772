"""Schedules against a real Prefect server: a deployment is made, a scheduled run appears by itself and finishes."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

from flywheel.core.ledger import Ledger
from flywheel.core.lock import locked
from flywheel.core.workspace import Workspace
from tests.flows.conftest import ROOT, Server, post, runs, wait

SERVE = """
import sys
from flows.deployments import serve
serve(sys.argv[1], {}, {"maintenance": 3})
"""


def test_a_scheduled_run_appears_and_finishes(server: dict[str, str], tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    for n in range(3):
        Ledger(workspace, "snapshots").append([{"snapshot": str(n)}], key=str(n))
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(workspace.root)], env=server, cwd=ROOT)
    try:
        wait(lambda: any(r["state_type"] == "COMPLETED" for r in runs(server, "flywheel-maintenance")))
    finally:
        process.terminate()
        process.wait(timeout=60)
    done = next(r for r in runs(server, "flywheel-maintenance") if r["state_type"] == "COMPLETED")
    assert done["auto_scheduled"] and {"flywheel", "maintenance"} <= set(done["tags"])
    assert len(Ledger(workspace, "snapshots").files()) == 1  # compacted
    assert len(Ledger(workspace, "snapshots").rows()) == 3
    kept = post(server, "artifacts/filter", {})
    assert {"flywheel-ledgers", "flywheel-fsck"} <= {a["key"] for a in kept}


def test_a_server_that_restarts_in_the_middle_of_a_run_stops_neither_it_nor_the_next(migrated: Path, tmp_path: Path):
    """The run waits for a lock of the workspace meanwhile, which this test holds.

    One whose process starts while there is no server ends as crashed: Prefect's own client gives up at once.
    """
    (tmp_path / "home").mkdir()
    server, workspace = Server(tmp_path / "home", migrated), Workspace(tmp_path / "w")
    Ledger(workspace, "snapshots").append([{"snapshot": "1"}], key="1")

    def ended(state: str) -> list[str]:
        return [r["id"] for r in runs(server.environment, "flywheel-maintenance") if r["state_type"] == state]

    server.start()
    command = [sys.executable, "-c", SERVE, str(workspace.root)]
    process = subprocess.Popen(command, env=server.environment, cwd=ROOT)
    try:
        with locked(workspace.path(".scheduled.lock")):
            wait(lambda: ended("RUNNING"))
            first = ended("RUNNING")[0]
            server.kill()
            server.start()
        wait(lambda: first in ended("COMPLETED") and len(ended("COMPLETED")) >= 2)  # it, and one that was due later
    finally:
        process.terminate()
        process.wait(timeout=60)
        server.kill()


FAIL = """
import sys
from flows import scheduled
scheduled.RETRIES = (0, 0)
scheduled.maintenance(sys.argv[1])
"""


def test_a_failed_run_calls_the_webhook(server: dict[str, str], tmp_path: Path):
    told: list[dict] = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.HTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    workspace = Workspace(tmp_path / "w")
    Ledger(workspace, "rounds").append([{"round": 1, "verdict": "HOLD", "snapshot": "s", "checkpoint": "c"}], key="1")
    environment = server | {"FLYWHEEL_WEBHOOK": f"http://127.0.0.1:{listener.server_port}/"}
    command = [sys.executable, "-c", FAIL, str(workspace.root)]
    failed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    listener.shutdown()
    assert failed.returncode and "not sound" in failed.stderr
    assert [(t["flow"], t["state"]) for t in told] == [("flywheel-maintenance", "Failed")]
