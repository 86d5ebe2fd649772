"""Open weights become a checkpoint that draws the same, and come out again with the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.torchvision_shim import declare_operators
from tests.flywheel.cli.command import flywheel
from tests.training.test_export import SIDE, drawn, opened
from tests.training.tiny_models import randomised, tiny_processor, tiny_qwen3vl, tiny_qwen_vae
from training.checkpoint import Checkpoint
from training.importing import import_pipeline
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
    assert not (tmp_path / "x").exists()
