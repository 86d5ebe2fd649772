"""Recipes for pages with text (paragraphs, slides, posters, infographics, comics) in scripts that OCR can verify."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curation.synthesis import layouts, paragraphs, scenes
from curation.synthesis.canvas import encode
from curation.synthesis.glyphs import SCRIPTS, require_verifiable
from curation.synthesis.layouts import Page
from curation.synthesis.phrases import Texts, built_in, from_lines, languages
from curation.synthesis.sample import Recipe, Sample, Unsuitable
from curation.synthesis.typeset import NoRoom
from flywheel.core.errors import UsageError
from flywheel.core.image import decode

PARAGRAPH = "paragraph"
SCENE = "scene"  # needs a photograph, so it is not a recipe: see `scene_text`
STYLES = (PARAGRAPH, *layouts.STYLES)
READ_BACK = 0.98  # minimum OCR similarity: up to 50 characters no error, in longer texts 2 %, because OCR errs too
_TRIES = 20


@dataclass(frozen=True)
class Document:
    """A kind of page: its style, its template (empty for paragraphs), and the language of its texts."""

    style: str
    template: str
    language: str


def documents(
    name: str, capability: str, styles: Sequence[str], scripts: Sequence[str], *, side: int = 768,
    tokens: int = paragraphs.MAX_TOKENS, lines: Sequence[str] = (),
) -> Recipe:  # fmt: skip
    """Recipe with every template of the styles in every language of the scripts; `side`: short side in pixels.

    `lines`: your own texts in one script, instead of the built-in ones. Errors: `UsageError` for an unknown style or
    script, and for texts that the fonts cannot draw or OCR cannot read.
    """
    voices = voices_of(scripts, lines)
    if unknown := [s for s in styles if s not in STYLES]:
        raise UsageError(f"unknown style {unknown[0]!r}: choose from {', '.join((*STYLES, SCENE))}")
    variants = [
        Document(style, template, language)
        for style in styles
        for template in (("",) if style == PARAGRAPH else layouts.templates(style))
        for language in voices
    ]

    def render(variant: Document, rng: random.Random) -> Sample:
        texts = voices[variant.language]
        if variant.style == PARAGRAPH:
            page = _first_that_fits(lambda: paragraphs.page(texts, rng, side, tokens=tokens))
        else:
            page = _first_that_fits(lambda: layouts.page(variant.style, variant.template, texts, rng, side))
        return _sample(page, capability, variant.style)

    return Recipe(name, variants, lambda variant: (None,), render)


def scene_text(image: bytes, caption: str, texts: Texts, rng: random.Random) -> Sample:
    """Place a short text in a photograph. Errors: `BadImage`, `Unsuitable` if no text fits."""
    photo, what = decode(image), caption.strip().rstrip(".") or "a photograph"
    try:
        page = _first_that_fits(lambda: scenes.place(photo, what, texts, rng))
    except UsageError as error:
        raise Unsuitable(f"the photograph of {photo.width}x{photo.height} has no room for a text") from error
    return _sample(page, "typography", SCENE)


def voices_of(scripts: Sequence[str], lines: Sequence[str] = ()) -> dict[str, Texts]:
    """Texts by language: the built-in ones of the scripts, or `lines` as language `own`. Errors: as `documents`."""
    if unknown := [s for s in scripts if s not in SCRIPTS]:
        raise UsageError(f"unknown script {unknown[0]!r}: choose from {', '.join(SCRIPTS)}")
    if not lines:
        return {language: built_in(language) for script in scripts for language in languages(script)}
    if len(scripts) != 1:
        raise UsageError("your own texts must be in one script: give one --script")
    require_verifiable("".join(lines), scripts[0])
    return {"own": from_lines(lines, scripts[0])}


def _sample(page: Page, capability: str, recipe: str) -> Sample:
    text = " ".join(page.texts)
    check = {"verifier": "text", "capability": capability, "text": text, "min": READ_BACK}
    return Sample(encode(page.image), page.caption, "t2i", (), (check,), recipe, kind="text")


def _first_that_fits(draw: Callable[[], Page]) -> Page:
    """Page of the first attempt whose texts fit; each attempt draws other texts. Errors: `UsageError`."""
    for _ in range(_TRIES):
        try:
            return draw()
        except NoRoom as error:
            reason = error
    raise UsageError(f"no text fits: {reason}; give shorter lines, or a larger --side")


def paragraph_pages() -> Recipe:
    """Long texts in Latin script."""
    return documents("paragraph", "long_text", (PARAGRAPH,), ("latin",))


def layout_pages() -> Recipe:
    """Slides, posters, infographics and comics in Latin script."""
    return documents("layout", "slides", layouts.STYLES, ("latin",))


def multilingual_pages() -> Recipe:
    """Pages of all styles in the other scripts, with texts of moderate length."""
    return documents("multilingual", "multilingual_text", STYLES, SCRIPTS[1:], tokens=160)
