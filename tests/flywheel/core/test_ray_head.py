"""A head that goes away while a call waits that only Ray would end: one sentence, exit code 2, no process left."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.core import ray_head
from flywheel.core.errors import UsageError
from tests.processes import running

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(ray_head, "_GONE_SECONDS", 0.2)


def test_a_head_that_does_not_answer_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        ray_head.require(address)
    with pytest.raises(UsageError, match=f"Ray was lost: its head at {address} does not answer .*: run again"):
        ray_head.require(address)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_an_address_without_a_port_is_not_watched(address: str):
    with ray_head.watched(address):
        time.sleep(0.4)


def test_a_head_that_answers_leaves_the_block_alone():
    with socket.create_server(("127.0.0.1", 0)) as head, ray_head.watched(f"127.0.0.1:{head.getsockname()[1]}"):
        time.sleep(0.4)


def test_a_call_that_never_returns_ends_with_the_process_and_its_children():
    program = """
import socket, subprocess, sys, time
from flywheel.core import ray_head
ray_head.ASK_SECONDS, ray_head._GONE_SECONDS = 0.05, 0.2
head = socket.create_server(("127.0.0.1", 0))
with ray_head.watched(f"127.0.0.1:{head.getsockname()[1]}"):
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    time.sleep(0.3)
    head.close()
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("error: Ray was lost: its head at 127.0.0.1:") and line.endswith("finished work is kept")
    assert not running([int(done.stdout)])
