"""Open weights become a checkpoint that draws the same, and come out again with the same bytes."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flywheel.core.errors import UsageError
from flywheel.core.torchvision_shim import declare_operators
from tests.flywheel.cli.command import flywheel
from tests.training.rl.tiny import TINY as RL
from tests.training.rl_parts import Redness, prompts
from tests.training.test_export import SIDE, drawn, opened
from tests.training.tiny_models import randomised, tiny_processor, tiny_qwen3vl, tiny_qwen_vae
from tests.training.tiny_runs import TINY, run
from training.checkpoint import Checkpoint
from training.dmd.recipe import DMDRecipe
from training.dmd.trainer import train as distil
from training.export import export_adapter, export_pipeline
from training.importing import import_pipeline
from training.lora import TARGETS
from training.rl.trainer import train as reinforce
from training.sampling import Sampler


def tiny_pipeline(
    folder: Path, *, dtype: torch.dtype = torch.float32, shard: str = "10GB", **scheduler: object
) -> Path:
    """A `QwenImage21Pipeline` of random tiny parts, as diffusers saves it."""
    declare_operators()
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImage21Pipeline
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    processor = tiny_processor()
    transformer = QwenImage21Transformer2DModel(
        patch_size=1, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=32, num_attention_heads=2,
        context_in_dim=64, axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    sampler = {"use_dynamic_shifting": True, "time_shift_type": "exponential", "base_shift": 0.5, "max_shift": 0.9}
    sampler |= {"base_image_seq_len": 256, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    pipeline = QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**sampler | scheduler),
        vae=tiny_qwen_vae(),
        text_encoder=tiny_qwen3vl(processor),
        processor=processor,
        transformer=randomised(transformer).to(dtype),
    )
    pipeline.save_pretrained(folder, max_shard_size=shard)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_of_an_import_has_the_same_bytes(tmp_path: Path, dtype: torch.dtype):
    source = tiny_pipeline(tmp_path / "open", dtype=dtype)
    done = flywheel("model", "import", source, "--output", tmp_path / "start", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fingerprint"] == Checkpoint(tmp_path / "start").fingerprint
    out = flywheel("model", "export", "--checkpoint", tmp_path / "start", "--output", tmp_path / "again")
    assert out.returncode == 0, out.stderr
    before, after = files(source), files(tmp_path / "again")
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_the_import_draws_what_diffusers_draws(tmp_path: Path):
    source = tiny_pipeline(tmp_path / "open", shard="60KB")
    assert len(list((source / "transformer").glob("*.safetensors"))) > 3
    sampler, pipeline = Sampler(import_pipeline(str(source), tmp_path / "start")), opened(source)
    noise = sampler.noise("a red disc", (SIDE, SIDE), seed=4)[None]
    for steps in (2, 5):  # in one step, diffusers' stretched grid divides by zero
        mine = sampler.latents(["a red disc at the left"], noise=noise, steps=steps, cfg=1.0)
        theirs = drawn(pipeline, noise, "a red disc at the left", num_inference_steps=steps, height=SIDE, width=SIDE)
        assert (mine - noise).std() > 0.1 and (mine - theirs).abs().max() < 1e-6


def test_what_cannot_be_imported_is_named(tmp_path: Path):
    source = tiny_pipeline(tmp_path / "open")
    import_pipeline(str(source), tmp_path / "start")
    with pytest.raises(UsageError, match="imports are never replaced"):
        import_pipeline(str(source), tmp_path / "start")
    with pytest.raises(UsageError, match=r"has no model_index.json"):
        import_pipeline(str(source / "vae"), tmp_path / "x")
    with pytest.raises(UsageError, match="neither a folder nor a hub tag"):
        import_pipeline("./nothing", tmp_path / "x")
    shifted = tiny_pipeline(tmp_path / "shifted", max_shift=1.2)
    with pytest.raises(UsageError, match="neither the open 2.1 release's nor evenly spaced"):
        import_pipeline(str(shifted), tmp_path / "x")
    other = tmp_path / "other"
    shutil.copytree(source, other)
    config = json.loads((other / "transformer" / "config.json").read_text())
    (other / "transformer" / "config.json").write_text(json.dumps(config | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(UsageError, match="its block is that of FluxTransformer2DModel"):
        import_pipeline(str(other), tmp_path / "x")
    (other / "transformer" / "config.json").write_text(json.dumps(config | {"num_layers": 4}))
    with pytest.raises(UsageError, match="has no tensor transformer_blocks.3"):
        import_pipeline(str(other), tmp_path / "x")
    assert not list(tmp_path.glob("*x*"))


@pytest.mark.parametrize(
    ("part", "value", "wanted"),
    [
        ("transformer", math.inf, "transformer: the weight transformer_blocks.0.*weight is not finite"),
        ("vae", math.nan, "vae: the weight .*weight is not finite"),
        ("text_encoder", math.nan, "text_encoder: the weight .*weight is not finite"),
    ],
)
def test_weights_that_are_not_finite_are_named_and_nothing_is_imported(tmp_path: Path, part: str, value: float, wanted):
    source = tiny_pipeline(tmp_path / "open")
    (path,) = (source / part).glob("*.safetensors")
    tensors = load_file(path)
    name = next(k for k in tensors if k.endswith("weight") and (part != "transformer" or "blocks.0" in k))
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UsageError, match=wanted):
        import_pipeline(str(source), tmp_path / "start")
    assert [p.name for p in tmp_path.iterdir()] == ["open"]


def test_open_weights_through_adapters_of_every_kind_and_back(tmp_path: Path, snapshot: Path):
    """Import, a phase, reinforcement learning and distillation, each by LoRA; then diffusers draws with the result."""
    source = tiny_pipeline(tmp_path / "open")
    start = import_pipeline(str(source), tmp_path / "start")
    chosen = TINY.change(
        stages=("S1",), resolution={64: 64}, factor=16, text_tokens=0, condition=start.config["condition"]["encoder"],
        schedule="dynamic_shift", lora_rank=2, validate_every=0, checkpoint_every=0,
    )  # fmt: skip
    tuned = run(tmp_path / "phase", snapshot, recipe=chosen, init=start.path, steps=1)
    cards = prompts(tmp_path, 6)
    by_reward = replace(RL, steps=1, side=64, held_out=2)
    reinforced = reinforce(tmp_path / "rl", cards[:4], cards[4:], by_reward, Redness(), init=tuned.path)
    few = DMDRecipe(name="few", steps=1, side=64, batch=2, learning_rate=1e-3, fake_learning_rate=1e-3, fake_updates=1,
                    sigmas=(1.0, 0.5), lora_rank=2)  # fmt: skip
    student = distil(tmp_path / "dmd", cards[:4], few, init=reinforced.path)
    for before, after in pairwise((start, tuned, reinforced, student)):
        one, two = before.tensors("ema"), after.tensors("ema")
        moved = {name.split(".")[-2] for name in one if not torch.equal(one[name].float(), two[name])}
        assert moved == set(TARGETS) and after.config["init"] == before.fingerprint
    pipeline = opened(export_pipeline(student, tmp_path / "out"))
    sampler, size = Sampler(student), {"height": SIDE, "width": SIDE}
    noise = sampler.noise("x", (SIDE, SIDE), seed=4)[None]
    mine = sampler.latents(["a red disc"], noise=noise)
    assert (mine - drawn(pipeline, noise, "a red disc", num_inference_steps=2, **size)).abs().max() < 1e-5
    base = opened(export_pipeline(reinforced, tmp_path / "base"))
    base.load_lora_weights(str(export_adapter(student, tmp_path / "lora")))  # on top of what it was distilled from
    base.scheduler = pipeline.scheduler
    base.register_to_config(sample_sigmas=[1.0, 0.5])
    assert (mine - drawn(base, noise, "a red disc", num_inference_steps=2, **size)).abs().max() < 1e-5
