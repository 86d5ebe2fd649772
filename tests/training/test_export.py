"""An exported pipeline opens in diffusers and draws the latents that our sampler draws from the same noise."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.presets import load_preset
from tests.training.rl_parts import random_start
from tests.training.tiny_models import randomised, tiny_processor, tiny_qwen3vl, tiny_qwen_vae
from tests.training.tiny_runs import run
from training import saving
from training.adapter import adapt, merged
from training.checkpoint import Checkpoint
from training.export import export_adapter, export_pipeline
from training.lora import TARGETS, LoRA
from training.models.mmdit import MMDiTConfig
from training.models.qwen3vl import Qwen3VL
from training.models.vae import VAE
from training.recipes import from_dict
from training.sampling import Sampler
from training.state import put
from training.state import trained as trained_by

CONFIG = MMDiTConfig(channels=16, condition_dim=64, depth=3, heads=2, head_dim=32, rope_axes=(8, 12, 12))
SIDE = 64
GRIDS = {
    "dynamic_shift": {"schedule": "dynamic_shift"},
    "uniform": {"schedule": "uniform"},
    "own": {"schedule": "dynamic_shift", "sigmas": [1.0, 0.9, 0.55, 0.2]},
}


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes a checkpoint of tiny random 2.1-compatible parts, with changes to its configuration."""
    root = tmp_path_factory.mktemp("checkpoints")
    encoder = Qwen3VL(tiny_qwen3vl(processor := tiny_processor()), processor)
    for part in (encoder.model, processor):
        part.save_pretrained(root / "qwen3vl")
    weights = {name: p.detach() for name, p in randomised(CONFIG.build()).named_parameters()}
    condition = {"encoder": f"qwen3-vl:{root / 'qwen3vl'}", "fingerprint": encoder.fingerprint, "tokens": 0}

    def write(name: str, **changes) -> Checkpoint:
        config = {"step": 1, "model": CONFIG.to_dict(), "condition": condition, **changes}
        return saving.write(root / name, {"ema": weights}, VAE(tiny_qwen_vae()), config)

    return write


def opened(folder):
    from diffusers import QwenImage21Pipeline

    pipeline = QwenImage21Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline, noise, prompt, **settings):
    packed = pipeline(prompt, latents=noise.flatten(2).transpose(1, 2), output_type="latent", **settings).images
    return packed.transpose(1, 2).unflatten(2, noise.shape[-2:])


@pytest.mark.parametrize("grid", GRIDS)
def test_pipeline_draws_our_latents(write, tmp_path, grid):
    sampler = Sampler(write(grid, **GRIDS[grid]))
    pipeline = opened(export_pipeline(sampler.checkpoint, tmp_path / "pipeline"))
    prompt = "a red disc at the left"
    noise = sampler.noise(prompt, (SIDE, 2 * SIDE), seed=4)[None]
    mine = sampler.latents([prompt], noise=noise, steps=5, cfg=1.0)
    theirs = drawn(pipeline, noise, prompt, num_inference_steps=5, height=SIDE, width=2 * SIDE)
    assert pipeline.num_timesteps == (4 if grid == "own" else 5)
    assert (mine - noise).std() > 0.1  # the model does something
    assert (mine - theirs).abs().max() < 1e-5

    unlike = sampler.latents(["two blue squares"], noise=noise, steps=5, cfg=1.0)
    assert (mine - unlike).abs().max() > 1e-3  # and the prompt matters to it


def test_guidance_and_references_agree_too(write, tmp_path):
    """Two references of the target's size, guidance against the empty prompt that sees the references as well."""
    sampler = Sampler(write("guided", schedule="dynamic_shift"))
    pipeline = opened(export_pipeline(sampler.checkpoint, tmp_path / "pipeline"))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2)]
    noise = sampler.noise("x", (SIDE, SIDE), seed=1)[None]
    settings = {"num_inference_steps": 3, "negative_prompt": "", "true_cfg_scale": 2.5, "output_resolution": SIDE}
    for references in (pictures, pictures[:1], []):
        mine = sampler.latents(["make it blue"], [references], noise=noise, steps=3, cfg=2.5)
        images = [Image.fromarray(p) for p in references] or None
        theirs = drawn(pipeline, noise, "make it blue", image=images, **settings)
        assert (mine - theirs).abs().max() < 2e-5
    unguided = sampler.latents(["make it blue"], [[]], noise=noise, steps=3, cfg=1.0)
    assert (mine - unguided).abs().max() > 1e-3


