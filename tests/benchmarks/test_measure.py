"""The benchmark counts what it says it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure import PEERS, Passes, marginal, passes, peak_gib, tile
from tests.curation.corpus import textures, write_folder

ROOT = Path(__file__).parents[2]

BUSY = f"""
import subprocess, sys
sys.path.insert(0, {str(PEERS)!r})
from marks import serve
child = "import time\\nwhile time.process_time() < {{}}: pass\\nprint(flush=True)\\ninput()"
children = []
def run(seconds):
    command = [sys.executable, "-c", child.format(seconds)]
    children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    children[-1].stdout.readline()
serve(run, sys.argv[1:])
for c in children:
    c.communicate(b"x")
"""


def test_the_cpu_of_living_children_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure._IDLE", 0.2)
    measured = passes([sys.executable, "-c", BUSY, "0.05", "0.3"], tmp_path)
    assert len(measured.cpu) == 3 and measured.cpu[2] > measured.cpu[1] + 0.1 and measured.cpu[2] >= 0.28
    with pytest.raises(RuntimeError, match="no such peer"):
        passes([sys.executable, "-c", "raise SystemExit('no such peer')"], tmp_path)


def test_a_marginal_rate_leaves_the_fixed_part_out() -> None:
    wall = (9.0, 9.0, 10.0, 20.0)
    quiet, disturbed = Passes((5.0, 1.0, 3.0, 13.0), wall, 0.1), Passes((6.0, 1.0, 3.5, 30.0), wall, 0.1)
    rate, fixed = marginal([disturbed, quiet], small=10, large=100)
    assert rate == pytest.approx(10) and fixed == pytest.approx(6 + 1)


def test_tiles_are_distinct_files_of_the_same_pictures(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", textures(2))
    photos = sorted(source.glob("*.jpg"))
    tiles = sorted(tile(photos, tmp_path / "out", 5).iterdir())
    assert len({t.read_bytes() for t in tiles}) == 5
    assert np.array_equal(np.asarray(Image.open(tiles[4])), np.asarray(Image.open(photos[0])))
    (large,) = tile(photos[:1], tmp_path / "large", 1, pixels=100_000).iterdir()
    assert Image.open(large).size == (365, 274)


def test_the_peak_is_of_the_whole_tree() -> None:
    hold = "import subprocess, sys, time; b = bytearray(120 << 20); time.sleep(1)"
    assert peak_gib([sys.executable, "-c", hold]) > 0.11


def test_without_photographs_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.curation", "--photos", str(tmp_path)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.splitlines()[-1]) == {} and "skipped" in out.stderr
    wrong = subprocess.run([*command, "--only", "taste"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "unknown part taste" in wrong.stderr
