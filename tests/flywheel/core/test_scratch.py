"""Scratch folders go with their process, however it ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flywheel.core.scratch import Scratch

HOLD = """
import sys
from flywheel.core.scratch import Scratch
held = Scratch()
(held.path / "meetings").write_bytes(b"x" * 1000)
print(held.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all scratch folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"flywheel-{os.getuid()}"


def holding(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], text=True, env=os.environ | {"TMPDIR": str(tmp_path)}, **pipes
    )
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_leaves_goes_with_the_next_one_and_what_lives_stays(tmp_path: Path, place: Path):
    (killed, left), (living, kept) = holding(tmp_path), holding(tmp_path)
    killed.kill()
    killed.communicate()
    assert (left / "meetings").exists() and left.parent == place
    with Scratch() as mine, Scratch() as other:
        assert sorted(place.iterdir()) == sorted([kept, mine, other]) and list(mine.iterdir()) == []
    living.communicate("")
    assert list(place.iterdir()) == [] and not kept.exists()


def test_a_folder_goes_with_its_object(place: Path):
    scratch = Scratch()
    (scratch.path / "file").touch()
    del scratch
    gc.collect()
    assert list(place.iterdir()) == [] and place.stat().st_mode & 0o777 == 0o700


def test_what_somebody_else_has_made_there_is_not_used(tmp_path: Path, place: Path):
    (tmp_path / "elsewhere" / "precious").mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    with Scratch() as mine:
        assert mine.parent == tmp_path and mine.name.startswith("flywheel-")
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["precious"] and not mine.exists()
