"""Token length and normal form of the caption."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item
from flywheel.core.text import normalise

# A token is a word, or one character of a script without spaces between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class Text:
    """Token length of the caption. `tokenizer`: path of a `tokenizer.json`; default: count words."""

    name = "text"
    fields = (
        column("token_length", pa.int32(), "tokens of the caption; null for a picture without one"),
        column("normalized", pa.large_string(), "caption in the form in which equal prompts are equal"),
    )

    def __init__(self, *, tokenizer: str = "") -> None:
        if tokenizer and not Path(tokenizer).is_file():
            raise UsageError(f"tokenizer {tokenizer} does not exist: pass the path of a tokenizer.json")
        self.tokenizer = tokenizer
        self.version = f"2-{file_digest(Path(tokenizer))[:12]}" if tokenizer else "2"

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        if not item.caption.strip() and item.task == "t2i":  # an edit without an instruction is none
            return {"token_length": None, "normalized": ""}
        count = len(_tokenizer(self.tokenizer).encode(item.caption).ids) if self.tokenizer else words(item.caption)
        return {"token_length": count, "normalized": normalise(item.caption)}


def words(text: str) -> int:
    """Number of words; in scripts without spaces, each character counts as one."""
    return len(tokens(text))


def tokens(text: str) -> list[str]:
    """Words, and single characters of scripts without spaces."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=2)
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)
