"""The command in a process of its own."""

import subprocess
import sys


def flywheel(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flywheel.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def wrong(*arguments: object) -> str:
    out = flywheel(*arguments)
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr
    return out.stderr
