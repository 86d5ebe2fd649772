"""Detect the language (py3langid's model) and scripts of captions and of text read from pictures."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

READABLE = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "GREEK", "FULLWIDTH", "HALFWIDTH")  # in PP-OCRv6's dictionary
CERTAIN = 0.4  # minimum probability; many short captions fit no single language
# Those of the model's 97 languages that occur in caption pools: fewer candidates, better answers on short texts.
LANGUAGES = (
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id",
    "it", "ja", "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "ta", "te", "th", "tr", "uk",
    "ur", "vi", "zh",
)  # fmt: skip


def language(text: str) -> str | None:
    """ISO 639-1 code; None without a letter, or if no language is probable enough."""
    if not any(c.isalpha() for c in text):
        return None
    code, probability = _identifier().classify(text)
    return code if probability >= CERTAIN else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The model, loaded once per process (about a second)."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def scripts(text: str) -> Counter[str]:
    """Number of letters per script; Chinese, Japanese and Korean ideographs count as CJK."""
    return Counter(_script(c) for c in text if c.isalpha())


def readable(text: str) -> bool:
    """Whether the text engine knows the scripts of most letters of a text; true of one without letters."""
    letters = scripts(text)
    return 2 * sum(letters[s] for s in READABLE) >= letters.total()


def main_script(letters: Counter[str]) -> str | None:
    """Script with the most letters; None without a letter."""
    return max(letters, key=lambda s: (letters[s], s)) if letters else None


def present(letters: Counter[str]) -> int:
    """Number of scripts with at least a tenth of the letters."""
    return sum(n * 10 >= letters.total() for n in letters.values())


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0].removesuffix("-UNIFIED")
