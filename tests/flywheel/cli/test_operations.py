"""Curation alone, then maintenance of its workspace."""

import json
from pathlib import Path

from click.testing import Result

from curation.sources.ingest import ingest
from flywheel.cli.main import app
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.flywheel.cli.command import flywheel, wrong


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
    curated = json.loads(ask(*curate, "--json").stdout)
    assert (curated["input"], curated["quarantined"]) == (12, 1)
    assert 0 < curated["admitted"] == 11 - curated["dropped"] and (tmp_path / "w" / curated["manifest"]).is_file()
    again = ask(*curate)
    assert "12 input = " in again.stderr and "0 new, 12 known" in again.stderr and "resolution" in again.stdout
    tidy = ask("maintain", "-w", tmp_path / "w", "--json")
    assert json.loads(tidy.stdout)["sound"] and tidy.exit_code == 0
    manifest = tmp_path / "w" / curated["manifest"]
    shard = manifest.parent / json.loads(manifest.read_text())["files"][0]["path"]
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    spoilt = ask("maintain", "-w", tmp_path / "w")
    assert spoilt.exit_code == 1 and "NOT SOUND" in spoilt.stderr
    assert "no workspace" in wrong("maintain", "-w", tmp_path / "none")


def test_erase_by_file_of_names(tmp_path: Path):
    workspace, files = Workspace(tmp_path / "w"), {f"{n}.png": encoded(texture(n)) for n in range(3)}
    source = write_folder(tmp_path / "src", files, {})
    ingest(workspace, source)
    names = tmp_path / "names.txt"
    names.write_text(f"{source / '0.png'}\n\n1.png\n")
    asked = ("erase", "--from", names, "--by", "ada", "--why", "asked", "-w", tmp_path / "w")
    told = flywheel(*asked)
    assert told.returncode == 0, told.stderr
    assert "erased 2 pictures: 2 rows of the pool" in told.stdout and "files of sources still hold them" in told.stderr
    assert "no picture of the pool is meant" in wrong(*asked)
    assert "names nothing" in wrong("erase", "--from", _empty(tmp_path), "-w", tmp_path / "w")
    assert "--by NAME --why TEXT" in wrong("erase", "2.png", "-w", tmp_path / "w")
    (found,) = json.loads(flywheel("erase", "2.png", "--by", "a", "--why", "b", "-w", tmp_path / "w", "--json").stdout)
    assert found["rows"] == 1 and found["checkpoints"] == []
    assert flywheel("fsck", "-w", tmp_path / "w").returncode == 0


def _empty(folder: Path) -> Path:
    (folder / "empty.txt").write_text("\n")
    return folder / "empty.txt"
