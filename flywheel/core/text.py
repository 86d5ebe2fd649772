"""The normal form of text."""

from __future__ import annotations

import re
import unicodedata


def normalise(prompt: str) -> str:
    """NFKC, case folded, letters, digits and quotation marks only: equal for prompts that read the same."""
    folded = unicodedata.normalize("NFKC", prompt).casefold().replace("“", '"').replace("”", '"')
    return " ".join(re.sub(r'[^\w"]+', " ", folded).split())
