"""`flywheel train` and `flywheel train vae`: a phase and an autoencoder on their own, resumed by the same command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.signals.vae_quality import evaluate, load_photographs
from tests.training.snapshots import card_rows, write_snapshot
from training.checkpoint import Checkpoint

RECIPE = """
base = "tiny"
stages = ["S1"]
batch = { 64 = 4 }
resolution = { 64 = 32 }
channels = 16
"""


def flywheel(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def wrong(*arguments: object) -> str:
    error = flywheel(*arguments).exception
    assert isinstance(error, UsageError)
    return str(error)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_a_phase(tmp_path, recipe):
    (tmp_path / "shards").mkdir()
    manifest = write_snapshot(tmp_path / "shards", [{"rows": card_rows(20)}])
    command = ("train", "--recipe", recipe, "--shards", manifest, "--output", tmp_path / "run", "--steps", 2, "--json")
    first = flywheel(*command)
    result = json.loads(first.stdout)
    assert result["step"] == 2 and result["samples"] == 8 and result["loss"] > 0 and "training tiny" in first.stderr
    assert Checkpoint(tmp_path / "run" / "final").fingerprint == result["fingerprint"]
    assert json.loads(flywheel(*command).stdout) == result
    assert "belongs to another run" in wrong(*command, "--seed", 3)


def test_a_run_goes_on_at_another_rate(tmp_path, recipe):
    (tmp_path / "shards").mkdir()
    manifest = write_snapshot(tmp_path / "shards", [{"rows": card_rows(20)}])
    common = ("train", "--shards", manifest, "--steps", 2, "--json")
    assert json.loads(flywheel(*common, "--recipe", recipe, "--output", tmp_path / "run").stdout)["step"] == 2
    more = ("--extend", tmp_path / "run", "--output", tmp_path / "more", "--learning-rate", 1e-4)
    assert "has 2 steps: give more" in wrong(*common, *more)
    longer = json.loads(flywheel(*common[:3], "--steps", 3, "--json", *more).stdout)
    (origin,) = Checkpoint(tmp_path / "more" / "final").config["lineage"]
    assert longer["step"] == 3 and origin["step"] == 2
    assert origin["changed"] == {"steps": [2, 3], "learning_rate": {"S1": [2e-3, 1e-4]}}
    assert "has no checkpoint" in wrong(*common[:3], "--steps", 9, "--extend", tmp_path, "--output", tmp_path / "x")


def test_an_adapter_is_trained_and_exported(tmp_path, recipe, trained, snapshot):
    recipe.write_text(RECIPE + 'text_tokens = 16\nlora_rank = 2\nlora_targets = ["qkv"]\n')
    asked = ("train", "--recipe", recipe, "--shards", snapshot, "--output", tmp_path / "run", "--steps", 1, "--json")
    assert "give one to start from (--init" in wrong(*asked)
    result = json.loads(flywheel(*asked, "--init", trained.path).stdout)
    assert Checkpoint(tmp_path / "run" / "final").config["lora"]["targets"] == ["qkv"] and result["step"] == 1
    export = ("model", "export", "--checkpoint", tmp_path / "run" / "final", "--lora", "--output", tmp_path / "lora")
    assert "a model that diffusers cannot open" in wrong(*export)


def test_latents_encoded_once_train_the_same_model(tmp_path, recipe):
    (tmp_path / "shards").mkdir()
    manifest = write_snapshot(tmp_path / "shards", [{"rows": card_rows(8)}, {"rows": card_rows(8, task="ti2i")}])
    common = ("--recipe", recipe, "--shards", manifest)
    assert "give --autoencoder" in wrong("latents", *common, "--output", tmp_path / "latents")
    flywheel("train", *common, "--output", tmp_path / "parent", "--steps", 1)
    parent = tmp_path / "parent" / "final"
    again = ("train", *common, "--init", parent, "--steps", 2, "--json", "--output")
    now = json.loads(flywheel(*again, tmp_path / "now").stdout)
    recipe.write_text(f"{RECIPE}latents = '{tmp_path / 'latents'}'")
    assert "write them with flywheel latents" in wrong(*again, tmp_path / "cached")
    done = flywheel("latents", *common, "--autoencoder", parent, "--output", tmp_path / "latents", "--json")
    assert json.loads(done.stdout) == {"latents": str(tmp_path / "latents"), "shards": 2, "rows": 16, "skipped": 0}
    cached = json.loads(flywheel(*again, tmp_path / "cached").stdout)
    assert cached["fingerprint"] == now["fingerprint"] and cached["loss"] == now["loss"]


def test_rows_that_cannot_be_read_are_skipped_and_counted_where_the_recipe_says_so(tmp_path, recipe):
    (tmp_path / "shards").mkdir()
    rows = card_rows(20)
    rows[3]["image"] = rows[3]["image"][:60]
    manifest = write_snapshot(tmp_path / "shards", [{"rows": rows}])
    command = ("train", "--recipe", recipe, "--shards", manifest, "--output", tmp_path / "run", "--steps", 5, "--json")
    assert "row 3, sample t2i-base-0-3" in wrong(*command)
    recipe.write_text(RECIPE + 'on_error = "skip"')
    assert json.loads(flywheel(*command).stdout)["skipped"] == 1  # five batches of four: every row once
    recipe.write_text(RECIPE + 'on_error = "ignore"')
    assert "use raise or skip" in wrong(*command)


def test_wrong_usage_says_what_to_do(tmp_path, recipe):
    assert "give --shards MANIFEST" in wrong("train", "--output", tmp_path / "run")
    assert "no shard manifest at" in wrong("train", "--shards", tmp_path / "none.json", "--output", tmp_path / "run")
    recipe.write_text(RECIPE + 'condition = "elmo"')
    (tmp_path / "shards").mkdir()
    manifest = write_snapshot(tmp_path / "shards", [{"rows": card_rows(20)}])
    message = wrong("train", "--recipe", recipe, "--shards", manifest, "--output", tmp_path / "run")
    assert "unknown condition encoder 'elmo'" in message


def test_a_vae(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
    Image.new("RGB", (20, 20)).save(pictures / "small.png")
    preset = tmp_path / "vae.toml"
    preset.write_text("channels = 8\nwidth = 8\ndecoder_width = 8\nside = 32\nload = 32\nbatch = 2\n")
    command = ("train", "vae", "--images", pictures, "--output", tmp_path / "vae", "--preset", preset, "--steps", 2)
    done = flywheel(*command, "--json")
    assert "left out: small.png: 20x20 is smaller than 32" in done.stderr
    result = json.loads(done.stdout)
    (row,) = evaluate([result["vae"]], load_photographs(pictures, side=32), side=32, texts=1)
    assert row["layout"] == "f16c8"
    assert "is not a folder" in wrong("train", "vae", "--images", tmp_path / "none", "--output", tmp_path / "other")
