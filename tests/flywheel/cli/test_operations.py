"""Curation alone, then maintenance of its workspace."""

import json
from pathlib import Path

from click.testing import Result

from flywheel.cli.main import app
from tests.flywheel.cli.command import wrong


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
