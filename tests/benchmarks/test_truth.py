"""The truth benchmark chooses thresholds honestly, and says when it has nothing to try."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emptiness import emptiness
from benchmarks.graphics import scenes
from benchmarks.thresholds import threshold
from benchmarks.truth import rates

ROOT = Path(__file__).parents[2]


def test_threshold_is_in_the_widest_gap_that_keeps_the_precision() -> None:
    clean, defect = np.array([1.0, 2.0, 3.0]), np.array([12.0, 13.0])
    assert threshold(clean, defect) == pytest.approx(6.0)  # as far from 3 as from 12, by ratio
    assert threshold(-defect, -clean) == pytest.approx(-6.0)
    assert threshold(clean - 5, defect) == 5.0
    mixed = np.concatenate([np.arange(100.0), [500.0] * 3])
    bound = threshold(mixed, np.array([490.0, 600.0, 601.0]))
    assert bound > 500  # three clean ones above would cost the precision: better to miss one defect
    assert rates(mixed > bound, np.array([490.0, 600.0, 601.0]) > bound) == {"precision": 1.0, "recall": 0.6667}
    assert rates(np.array([True, False]), np.array([True, True])) == {"precision": 0.6667, "recall": 1.0}


def test_without_photographs_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.truth", "--photos", str(tmp_path), "--limit", "1"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout.splitlines()[-1]) == {} and "skipped" in out.stderr


def test_empty_frames_fall_and_pictures_with_little_in_them_stay() -> None:
    sound, empty = ("logo", "moon", "line_drawing"), ("blank", "faint_noise", "black", "burnt")
    result = emptiness(scenes(2), "qwen-image-2", 4, kinds=(*sound, *empty))
    assert result.pictures == 6 and result.by_kind.keys() == {*sound, *empty}
    assert result.by_policy == (1.0, 1.0)
    assert result.bounds["exposure.peak"] > 10 and result.bounds["structure.coherence"] < 0.5
