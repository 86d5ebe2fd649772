"""Token length of captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from curation.scorers import load
from curation.scorers.text import words
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from tests.curation.scorers.examples import row_of


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("a red circle", 3), ("don't stop", 3), ("一只猫", 3), ("a 猫 cat", 3), ("  ... ", 0), ("สวัสดี", 6)],
)
def test_words(text: str, count: int) -> None:
    assert words(text) == count


def test_configured_tokenizer(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    assert row_of("text", Item(b"", "abc"), tokenizer=str(path))["token_length"] == 3
    assert load("text", tokenizer=str(path)).version != load("text").version
    with pytest.raises(UsageError, match="does not exist"):
        load("text", tokenizer="/nowhere.json")
