"""A micro run: two whole rounds in a minute, by the command, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from flywheel.catalog.database import query
from flywheel.core.workspace import Workspace

PRESET = Path(__file__).resolve().parents[2] / "benchmarks" / "micro.toml"


def command(world: Path, workspace: Path, *more: str) -> list[str]:
    """The command line of a micro run; `more`: further arguments."""
    folders = ["--source", str(world), "--workspace", str(workspace)]
    arguments = ["run", *folders, "--preset", str(PRESET), "--no-prefect", "--json", *more]
    return [sys.executable, "-m", "flywheel.cli", *arguments]


def run(world: Path, workspace: Path, *more: str) -> dict:
    """Run it; returns its summary."""
    out = subprocess.run(command(world, workspace, *more), capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr[-4000:]
    return json.loads(out.stdout.splitlines()[-1])


def sql(workspace: Path, statement: str) -> list[dict]:
    """Rows of a query."""
    return query(Workspace(workspace, create=False), statement)
