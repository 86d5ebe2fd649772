"""Names of columns."""

from __future__ import annotations

from curation.sources.columns import CAPTION_NAMES, IMAGE_NAMES, first


def test_the_first_known_name_in_any_case() -> None:
    assert first(CAPTION_NAMES, ["TEXT", "Caption"]) == "Caption"
    assert first(IMAGE_NAMES, {"PNG"}) == "PNG"
    assert first(IMAGE_NAMES, []) is None
