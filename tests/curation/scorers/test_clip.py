"""CLIP scores with the configured weights, and never without."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.scorers import Unavailable, is_configured, load
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def test_clip_scores_with_the_weights_it_was_given(tiny_clip: Path) -> None:
    import open_clip
    import torch

    model, weights = f"local-dir:{tiny_clip}", tiny_clip / "open_clip_pytorch_model.bin"
    scorer = load("clip", model=model, pretrained=str(weights), aesthetic_head=str(tiny_clip / "head.pth"))
    item = Item(encoded(texture(1)), "a cat")
    row, broken, silent = scorer.score([item, Item(b""), Item(encoded(texture(1)))])
    reference, _, preprocess = open_clip.create_model_and_transforms(model)
    reference.eval()
    with torch.no_grad():
        image = reference.encode_image(preprocess(item.upright)[None], normalize=True)[0]
        text = reference.encode_text(open_clip.get_tokenizer(model)(["a cat"]), normalize=True)[0]
    assert row["similarity"] == pytest.approx(float(image @ text), abs=1e-5)
    assert row["aesthetic"] == pytest.approx(float(image.sum()) + 5, abs=1e-4)
    assert all(0 < row[head] < 1 for head in ("nsfw", "watermark", "generated"))
    assert isinstance(broken, BadImage)
    assert silent["similarity"] is None and silent["nsfw"] == pytest.approx(row["nsfw"], abs=1e-5)
    assert "aesthetic" not in [f.name for f in load("clip", model=model, pretrained=str(weights)).fields]


def test_clip_without_weights_is_unavailable() -> None:
    assert not is_configured("clip", {}) and not is_configured("clip", {"model": "ViT-B-32", "pretrained": ""})
    with pytest.raises(Unavailable, match="neither a file, weights:NAME, nor a hub tag"):
        load("clip", model="ViT-B-32", pretrained="/no/such/checkpoint.bin")
    with pytest.raises(UsageError, match="unknown to open_clip"):
        load("clip", model="ViT-of-nowhere", pretrained="openai")
