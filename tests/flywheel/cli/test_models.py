"""The verbs that draw with a checkpoint and measure an autoencoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.flywheel.cli.command import flywheel, wrong


def test_a_picture_is_drawn(one_step, tmp_path):
    out = flywheel(
        "sample", "a disc", "--checkpoint", one_step, "--size", "32x16", "--steps", 1, "--output", tmp_path, "--json"
    )
    summary = json.loads(out.stdout)
    assert Image.open(summary["images"][0]).size == (32, 16) and Image.open(summary["grid"]).size[0] > 32
    rules = ("--enhance", "rules", "--steps", 1, "--output", tmp_path)
    said = flywheel("sample", "pls draw me 2 discs", "--checkpoint", one_step, "--size", "32x32", *rules)
    assert "drawing: " in said.stderr and "pls" not in said.stderr and str(tmp_path) in said.stdout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(3):
        small = Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    Image.new("RGB", (40, 90)).save(folder / "small.png")
    return folder


def test_an_autoencoder_is_measured(photographs, one_step, tmp_path):
    asked = ("evaluate", "vae", one_step, "--photographs", photographs, "--side", 64, "--count", 4)
    out = flywheel(*asked, "--json")
    (row,) = json.loads(out.stdout)
    assert row["model"] == str(one_step) and row["photographs_psnr"] > 10 and row["photographs_images"] == 3
    assert "left out: small.png: 40x90 is smaller than 64" in out.stderr
    assert "PSNR" in flywheel(*asked).stdout
    assert "is not a folder" in wrong("evaluate", "vae", one_step, "--photographs", tmp_path / "none")


def test_the_memory_of_training_is_a_table():
    rows = json.loads(flywheel("model", "plan", "--gpus", 8, "--memory", 40, "--lora-rank", 64, "--json").stdout)
    assert {r["model"] for r in rows} == {"tiny", "tiny-2.1", "small", "qwen-image-2.1"}
    large = [r for r in rows if r["model"] == "qwen-image-2.1"]
    assert [(r["way"], r["recompute"], r["fits"]) for r in large] == [
        ("full", False, False), ("full", True, False), ("lora", False, False), ("lora", True, True),
    ]  # fmt: skip
    shown = flywheel("model", "plan", "--model", "qwen-image-2.1", "--memory", 40).stdout
    assert "qwen-image-2.1" in shown and "tiny" not in shown and shown.count("yes") == 3  # recomputed twice, fits once
    assert "unknown model 'x'" in wrong("model", "plan", "--model", "x")


def test_a_checkpoint_without_an_adapter_has_none_to_export(one_step, tmp_path):
    asked = ("model", "export", "--checkpoint", one_step, "--output", tmp_path / "out", "--lora")
    assert "has no adapter: its run trained every weight" in wrong(*asked) and not (tmp_path / "out").exists()
