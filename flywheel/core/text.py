"""The one normal form of text: two prompts are the same prompt where their normal forms are equal."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r'[\w"]+')


def normalise(prompt: str) -> str:
    """Words in NFKC and case folded, joined by single spaces; letters, digits and quotation marks only.

    Empty for a text without any of them.
    """
    folded = unicodedata.normalize("NFKC", prompt).casefold().replace("“", '"').replace("”", '"')
    return " ".join(_WORD.findall(folded))
