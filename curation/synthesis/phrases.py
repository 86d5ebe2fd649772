"""Texts to draw: titles, labels, speech, sentences, paragraphs in several languages, or the lines of a user's file."""

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
_QUOTES = str.maketrans("", "", '"“”「」『』')  # they end a quotation in a caption
_SHORT = 24  # characters: a user's line that may be a title or a label

Draw = Callable[[random.Random], str]


@dataclass(frozen=True)
class Texts:
    """What can be said in one language. Each draws one text, on one line, without quotation marks."""

    language: str
    script: str
    title: Draw
    label: Draw
    speech: Draw
    sentence: Draw

    @property
    def gap(self) -> str:
        """Between two sentences."""
        return " " if self.script == "latin" else ""

    def paragraph(self, rng: random.Random, tokens: int) -> str:
        """Sentences up to about `tokens` words, or characters of scripts without spaces."""
        from curation.scorers.text import words

        said = [self.sentence(rng)]
        while words(longer := self.gap.join([*said, self.sentence(rng)])) <= tokens:
            said.append(longer[len(self.gap.join(said)) + len(self.gap) :])
        return self.gap.join(said)


def number(rng: random.Random) -> str:
    """A figure as infographics show it."""
    return rng.choice((f"{rng.randint(2, 99)}%", f"{rng.randint(2, 999)}", f"{rng.randint(1, 9)}.{rng.randint(1, 9)}M"))


def languages(script: str) -> tuple[str, ...]:
    """Built-in languages of a script. Errors: `UsageError` for a script without texts."""
    found = tuple(name for name, table in _tables().items() if table["script"] == script)
    if not found:
        known = ", ".join(dict.fromkeys(t["script"] for t in _tables().values()))
        raise UsageError(f"no built-in texts in script {script!r}: choose from {known}, or give a file with texts")
    return found


def built_in(language: str) -> Texts:
    """The built-in texts of a language."""
    table = _tables()[language]

    def drawn(key: str) -> Draw:
        return lambda rng: _fill(rng.choice(table[key]), table["words"], rng)

    return Texts(language, table["script"], *map(drawn, ("titles", "labels", "speech", "sentences")))


def from_lines(lines: Sequence[str], script: str) -> Texts:
    """Texts of one's own: every line is a sentence, the short ones are titles and labels too.

    Errors: `UsageError` where there is no line.
    """
    clean = [text for line in lines if (text := " ".join(line.translate(_QUOTES).split()))]
    if not clean:
        raise UsageError("the file with texts has no line of text")
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
