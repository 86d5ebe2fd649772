"""The index of pictures: embedded once, found by what they show, and by words where the network reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.records import Manifest
from flywheel.remedies import picture_index
from flywheel.remedies.retrieval import captions, rows_of
from tests.curation.scorers.conftest import tiny_clip  # noqa: F401 - a fixture


def test_a_picture_finds_itself_and_nothing_is_embedded_twice(base: Path, tmp_path: Path, monkeypatch):
    side = min(f.bucket for f in Manifest.read(base).files)
    index = picture_index.build(base, side, tmp_path, {})
    assert index.texts is None and len(index.vectors.ids) == len(captions(base))
    wanted = list(index.vectors.ids[:3])
    rows = rows_of(base, wanted, side)
    cosines, found = index.vectors.search([rows[i]["image"] for i in wanted], 1)
    assert cosines[:, 0] == pytest.approx(1, abs=1e-4)
    assert [rows_of(base, [index.vectors.ids[n]], side)[index.vectors.ids[n]]["image"] for n in found[:, 0]] == [
        rows[i]["image"] for i in wanted
    ]
    monkeypatch.setattr(picture_index, "embed_pictures", lambda pictures: pytest.fail("embedded again"))
    assert picture_index.build(base, side, tmp_path, {}).vectors.ids == index.vectors.ids


def test_a_configured_clip_reads_words_too(tiny_clip: Path):  # noqa: F811
    from tests.curation.corpus import encoded, texture

    options = {"model": f"local-dir:{tiny_clip}", "pretrained": str(tiny_clip / "open_clip_pytorch_model.bin")}
    pictures, texts, name = picture_index.clip_embedders(options)
    seen, read = pictures([encoded(texture(n)) for n in range(3)]), texts(["a cat", "a dog"])
    assert seen.shape[1] == read.shape[1] and name.startswith("clip-")
    assert np.linalg.norm(np.concatenate([seen, read]), axis=1) == pytest.approx(1, abs=1e-4)
    with pytest.raises(UsageError, match="pictures cannot be indexed"):
        picture_index.clip_embedders({"model": "ViT-B-32", "pretrained": "/no/such/checkpoint.bin"})
