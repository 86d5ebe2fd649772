"""Checkpoints: a folder of safetensors and one JSON, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.workspace import UsageError, digest, file_digest, read_json, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.autoencoder import Autoencoder
    from training.models.mmdit import MMDiT

FORMAT = 1
FINAL = "final"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: `model`, `ema`, `optimizer` and `autoencoder` as safetensors, `config.json`."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Step, run, seed, recipe, model and condition. Errors: `UsageError` when the folder is no checkpoint."""
        try:
            config = read_json(self.path / "config.json")
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path} is not a checkpoint: give a folder that training wrote") from error
        if config["format"] > FORMAT:
            raise UsageError(f"checkpoint {self.path} has format {config['format']}: upgrade image-flywheel")
        return config

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.config["step"]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what a sample depends on: EMA weights, autoencoder and condition encoder."""
        files = [file_digest(self.path / f"{name}.safetensors") for name in ("ema", "autoencoder")]
        return digest(*files, self.config["model"], self.config["condition"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """One of `model`, `ema`, `optimizer`."""
        from safetensors.torch import load_file

        return load_file(self.path / f"{name}.safetensors")

    def model(self, weights: str = "ema") -> MMDiT:
        """The MMDiT with its `ema` or `model` weights."""
        from training.models.mmdit import MMDiTConfig

        model = MMDiTConfig.from_dict(self.config["model"]).build()
        model.load_state_dict(self.tensors(weights))
        return model

    def autoencoder(self) -> Autoencoder:
        """The autoencoder whose latents the model works on."""
        from training.models.autoencoder import load_autoencoder

        return load_autoencoder(self.path / "autoencoder.safetensors")


def write(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor]], autoencoder: Autoencoder, config: Mapping[str, Any]
) -> Checkpoint:
    """Write a checkpoint folder: under a temporary name, then renamed. An existing `path` is left as it is."""
    from safetensors.torch import save

    if not path.exists():
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, values in tensors.items():
            write_bytes(temporary / f"{name}.safetensors", save({k: v.contiguous() for k, v in values.items()}))
        autoencoder.save(temporary / "autoencoder.safetensors")
        files = {p.name: {"bytes": p.stat().st_size, "sha256": file_digest(p)} for p in sorted(temporary.iterdir())}
        write_json(temporary / "config.json", {"format": FORMAT, "files": files, **config})
        os.replace(temporary, path)
    return Checkpoint(path)


def steps(out_dir: Path) -> list[Checkpoint]:
    """Intermediate checkpoints, oldest first."""
    return [Checkpoint(p) for p in sorted(out_dir.glob("step-*")) if p.is_dir()]


def prune(out_dir: Path, keep: int) -> None:
    """Remove all but the last `keep` intermediate checkpoints."""
    for old in steps(out_dir)[: -keep or None]:
        doomed = old.path.with_name(f".{old.path.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(old.path, doomed)  # a half-removed folder must not look like a checkpoint
        shutil.rmtree(doomed)


class Metrics:
    """JSON lines, one per logged step. Lines beyond the step that training resumes from are cut off."""

    def __init__(self, path: Path, *, resume_step: int) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= resume_step]
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a last line that a killed writer left half-written is not one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
