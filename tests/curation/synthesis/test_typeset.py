"""Lines keep every character and stay inside their box."""

from __future__ import annotations

import random

import pytest

from curation.synthesis.glyphs import FONTS, SCRIPTS, fonts_for
from curation.synthesis.phrases import built_in, languages
from curation.synthesis.typeset import Box, NoRoom, broken, fit, typeface

LANGUAGES = [language for script in SCRIPTS for language in languages(script)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_keep_every_character_and_stay_inside_their_box(language: str) -> None:
    texts = built_in(language)
    text = texts.paragraph(random.Random(1), 120)
    font = fonts_for(text, texts.script)[0]
    box = Box(10, 10, 410, 610)
    setting = fit(text, box, font, 60)
    assert "".join("".join(setting.lines).split()) == "".join(text.split())
    assert max(setting.font.getlength(line) for line in setting.lines) <= box.width and setting.height <= box.height
    assert not [line for line in setting.lines[1:] if line[0] in "、。，．！？ー"]
    if texts.script == "latin":
        assert " ".join(setting.lines) == text  # no word is parted
    with pytest.raises(NoRoom, match="do not fit into 400 x 60 pixels"):
        fit(text, Box(0, 0, 400, 60), font, 60)


def test_a_word_wider_than_its_box_does_not_fit() -> None:
    font = FONTS["latin"][0]
    assert broken("Schlüsselbund", typeface(font, 40), 100) == ["Schlüsselbund"]
    with pytest.raises(NoRoom):
        fit("Schlüsselbund", Box(0, 0, 60, 200), font, 40)
