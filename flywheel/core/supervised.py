"""A command of the user's, run so that it ends when this process does, whatever the reason.

`python -m flywheel.core.supervised` stands between: it starts the command in a process group of its own and ends the
group when its own standard input closes, which happens even if the parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0  # between asking a command to end and killing it
_TAIL = 4096  # bytes of the log that are read for its last lines


def run(argv: Sequence[str], log: Path, *, on_line: Callable[[str], None] | None = None) -> int:
    """Run a command with its output appended to `log`; returns its exit status, negative for a signal.

    on_line: called with the last line of the output from time to time. Errors: `OSError` if it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = subprocess.Popen(
        [sys.executable, "-m", "flywheel.core.supervised"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_root(), *_python_path()])},
    )
    stdin, stdout = guard.stdin, guard.stdout
    if stdin is None or stdout is None:
        raise ValueError("the guard is started with pipes")
    try:
        stdin.write(json.dumps({"argv": list(argv), "log": str(log), "path": os.environ.get("PYTHONPATH")}) + "\n")
        stdin.flush()  # and stays open: its end tells the guard that this process is gone
        while guard.poll() is None:
            if on_line and (lines := last_lines(log, 1)):
                on_line(lines[-1])
            time.sleep(_POLL_SECONDS)
        answer = json.loads(stdout.readline() or "{}")
        if "error" in answer:
            raise OSError(answer["error"])
        return int(answer.get("status", guard.returncode))
    finally:
        stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guard.wait(_GRACE_SECONDS * 2)
        guard.kill()
        guard.wait()
        stdout.close()


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that say something."""
    if not log.exists():
        return []
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        text = file.read().decode(errors="replace").replace("\r", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]


def _root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def main() -> None:
    """Start the command that the first line of standard input describes, and print how it ended."""
    asked = json.loads(sys.stdin.readline())
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if asked["path"] is not None:
        environment["PYTHONPATH"] = asked["path"]
    try:
        with open(asked["log"], "ab") as log:
            command = subprocess.Popen(
                asked["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(1)
    threading.Thread(target=_end_with_parent, args=(command,), daemon=True).start()
    print(json.dumps({"status": command.wait()}), flush=True)
    _signal(command, signal.SIGKILL)  # what the command has left running


def _end_with_parent(command: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    _signal(command, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        command.wait(_GRACE_SECONDS)
    _signal(command, signal.SIGKILL)
    os._exit(1)


def _signal(command: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(command.pid, number)


if __name__ == "__main__":
    main()
