"""Generators by their tables: told from what a folder holds, or from a hub tag."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.generators import describe, open_generator, resolved


def test_a_folder_says_what_it_holds(tmp_path: Path):
    for name, files in {
        "pipeline": ["model_index.json"],
        "checkpoint": ["config.json"],
        "run": ["final/config.json", "metrics.jsonl"],
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("{}")
    assert describe(tmp_path / "pipeline") == {"kind": "diffusers", "model": str(tmp_path / "pipeline")}
    assert describe(tmp_path / "checkpoint") == {"kind": "checkpoint", "model": str(tmp_path / "checkpoint")}
    assert describe(tmp_path / "run") == {"kind": "checkpoint", "model": str(tmp_path / "run" / "final")}
    assert describe("Qwen/Qwen-Image-2.1") == {"kind": "diffusers", "model": "Qwen/Qwen-Image-2.1"}
    assert describe(Path("Qwen/Qwen-Image-2.1"))["kind"] == "diffusers"
    with pytest.raises(UsageError, match="is not a checkpoint"):
        _ = open_generator(describe(tmp_path)).fingerprint


def test_paths_of_a_table_are_relative_to_its_folder(tmp_path: Path):
    (tmp_path / "lora").mkdir()
    table = {"kind": "diffusers", "model": "owner/name", "lora": "lora"}
    write_json(tmp_path / "generator.json", table)
    assert describe(tmp_path) == table | {"lora": str(tmp_path / "lora")}
    assert resolved({"kind": "endpoint", "url": "http://x/v1", "model": "m"}, tmp_path)["model"] == "m"
    write_json(tmp_path / "generator.json", ["no table"])
    with pytest.raises(UsageError, match="is not a table of a generator"):
        describe(tmp_path)
