"""Locates published weights, given by folder, pipeline folder or hub tag; digests and checks weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from flywheel.core.errors import UsageError, first_line

_WEIGHTS = ("*.json", "*.safetensors", "*.txt", "*.jinja")


def locate(name: str, part: str) -> Path:
    """The local folder of `part` of a model.

    `name`: a folder with `config.json`; a pipeline's folder, which holds `part` as a subfolder; or a hub tag of either,
    downloaded once into the hub's cache. Only a tag uses the network. Errors: `UsageError`.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UsageError(
                f"{name} is neither a folder nor a hub tag (owner/name): give the folder of a {_words(part)}"
            )
        folder = _download(name, part)
    model_folder = folder / part if (folder / part).is_dir() else folder
    if not any((model_folder / file).is_file() for file in ("config.json", "tokenizer.json", "tokenizer_config.json")):
        raise UsageError(f"{folder} has neither config.json nor {part}/: give the folder of a {_words(part)}")
    return model_folder


def fetch_pipeline(name: str) -> Path:
    """The local folder of a whole pipeline: a folder with `model_index.json`, or a hub tag, downloaded once.

    Errors: `UsageError`.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise UsageError(f"{name} is neither a folder nor a hub tag (owner/name): give the folder of a pipeline")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name))
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise UsageError(
                f"{name} cannot be downloaded from the hub ({reason}): check the tag and the connection, or download it"
                " and give its folder"
            ) from error
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"{name} has no model_index.json: give the folder of a whole diffusers pipeline")
    return folder


def _download(tag: str, part: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        try:
            hf_hub_download(tag, "model_index.json")
            wanted = [f"{part}/*"]
        except EntryNotFoundError:  # a model's own repository, not a pipeline's
            wanted = list(_WEIGHTS)
        return Path(snapshot_download(tag, allow_patterns=wanted))
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise UsageError(
            f"{_words(part)} {tag} cannot be downloaded from the hub ({reason}): check the tag and the connection, "
            "or download it and give its folder"
        ) from error


def _words(part: str) -> str:
    return {"vae": "VAE"}.get(part, part.replace("_", " "))


def require_finite_weights(owner: object, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Before weights are used. Errors: `UsageError` that names `owner`, and the first that holds NaN or infinity."""
    for name, tensor in weights:
        if not bool(tensor.isfinite().all()):
            raise UsageError(
                f"{owner}: the weight {name} is not finite (NaN or infinity): it was damaged, or diverged in training; "
                "give an earlier or another one"
            )


def weights_digest(model: nn.Module, *also: str) -> str:
    """SHA-256 of every weight's name, type and bytes, and of `also`; independent of where and how they are stored."""
    sha = hashlib.sha256("\x1f".join(also).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
