"""BRISQUE with a model loaded from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curation.scorers import Unavailable, is_configured, load
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def test_brisque_with_a_model_given_by_path(tmp_path: Path) -> None:
    """A small model, trained here on sharp and blurred pictures: for how one is loaded, and that it is asked."""
    import cv2

    def features(image: Image.Image) -> np.ndarray:
        return cv2.quality.QualityBRISQUE_computeFeatures(np.asarray(image)[:, :, ::-1].copy())

    sharp = [texture(n) for n in range(12)]
    blurred = [p.filter(ImageFilter.GaussianBlur(3)) for p in sharp]
    rows = np.concatenate([features(p) for p in (*sharp, *blurred)])
    low, high = rows.min(axis=0), rows.max(axis=0)
    storage = cv2.FileStorage(str(tmp_path / "range.yml"), cv2.FILE_STORAGE_WRITE)
    storage.write("range", np.stack([low, high]).astype(np.float32))
    storage.release()
    svm = cv2.ml.SVM_create()
    svm.setType(cv2.ml.SVM_EPS_SVR)
    svm.setKernel(cv2.ml.SVM_RBF)
    svm.setC(100), svm.setP(1), svm.setGamma(0.05)
    scaled = (2 * (rows - low) / (high - low) - 1).astype(np.float32)
    svm.train(scaled, cv2.ml.ROW_SAMPLE, np.repeat([0.0, 100.0], 12).astype(np.float32))
    svm.save(str(tmp_path / "model.yml"))

    scorer = load("quality", model=str(tmp_path / "model.yml"), range=str(tmp_path / "range.yml"))
    new = texture(50)
    items = [Item(encoded(new)), Item(encoded(new.filter(ImageFilter.GaussianBlur(3)))), Item(b"")]
    fine, soft, broken = scorer.score(items)
    assert fine["brisque"] < 40 < 60 < soft["brisque"]
    assert isinstance(broken, BadImage)


def test_brisque_without_a_model_is_unavailable(tmp_path: Path) -> None:
    assert not is_configured("quality", {"model": "", "range": ""})
    with pytest.raises(Unavailable, match="does not exist"):
        load("quality", model=str(tmp_path / "none.yml"), range=str(tmp_path / "none.yml"))
