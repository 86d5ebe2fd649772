"""Check before drawing which characters a font can draw and OCR can read."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from curation.synthesis.canvas import font_path
from flywheel.core.errors import UsageError

_DEJAVU = "matplotlib:mpl-data/fonts/ttf/"
_NOTO = "mplfonts:fonts/"
_CJK = (f"{_NOTO}NotoSansCJKsc-Regular.otf", f"{_NOTO}NotoSerifCJKsc-Regular.otf")
# script → fonts for running text. Only scripts that OCR knows, because every text is verified by reading it.
FONTS: dict[str, tuple[str, ...]] = {
    "latin": (
        *(
            f"{_DEJAVU}{n}.ttf"
            for n in ("DejaVuSans", "DejaVuSerif", "DejaVuSans-Bold", "DejaVuSansMono", "STIXGeneral")
        ),
        *_CJK,
    ),
    "chinese": (*_CJK, f"{_NOTO}SimHei.ttf"),
    "traditional": _CJK,
    "japanese": _CJK,
}
SCRIPTS = tuple(FONTS)


def fonts_for(text: str, script: str) -> list[str]:
    """Fonts of the script with every glyph of the text. Errors: `UsageError` if there is none."""
    fonts = [f for f in FONTS[script] if not undrawable(text, f)]
    if not fonts:
        missing = min((undrawable(text, f) for f in FONTS[script]), key=len)
        raise UsageError(f"no {script} font has a glyph for {_listed(missing)}: remove it, or choose another script")
    return fonts


def undrawable(text: str, font: str) -> set[str]:
    """Characters without a glyph in the font."""
    return {c for c in text if not c.isspace() and ord(c) not in _drawable(font)}


def unreadable(text: str) -> set[str]:
    """Letters and digits that OCR does not know; a text with one always fails its entry check."""
    folded = unicodedata.normalize("NFKC", text)
    return {c for c in folded if unicodedata.category(c)[0] in "LNM" and c not in _readable()}


def require_verifiable(text: str, script: str) -> None:
    """Errors: `UsageError` if OCR does not know a character of the text, or no font of the script can draw it."""
    if unknown := unreadable(text):
        raise UsageError(f"the text reader does not know {_listed(unknown)}: remove it, or the text cannot be verified")
    fonts_for(text, script)


@lru_cache(maxsize=32)
def _drawable(font: str) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(font_path(font), fontNumber=0, lazy=True) as file:
        return frozenset(file.getBestCmap())


@lru_cache(maxsize=1)
def _readable() -> frozenset[str]:
    import yaml

    from curation.scorers.ocr_weights import model_folders

    _, recognition = model_folders()
    options = yaml.safe_load((recognition / "inference.yml").read_text("utf-8"))
    return frozenset("".join(options["PostProcess"]["character_dict"]))


def _listed(characters: set[str]) -> str:
    shown = sorted(characters)
    return " ".join(shown[:10]) + (" …" if len(shown) > 10 else "")
