"""A micro run: two whole rounds in a minute, by the command, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from flywheel.catalog.database import query
from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel

PRESET = Path(__file__).resolve().parents[2] / "benchmarks" / "micro.toml"


def command(world: Path, workspace: Path, *more: str) -> list[str]:
    """The command line of a micro run; `more`: further arguments."""
    return [sys.executable, "-m", "flywheel.cli", *arguments(world, workspace, *more)]


def arguments(world: Path, workspace: Path, *more: str) -> list[str]:
    """Of `flywheel`. One worker: two would each import everything for 300 small pictures."""
    folders = ["--source", str(world), "--workspace", str(workspace)]
    return ["run", *folders, "--preset", str(PRESET), "--workers", "1", "--no-prefect", "--json", *more]


def run(world: Path, workspace: Path, *more: str) -> dict:
    """Run it; returns its summary."""
    out = subprocess.run(command(world, workspace, *more), capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr[-4000:]
    return json.loads(out.stdout.splitlines()[-1])


def go_on(world: Path, workspace: Path, *more: str) -> dict:
    """Run it in this process, which has imported what a run needs; returns its summary."""
    out = flywheel(*arguments(world, workspace, *more))
    assert out.returncode == 0, out.stderr[-4000:]
    return json.loads(out.stdout.splitlines()[-1])


def sql(workspace: Path, statement: str) -> list[dict]:
    """Rows of a query."""
    return query(Workspace(workspace, create=False), statement)
