"""Languages of short texts."""

from __future__ import annotations

import pytest

from curation.scorers.language import language, readable


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


def test_texts_that_the_engine_cannot_read() -> None:
    assert all(map(readable, ("open daily", "年度报告", "ひらがな カタカナ", "Καλημέρα", "２０２４", "42", "Café Мир")))
    assert not any(map(readable, ("Годовой отчёт", "مرحبا", "안녕하세요", "שלום", "สวัสดี", "नमस्ते")))
