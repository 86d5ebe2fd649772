"""Checkpoints: a folder of safetensors and one JSON, complete or absent.

Intermediate checkpoints of several processes hold each process's share of the tensors in `shares/` instead, in the
format of torch.distributed.checkpoint. Any number of processes can resume from either kind.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import (
    digest,
    discard_folder,
    file_digest,
    is_whole,
    read_json,
    write_bytes,
)
from training.trackers import Trackers

if TYPE_CHECKING:
    from torch import Tensor

    from training.models.autoencoder import Autoencoder
    from training.models.mmdit import MMDiT

FORMAT = 1
FINAL = "final"
SHARES = "shares"
WRITER = "checkpoint"  # name of a thread that writes one while training goes on
_AGAIN = "restore it from a copy, or remove the checkpoint's folder and run the command again"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: `model`, `ema`, `optimizer` and `autoencoder` as safetensors, `config.json`."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Step, run, seed, recipe, model and condition.

        Errors: `UsageError` if the folder is not a checkpoint, or the file has changed since it was written.
        """
        hashes.verify(self.path / "config.json", _AGAIN)
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
        config = self.config  # first, for its error about a folder that is not a checkpoint
        shares = sorted(p for p in self.shares.iterdir() if p.is_file()) if self.shares else []
        part = "trainable_ema" if self._adapter_alone else "ema"
        weights = shares or [self.path / f"{part}.safetensors"]
        files = [file_digest(file) for file in [*weights, self.path / "autoencoder.safetensors"]]
        return digest(*files, config["model"], config["condition"])

    @property
    def shares(self) -> Path | None:
        """Where several processes wrote their shares of the tensors; None if one process wrote whole ones."""
        folder = self.path / SHARES
        return folder if folder.is_dir() else None

    def verify(self, *names: str) -> None:
        """Check files of the checkpoint against the hashes in its configuration, each once in a process.

        names: of files, or of a folder for all files in it. Errors: `UsageError` that names the first that differs.
        """
        for name, entry in self.config.get("files", {}).items():
            if name in names or name.partition("/")[0] in names:
                _verify(self.path / name, entry["bytes"], entry["sha256"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """One of `model`, `ema`, `optimizer`; of a LoRA run also `trainable`, `trainable_ema`. Errors: `UsageError`."""
        from safetensors.torch import load_file

        if name in ("model", "ema") and self._adapter_alone:
            raise UsageError(f"{self.path} holds an adapter alone: its run's {FINAL!r} folder holds whole weights")
        self.verify(f"{name}.safetensors", SHARES)
        if self.shares is None:
            return load_file(self.path / f"{name}.safetensors")
        import torch
        from torch.distributed.checkpoint import FileSystemReader, load
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        reader = FileSystemReader(self.shares)
        stored = reader.read_metadata().state_dict_metadata
        out = {
            k: torch.empty(v.size, dtype=v.properties.dtype)
            for k, v in stored.items()
            if k.startswith(f"{name}.") and isinstance(v, TensorStorageMetadata)
        }
        load(out, storage_reader=reader, no_dist=True)
        return {k.removeprefix(f"{name}."): v for k, v in out.items()}

    def weights(self, name: str) -> dict[str, Tensor]:
        """As `tensors`, to be used. Errors: `UsageError`, also if one is not finite."""
        from training.models.pretrained import require_finite_weights

        out = self.tensors(name)
        require_finite_weights(self.path, out.items())
        return out

    @property
    def _adapter_alone(self) -> bool:
        """Is it one that a LoRA run wrote on its way?"""
        return bool(self.config.get("lora")) and "ema.safetensors" not in self.config["files"]

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load into the tensors of `state`, whole ones or shares; with shares, every process must call it.

        Errors: `UsageError` if the checkpoint's tensors do not fit those of `state`.
        """
        import torch
        from safetensors import safe_open
        from torch.distributed.checkpoint import load
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.tensor import DTensor, distribute_tensor

        self.verify(*(f"{part}.safetensors" for part in state), SHARES)
        try:
            if self.shares is not None:
                load(flat(state), checkpoint_id=self.shares)
                return
            for part, tensors in state.items():
                with safe_open(self.path / f"{part}.safetensors", "pt") as file, torch.no_grad():
                    for name, tensor in tensors.items():
                        stored = file.get_tensor(name)
                        if isinstance(tensor, DTensor):
                            stored = distribute_tensor(stored.to(tensor.device), tensor.device_mesh, tensor.placements)
                        tensor.copy_(stored)
        except (CheckpointException, OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{self.path} cannot be resumed ({error}): remove it to resume from the previous one"
            ) from error

    def model(self, weights: str = "ema") -> MMDiT:
        """The MMDiT with its `ema` or `model` weights."""
        from training.models.mmdit import MMDiTConfig

        model = MMDiTConfig.from_dict(self.config["model"]).build()
        model.load_state_dict(self.weights(weights))
        return model

    def autoencoder(self) -> Autoencoder:
        """The autoencoder whose latents the model works on."""
        from training.models.autoencoder import load_autoencoder

        self.verify("autoencoder.safetensors")
        return load_autoencoder(self.path / "autoencoder.safetensors")


def _verify(path: Path, size: int, sha256: str) -> None:
    try:
        state = path.stat()
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing from its checkpoint: {_AGAIN}") from error
    if (path, state.st_mtime_ns, state.st_size) in _verified:
        return
    if state.st_size != size or file_digest(path) != sha256:
        raise UsageError(f"{path} has changed since it was written (its sha256 differs): {_AGAIN}")
    _verified.add((path, state.st_mtime_ns, state.st_size))


_verified: set[tuple[Path, int, int]] = set()  # files, with the time and size they had


def flat(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all parts as `<part>.<name>`, as shares name them."""
    return {f"{part}.{name}": tensor for part, values in tensors.items() for name, tensor in values.items()}


def steps(out_dir: Path) -> list[Checkpoint]:
    """Intermediate checkpoints, oldest first; not those of an upload that was cut off."""
    return [Checkpoint(p) for p in sorted(out_dir.glob("step-*")) if is_whole(p)]


def sweep(out_dir: Path) -> None:
    """Create the folder, and remove leftovers of killed writers from it, once no writer of this process is left."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for thread in threading.enumerate():
        if thread.name == WRITER:  # of a run that was interrupted, which does not wait
            thread.join()
    for leftover in [*out_dir.glob(".*.tmp")]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def prune(out_dir: Path, keep: int) -> None:
    """Remove all but the last `keep` intermediate checkpoints."""
    for old in steps(out_dir)[: -keep or None]:
        discard_folder(old.path)


class Metrics:
    """`metrics.jsonl`: a JSON line per step. Lines beyond the step that training resumes from are removed.

    trackers: names of those that get the numbers too (`training.trackers`); None: as FLYWHEEL_TRACKERS says.
    """

    def __init__(self, out_dir: Path, *, resume_step: int, trackers: Sequence[str] | None = None) -> None:
        self.path = out_dir / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= resume_step]
        content = "".join(json.dumps(line) + "\n" for line in kept).encode()
        write_bytes(self.path, content)
        self._file = hashes.Growing(self.path, content)
        self._trackers = Trackers(trackers, out_dir, resume_step=resume_step)

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        self._file.append((json.dumps(line) + "\n").encode())
        self._trackers.log(line)

    def close(self) -> None:
        """Say that the run has finished."""
        self._trackers.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file; a half-written last line of a killed writer is ignored."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
