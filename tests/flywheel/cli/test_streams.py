"""Verbs of the data streams: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace


def flywheel(*arguments: object) -> str:
    """Standard output. Errors: `UsageError`, which the command prints as one sentence."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.stdout


def test_synthetic_text_as_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.synthesis.source._PART", 2)
    asked = ("synthesise", "text", "--style", "comic", "--script", "japanese", "--side", 384, "--count", 2)
    summary = json.loads(flywheel(*asked, "--output", tmp_path / "a", "--json"))
    assert summary["samples"] == 2
    rows = [json.loads(line) for line in (tmp_path / "a" / "captions.jsonl").read_text().splitlines()]
    assert all(Image.open(tmp_path / "a" / r["file"]).height == 384 for r in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("text", "--style", "scroll"), "unknown style 'scroll': choose from paragraph, slide"),
        (("text", "--style", "scene"), "either --photos FOLDER or --workspace"),
        (("text", "--style", "slide", "--script", "runes"), "unknown script 'runes'"),
        (("text", "--style", "slide", "--texts", "nowhere.txt"), "--texts nowhere.txt cannot be read"),
        (("edits", "--photos", "nowhere"), "--photos nowhere is not a folder"),
        (("edits", "--photos", ".", "--kind", "wish"), "unknown kind of edit 'wish'"),
    ],
)
def test_wrong_synthesis(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        flywheel("synthesise", *arguments, "--output", tmp_path / "out")


def test_wrong_captioning(tmp_path: Path) -> None:
    asked = ("caption", "--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "-w")
    with pytest.raises(UsageError, match="no workspace at"):
        flywheel(*asked, tmp_path / "none")
    Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="ingest a source first"):
        flywheel(*asked, tmp_path / "w")
    with pytest.raises(UsageError, match="--prompt .* cannot be read"):
        flywheel(*asked, tmp_path / "w", "--prompt", tmp_path / "no.txt")
    with pytest.raises(UsageError, match="give url"):
        flywheel("caption", "--endpoint", "localhost", "--model", "m", "-w", tmp_path / "w")
