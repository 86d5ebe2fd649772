"""The loop: exact resume, overfitting, idempotence, start from a parent; and sampling from what it wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from training.checkpoint import Checkpoint, read_metrics
from training.data.loader import Loader
from training.data.plan import Plan, Source
from training.models.condition import load_condition_encoder
from training.phase import batch_loss, build_model, prepare_with, train
from training.recipes import RECIPES, from_dict, load_recipe, recipe
from training.sampling import Sampler, grid, sample
from training.vae.autoencoding import fit_autoencoder

STEPS = 7
TINY = recipe(
    "tiny", batch={64: 8}, resolution={64: 32}, channels=16, text_tokens=16, checkpoint_every=2, validate_every=3,
    warmup=2, stages=("S1",),
)  # fmt: skip

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.test_trainer import STEPS, TINY
from training.data.plan import Source
from training.phase import train

def die(step, steps, line):
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

train(Path(sys.argv[1]), [Source(manifest=Path(sys.argv[2]))], TINY, seed=5, steps=STEPS, progress=die)
"""


def run(out: Path, manifest: Path, **changes):
    given = {"seed": 5, "steps": STEPS} | changes
    return train(out, [Source(manifest=manifest)], given.pop("recipe", TINY), **given)


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(checkpoint.path.iterdir())}


def without_clock(path: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in read_metrics(path)]


def test_killed_and_run_again_equals_uninterrupted_bit_for_bit(tmp_path, snapshot, trained):
    out = tmp_path / "out"
    for step in (1, 5):  # before the first checkpoint, then between two later ones
        command = [sys.executable, "-c", KILLED, str(out), str(snapshot), str(step)]
        child = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert not (out / "final").exists()
    assert [c.step for c in map(Checkpoint, sorted(out.glob("step-*")))] == [2, 4]
    (out / ".step-00000006.tmp").mkdir()  # what a kill in the middle of writing leaves behind
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')

    resumed = run(out, snapshot)
    assert contents(resumed) == contents(trained)
    assert without_clock(out / "metrics.jsonl") == without_clock(trained.path.parent / "metrics.jsonl")
    assert not list(out.glob(".*"))


def test_a_finished_run_returns_at_once_and_touches_nothing(trained, snapshot):
    before = {p: p.stat().st_mtime_ns for p in trained.path.parent.rglob("*")}
    called = []
    again = run(trained.path.parent, snapshot, progress=lambda *a: called.append(a))
    assert again.fingerprint == trained.fingerprint and called == []
    assert {p: p.stat().st_mtime_ns for p in trained.path.parent.rglob("*")} == before


def test_another_run_in_the_same_folder_is_refused(trained, snapshot):
    with pytest.raises(UsageError, match="belongs to another run"):
        run(trained.path.parent, snapshot, seed=6)


def test_metrics_and_kept_checkpoints(trained):
    lines = read_metrics(trained.path.parent / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line.get("validation_loss")] == [3, 6, 7]
    assert lines[-1]["samples"] == STEPS * 8
    assert lines[0]["lr"] == TINY.learning_rate / 2 and lines[1]["lr"] == TINY.learning_rate
    assert sorted(p.name for p in trained.path.parent.glob("step-*")) == ["step-00000004", "step-00000006"]


def test_parent_gives_weights_autoencoder_and_shape(tmp_path, snapshot, trained):
    child = run(tmp_path, snapshot, init=trained.path, steps=1, recipe=TINY.change(learning_rate=0.0, weight_decay=0.0))
    start, end = trained.tensors("ema"), child.tensors("model")
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert child.autoencoder().fingerprint == trained.autoencoder().fingerprint
    assert child.config["init"] == trained.fingerprint
    assert float(child.tensors("optimizer")["step.image_out.weight"]) == 1  # a fresh optimiser


