"""Synthetic text: only what can be drawn and read back, set without loss, verified by the real reader."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageChops

from curation.scorers.ocr import quoted_text, read_text, text_similarity
from curation.scorers.text import words
from curation.synthesis import layouts, paragraphs, scenes, synthesise
from curation.synthesis.documents import READ_BACK, STYLES, documents, scene_text, voices_of
from curation.synthesis.glyphs import FONTS, SCRIPTS, fonts_for, require_verifiable, undrawable, unreadable
from curation.synthesis.phrases import built_in, from_lines, languages
from curation.synthesis.sample import Unsuitable
from curation.synthesis.typeset import Box, NoRoom, broken, fit, typeface
from curation.verify.checks import passed, verify
from flywheel.core.errors import UsageError
from tests.curation.corpus import encoded, texture

LANGUAGES = [language for script in SCRIPTS for language in languages(script)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_built_in_text_can_be_drawn_read_back_and_quoted(language: str) -> None:
    texts, rng = built_in(language), random.Random(0)
    said = {draw(rng) for draw in (texts.title, texts.label, texts.speech, texts.sentence) for _ in range(60)}
    assert len(said) > 60
    require_verifiable("".join(said), texts.script)
    assert all(quoted_text(f'a page: "{text}"') == text for text in said)


def test_a_missing_glyph_is_found_before_anything_is_drawn() -> None:
    assert undrawable("A 中", FONTS["latin"][0]) == {"中"}
    assert fonts_for("花", "latin") == [f for f in FONTS["latin"] if "mplfonts" in f]
    with pytest.raises(UsageError, match="no japanese font has a glyph for 🙂"):
        fonts_for("猫🙂", "japanese")
    assert unreadable("Åßé 图 圖 あア 3%") == set()
    with pytest.raises(UsageError, match="reader does not know 글 한"):
        documents("own", "slides", ("slide",), ("latin",), lines=["한글"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_keep_every_character_and_stay_inside_their_box(language: str) -> None:
    texts = built_in(language)
    said = texts.paragraph(random.Random(1), 120)
    font = fonts_for(said, texts.script)[0]
    box = Box(10, 10, 410, 610)
    setting = fit(said, box, font, 60)
    assert "".join("".join(setting.lines).split()) == "".join(said.split())
    assert max(setting.font.getlength(line) for line in setting.lines) <= box.width and setting.height <= box.height
    assert not [line for line in setting.lines[1:] if line[0] in "、。，．！？ー"]
    if texts.script == "latin":
        assert " ".join(setting.lines) == said  # no word is parted
    with pytest.raises(NoRoom, match="do not fit into 400 x 60 pixels"):
        fit(said, Box(0, 0, 400, 60), font, 60)


def test_a_word_wider_than_its_box_does_not_fit() -> None:
    font = FONTS["latin"][0]
    assert broken("Schlüsselbund", typeface(font, 40), 100) == ["Schlüsselbund"]
    with pytest.raises(NoRoom):
        fit("Schlüsselbund", Box(0, 0, 60, 200), font, 40)


@pytest.mark.parametrize("tokens", [30, 950])
def test_paragraphs_have_the_length_that_is_asked_for(tokens: int) -> None:
    pages = [paragraphs.page(built_in("zh"), random.Random(n), 1024, tokens=tokens) for n in range(6)]
    lengths = [words(" ".join(p.texts)) for p in pages]
    assert max(lengths) <= tokens and max(lengths) > tokens / 3
    assert all(words(p.caption) <= 1024 and quoted_text(p.caption) == " ".join(p.texts) for p in pages)


def test_pages_of_every_style_and_script_are_read_back() -> None:
    """One page per style, the scripts in turn; the reader sees the whole page."""
    for n, style in enumerate(STYLES):
        script = SCRIPTS[n % len(SCRIPTS)]
        recipe = documents(style, "slides", (style,), (script,), side=512, tokens=60)
        sample = recipe.render(recipe.variants[0], random.Random(n))
        assert sample == recipe.render(recipe.variants[0], random.Random(n))
        (outcome,) = verify([sample.item], [sample.checks])[0]
        assert outcome.score >= READ_BACK, (style, script, outcome.evidence)
        assert quoted_text(sample.caption) == sample.checks[0]["text"] and sample.kind == "text"


def test_a_page_whose_glyphs_fail_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chinese in a font without Chinese, the coverage check blinded: boxes in place of characters."""
    monkeypatch.setattr(layouts, "fonts_for", lambda text, script: [FONTS["latin"][0]])
    monkeypatch.setitem(layouts.FONTS, "chinese", FONTS["latin"][:1])
    recipe = documents("comic", "slides", ("comic",), ("chinese",), side=512)
    sample = recipe.render(recipe.variants[0], random.Random(0))
    assert not passed(verify([sample.item], [sample.checks])[0])


