"""Runs and curation on a folder of images, and what they refuse."""

import json
from pathlib import Path

import pytest

from flywheel.core.workspace import FORMAT
from tests.curation.corpus import encoded, texture, write_folder
from tests.flywheel.cli.command import flywheel, wrong


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


def test_a_dry_run_refuses_a_bucket_as_a_run_does(tmp_path: Path, pictures: Path, s3: str):
    asked = ("curate", "--source", pictures, "-w", f"{s3}-none/w")
    assert wrong(*asked) == wrong(*asked, "--dry-run") and "there is no bucket" in wrong(*asked, "--dry-run")


def photographs(folder: Path, count: int, captions: int) -> Path:
    """Textured pictures, the first ones with a caption."""
    files = {f"{n}.png": encoded(texture(n, 320, 300)) for n in range(count)}
    return write_folder(folder, files, {f"{n}.png": f"a picture of {n} things" for n in range(captions)})


def test_pictures_without_captions_are_curated(tmp_path: Path, ray_session: None):
    source = photographs(tmp_path / "src", 4, 0)
    asked = ("curate", "--source", source, "--policy", "demo", "-w", tmp_path / "w")
    done = flywheel(*asked, "--json")
    assert done.returncode == 0, done.stderr
    curated = json.loads(done.stdout)
    assert (curated["admitted"], curated["uncaptioned"]) == (4, 4)
    assert "pictures without a caption: 4" in done.stderr and "`flywheel caption`" in done.stderr


def test_fewer_than_ten_captioned_pictures_are_enough(tmp_path: Path, ray_session: None):
    source = photographs(tmp_path / "src", 3, 2)
    curated = json.loads(
        flywheel("curate", "--source", source, "--policy", "demo", "-w", tmp_path / "w", "--json").stdout
    )
    assert (curated["admitted"], curated["uncaptioned"]) == (3, 1)
    assert not (tmp_path / "w" / "suite").exists()


def test_a_round_trains_on_no_picture_without_a_caption(tmp_path: Path, ray_session: None):
    from curation.policy.reader import load_policy
    from curation.run import curate
    from curation.sources.ingest import ingest
    from flywheel.core.workspace import Workspace

    workspace = Workspace(tmp_path / "w")
    ingest(workspace, photographs(tmp_path / "src", 3, 2))
    loose, strict = (curate(workspace, load_policy("demo"), captioned=c) for c in (False, True))
    assert (loose.admitted, strict.admitted) == (3, 2) and loose.snapshot != strict.snapshot
    assert next(r for r in strict.funnel if r["filter"] == "captioned")["dropped"] == 1


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path: Path):
    source = photographs(tmp_path / "src", 3, 2)
    asked = ("curate", "--source", source, "--policy", "demo", "-w", tmp_path / "w", "--dry-run", "--price", "0.05")
    told = flywheel(*asked)
    assert told.returncode == 0, told.stderr
    for part in ("read: 3 new of 3 inputs", "score: 3 pictures by header", "write: at most", "at 0.05 a core-hour"):
        assert part in told.stdout
    assert "pictures without a caption: 1" in told.stderr
    found = json.loads(flywheel(*asked, "--json").stdout)
    assert found["cpu_seconds"] > 0 and found["cost"] >= 0
    assert not (tmp_path / "w").exists()


def test_a_price_without_a_dry_run(tmp_path: Path, pictures: Path):
    told = wrong("curate", "--source", pictures, "-w", tmp_path / "w", "--price", "0.05")
    assert "--price is for the estimate of --dry-run" in told
