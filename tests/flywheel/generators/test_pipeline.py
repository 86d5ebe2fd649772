"""A diffusers pipeline as a generator: what diffusers itself draws, with a LoRA on top, and edits where it can edit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.generator import Undrawn
from flywheel.generators import describe, open_generator
from flywheel.generators.pipeline import PipelineGenerator
from tests.flywheel.generators.tiny_pipeline import SIDE, caption, card, nearest

SIZE = {"size": (SIDE, SIDE), "steps": 3, "guidance": 2.0}


def test_it_draws_what_diffusers_draws_one_by_one(red_pipeline: Path):
    from diffusers import StableDiffusionPipeline

    assert describe(red_pipeline) == {"kind": "diffusers", "model": str(red_pipeline)}
    generator = open_generator(describe(red_pipeline))
    prompts = [caption("red", n) for n in range(3)]
    drawn = list(generator.draw(prompts, seeds=[7, 8, 9], negative="a plain blue card", **SIZE))
    theirs = StableDiffusionPipeline.from_pretrained(red_pipeline)
    theirs.set_progress_bar_config(disable=True)
    for prompt, seed, mine in zip(prompts, (7, 8, 9), drawn):
        noise = torch.Generator("cpu").manual_seed(seed)
        options = {"num_inference_steps": 3, "guidance_scale": 2.0, "negative_prompt": "a plain blue card"}
        (picture,) = theirs(prompt, height=SIDE, width=SIDE, generator=noise, **options).images
        assert (np.asarray(picture) == mine).all() and nearest(mine) == "red"
    assert generator.independent
    together = PipelineGenerator(str(red_pipeline), batch=2)
    for a, b in zip(drawn, together.draw(prompts, seeds=[7, 8, 9], negative="a plain blue card", **SIZE)):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert not together.independent


def test_a_text_to_image_pipeline_refuses_references_and_an_edit_pipeline_uses_them(red_pipeline: Path, tmp_path: Path):
    asked = {"seeds": [0, 0], "references": [[], [card("blue")]], **SIZE}
    plain, edit = PipelineGenerator(str(red_pipeline)).draw([caption("red", 0)] * 2, **asked)
    assert nearest(plain) == "red"
    assert isinstance(edit, Undrawn) and "takes no reference pictures" in edit.reason and not edit.again
    from diffusers import StableDiffusionImg2ImgPipeline

    theirs = StableDiffusionImg2ImgPipeline.from_pretrained(red_pipeline)
    theirs.save_pretrained(tmp_path / "edit")
    theirs.set_progress_bar_config(disable=True)
    generator = PipelineGenerator(str(tmp_path / "edit"), call={"strength": 0.4})
    plain, edit = generator.draw([caption("red", 0)] * 2, **asked)
    assert isinstance(plain, Undrawn) and "cannot draw this" in plain.reason  # it needs a picture to start from
    noise, shown = torch.Generator("cpu").manual_seed(0), Image.fromarray(card("blue"))
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "strength": 0.4}
    (picture,) = theirs(caption("red", 0), image=shown, generator=noise, **options).images
    assert (np.asarray(picture) == edit).all() and edit.shape == (SIDE, SIDE, 3)


def test_a_lora_changes_the_pictures_and_the_fingerprint(red_pipeline: Path, tmp_path: Path):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(red_pipeline)
    pipeline.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"]))
    for name, weight in pipeline.unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(1))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
    plain = PipelineGenerator(str(red_pipeline))
    ours = PipelineGenerator(str(red_pipeline), lora=str(tmp_path / "lora"))
    half = PipelineGenerator(str(red_pipeline), lora=str(tmp_path / "lora"), lora_scale=0.5)
    drawn = [next(iter(g.draw([caption("red", 0)], seeds=[0], **SIZE))).astype(int) for g in (plain, ours, half)]
    assert np.abs(drawn[0] - drawn[1]).max() > 2 and np.abs(drawn[1] - drawn[2]).max() > 1
    assert len({g.fingerprint for g in (plain, ours, half)}) == 3
    bad = {name: torch.full_like(t, torch.nan) for name, t in layers.items()}
    StableDiffusionPipeline.save_lora_weights(tmp_path / "bad", unet_lora_layers=bad)
    with pytest.raises(UsageError, match=r"with .*bad: the weight unet\..*lora_A.* is not finite"):
        list(PipelineGenerator(str(red_pipeline), lora=str(tmp_path / "bad")).draw(["x"], seeds=[0], **SIZE))


def test_what_is_no_pipeline_is_named(red_pipeline: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="has no weights"):
        _ = PipelineGenerator(str(tmp_path)).fingerprint
    broken = tmp_path / "broken"
    shutil.copytree(red_pipeline, broken)
    next((broken / "unet").glob("*.safetensors")).write_bytes(b"no weights")
    with pytest.raises(UsageError, match="cannot be opened as a diffusers pipeline"):
        list(PipelineGenerator(str(broken)).draw(["x"], seeds=[0], **SIZE))
    with pytest.raises(UsageError, match=r"device cuda:99 cannot be used here \(.+\): set device in \[generator\]"):
        list(PipelineGenerator(str(red_pipeline), device="cuda:99").draw(["x"], seeds=[0], **SIZE))
