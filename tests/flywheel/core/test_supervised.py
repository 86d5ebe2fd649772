"""A supervised command ends when its parent does, and tells how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel.core.supervised import last_lines, run
from tests.processes import running

SLEEPER = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"


def test_output_goes_to_the_log_and_the_status_comes_back(tmp_path: Path):
    log, seen = tmp_path / "log", []
    code = "import time; print('one', flush=True); time.sleep(0.6); print('two'); raise SystemExit(3)"
    assert run([sys.executable, "-c", code], log, on_line=seen.append) == 3
    assert last_lines(log, 5) == ["one", "two"] and "one" in seen
    assert run([sys.executable, "-c", "print('three')"], log) == 0 and last_lines(log, 1) == ["three"]
    with pytest.raises(OSError, match="nothing"):
        run([str(tmp_path / "nothing")], log)


def test_a_killed_parent_takes_the_command_with_it(tmp_path: Path):
    started = tmp_path / "pid"
    command = [sys.executable, "-c", SLEEPER, str(started)]
    code = f"import pathlib, flywheel.core.supervised as s; s.run({command!r}, pathlib.Path({str(tmp_path / 'log')!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    for _ in range(600):
        if started.exists() and started.read_text():
            break
        time.sleep(0.05)
    child = int(started.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    outlived = running([child], after=20)
    if outlived:
        os.kill(child, signal.SIGKILL)
    assert not outlived
