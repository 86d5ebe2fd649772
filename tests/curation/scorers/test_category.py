"""Categories by keyword, by meaning, and by a taxonomy of the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.scorers import load
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item


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
