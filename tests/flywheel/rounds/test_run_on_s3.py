"""A whole round in a workspace on S3, by the command, over a network that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.faulty_s3 import FAULTS, draw, faulty
from curation.scorers.ocr_weights import cache_dir
from flywheel.cases.events import load_cases
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from tests.curation.corpus import encoded, textures, word, write_folder

PRESET = """
policy = "demo"
[training]
recipe = { base = "tiny", batch = { 64 = 4 }, resolution = { 64 = 64 }, checkpoint_every = 1, t2i_share = 1.0 }
base_steps = 2
round_steps = 2
[evaluation]
suite = "SUITE"
side = 64
steps = 1
cfg = 1.0
[attribution]
seeds = 1
[plan]
remedy_share = 0.5
max_targets = 1
min_cases = 1
samples = 4
[review]
auto_approve = true
"""
PROMPTS = [
    {
        "prompt_id": f"count-{n}",
        "prompt": f"{n} red circles",
        "task": "t2i",
        "references": [],
        "checks": [{"capability": "count", "verifier": "count", "shape": "circle", "count": n}],
    }
    for n in (2, 3)
]


def run(folder: Path, workspace: str, cache: Path) -> dict:
    arguments = [
        "run",
        "--source",
        folder / "src",
        "-w",
        workspace,
        "--preset",
        folder / "micro.toml",
        "--json",
        "--rounds",
        "1",
        "--workers",
        "1",
    ]
    command = [sys.executable, "-m", "flywheel.cli", *map(str, arguments), "--no-prefect"]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "FLYWHEEL_CACHE": str(cache_dir())}  # with OCR's weights
    out = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert out.returncode == 0, out.stderr[-4000:]
    return json.loads(out.stdout.splitlines()[-1])


def test_a_round_over_a_network_that_fails(s3: str, s3_server: tuple[str, int], tmp_path: Path, monkeypatch):
    pictures = textures(6) | {"sun.png": encoded(word("SUN")), "broken.png": b"no picture"}
    write_folder(tmp_path / "src", pictures, {name: f"picture {name}" for name in pictures if name != "broken.png"})
    (tmp_path / "suite.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PROMPTS))
    (tmp_path / "micro.toml").write_text(PRESET.replace("SUITE", str(tmp_path / "suite.jsonl")))
    with faulty(*s3_server, draw(0.01)) as (address, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        summary = run(tmp_path, f"{s3}/w", tmp_path / "cache")
        assert sum(faults[f] for f in FAULTS) > 10
    monkeypatch.undo()
    assert (summary["input"], summary["quarantined"]) == (len(pictures), 1)
    assert summary["input"] == summary["admitted"] + summary["dropped"] + summary["quarantined"]
    workspace = Workspace(f"{s3}/w")
    assert fsck(workspace).findings == ()
    (checkpoint,) = summary["checkpoints"]
    assert {p.name for p in located(checkpoint).iterdir()} >= {"config.json", "ema.safetensors", "model.safetensors"}
    assert {p.name for p in workspace.path("samples", "round-0001-candidate").glob("*.png")} == {
        "count-2.png",
        "count-3.png",
        "grid.png",
    }
    assert load_cases(workspace) and all(c.track for c in load_cases(workspace).values() if c.is_open)
