"""A read-only workspace: every command that reads works, every other says so in a sentence, and nothing changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flywheel.core.workspace import Workspace

READING = (
    "funnel", "rounds", "cases", "sql select+count(*)+from+cases", "sql select+*+from+samples", "snapshot+list",
    "what-if --set+S1.resolution.min=100", "tables", "queries", "fsck", "round+status", "round+diff 1 2",
)  # fmt: skip
WRITING = ("report", "maintain", "signals+import feedback.jsonl", "arena+import battles.jsonl")
MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" "$1" && shift && exec "$@"'
RUN = """
import json, sys
from tests.flywheel.cli.command import flywheel
out = []
for line in json.loads(sys.argv[2]):
    done = flywheel(*line)
    out.append((line, done.returncode, done.stdout[-300:], done.stderr[-600:]))
json.dump(out, open(sys.argv[1], "w"))
"""


def read_only(workspace: Path, tmp_path: Path, lines: Sequence[Sequence[str]]) -> list[list]:
    """(command, exit code, output, errors) of each, where the workspace cannot be written."""
    program = [sys.executable, "-c", RUN, str(tmp_path / "out.json"), json.dumps(lines)]
    if os.geteuid() == 0:  # permissions do not stop root, a read-only mount of one's own does
        program = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", str(workspace), *program]
    else:
        subprocess.run(["chmod", "-R", "a-w", str(workspace)], check=True)
    try:
        done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, env=os.environ | _path())
    finally:
        if os.geteuid() != 0:
            subprocess.run(["chmod", "-R", "u+w", str(workspace)], check=True)
    if done.returncode and "unshare" in done.stderr + done.stdout:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out.json").read_text())


def _path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def test_reading_works_and_writing_says_that_it_cannot(copied: Workspace, tmp_path: Path):
    (tmp_path / "feedback.jsonl").write_text('{"event_id": "1", "prompt": "a cat", "thumbs": "down"}\n')
    battle = {"battle_id": "1", "model_a": "a", "model_b": "b", "winner": "model_a", "prompt": "x"}
    (tmp_path / "battles.jsonl").write_text(json.dumps(battle) + "\n")
    before = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*")}

    def line(text: str) -> list[str]:
        verb, _, rest = text.partition(" ")
        arguments = [part.replace("+", " ") if verb == "sql" else part for part in rest.split()]
        arguments = [word for part in arguments for word in (part.split("+") if part.startswith("--") else [part])]
        return [*verb.split("+"), *arguments, *([] if verb in ("tables", "queries") else ["-w", str(copied.root)])]

    done = read_only(copied.root, tmp_path, [line(text) for text in (*READING, *WRITING)])
    for command, code, _, errors in done[: len(READING)]:
        assert code == 0, (command, errors)
    for command, code, _, errors in done[len(READING) :]:
        assert code == 2 and "Traceback" not in errors, (command, errors)
        assert "read-only" in errors or "permission denied" in errors, (command, errors)
    assert {p: p.stat().st_mtime_ns for p in copied.root.rglob("*")} == before
