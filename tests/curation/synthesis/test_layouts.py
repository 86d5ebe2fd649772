"""Every template has room for every language."""

from __future__ import annotations

import random

from curation.scorers.quotes import quoted_text
from curation.synthesis import layouts
from curation.synthesis.glyphs import SCRIPTS
from curation.synthesis.phrases import built_in, languages

LANGUAGES = [language for script in SCRIPTS for language in languages(script)]


def test_every_template_has_room_for_every_language() -> None:
    for style in layouts.STYLES:
        for template in layouts.templates(style):
            for language in LANGUAGES:
                page = layouts.page(style, template, built_in(language), random.Random(language), 384)
                assert min(page.image.size) == 384 and quoted_text(page.caption) == " ".join(page.texts)
