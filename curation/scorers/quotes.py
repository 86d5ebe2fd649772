"""Text that a caption quotes, in the quotation marks of many scripts, and how alike two texts are."""

from __future__ import annotations

import re
import unicodedata

_PAIRS = ("„…[“”]", "“…”", "«…»", "»…«", "‹…›", "《…》", "〈…〉", "「…」", "『…』", "﹁…﹂", "＂…＂")
# A straight mark after a digit is inches; an apostrophe inside a word neither opens nor closes.
_QUOTES = re.compile(
    r'(?<!\d)"([^"\n]*)"|‘([^\n]+?)’(?!\w)'
    r"|(?<!\w)'((?:[^'\n]|(?<=\w)'(?=\w))+)'(?!\w)|"
    + "|".join(rf"{p[0]}([^{p[0]}{p[2:].strip('[]')}\n]+){p[2:]}" for p in _PAIRS)
)


def quoted_text(caption: str) -> str | None:
    """Text in quotation marks in a caption, several quotes joined by a space; None without a quote."""
    parts = [next(filter(None, match.groups()), "").strip() for match in _QUOTES.finditer(caption)]
    text = " ".join(p for p in parts if comparable(p))
    return text or None


def unquoted(caption: str) -> str:
    """The caption with `""` in place of each quote."""
    return _QUOTES.sub('""', caption)


def comparable(text: str) -> str:
    """The characters that text comparison uses: letters, digits and combining marks of any script, NFKC, case folded.

    Punctuation and spaces are ignored: OCR sometimes reads flat shapes as "■" or "–", and spacing is layout.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNM")


def text_similarity(read: str, wanted: str) -> float:
    """Normalised edit similarity in [0, 1]: 1 − Levenshtein distance / longer length, over `comparable` characters."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(comparable(read), comparable(wanted)))
