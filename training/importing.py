"""Imports an open `QwenImage21Pipeline` as a checkpoint: the inverse of `training.export`.

Transformer weights are converted a tensor at a time from sharded safetensors into one file, in the stored precision, so
that no model is ever in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from training.checkpoint import Checkpoint
from training.export import scheduler_of
from training.models.convert import from_diffusers_config, sources_of
from training.models.encoders import load_condition_encoder
from training.models.mmdit import MMDiTConfig
from training.models.pretrained import fetch_pipeline, require_finite_weights
from training.models.vae import VAE
from training.saving import seal
from training.tensor_file import TensorFile

TRANSFORMER, AUTOENCODER = "QwenImage21Transformer2DModel", "AutoencoderKLQwenImage21"


def import_pipeline(name: str, folder: Path) -> Checkpoint:
    """Write the checkpoint `folder` from a pipeline: a folder, or a hub tag, downloaded once into the hub's cache.

    Transformer and autoencoder are converted, the text encoder stays where it is: the checkpoint names it. Errors:
    `UsageError` if the folder exists, or for a pipeline with another block, autoencoder, text encoder or sampler, or a
    weight that is not finite.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists: imports are never replaced, give a new name")
    pipeline = fetch_pipeline(name)
    config, schedule = _transformer_config(pipeline, name), _schedule(pipeline, name)
    encoder_name = f"qwen3-vl:{pipeline.resolve() if Path(name).expanduser().is_dir() else name}"
    fingerprint = load_condition_encoder(encoder_name).fingerprint
    autoencoder = VAE.open(str(pipeline))
    if type(autoencoder.model).__name__ != AUTOENCODER:
        raise UsageError(
            f"{name}: its autoencoder is a {type(autoencoder.model).__name__}: only {AUTOENCODER} is imported"
        )
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _convert(pipeline / "transformer", config, temporary / "ema.safetensors")
    except UsageError:
        shutil.rmtree(temporary)
        raise
    autoencoder.save(temporary / "autoencoder.safetensors")
    described = {
        "step": 0,
        "run": f"imported from {name}",
        "seed": 0,
        "recipe": {"name": "imported", "resolution": {"1024": 1024}},
        "model": config.to_dict(),
        "condition": {"encoder": encoder_name, "fingerprint": fingerprint, "tokens": 0},
        "autoencoder": autoencoder.fingerprint,
        "imported": {part: read_json(pipeline / path) for part, path in _KEPT.items()},
        **schedule,
    }
    seal(temporary, folder, described)
    return Checkpoint(folder)


_KEPT = {"transformer": "transformer/config.json", "scheduler": "scheduler/scheduler_config.json"}


def _transformer_config(pipeline: Path, name: str) -> MMDiTConfig:
    path = pipeline / "transformer" / "config.json"
    try:
        values = json.loads(path.read_bytes())
        if values["_class_name"] != TRANSFORMER:
            raise ValueError(f"its block is that of {values['_class_name']}, only {TRANSFORMER} is imported")
        return from_diffusers_config(values)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{name} cannot be imported: {error}") from error


def _schedule(pipeline: Path, name: str) -> dict[str, Any]:
    """The checkpoint's time grid: the inverse of `training.export.scheduler_of`."""
    index = read_json(pipeline / "model_index.json")
    settings = read_json(pipeline / _KEPT["scheduler"])
    for schedule in ({"schedule": "dynamic_shift"}, {"schedule": "uniform"}):
        wanted, _ = scheduler_of(schedule)
        if all(settings.get(k) == v for k, v in wanted.items()):
            sigmas = index.get("sample_sigmas")
            return schedule | ({"sigmas": sigmas} if sigmas else {})
    raise UsageError(
        f"{name} cannot be imported: its sampler ({settings.get('_class_name')}) is neither the open 2.1 release's nor "
        "evenly spaced"
    )


def _convert(folder: Path, config: MMDiTConfig, path: Path) -> None:
    """Write our weights from diffusers' shards, each tensor read, converted and written before the next."""
    with ExitStack() as stack:
        read = _reader(folder, stack)
        with torch.device("meta"):
            shapes = {k: tuple(v.shape) for k, v in config.build().state_dict().items()}
        sources = sources_of(config)
        dtypes = {ours: read(theirs[0]).dtype for ours, (theirs, _) in sources.items()}
        if missing := shapes.keys() - sources.keys():
            raise UsageError(f"{folder} lacks what {min(missing)} is made of: it is not a whole {TRANSFORMER}")
        with TensorFile(path, {k: (shapes[k], dtypes[k]) for k in shapes}) as file:
            for ours in shapes:
                theirs, convert = sources[ours]
                file.write(ours, convert([read(name) for name in theirs]))


def _reader(folder: Path, stack: ExitStack) -> Callable[[str], Tensor]:
    """Reads a tensor by its name from whichever shard holds it. Errors: `UsageError` if none does."""
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    try:
        files = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else []
        opened = [
            stack.enter_context(safe_open(path, "pt"))
            for path in ([folder / f for f in files] or sorted(folder.glob("*.safetensors")))
        ]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UsageError(f"{folder} cannot be read ({error}): download it again") from error
    place = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - not a mapping

    def read(name: str) -> Tensor:
        if name not in place:
            raise UsageError(f"{folder} has no tensor {name}: it is not a whole {TRANSFORMER}; download it again")
        tensor: Tensor = place[name].get_tensor(name)
        require_finite_weights(folder, [(name, tensor)])
        return tensor

    return read
