"""The project file: options that need not be typed again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from flywheel.cli.project import NAME, defaults, found, read
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from tests.flywheel.cli.command import flywheel, wrong


def command():
    from typer.main import get_command

    from flywheel.cli.main import app

    return get_command(app)


def test_what_init_writes_is_what_later_commands_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path / "workspace")
    made = json.loads(flywheel("init", "--source", "photos", "--captions", "photos/captions.jsonl", "--json").stdout)
    assert made == {"project": NAME, "preset": "preset.toml"}
    assert "exists already" in wrong("init") and load_preset("preset.toml").policy == load_preset("tiny").policy
    places = {k: str(tmp_path / v) for k, v in {"captions": "photos/captions.jsonl", "preset": "preset.toml"}.items()}
    places |= {"workspace": str(tmp_path / "workspace"), "source": [str(tmp_path / "photos")]}
    assert read(tmp_path / NAME) == places
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    assert json.loads(flywheel("sql", "select 1 as n", "--json").stdout) == [{"n": 1}]
    assert "does not exist" in wrong("curate") and "photos" in wrong("curate")
    assert not list((tmp_path / "deeper").iterdir())


def test_the_command_line_goes_first_and_captions_stay_with_their_source(tmp_path: Path):
    (tmp_path / NAME).write_text(
        'workspace = "s3://b/w"\nsource = "photos"\ncaptions = "c.jsonl"\npreset = "tiny"\nseed = 3\nprefect = false\n'
    )
    given = defaults(command(), ["run"], tmp_path / "below" / "it")
    assert given["run"] == {
        "workspace": "s3://b/w",
        "source": [str(tmp_path / "photos")],
        "captions": str(tmp_path / "c.jsonl"),
        "preset": "tiny",
        "seed": 3,
        "prefect": False,
    }
    assert given["round"]["plan"] == {"workspace": "s3://b/w"} and "demo" not in given
    assert given["serve"] == {k: v for k, v in given["run"].items() if k not in ("seed", "prefect")} | {
        "images": {"workspace": "s3://b/w"},
        "feedback": {"workspace": "s3://b/w"},
    }
    for line in (["run", "--source", "x"], ["run", "--source=x"]):
        assert "captions" not in defaults(command(), line, tmp_path)["run"]


def test_paths_of_the_command_line_mean_what_they_mean_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = flywheel("init", "../new/p", "--source", "photos/", "--source", "s3://b/p", "-w", "w").stderr
    assert "next, in ../new/p: flywheel curate --dry-run" in said
    values = read(tmp_path / "new" / "p" / NAME)
    here = tmp_path / "here"
    assert [str(Path(values["source"][0]).resolve()), values["source"][1]] == [str(here / "photos"), "s3://b/p"]
    assert Path(values["workspace"]).resolve() == here / "w"
    flywheel("init", "other", "--source", str(here / "photos"))
    values = read(here / "other" / NAME)
    assert values["source"] == [str(here / "photos")] and values["workspace"] == str(here / "other" / "workspace")


def test_where_nothing_can_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "cannot write file/flywheel.toml" in wrong("init", "file")
    assert "cannot write file/below/flywheel.toml" in wrong("init", "file/below")
    assert "not empty" in wrong("init", "-w", "") and "not empty" in wrong("init", "--source", "")


def test_the_home_folder_may_be_written_short(tmp_path: Path):
    (tmp_path / NAME).write_text('workspace = "~/w"')
    assert read(tmp_path / NAME)["workspace"] == str(Path.home() / "w")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('workspace = ""', "workspace is empty: fill it in"),
        ("source = []", "source is empty: fill it in"),
        ('source = ["a", ""]', "source is empty: fill it in"),
        ("seed = 1.5", "seed is 1.5: give a whole number"),
        ('workspaces = "w"', "unknown key 'workspaces': choose workspace, source"),
        ("workers = true", "workers is True: give a whole number"),
        ('prefect = "no"', "prefect is 'no': give true or false"),
        ("source = [1]", r"source is \[1\]: give text or a list of texts"),
        ("preset = 3", "preset is 3: give text"),
        ("workspace = ", "cannot read .*flywheel.toml: Invalid value"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, text: str, said: str):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UsageError, match=said):
        read(tmp_path / NAME)


def test_without_a_file_nothing_is_given_and_demo_and_init_never_read_one(tmp_path: Path, monkeypatch):
    assert found(tmp_path) is None and defaults(command(), ["run"], tmp_path) == {}
    (tmp_path / NAME).write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert "cannot read" in wrong("funnel") and "exists already" in wrong("init")


def test_what_is_wrong_in_the_file_is_said_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / NAME
    file.write_text('workspace = "w"\nsource = "nowhere"\nworkers = 0\n')
    assert f"{file}, line 3: workers is 0: Input should be greater than or equal to 1" in wrong("curate")
    assert f"{file}, line 2: source {tmp_path / 'nowhere'} does not exist" in wrong("curate", "--workers", 1)
    assert "error: --source other does not exist" in wrong("curate", "--workers", 1, "--source", "other")


def test_a_verb_does_not_stumble_over_what_it_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path / "w")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "card.png")
    (tmp_path / NAME).write_text('workspace = "w"\nsource = ""\nseed = "many"\n')
    assert flywheel("inspect", "card.png").returncode == 0
    assert flywheel("sql", "select 1").returncode == 0
    assert f"{NAME}, line 2: source is empty" in wrong("curate")
    (tmp_path / NAME).write_text("nonsense")
    assert flywheel("inspect", "card.png").returncode == 0 and "cannot read" in wrong("sql", "select 1")
