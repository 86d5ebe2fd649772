"""Pages and scenes are read back by the real OCR."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image, ImageChops

from curation.scorers.quotes import quoted_text
from curation.synthesis import layouts, scenes
from curation.synthesis.documents import READ_BACK, STYLES, documents, scene_text
from curation.synthesis.glyphs import FONTS, SCRIPTS
from curation.synthesis.phrases import built_in
from curation.synthesis.sample import Unsuitable
from curation.synthesis.typeset import Box
from curation.verify.checks import passed, verify
from flywheel.core.errors import UsageError
from tests.curation.corpus import encoded, texture


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


def test_text_in_a_photograph_is_lit_in_perspective_and_read_back() -> None:
    photo = texture(3, 480, 360)
    sample = scene_text(encoded(photo), "a photo of patches.", built_in("de"), random.Random(4))
    assert passed(verify([sample.item], [sample.checks])[0])
    assert sample.caption.startswith('a photo of patches, with the words "')
    changed = ImageChops.difference(photo, Image.open(io.BytesIO(sample.image))).getbbox()
    assert 0 < (changed[2] - changed[0]) * (changed[3] - changed[1]) < 0.5 * 480 * 360  # the rest is the photograph
    corners = scenes._corners(Box(0, 0, 100, 40), random.Random(1))
    assert corners[1, 1] - corners[0, 1] != corners[2, 1] - corners[3, 1]  # no parallelogram: seen from the side


def test_a_photograph_without_room() -> None:
    with pytest.raises(Unsuitable, match="no room"):
        scene_text(encoded(texture(1, 60, 40)), "", built_in("en"), random.Random(0))


@pytest.mark.parametrize(
    ("styles", "scripts", "message"),
    [(("scroll",), ("latin",), "unknown style 'scroll'"), (("slide",), ("klingon",), "unknown script 'klingon'")],
)
def test_unknown_styles_and_scripts(styles: tuple, scripts: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        documents("x", "slides", styles, scripts)
