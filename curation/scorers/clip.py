"""Image-text alignment, zero-shot heads (NSFW, watermark, AI-generated) and an aesthetic head on one CLIP embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers import Unavailable
from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError, first_line
from flywheel.core.files import digest
from flywheel.core.schema import column
from flywheel.core.scorer import Item
from flywheel.core.torchvision_shim import declare_operators
from flywheel.core.weights import Unreachable, local_path, sha256_of

# Positive and negative prompts of each zero-shot classifier; the score is the probability mass on the positive ones.
_HEADS = {
    "nsfw": (
        ("a nude photo", "a pornographic picture", "explicit sexual content", "a photo of gore and mutilation"),
        ("a photo", "a picture that is safe for work", "a photo of a landscape", "a photo of people", "a drawing"),
    ),
    "watermark": (
        ("a stock photo with a watermark", "a picture with a watermark across it", "a photo with a copyright overlay"),
        ("a photo without a watermark", "a clean photo", "a picture", "a photo of a sign with text"),
    ),
    "generated": (
        ("an AI-generated image", "a picture made by a diffusion model", "a synthetic rendering by a neural network"),
        ("a photo taken with a camera", "an authentic photograph", "a scan of a painting", "a drawing by hand"),
    ),
}

# Model, checkpoint and aesthetic head of a `Clip()` without options.
DEFAULT = ("ViT-B-32-quickgelu", "weights:clip-vit-b-32", "weights:aesthetic-vit-b-32")
_LOCAL = "local-dir:"  # open_clip's prefix for an architecture whose configuration is in a folder


class Clip:
    """`model`: an open_clip architecture; `pretrained`: a checkpoint file, or a tag of open_clip's hub.

    `aesthetic_head`: a file with the `weight` and `bias` of a linear layer on the normalised embedding (LAION's form).
    A file may be `weights:NAME`, one that `flywheel weights list` shows. Without options: `DEFAULT`. Errors:
    `Unavailable` without weights (random weights are never used), `UsageError` for an unknown model.
    """

    name = "clip"
    requires = ("model", "pretrained")
    fields = (
        column("similarity", pa.float64(), "cosine of image and caption embedding, −1 to 1; null without a caption"),
        column("nsfw", pa.float64(), "zero-shot probability that the picture is not safe for work, 0 to 1"),
        column("watermark", pa.float64(), "zero-shot probability that a watermark lies over the picture, 0 to 1"),
        column("generated", pa.float64(), "zero-shot probability that a model drew the picture, 0 to 1"),
        column("aesthetic", pa.float64(), "aesthetic head, about 1 to 10"),
        column("embedding", pa.list_(pa.float32()), "normalised image embedding"),
    )

    def __init__(
        self, *, model: str | None = None, pretrained: str | None = None, aesthetic_head: str | None = None
    ) -> None:
        if (model, pretrained, aesthetic_head) == (None, None, None):
            model, pretrained, aesthetic_head = DEFAULT
        if not model or not pretrained:
            raise Unavailable("clip is not configured: set model and pretrained in [scorers.clip]")
        checkpoint = str(_checkpoint(model, pretrained))
        head = _aesthetic_head(aesthetic_head) if aesthetic_head else ""
        self.weights = Weights(model, checkpoint, head)
        config = f"{model.removeprefix(_LOCAL)}/open_clip_config.json" if model.startswith(_LOCAL) else ""
        files = [sha256_of(Path(p)) for p in (checkpoint, head, config) if p]
        self.version = f"2-{Path(model.removeprefix(_LOCAL)).name}-{digest(files, _HEADS)[:12]}"
        self.fields = tuple(f for f in Clip.fields if f.name != "aesthetic" or aesthetic_head)

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item, encoded as one batch; `BadImage` where the picture cannot be decoded."""
        network = _network(self.weights)
        rows: list[dict[str, Any] | Exception] = []
        tensors, owners = [], []
        for number, item in enumerate(items):
            try:
                tensors.append(network.preprocess(item.upright))
                owners.append(number)
                rows.append({})  # filled below
            except Exception as error:  # noqa: BLE001 - a bad picture fails only its own row
                raise_environment_error(error)
                rows.append(error)
        if tensors:
            images = network.encode_images(tensors)
            texts = network.encode_texts([items[n].caption for n in owners])
            for number, image, text in zip(owners, images, texts):
                rows[number] = network.columns(image, text if items[number].caption else None)
        return rows

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Normalised embeddings of texts, float32 [N, D], in the space of the pictures."""
        return _network(self.weights).encode_texts(texts)


@dataclass(frozen=True)
class Weights:
    """Architecture, checkpoint file and file of the aesthetic head (empty: none)."""

    model: str
    checkpoint: str
    aesthetic_head: str


def _pinned(value: str) -> Path:
    """Path of a file, or of `weights:NAME`. Errors: `Unavailable` for weights that are not on this machine."""
    try:
        return local_path(value)
    except Unreachable as error:
        raise Unavailable(str(error)) from error


def _aesthetic_head(value: str) -> str:
    if not (path := _pinned(value)).is_file():
        raise Unavailable(f"aesthetic head {value} does not exist")
    return str(path)


def _checkpoint(model: str, pretrained: str) -> Path:
    """Path of the checkpoint file, downloaded if `pretrained` is a hub tag."""
    if (path := _pinned(pretrained)).is_file():
        return path
    declare_operators()
    import open_clip

    if model not in open_clip.list_models():
        raise UsageError(f"[scorers.clip] model {model!r} is unknown to open_clip: see open_clip.list_models()")
    if pretrained not in open_clip.list_pretrained_tags_by_model(model):
        raise Unavailable(f"clip checkpoint {pretrained!r} is neither a file, weights:NAME, nor a hub tag of {model}")
    source = open_clip.get_pretrained_cfg(model, pretrained)
    try:
        return Path(open_clip.download_pretrained(source))
    except Exception as error:  # noqa: BLE001 - whatever the cause, the user needs this message
        reason = first_line(error)
        raise Unavailable(
            f"clip weights {model}/{pretrained} could not be fetched ({reason}): set pretrained to a local checkpoint"
        ) from error


@lru_cache(maxsize=1)
def _network(weights: Weights) -> _Network:
    """The loaded network, once per process."""
    return _Network(weights)


class _Network:
    def __init__(self, weights: Weights) -> None:
        declare_operators()
        import open_clip
        import torch

        torch.set_num_threads(1)  # parallelism is by process
        self._torch, self._device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        self._model, _, self.preprocess = open_clip.create_model_and_transforms(
            weights.model, pretrained=weights.checkpoint, device=self._device
        )
        self._model.eval()
        self._tokenize = open_clip.get_tokenizer(weights.model)
        self._scale = float(self._model.logit_scale.detach().exp())
        self._heads = {name: self.encode_texts([*yes, *no]) for name, (yes, no) in _HEADS.items()}
        self._head = _load_head(weights.aesthetic_head) if weights.aesthetic_head else None

    def encode_images(self, tensors: Sequence[Any]) -> np.ndarray:
        """Normalised embeddings float32 [N, D]."""
        with self._torch.inference_mode():
            images = self._torch.stack(list(tensors)).to(self._device)
            return self._model.encode_image(images, normalize=True).float().cpu().numpy()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Normalised embeddings float32 [N, D]."""
        with self._torch.inference_mode():
            tokens = self._tokenize(list(texts)).to(self._device)
            return self._model.encode_text(tokens, normalize=True).float().cpu().numpy()

    def columns(self, image: np.ndarray, text: np.ndarray | None) -> dict[str, Any]:
        """Columns of one image embedding [D]; `text`: the caption's embedding [D], None without a caption."""
        row: dict[str, Any] = {"similarity": None if text is None else float(image @ text), "embedding": image.tolist()}
        for name, classes in self._heads.items():
            logits = self._scale * (classes @ image)
            mass = np.exp(logits - logits.max())
            row[name] = float(mass[: len(_HEADS[name][0])].sum() / mass.sum())
        if self._head is not None:
            weight, bias = self._head
            row["aesthetic"] = float(image @ weight + bias)
        return row


def _load_head(path: str) -> tuple[np.ndarray, float]:
    """(weight [D], bias) of a linear head, loaded without executing pickled code."""
    import torch

    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return state["weight"].float().numpy().ravel(), float(state["bias"])
