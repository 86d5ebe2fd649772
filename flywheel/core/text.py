"""Normal forms: two prompts, or two names, are the same where their normal forms are equal."""

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


def person(name: str) -> str:
    """A person's name in NFKC and case folded, single spaces, without invisible characters: "Ada " is "ada"."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(c for c in folded if unicodedata.category(c) != "Cf").split())
