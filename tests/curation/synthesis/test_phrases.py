"""Texts that can be drawn, read back and quoted, built in or a user's own."""

from __future__ import annotations

import random

import pytest

from curation.scorers.quotes import quoted_text
from curation.synthesis.documents import voices_of
from curation.synthesis.glyphs import SCRIPTS, require_verifiable
from curation.synthesis.phrases import built_in, from_lines, languages
from flywheel.core.errors import UsageError

LANGUAGES = [language for script in SCRIPTS for language in languages(script)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_built_in_text_can_be_drawn_read_back_and_quoted(language: str) -> None:
    texts, rng = built_in(language), random.Random(0)
    drawn = {draw(rng) for draw in (texts.title, texts.label, texts.speech, texts.sentence) for _ in range(60)}
    assert len(drawn) > 60
    require_verifiable("".join(drawn), texts.script)
    assert all(quoted_text(f'a page: "{text}"') == text for text in drawn)


def test_texts_of_a_user() -> None:
    texts = from_lines(["  A short “line” ", "", "A much longer line of a text of one's own"], "latin")
    rng = random.Random(0)
    assert {texts.title(rng) for _ in range(9)} == {"A short line"}
    assert len({texts.sentence(rng) for _ in range(20)}) == 2
    with pytest.raises(UsageError, match="no line of text"):
        from_lines(["", '""'], "latin")
    with pytest.raises(UsageError, match="give one --script"):
        voices_of(("latin", "chinese"), ["a"])
