"""Text as it is meant, and normal forms: two prompts, or names, are the same where their normal forms are equal."""

from __future__ import annotations

import html
import re
import unicodedata

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
# Fillers, selectors and controls that Unicode does not call format characters, and that show nothing.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_WORD = re.compile(r'[\w"]+')


def normalise(prompt: str) -> str:
    """Words in NFKC and case folded, joined by single spaces; letters, digits and quotation marks only.

    Empty for a text without any of them.
    """
    folded = unicodedata.normalize("NFKC", prompt).casefold().replace("“", '"').replace("”", '"')
    return " ".join(_WORD.findall(folded))


def person(name: str) -> str:
    """A person's name in NFKC and case folded, single spaces, without invisible characters: "Ada " is "ada"."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(_INVISIBLE.sub("", "".join(c for c in folded if unicodedata.category(c) != "Cf")).split())


def blank(text: str) -> bool:
    """Whether nothing of a text can be seen, as of no name and no reason."""
    return not person(text)


def clean(text: str) -> str:
    """The text with HTML entities decoded, twice encoded ones too, and control characters removed.

    Line ends and tabs stay, and so do joiners, which scripts and emoji need.
    """
    for _ in range(2):
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def untold(caption: str) -> bool:
    """Whether a caption says nothing: only spaces, line ends and control characters, as HTML entities too."""
    return not clean(caption).strip()


def faults(text: str) -> tuple[int, int]:
    """Numbers of (HTML entities, control characters) that `clean` decodes and removes."""
    return sum(html.unescape(e) != e for e in _ENTITY.findall(text)), len(_CONTROL.findall(text))