def test_pictures_agree(write, tmp_path):
    sampler = Sampler(write("picture", schedule="dynamic_shift"))
    pipeline = opened(export_pipeline(sampler.checkpoint, tmp_path / "pipeline"))
    noise = sampler.noise("a disc", (SIDE, SIDE), seed=0)
    settings = {"num_inference_steps": 2, "height": SIDE, "width": SIDE}
    packed = noise[None].flatten(2).transpose(1, 2)
    picture = pipeline("a disc", latents=packed, **settings).images[0].convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    (mine,) = sampler.sample(["a disc"], size=(SIDE, SIDE), steps=2, cfg=1.0, seed=0)
    assert np.abs(mine.astype(int) - np.asarray(shown)).max() <= 2  # theirs rounds twice
    assert mine.std() > 5


def test_a_model_of_the_preset_tiny_2_1_opens_in_diffusers(snapshot, tmp_path):
    """Trained with its own recipe, parts and all; texts, guidance and an edit draw the same latents."""
    tiny = from_dict(dict(load_preset("tiny-2.1").training.recipe)).change(
        stages=("S1", "S2"), batch={64: 4}, resolution={64: SIDE}, autoencoder_steps=2, autoencoder_rows=8,
    )  # fmt: skip
    checkpoint = random_start(tmp_path, run(tmp_path / "run", snapshot, recipe=tiny, steps=2))
    sampler, pipeline = Sampler(checkpoint), opened(export_pipeline(checkpoint, tmp_path / "pipeline"))
    noise = sampler.noise("x", (SIDE, SIDE), seed=7)[None]
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for prompt, cfg, shown in (("a red disc", 1.0, []), ("a red disc", 2.5, []), ("make it red", 2.5, [photo])):
        mine = sampler.latents([prompt], [shown], noise=noise, steps=3, cfg=cfg)
        guided = {"negative_prompt": "", "true_cfg_scale": cfg} if cfg > 1 else {}
        images = {"image": [Image.fromarray(p) for p in shown], "output_resolution": SIDE} if shown else {}
        size = {} if shown else {"height": SIDE, "width": SIDE}
        theirs = drawn(pipeline, noise, prompt, num_inference_steps=3, **guided, **images, **size)
        assert (mine - noise).std() > 0.1 and (mine - theirs).abs().max() < 1e-6 * max(1, mine.abs().max())
    assert pipeline("a disc", num_inference_steps=2, height=SIDE, width=SIDE).images[0].size == (SIDE, SIDE)


def test_an_export_is_a_source_of_its_parts(write, tmp_path):
    checkpoint = write("parts", schedule="dynamic_shift")
    folder = export_pipeline(checkpoint, tmp_path / "pipeline")
    assert VAE.open(str(folder)).fingerprint == checkpoint.autoencoder().fingerprint
    assert Qwen3VL.open(str(folder)).fingerprint == checkpoint.config["condition"]["fingerprint"]


def test_an_adapter_on_top_of_the_start_is_the_merged_export(write, tmp_path):
    """The same latents from the start's pipeline with the adapter loaded as from that of the merged weights."""
    start = write("start", schedule="dynamic_shift")
    lora, model = LoRA(2, 3.0, TARGETS), start.model()
    adapt(model, lora, seed=1)
    put(trained_by(model), {n: p + 0.05 for n, p in trained_by(model).items()})
    adapter = {n: p.detach() for n, p in trained_by(model).items()}
    config = {**start.config, "lora": lora.to_dict()}
    tensors = {"ema": merged(model), "trainable_ema": adapter}
    tuned = saving.write(tmp_path / "tuned", tensors, start.autoencoder(), config)
    alone = export_adapter(tuned, tmp_path / "lora")
    assert [p.name for p in alone.iterdir()] == ["pytorch_lora_weights.safetensors"]
    whole = opened(export_pipeline(tuned, tmp_path / "whole"))
    base = opened(export_pipeline(start, tmp_path / "base"))
    noise = Sampler(start).noise("x", (SIDE, SIDE), seed=4)[None]
    asked = {"num_inference_steps": 2, "height": SIDE, "width": SIDE}
    before = drawn(base, noise, "a red disc", **asked)
    base.load_lora_weights(str(alone))
    after, ours = drawn(base, noise, "a red disc", **asked), drawn(whole, noise, "a red disc", **asked)
    assert (after - ours).abs().max() < 1e-5 and (after - before).abs().max() > 1e-3
    with pytest.raises(UsageError, match="give a new name"):
        export_adapter(tuned, tmp_path / "lora")
    with pytest.raises(UsageError, match="has no adapter"):
        export_adapter(start, tmp_path / "none")


def test_what_the_pipeline_cannot_express_is_named(write, trained, tmp_path):
    with pytest.raises(UsageError) as error:
        export_pipeline(trained, tmp_path / "tiny")
    for words in (
        "no grid positions",
        "not an AutoencoderKLQwenImage21",
        "minilm, which is not a Qwen3-VL",
        "to 16 tokens",
    ):
        assert words in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="give a new name"):
        export_pipeline(write("again"), tmp_path)
