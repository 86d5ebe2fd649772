"""The rule-based prompt enhancer: rewrites a short or sloppy prompt into the wording that training captions use."""

from __future__ import annotations

import re

_NUMBERS = {"1": "one", "2": "two", "3": "three", "4": "four", "5": "five"}
_FILLER = re.compile(
    r"^\s*(please|pls|can you|could you|i want|i need|give me|make me|draw me|draw|paint|generate|create|show me)"
    r"\b[\s,:]*",
    re.IGNORECASE,
)
_QUOTES = re.compile(r"[“”„«»「」『』]")


def enhance(prompt: str) -> str | None:
    """The enhanced prompt, or None where no rule changes anything.

    Rules: straight quotes, requests stripped to the description, digits before a noun written out, blanks collapsed.
    """
    text = _QUOTES.sub('"', prompt)
    while (stripped := _FILLER.sub("", text)) != text:
        text = stripped
    parts = re.split(r'("[^"]*")', text)  # quoted text is content: it stays as it is
    parts[::2] = [re.sub(r"\b([1-5])\b(?=\s+[a-z])", lambda m: _NUMBERS[m[1]], p) for p in parts[::2]]
    text = re.sub(r"\s+", " ", "".join(parts)).strip()
    return text if text and text != prompt else None
