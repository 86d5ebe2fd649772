"""The verbs that serve: what they refuse, and that Ctrl-C ends the image server with its workers while one draws."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import wrong
from tests.flywheel.operate.in_service import in_service
from tests.processes import running


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "give --source DIR and --workspace W" in wrong("serve")
    assert "no workspace at" in wrong("serve", "images", "-w", tmp_path / "none")
    workspace = Workspace(tmp_path / "w")
    assert "has no promoted checkpoint" in wrong("serve", "images", "-w", workspace.root)


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["Ctrl-C", "a supervisor"])
def test_a_signal_ends_the_server_while_it_draws(tmp_path: Path, group: bool) -> None:
    workspace = in_service(tmp_path / "w")
    line = [sys.executable, "-m", "flywheel.cli", "serve", "images", "-w", str(workspace.root), "--port", "0"]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said = next(text for text in server.stderr if "pictures at" in text or server.poll() is not None)
    url = said.split("pictures at ")[1].split()[0]
    asked = {"prompt": "a red circle", "size": "512x512", "num_inference_steps": 200}
    answers, said_to = list[int](), list[str]()

    def ask() -> None:
        answer = httpx.post(f"{url}/images/generations", json=asked, timeout=60)
        answers.append(answer.status_code)
        said_to.append(answer.text)

    asking = threading.Thread(target=ask)
    asking.start()
    while not httpx.get(url.replace("/v1", "/healthz")).json()["drawing"]:
        time.sleep(0.05)
    processes = psutil.Process(server.pid).children(recursive=True)
    began = time.monotonic()
    for process in [*(processes if group else ()), psutil.Process(server.pid)]:
        process.send_signal(signal.SIGINT)
    errors = server.communicate(timeout=30)[1]
    asking.join()
    assert server.returncode == 130 and time.monotonic() - began < 10, errors
    assert "Traceback" not in errors and errors.splitlines()[-1].startswith("stopped by Ctrl-C"), errors
    assert processes and not running(processes)
    assert answers == [503] and "the server is stopping" in said_to[0]
