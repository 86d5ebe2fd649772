"""A flow run in a process of its own, as in a real run, and the summary that it publishes."""

import os
import subprocess
import sys

from tests.flows.conftest import ROOT

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
import io, json, sys, time
from pathlib import Path
from flows.artifacts import publish
from flows.server import api, configure
from flows.steps import task_step
from flywheel.core.errors import UsageError

home, summary = Path(sys.argv[1]), json.loads(sys.argv[2])
configure(home)
out = {}
with api(home) as url:
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.steps import TERMINAL, Terminal
    from flywheel.core.progress import Progress

    def talk():
        shown.say("half of them")

    shown = Progress(io.StringIO())
    TERMINAL.set(Terminal(shown, {}))

    @flow(name="three-steps")
    def three_steps():
        task_step("talk", talk)
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
            if len(runs) == 4 and "Running" not in runs.values():
                break
            time.sleep(0.1)
        out["tasks"] = runs
        for _ in range(50):
            if logs := [(entry.message, entry.task_run_id) for entry in client.read_logs() if "half" in entry.message]:
                break
            time.sleep(0.1)
        named = {r.id: r.name for r in client.read_task_runs()}
        out["logs"] = [(message, named.get(task)) for message, task in logs]
        out["flows"] = {client.read_flow(r.flow_id).name: r.state_name for r in client.read_flow_runs()}
        out["artifacts"] = sorted(a.key for a in client.read_artifacts() if a.key)
    out["url"] = url
print(json.dumps(out))
"""


def python(code: str, *args: object, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=180)
