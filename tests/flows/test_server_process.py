"""The server of a run: it answers where it says, and ends with its driver's pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.flows.conftest import ROOT


def test_it_serves_until_its_input_closes(recorded: dict, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / ".prefect")  # a migrated database saves the test ten seconds
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path / ".prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "flows.server_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes) as server:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and address.endswith("/api")
        assert httpx.get(f"{address}/health", timeout=30).status_code == 200
        server.stdin.close()
        assert server.wait(timeout=60) in (0, 1)  # in time, or cut short
