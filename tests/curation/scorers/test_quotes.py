"""Quoted text in the marks of many scripts, and how alike two texts are."""

from __future__ import annotations

import pytest

from curation.scorers.quotes import comparable, quoted_text, text_similarity, unquoted


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ('a sign: "OPEN"', "OPEN"),
        ("a sign: “OPEN” beside „Brot“", "OPEN Brot"),
        ("«Привет» и 「天气」", "Привет 天气"),
        ("a sign that says 'don't walk'", "don't walk"),
        ("the dog's bowl and the cats' toys", None),
        ('a 24" screen and a 27" one', None),
        ('an empty sign: "" or "!!!"', None),
        ("no quotes at all", None),
        ("", None),
    ],
)
def test_what_a_caption_quotes(caption: str, text: str | None) -> None:
    assert quoted_text(caption) == text


def test_a_caption_without_its_quotes_keeps_their_places() -> None:
    assert unquoted('a sign: "OPEN" beside «Brot»') == 'a sign: "" beside ""'
    assert unquoted("the dog's bowl") == "the dog's bowl"


def test_only_letters_digits_and_marks_count() -> None:
    assert comparable("Ｆｕｌｌ — Straße, №1!") == "fullstrasseno1" and comparable("■ – ！") == ""
    assert text_similarity("open NOW!", "Open, now") == 1.0
    assert text_similarity("MILK", "SILK") == 0.75 and text_similarity("", "SILK") == 0.0