def test_every_template_has_room_for_every_language() -> None:
    for style in layouts.STYLES:
        for template in layouts.templates(style):
            for language in LANGUAGES:
                page = layouts.page(style, template, built_in(language), random.Random(language), 384)
                assert min(page.image.size) == 384 and quoted_text(page.caption) == " ".join(page.texts)


def test_text_in_a_photograph_is_lit_in_perspective_and_read_back() -> None:
    photo = texture(3, 480, 360)
    sample = scene_text(encoded(photo), "a photo of patches.", built_in("de"), random.Random(4))
    assert passed(verify([sample.item], [sample.checks])[0])
    assert sample.caption.startswith('a photo of patches, with the words "')
    changed = ImageChops.difference(photo, Image.open(io.BytesIO(sample.image))).getbbox()
    assert 0 < (changed[2] - changed[0]) * (changed[3] - changed[1]) < 0.5 * 480 * 360  # the rest is the photograph
    corners = scenes._corners(Box(0, 0, 100, 40), random.Random(1))
    assert corners[1, 1] - corners[0, 1] != corners[2, 1] - corners[3, 1]  # no parallelogram: seen from the side


def test_a_sign_takes_the_light_of_its_place() -> None:
    """Dark on the left, bright on the right: so is the sign."""
    ramp = np.tile(np.linspace(40, 220, 480, dtype=np.uint8), (360, 1))
    photo = Image.fromarray(np.dstack([ramp] * 3))
    layer = Image.new("RGBA", (400, 200), (200, 200, 200, 255))
    corners = np.array([[100, 100], [380, 100], [380, 240], [100, 240]])
    lit = np.asarray(scenes._blend(photo, layer, corners, painted=False), np.int16)[170, :, 0]
    assert lit[130] < 180 < 220 < lit[350]


def test_a_photograph_without_room() -> None:
    with pytest.raises(Unsuitable, match="no room"):
        scene_text(encoded(texture(1, 60, 40)), "", built_in("en"), random.Random(0))


def test_capabilities_of_text_are_served() -> None:
    (sample,) = synthesise("multilingual_text", 1, seed=3, exclude=frozenset())
    assert text_similarity(read_text(Image.open(io.BytesIO(sample.image))).text, sample.checks[0]["text"]) >= READ_BACK


def test_texts_of_ones_own() -> None:
    texts = from_lines(["  A short “line” ", "", "A much longer line of a text of one's own"], "latin")
    rng = random.Random(0)
    assert {texts.title(rng) for _ in range(9)} == {"A short line"}
    assert len({texts.sentence(rng) for _ in range(20)}) == 2
    with pytest.raises(UsageError, match="no line of text"):
        from_lines(["", '""'], "latin")
    with pytest.raises(UsageError, match="give one --script"):
        voices_of(("latin", "chinese"), ["a"])


@pytest.mark.parametrize(
    ("styles", "scripts", "message"),
    [(("scroll",), ("latin",), "unknown style 'scroll'"), (("slide",), ("klingon",), "unknown script 'klingon'")],
)
def test_unknown_styles_and_scripts(styles: tuple, scripts: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        documents("x", "slides", styles, scripts)
