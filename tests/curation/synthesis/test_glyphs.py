"""Missing glyphs are detected before anything is drawn."""

from __future__ import annotations

import pytest

from curation.synthesis.documents import documents
from curation.synthesis.glyphs import FONTS, fonts_for, undrawable, unreadable
from flywheel.core.errors import UsageError


def test_a_missing_glyph_is_found_before_anything_is_drawn() -> None:
    assert undrawable("A 中", FONTS["latin"][0]) == {"中"}
    assert fonts_for("花", "latin") == [f for f in FONTS["latin"] if "mplfonts" in f]
    with pytest.raises(UsageError, match="no japanese font has a glyph for 🙂"):
        fonts_for("猫🙂", "japanese")
    assert unreadable("Åßé 图 圖 あア 3%") == set()
    with pytest.raises(UsageError, match="reader does not know 글 한"):
        documents("own", "slides", ("slide",), ("latin",), lines=["한글"])
