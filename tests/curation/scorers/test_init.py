"""Scorers by name: built-in ones, and those of installed packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.scorers import load
from flywheel.core.errors import UsageError


def test_unknown_scorers_and_options() -> None:
    with pytest.raises(UsageError, match="unknown scorer 'taste'"):
        load("taste")
    with pytest.raises(UsageError, match="does not take these options"):
        load("ocr", speed=9)


def test_an_installed_package_adds_its_scorer_and_replaces_none(tmp_path: Path) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flywheel.scorers]\nbright = mine:Bright\nheader = mine:Bright\n")
    (tmp_path / "mine.py").write_text(
        "import pyarrow as pa\nfrom flywheel.core.schema import column\n"
        "class Bright:\n    name, version, fields = 'bright', '1', (column('mean', pa.float64(), 'mean'),)\n"
    )
    policy = tmp_path / "p.toml"
    policy.write_text("[S1]\nresolutions = [64]\nenters = ['t2i']\n[S1.filters.dark]\nscore = 'bright.mean'\nmin = 9\n")
    code = (
        "from curation.policy.reader import load_policy; from curation.scorers import load, scorer_class;"
        f"assert load_policy({str(policy)!r}).stages[0].filters[0].column == 'bright.mean';"
        "assert type(load('bright')).__module__ == 'mine' and scorer_class('header').__module__ != 'mine'"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
