"""Runs and curation on a folder of images, and what they refuse."""

import json
from pathlib import Path

import pytest

from flywheel.core.workspace import FORMAT
from tests.flywheel.cli.command import wrong


def test_missing_and_empty_folder(tmp_path: Path):
    assert "does not exist" in wrong("run", "--source", tmp_path / "none", "--workspace", tmp_path / "w")
    (tmp_path / "empty").mkdir()
    text = wrong("run", "--source", tmp_path / "empty", "--workspace", tmp_path / "w", "--no-prefect")
    assert "empty" in text and "error:" in text


def test_captions_that_name_unknown_files(tmp_path: Path, pictures: Path):
    captions = tmp_path / "c.jsonl"
    captions.write_text(json.dumps({"file": "ghost.png", "caption": "a ghost"}) + "\n")
    text = wrong("run", "--source", pictures, "--captions", captions, "--workspace", tmp_path / "w", "--no-prefect")
    assert "ghost.png" in text


@pytest.mark.parametrize("content, expected", [("not [ toml", "policy"), ("[S9]\nresolutions=[64]\n", "S9")])
def test_unreadable_policy_and_unknown_stage(tmp_path: Path, pictures: Path, content: str, expected: str):
    policy = tmp_path / "policy.toml"
    policy.write_text(content)
    text = wrong("run", "--source", pictures, "--policy", policy, "--workspace", tmp_path / "w", "--no-prefect")
    assert expected in text


def test_unknown_preset(tmp_path: Path, pictures: Path):
    text = wrong("run", "--source", pictures, "--preset", "huge", "--workspace", tmp_path / "w", "--no-prefect")
    assert "tiny" in text and "demo" in text


def test_workspace_of_a_newer_version(tmp_path: Path, pictures: Path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "workspace.json").write_text(json.dumps({"format": FORMAT + 1}))
    assert "upgrade" in wrong("run", "--source", pictures, "--workspace", tmp_path / "w")
    assert "upgrade" in wrong("sql", "select 1", "--workspace", tmp_path / "w")


def test_a_folder_with_other_files_is_no_workspace(pictures: Path):
    assert "not empty" in wrong("run", "--source", pictures, "--workspace", pictures)
