"""Language, category and the other scorers whose weights come in packages or by path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curation.scorers import Unavailable, is_configured, load
from curation.scorers.language import language
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a photo of a black grouse in the snow", "en"),
        ("ein Hund läuft durch den Park", "de"),
        ("photo d'un chat noir assis sur une chaise", "fr"),
        ("красный круг на столе", "ru"),
        ("кіт сидить на столі", "uk"),
        ("一只猫坐在椅子上", "zh"),
        ("猫が椅子に座っている", "ja"),
        ("의자에 앉은 고양이", "ko"),
        ("1234 !?", None),
        ("OPEN", None),  # one word: anybody's
    ],
)
def test_language(text: str, code: str | None) -> None:
    assert language(text) == code


def test_language_of_a_caption_is_not_that_of_the_words_in_the_picture() -> None:
    (row,) = load("caption").score(
        [Item(b"", 'a sign in front of the house that says "Willkommen zu Hause, liebe Gäste"')]
    )
    assert row["language"] == "en"


# Categories ----------------------------------------------------------------------------------------------------------
def names(captions: list[str], **options: object) -> list[str | None]:
    return [row["name"] for row in load("category", **options).score([Item(b"", c) for c in captions])]


def test_keywords_decide_the_category() -> None:
    captions = ["two dogs and a cat by a car", "a poster of a concert", "a caravan", "一只猫", "", "abstract nothing"]
    assert names(captions) == ["animal", "poster", "other", "animal", None, "other"]


def test_meaning_decides_where_no_keyword_does() -> None:
    captions = ["a photo of a golden retriever", "a photo of a locomotive", "a photo of a banana", "two dogs"]
    assert names(captions, embed=True) == ["animal", "vehicle", "food", "animal"]
    assert load("category", embed=True).version != load("category").version


def test_a_taxonomy_of_your_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[ship]\nkeywords = ["schooner", "brig"]\n')
    assert names(["Two schooners", "a brigade"], taxonomy=str(path)) == ["ship", "other"]
    for text, fault in (("", "has no category"), ("[ship]\nkeywords = 3\n", r"\[ship\] needs keywords"), ("[", "read")):
        path.write_text(text)
        with pytest.raises(UsageError, match=fault):
            load("category", taxonomy=str(path))


# Networks ------------------------------------------------------------------------------------------------------------
def test_nsfw_scores_with_the_weights_of_its_package() -> None:
    rows = load("nsfw").score([Item(encoded(texture(1))), Item(b"")])
    assert 0 <= rows[0]["probability"] < 0.5
    assert isinstance(rows[1], BadImage)


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
