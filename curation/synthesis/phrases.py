"""Texts to draw: titles, labels, speech, sentences and paragraphs in several languages, or lines of a user's file."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError

_TABLE = Path(__file__).with_name("phrases.toml")
_SLOT = re.compile(r"\{(\w+)\}")
_QUOTES = str.maketrans("", "", '"“”「」『』')  # removed, because they would end a quotation in a caption
_SHORT = 24  # characters: longest line of a user that serves as title or label

Draw = Callable[[random.Random], str]


@dataclass(frozen=True)
class Texts:
    """Texts of one language. Each function draws one text, on one line, without quotation marks."""

    language: str
    script: str
    title: Draw
    label: Draw
    speech: Draw
    sentence: Draw

    @property
    def gap(self) -> str:
        """Separator between two sentences."""
        return " " if self.script == "latin" else ""

    def paragraph(self, rng: random.Random, tokens: int) -> str:
        """Sentences up to about `tokens` words (characters in scripts without spaces)."""
        from curation.scorers.text import words

        text = self.sentence(rng)
        while words(longer := f"{text}{self.gap}{self.sentence(rng)}") <= tokens:
            text = longer
        return text


def number(rng: random.Random) -> str:
    """A figure in the style of infographics: 12%, 340, 2.5M."""
    return rng.choice((f"{rng.randint(2, 99)}%", f"{rng.randint(2, 999)}", f"{rng.randint(1, 9)}.{rng.randint(1, 9)}M"))


def languages(script: str) -> tuple[str, ...]:
    """Built-in languages of a script. Errors: `UsageError` for a script without texts."""
    names = tuple(name for name, table in _tables().items() if table["script"] == script)
    if not names:
        known = ", ".join(dict.fromkeys(t["script"] for t in _tables().values()))
        raise UsageError(f"no built-in texts in script {script!r}: choose from {known}, or give a file with texts")
    return names


def built_in(language: str) -> Texts:
    """The built-in texts of a language."""
    table = _tables()[language]

    def drawn(key: str) -> Draw:
        return lambda rng: _fill(rng.choice(table[key]), table["words"], rng)

    return Texts(language, table["script"], *map(drawn, ("titles", "labels", "speech", "sentences")))


def from_lines(lines: Sequence[str], script: str) -> Texts:
    """Texts from a user's lines: every line is a sentence; short ones also serve as titles, labels and speech.

    Errors: `UsageError` without a line of text.
    """
    clean = [text for line in lines if (text := " ".join(line.translate(_QUOTES).split()))]
    if not clean:
        raise UsageError("the file with texts has no line of text: write one text per line")
    short = [line for line in clean if len(line) <= _SHORT] or [min(clean, key=len)]
    return Texts("own", script, *(lambda rng, c=c: rng.choice(c) for c in (short, short, short, clean)))


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, Any]]:
    return read_toml(_TABLE)


def _fill(pattern: str, table: dict[str, list[str]], rng: random.Random) -> str:
    numbers = {
        "n": lambda: str(rng.randint(2, 99)),
        "hour": lambda: f"{rng.randint(1, 12)}:{rng.choice(('00', '15', '30', '45'))}",
        "year": lambda: str(rng.randint(1980, 2035)),
        "percent": lambda: f"{rng.randint(2, 98)}%",
    }

    def draw(slot: re.Match[str]) -> str:
        name = slot[1]
        if name in numbers:
            return numbers[name]()
        word = rng.choice(table[name[0].lower() + name[1:]])
        return word[0].upper() + word[1:] if name[0].isupper() else word

    return _SLOT.sub(draw, pattern)
