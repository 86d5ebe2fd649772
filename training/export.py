"""Exports a checkpoint with 2.1-compatible parts as a diffusers `QwenImage21Pipeline` folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import rename_folder
from flywheel.core.mirror import fetched
from flywheel.core.torchvision_shim import declare_operators
from training import schedules
from training.adapter import save_adapter
from training.checkpoint import Checkpoint
from training.lora import LoRA
from training.models.convert import diffusers_config, to_diffusers
from training.models.encoders import load_condition_encoder
from training.models.mmdit import MMDiTConfig
from training.models.pretrained import locate
from training.models.qwen3vl import Qwen3VL
from training.models.vae import VAE


def export_pipeline(checkpoint: Checkpoint | Path, folder: Path, *, weights: str = "ema") -> Path:
    """Write `folder` for `QwenImage21Pipeline.from_pretrained`; it produces the same latents as our sampler.

    `weights`: "ema" or "model". The pipeline's defaults follow the checkpoint's time grid. Errors: `UsageError` if the
    folder exists, or if the pipeline cannot express the checkpoint; the message lists every part that does not fit.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(fetched(checkpoint))
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists: exports are never replaced, give a new name")
    pipeline = build_pipeline(checkpoint, weights=weights)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary)
    if "imported" in checkpoint.config:
        _keep_encoder(checkpoint.config["condition"]["encoder"], temporary)
    rename_folder(temporary, folder)
    return folder


def _keep_encoder(encoder: str, folder: Path) -> None:
    """Put the files of an import's text encoder and processor in place of those that transformers wrote anew."""
    for part in ("text_encoder", "processor"):
        source = locate(encoder.removeprefix("qwen3-vl:"), part)
        shutil.rmtree(folder / part)
        shutil.copytree(source, folder / part)


def export_adapter(checkpoint: Checkpoint | Path, folder: Path) -> Path:
    """Write the moving average of a LoRA run's adapter for `load_lora_weights` of diffusers; returns `folder`.

    Errors: `UsageError` if the folder exists, or if the checkpoint has no adapter, or one of another model.
    """
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(fetched(checkpoint))
    if folder.exists():
        raise UsageError(f"{folder} exists: exports are never replaced, give a new name")
    if not (lora := checkpoint.config.get("lora")):
        raise UsageError(f"{checkpoint.path} has no adapter: its run trained every weight; export it without --lora")
    save_adapter(
        checkpoint.weights("trainable_ema"),
        LoRA(lora["rank"], lora["alpha"], tuple(lora["targets"])),
        MMDiTConfig.from_dict(checkpoint.config["model"]),
        folder,
    )
    return folder


def build_pipeline(checkpoint: Checkpoint, *, weights: str = "ema") -> Any:
    """Build the pipeline in memory. Errors: see `export_pipeline`."""
    declare_operators()
    from accelerate import init_empty_weights
    from diffusers import FlowMatchEulerDiscreteScheduler, QwenImage21Pipeline
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    condition, config = checkpoint.config["condition"], MMDiTConfig.from_dict(checkpoint.config["model"])
    autoencoder, encoder = checkpoint.autoencoder(), load_condition_encoder(condition["encoder"])
    vae = autoencoder.model if isinstance(autoencoder, VAE) else None
    qwen = encoder if isinstance(encoder, Qwen3VL) else None
    misfits = []
    try:
        shape = diffusers_config(config)
    except ValueError as error:
        misfits.append(f"its transformer ({error})")
    if type(vae).__name__ != "AutoencoderKLQwenImage21":
        misfits.append("its autoencoder, which is not an AutoencoderKLQwenImage21")
    if qwen is None:
        misfits.append(f"its condition encoder {condition['encoder']}, which is not a Qwen3-VL")
    elif qwen.fingerprint != condition["fingerprint"]:
        misfits.append(f"its condition encoder: {condition['encoder']} has changed since it was trained")
    if condition["tokens"]:
        misfits.append(f"its captions, padded to {condition['tokens']} tokens (the pipeline does not pad)")
    if misfits or qwen is None:
        raise UsageError(f"{checkpoint.path} does not fit QwenImage21Pipeline: {'; '.join(misfits)}")
    with init_empty_weights(include_buffers=False):
        transformer = QwenImage21Transformer2DModel(**shape)
    # In the stored precision, and without a copy beside the converted tensors.
    transformer.load_state_dict(to_diffusers(checkpoint.weights(weights), config), strict=True, assign=True)
    settings, sigmas = scheduler_of(checkpoint.config)
    imported = checkpoint.config.get("imported", {}).get("scheduler", {})
    known = {k: v for k, v in imported.items() if not k.startswith("_")}
    return QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**known | settings),
        vae=vae,
        text_encoder=qwen.model,
        processor=qwen.processor,
        transformer=transformer,
        sample_sigmas=sigmas,
    )


def scheduler_of(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[float] | None]:
    """Settings of diffusers' scheduler, and the pipeline's time grid without its final 0.

    The checkpoint's own grid and the uniform one must not be shifted again.
    """
    if config.get("sigmas"):
        return {"shift": 1.0, "use_dynamic_shifting": False}, schedules.own(config["sigmas"])[:-1].tolist()
    if config.get("schedule", "uniform") == "uniform":
        return {"shift": 1.0, "use_dynamic_shifting": False}, None
    return {
        "use_dynamic_shifting": True,
        "time_shift_type": "exponential",
        "base_shift": schedules.SHIFT[0],
        "max_shift": schedules.SHIFT[1],
        "base_image_seq_len": schedules.TOKENS[0],
        "max_image_seq_len": schedules.TOKENS[1],
        "shift_terminal": schedules.TERMINAL,
    }, None
