"""Languages of short texts."""

from __future__ import annotations

import pytest

from curation.scorers.language import language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a photo of a black grouse in the snow", "en"),
        ("ein Hund läuft durch den Park", "de"),
        ("photo d'un chat noir assis sur une chaise", "fr"),
        ("красный круг на столе", "ru"),
        ("кіт сидить на столі", "uk"),
        ("一只猫坐在椅子上", "zh"),
        ("猫が椅子に座っている", "ja"),
        ("의자에 앉은 고양이", "ko"),
        ("1234 !?", None),
        ("OPEN", None),  # one word: anybody's
    ],
)
def test_language(text: str, code: str | None) -> None:
    assert language(text) == code