def test_overfits_one_batch(snapshot):
    """One micro-batch again and again, with its own noise and times: the loss falls below 2 % of its first value."""
    plan = Plan([Source(manifest=snapshot)], batch={64: 4}, t2i_share=1.0, seed=0)
    encoder = load_condition_encoder()
    autoencoder = fit_autoencoder(plan, TINY)
    (micro,) = Loader(plan, prepare_with(autoencoder, encoder), resolution=TINY.resolution).batch(0)
    model, null, losses = build_model(TINY, encoder, seed=0), encoder.encode([""])[0], []
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(150):
        loss = batch_loss(model, micro, null, TINY, seed=0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_recipes_carry_the_published_numbers(tmp_path):
    table = {r.name: (r.steps, dict(r.batch), r.t2i_share, r.learning_rate) for r in RECIPES.values()}
    assert table["pretrain"] == (700_000, {256: 32_000, 512: 16_000}, 0.9, 1e-4)
    assert table["continual"] == (250_000, {512: 16_000, 1024: 8_000, 2048: 4_000}, 0.7, 2e-5)
    assert table["sft"] == (10_000, {512: 16_000, 1024: 8_000, 2048: 4_000}, 0.7, 1e-5)
    assert {(r.weight_decay, r.clip, r.dropout) for r in RECIPES.values()} == {(0.001, 1.0, 0.1)}
    path = tmp_path / "recipe.toml"
    path.write_text('base = "tiny"\nsteps = 9\nbatch = { 128 = 4 }\nstages = ["S4"]\n')
    assert load_recipe(path) == RECIPES["tiny"].change(steps=9, batch={128: 4}, stages=("S4",))
    assert from_dict(json.loads(json.dumps(RECIPES["sft"].to_dict()))) == RECIPES["sft"]
    faults = {"base = 'huge'": "unknown recipe 'huge'", "base = 'tiny'\nstep = 3": "has no step", "[": "cannot"}
    for text, message in faults.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_recipe(path)


# Sampling -----------------------------------------------------------------------------------------------------------
def test_sampling_is_deterministic_and_does_not_depend_on_batch_mates(trained):
    prompts = ["a red disc at the left", "a blue disc", "a green disc at the right, with nothing else beside it at all"]
    settings = {"size": (32, 32), "steps": 4}
    together = sample(trained, prompts, seed=1, **settings)
    assert together.shape == (3, 32, 32, 3) and together.dtype == np.uint8
    assert np.array_equal(together, sample(trained.path, prompts, seed=1, **settings))
    alone = np.concatenate([sample(trained, [p], seed=1, **settings) for p in reversed(prompts)])[::-1]
    assert np.abs(together.astype(int) - alone).max() <= 1  # batched products may round the other way
    assert np.abs(together.astype(int) - sample(trained, prompts, seed=2, **settings)).mean() > 1


def test_guidance_is_affine_in_its_weight(trained):
    sampler, prompts = Sampler(trained), ["a red disc at the left"]
    steps = {cfg: sampler.sample(prompts, size=(32, 32), steps=1, cfg=cfg).astype(float) for cfg in (1.0, 2.0, 3.0)}
    inside = (np.minimum.reduce(list(steps.values())) > 0) & (np.maximum.reduce(list(steps.values())) < 255)
    assert np.abs(steps[1.0] - 2 * steps[2.0] + steps[3.0])[inside].max() <= 2  # rounding to whole grey levels


def test_training_goes_on_after_sampling_with_a_layout_first_seen_there(tmp_path, snapshot, trained):
    sample(trained, ["a red disc at the left"], size=(48, 48), steps=1)
    # Position tables are cached by layout: these are the sampler's.
    changed = run(tmp_path, snapshot, recipe=TINY.change(resolution={64: 48}))
    assert changed.step == STEPS


def test_references_reach_the_image(trained):
    left, right = (np.full((64, 64, 3), v, np.uint8) for v in (10, 240))
    prompts = ["make the disc blue"] * 2
    images = sample(trained, prompts, [[left], [right]], size=(32, 32), steps=2)
    assert np.abs(images[0].astype(int) - images[1]).max() > 0
    mixed = sample(trained, [*prompts, "a red disc"], [[left], [right], []], size=(32, 32), steps=2)
    assert np.abs(mixed[:2].astype(int) - images).max() <= 1


def test_bad_requests_are_named(trained, tmp_path):
    with pytest.raises(UsageError, match="multiples of 8"):
        sample(trained, ["a"], size=(30, 32))
    with pytest.raises(UsageError, match="1 lists of references"):
        sample(trained, ["a", "b"], [[]], size=(32, 32))
    with pytest.raises(UsageError, match="is not a checkpoint"):
        sample(tmp_path, ["a"])


def test_grid_holds_every_image(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 3), 40, np.uint8)
    path = grid(images, ["one", "two", "three", "four", "five"], tmp_path / "grid.png", columns=2, scale=1)
    colors = {color for _, color in Image.open(path).getcolors(10_000)}
    assert {(40 * i,) * 3 for i in range(5)} <= colors


def test_autoencoder_is_fitted_on_targets_and_references(snapshot):
    plan = Plan([Source(manifest=snapshot)], batch=TINY.batch, t2i_share=0.9, seed=0)
    one, other = fit_autoencoder(plan, TINY), fit_autoencoder(plan, TINY)
    assert one.fingerprint == other.fingerprint
    assert (one.channels, one.factor) == (16, 8)
