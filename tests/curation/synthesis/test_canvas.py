"""Fonts come from installed packages."""

from __future__ import annotations

import pytest

from curation.synthesis.canvas import font_path
from flywheel.core.errors import UsageError
from flywheel.demo.word_cards import FONTS


def test_fonts_come_from_installed_packages():
    assert all(font_path(f).endswith(".ttf") for f in FONTS)
    with pytest.raises(UsageError, match="no/such.ttf"):
        font_path("matplotlib:no/such.ttf")
