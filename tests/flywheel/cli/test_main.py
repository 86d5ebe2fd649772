"""Wrong usage ends in one sentence and exit code 2; help is quick and imports nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result

from flywheel.cli.main import app
from flywheel.core.workspace import FORMAT, Workspace


def flywheel(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flywheel.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_lists_the_verbs_and_imports_nothing_heavy():
    out = flywheel("--help")
    assert out.returncode == 0
    verbs = ("demo", "run", "sql", "explain", "funnel", "what-if", "policy", "cases", "rounds", "report")
    assert all(verb in out.stdout for verb in verbs)
    heavy = ("ray", "torch", "prefect", "duckdb", "pyarrow", "numpy")
    code = f"import sys, flywheel.cli.main; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (300, 300), "red").save(folder / "a.png")
    return folder


def wrong(*arguments: object) -> str:
    out = flywheel(*arguments)
    assert out.returncode == 2, out.stderr
    assert "Traceback" not in out.stderr
    return out.stderr


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


def test_sql_answers_on_an_empty_workspace_and_refuses_to_write(tmp_path: Path):
    Workspace(tmp_path / "w")
    out = flywheel("sql", "select count(*) as n from samples", "--workspace", tmp_path / "w", "--json")
    assert json.loads(out.stdout) == [{"n": 0}]
    assert "SELECT" in wrong("sql", "drop view samples", "--workspace", tmp_path / "w")
    assert "SELECT" in wrong("sql", f"copy (select 1) to '{tmp_path}/x.csv'", "--workspace", tmp_path / "w")
    assert not (tmp_path / "x.csv").exists()
    assert "no workspace" in wrong("sql", "select 1", "--workspace", tmp_path / "none")


def test_policies_are_shown_and_compared(tmp_path: Path):
    shown = flywheel("policy", "show", "demo", "--json")
    assert json.loads(shown.stdout)["stages"][0]["name"] == "S1"
    rows = json.loads(flywheel("policy", "diff", "demo", "qwen-image-2", "--json").stdout)
    assert {"line": "S1.resolution.min", "before": 64, "after": 256} in rows
    assert "built-in policy" in wrong("policy", "show", "strict")
    Workspace(tmp_path / "w")
    assert "nothing has been curated" in wrong("what-if", "--set", "S1.resolution.min=99", "-w", tmp_path / "w")


def test_curation_alone_and_maintenance(tmp_path: Path, ray_session: None):
    import numpy as np
    from PIL import Image
    from typer.testing import CliRunner

    def ask(*arguments: object) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)))

    source, captions = tmp_path / "source", tmp_path / "captions.jsonl"
    source.mkdir()
    for n in range(11):
        small = np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((300, 300), Image.Resampling.BICUBIC).save(source / f"{n}.png")
    (source / "11.png").write_bytes(b"no picture")
    captions.write_text("".join(json.dumps({"file": f"{n}.png", "caption": f"colours {n}"}) + "\n" for n in range(12)))
    curate = ("curate", "--source", source, "--captions", captions, "--policy", "demo", "-w", tmp_path / "w")
    found = json.loads(ask(*curate, "--json").stdout)
    assert (found["input"], found["quarantined"]) == (12, 1)
    assert 0 < found["admitted"] == 11 - found["dropped"] and (tmp_path / "w" / found["manifest"]).is_file()
    again = ask(*curate)
    assert "12 input = " in again.stderr and "0 new, 12 known" in again.stderr and "resolution" in again.stdout
    tidy = ask("maintain", "-w", tmp_path / "w", "--json")
    assert json.loads(tidy.stdout)["sound"] and tidy.exit_code == 0
    manifest = tmp_path / "w" / found["manifest"]
    shard = manifest.parent / json.loads(manifest.read_text())["files"][0]["path"]
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    spoilt = ask("maintain", "-w", tmp_path / "w")
    assert spoilt.exit_code == 1 and "NOT SOUND" in spoilt.stderr
    assert "no workspace" in wrong("maintain", "-w", tmp_path / "none")
